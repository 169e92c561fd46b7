"""Patch starts of a whole split, decided once from each document's own beginning, and kept.

A split is a stream of documents with BOS between them (`data/batches.py`). One bit for each of its
positions says whether a patch starts there. The bits are decided in chunks of fixed places, the
first time that a row needs them, and kept in the cache under everything that they depend on: the
split's content, the patcher, the entropy model's weights. Later epochs, resumed runs and other runs
on the same data read them, whatever their rows are.

    FILE    header: magic, key, positions, chunk size      then one record for each chunk:
    RECORD  8 bytes of BLAKE2b over key, chunk and bits    0 while the chunk is not decided
            chunk_bytes / 8 bytes, the flags, first in the highest bit

A chunk's bits are the same whoever decides them, in whatever order: it is always read in one pass
of the same shape, with as many bytes before it as the entropy model can see.
"""

import errno
import fcntl
import hashlib
import json
import logging
import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch

from bytelm.config import to_dict
from bytelm.data import Corpus, Stream, StreamStarts
from bytelm.errors import DataError
from bytelm.files import cache_directory
from bytelm.models import BLT, ByteModel, EntropyLM, EntropySource, Ngram, definition
from bytelm.patching import Patcher, PatchState
from bytelm.patching.stream import Reads
from bytelm.vocab import BOE, BOS, OFFSET

CODE_VERSION = 2
"""Raised when the same split, patcher and weights would be cut in other places than before, or
when records are written in another way."""

CHEAP_CHUNK_BYTES = 1 << 16
"""Bytes decided at once where no transformer is asked: a millisecond of work."""

LEAST_CHUNK_BYTES = 2048
"""The same with an entropy model, which reads so many bytes at least as fast as more."""

CHUNK_REACHES = 4
"""With an entropy model a chunk has at least so many times the bytes that are read before it."""

WORTH_EPOCHS = 1.5
"""A run with a transformer for its entropies stores them if it reads its text so many times."""

HASH_BYTES = 8
_HEADER = struct.Struct("<24s32sqq")
_MAGIC = b"bytelm patch starts 1"
_LONG_WAIT_CHUNKS = 1000

log = logging.getLogger(__name__)


def is_worth_storing(model: ByteModel, corpus: Corpus, *, planned_bytes: int) -> bool:
    """Whether a run that reads `planned_bytes` of a corpus should take its patch starts from it.

    A transformer reads several times a row's bytes to decide them from their document's beginning.
    That is paid back when all of the corpus is read more than once. Other sources cost nothing.
    """
    if not isinstance(model, BLT):
        return False
    is_cheap = not isinstance(model.entropy_model, EntropyLM)
    return is_cheap or planned_bytes >= WORTH_EPOCHS * corpus.num_bytes


@contextmanager
def stored_starts(model: ByteModel, corpus: Corpus) -> Iterator[StreamStarts | None]:
    """Patch starts of a corpus for a model's rows; None where there are none to decide.

    Raises:
        DataError: The cache cannot be written.

    """
    if not isinstance(model, BLT) or not corpus.num_bytes:
        yield None
        return
    store = PatchStore(corpus, model.patcher, model.entropy_model)
    try:
        yield store
    finally:
        store.close()


@dataclass(frozen=True)
class _Piece:
    """Bytes [begin, end) of one document, and the first byte whose entropy they need."""

    data: np.ndarray
    begin: int
    end: int
    first_entropy: int


class PatchStore:
    """Called with two positions of the stream, it gives the flags between them."""

    def __init__(self, corpus: Corpus, patcher: Patcher, source: EntropySource | None) -> None:
        """Open the file of this corpus, patcher and entropy model; nothing is decided yet.

        Raises:
            DataError: The cache cannot be written, or something else lies in the file's place.

        """
        self._patcher, self._source = patcher, source
        self._stream = Stream(corpus)
        self._reach = _reach(source)
        self.chunk_bytes = _chunk_bytes(source)
        # A rule that counts bytes since the last start must be followed from the beginning.
        self._is_sequential = patcher.limits != (1, None)
        self._key = _key(corpus, patcher, source, self.chunk_bytes)
        self.path = cache_directory() / "patches" / f"{self._key.hex()[:32]}.bits"
        self._header = _HEADER.pack(_MAGIC, self._key, self._stream.length, self.chunk_bytes)
        self._record_bytes = HASH_BYTES + self.chunk_bytes // 8
        self._warned = False
        with self._reporting():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self._open()
            self._begin_file()

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)

    def __call__(self, begin: int, end: int) -> np.ndarray:
        """Bool `[end - begin]`: the positions of the stream at which a patch starts.

        A BOS starts one, and so does the first byte of a document.

        Raises:
            DataError: The cache cannot be written.

        """
        first, last = begin // self.chunk_bytes, (end - 1) // self.chunk_bytes
        flags = np.concatenate([self._flags(chunk) for chunk in range(first, last + 1)])
        return flags[begin - first * self.chunk_bytes : end - first * self.chunk_bytes]

    def _flags(self, chunk: int) -> np.ndarray:
        """Flags of one chunk, decided now if they were not before."""
        known = self._read(chunk)
        if known is not None:
            return known
        first = chunk
        while self._is_sequential and self._follows(first) and self._read(first - 1) is None:
            first -= 1
        if chunk - first > _LONG_WAIT_CHUNKS:
            log.info(
                "deciding the patches of %d bytes: with a shortest or longest patch a document is "
                "followed from its beginning, once",
                (chunk - first) * self.chunk_bytes,
            )
        for earlier in range(first, chunk):
            self._write(earlier, self._decide(earlier))
        return self._write(chunk, self._decide(chunk))

    def _follows(self, chunk: int) -> bool:
        """Whether the chunk begins inside a document."""
        begin = chunk * self.chunk_bytes
        return any(place < begin for place, _ in self._stream.documents(begin, begin + 1))

    def _decide(self, chunk: int) -> np.ndarray:
        begin = chunk * self.chunk_bytes
        end = min(begin + self.chunk_bytes, self._stream.length)
        look_back = max(1, self._patcher.look_back)
        places, pieces = [], []
        for place, data in self._stream.documents(begin, end):
            first, last = max(0, begin - place), min(len(data), end - place)
            places.append(place)
            pieces.append(_Piece(data, first, last, max(0, max(1, first) - look_back)))
        entropies = self._entropies(pieces) if self._patcher.needs_entropies else None
        # Between documents lies a BOS.
        flags = np.ones(self.chunk_bytes, bool)
        for index, (place, piece) in enumerate(zip(places, pieces, strict=True)):
            own = None if entropies is None else entropies[index]
            at = place - begin + piece.begin
            flags[at : at + piece.end - piece.begin] = self._starts(place, piece, own)
        return flags

    def _starts(self, place: int, piece: _Piece, entropies: np.ndarray | None) -> np.ndarray:
        """Flags of a piece of the document at `place`; `entropies` from `piece.first_entropy`."""
        flags = np.ones(piece.end - piece.begin, bool)
        # The flag of byte t is decided by the read of age t: the BOS, then bytes 0 to t - 1.
        begin, oldest = max(1, piece.begin), piece.first_entropy
        ages = np.arange(oldest, begin)
        values = piece.data[np.maximum(ages - 1, 0)]
        recent = None if entropies is None else entropies[: begin - oldest]
        state = PatchState(
            open_length=self._open_length(place, begin),
            recent=Reads(values=values, ages=ages, entropies=recent),
        )
        later = None if entropies is None else entropies[begin - oldest :]
        decided, _ = self._patcher.decide(piece.data[begin - 1 : piece.end - 1], later, state)
        flags[begin - piece.begin :] = decided
        return flags

    def _open_length(self, place: int, begin: int) -> int:
        """Bytes of the open patch before byte `begin - 1` of the document at `place`."""
        if not self._is_sequential or begin == 1:
            return 0
        end = place + begin
        while True:
            low = max(place, (end - 1) // self.chunk_bytes * self.chunk_bytes)
            starts = np.flatnonzero(self(low, end))
            if len(starts):
                return place + begin - 1 - (low + int(starts[-1]))
            end = low

    def _entropies(self, pieces: list[_Piece]) -> list[np.ndarray]:
        """Nats of the predictions of bytes [first_entropy, end) of each piece."""
        if isinstance(self._source, EntropyLM):
            return _lm_entropies(self._source, pieces, self._reach)
        assert isinstance(self._source, Ngram), "the patcher needs entropies"
        found = []
        for piece in pieces:
            known = piece.data[max(0, piece.first_entropy - self._reach) : piece.first_entropy]
            read = piece.data[piece.first_entropy : piece.end - 1]
            found.append(self._source.document_entropies(read, known))
        return found

    def _read(self, chunk: int) -> np.ndarray | None:
        """Flags of a chunk as they are stored; None where there are none, or damaged ones."""
        with self._reporting():
            at = _HEADER.size + chunk * self._record_bytes
            record = os.pread(self._file, self._record_bytes, at)
        stored, bits = record[:HASH_BYTES], record[HASH_BYTES:]
        if len(record) == self._record_bytes and stored == self._digest(chunk, bits):
            return np.unpackbits(np.frombuffer(bits, np.uint8)).view(bool)
        if any(stored) and not self._warned:
            log.warning("%s is damaged: what cannot be read in it is decided anew", self.path)
            self._warned = True
        return None

    def _write(self, chunk: int, flags: np.ndarray) -> np.ndarray:
        """Store a chunk unless another process was first: then its flags count."""
        bits = np.packbits(flags).tobytes()
        with self._reporting(), self._locked():
            known = self._read(chunk)
            if known is not None:
                return known
            record = self._digest(chunk, bits) + bits
            self._put(record, _HEADER.size + chunk * self._record_bytes)
        return flags

    def _open(self) -> int:
        """The file, made where there is none; a link is not followed."""
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644)
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._no_file() from error
            raise
        if not stat.S_ISREG(os.fstat(file).st_mode):
            os.close(file)
            raise self._no_file()
        return file

    def _no_file(self) -> DataError:
        return DataError(
            f"{self.path} is no regular file, expected one of patch starts or none; remove it"
        )

    def _digest(self, chunk: int, bits: bytes) -> bytes:
        place = struct.pack("<q", chunk)
        return hashlib.blake2b(self._key + place + bits, digest_size=HASH_BYTES).digest()

    def _begin_file(self) -> None:
        """Write the header of a new file, or of one that is none of ours."""
        chunks = -(-self._stream.length // self.chunk_bytes)
        size = _HEADER.size + chunks * self._record_bytes
        with self._locked():
            header = os.pread(self._file, _HEADER.size, 0)
            if header != self._header:
                if header:
                    log.warning("%s is damaged: it is made anew", self.path)
                os.ftruncate(self._file, 0)
                self._put(self._header, 0)
            # What is not decided yet is a hole in the file and takes no room.
            if os.fstat(self._file).st_size != size:
                os.ftruncate(self._file, size)

    def _put(self, data: bytes, at: int) -> None:
        while data:
            written = os.pwrite(self._file, data, at)
            data, at = data[written:], at + written

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            is_full = error.errno in (errno.ENOSPC, errno.EDQUOT)
            raise DataError(
                f"cannot keep patch starts in {self.path}: {error.strerror or error}; "
                f"{'free some space, or ' if is_full else ''}name another folder with the "
                "environment variable BYTELM_CACHE"
            ) from error


def _reach(source: EntropySource | None) -> int:
    """How many ids before the one that is read can change the entropy after it."""
    match source:
        case EntropyLM(config=config):
            return config.n_layers * (config.window - 1)
        case Ngram(config=config):
            return config.order
    return 0


def _chunk_bytes(source: EntropySource | None) -> int:
    """A power of two."""
    if not isinstance(source, EntropyLM):
        return CHEAP_CHUNK_BYTES
    return max(LEAST_CHUNK_BYTES, 1 << (CHUNK_REACHES * _reach(source) - 1).bit_length())


def _key(corpus: Corpus, patcher: Patcher, source: EntropySource | None, chunk_bytes: int) -> bytes:
    """SHA-256 of everything that decides a bit."""
    known = [
        CODE_VERSION,
        corpus.fingerprint,
        to_dict(patcher),
        None if source is None else definition(source),
        chunk_bytes,
    ]
    digest = hashlib.sha256(json.dumps(known, sort_keys=True).encode())
    tensors = {} if source is None else source.state_dict()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\0".encode())
        digest.update(tensor.numpy().tobytes())
    return digest.digest()


def _lm_entropies(source: EntropyLM, pieces: list[_Piece], reach: int) -> list[np.ndarray]:
    """Pieces of similar length are read as rows of one batch, padded at their ends."""
    rows = []
    for piece in pieces:
        # Id i of a document is its BOS or byte i - 1; what is predicted after it is byte i.
        first = max(0, piece.first_entropy - reach)
        ids = piece.data[max(0, first - 1) : piece.end - 1].astype(np.int64) + OFFSET
        rows.append(ids if first else np.concatenate(([BOS], ids)))
    found: dict[int, np.ndarray] = {}
    todo = sorted(range(len(rows)), key=lambda index: -len(rows[index]))
    while todo:
        longest = len(rows[todo[0]])
        batch = [index for index in todo if 2 * len(rows[index]) > longest]
        padded = np.full((len(batch), longest), BOE, np.int64)
        for row, index in enumerate(batch):
            padded[row, : len(rows[index])] = rows[index]
        ids = torch.from_numpy(padded).to(source.embed.weight.device)
        entropies = source.entropies(ids).float().cpu().numpy()
        for row, index in enumerate(batch):
            wanted = pieces[index].end - pieces[index].first_entropy
            found[index] = entropies[row, len(rows[index]) - wanted : len(rows[index])]
        todo = todo[len(batch) :]
    return [found[index] for index in range(len(rows))]
