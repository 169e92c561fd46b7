"""How much of the held-out data occurs in the training data, and which documents are copies.

Held-out documents are cut into blocks of `shingle_bytes`; every window of that length in every
training document is looked up among them, by a polynomial rolling hash modulo 2**64 over a table
of random words (Karp and Rabin 1987; the table makes the hash of a byte a random word). The memory
is bounded: training data streams by, and at most `_MAX_BLOCKS` held-out blocks are compared.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bytelm.data.corpus import Corpus, starts_of
from bytelm.data.shuffle import Purpose, keyed_hash

_MAX_BLOCKS = 1 << 18
"""Held-out blocks compared; with more, evenly spread ones (standard error below 0.1 %)."""

_CHUNK_BYTES = 1 << 16
"""Training bytes hashed at a time: the 64-bit intermediates stay in the processor's cache."""

_BITMAP_BITS = 22
"""Log2 of the first filter's size: it lets at most 1 window in 16 through to the exact look-up."""

_BASE = 0x5851F42D4C957F2D
"""Multiplier of the rolling hash: odd, so that it has an inverse (Knuth's MMIX constant)."""


@dataclass(frozen=True)
class Duplicate:
    """A held-out document whose bytes are a training document's too."""

    held_out: str
    train: str


def find_duplicates(train: Corpus, held_out: Corpus) -> tuple[Duplicate, ...]:
    """List the non-empty held-out documents that are training documents, byte for byte."""
    by_digest = defaultdict(list)
    for index in np.flatnonzero(held_out.lengths > 0):
        by_digest[_digest(held_out, index)].append(held_out.names[index])
    found = []
    # A copy has the length of the original, so most training documents are never read.
    for index in np.flatnonzero(np.isin(train.lengths, np.unique(held_out.lengths))):
        # Each held-out document is reported once, with the first training document it equals.
        for name in by_digest.pop(_digest(train, index), ()):
            found.append(Duplicate(name, train.names[index]))
    return tuple(found)


def overlap(train: Corpus, held_out: Corpus, *, shingle_bytes: int = 64) -> float:
    """Estimate the share of held-out bytes that lie in blocks that occur in the training data.

    Args:
        train: Every window of it counts, aligned or not, within one document.
        held_out: Cut from the start of each document; a last block that is too short does not
            count, so documents shorter than a block do not either (see `find_duplicates`).
        shingle_bytes: Length of a block. Shorter ones find chance agreement too.

    Returns:
        Between 0 and 1; exact up to 2**18 blocks (16 MiB of 64-byte blocks), beyond that from a
        sample of that size; 0.0 when there is no whole block.

    """
    if shingle_bytes < 1:
        raise ValueError(f"shingle_bytes must be >= 1, got {shingle_bytes}")
    hasher = _RollingHash(shingle_bytes)
    blocks = _block_hashes(held_out, hasher)
    if not len(blocks):
        return 0.0
    hashes, counts = np.unique(blocks, return_counts=True)
    is_found = _occurring(hashes, train, hasher)
    return float(counts[is_found].sum() / counts.sum())


class _RollingHash:
    """Hash of a window: sum over j of table[byte j] * BASE**j, modulo 2**64."""

    def __init__(self, width: int) -> None:
        self.width = width
        self.table = keyed_hash(np.arange(256), seed=0, purpose=Purpose.SHINGLES)
        self._powers = _powers(_BASE, _CHUNK_BYTES + width)
        self._inverses = _powers(pow(_BASE, -1, 1 << 64), _CHUNK_BYTES)

    def of_blocks(self, blocks: np.ndarray) -> np.ndarray:
        """Hash each row of uint8 [n, width]."""
        return (self.table[blocks] * self._powers[: self.width]).sum(axis=1, dtype=np.uint64)

    def of_windows(self, data: np.ndarray) -> np.ndarray:
        """Hash every window of uint8 [n], n < chunk + width: uint64 [n - width + 1]."""
        sums = np.zeros(len(data) + 1, dtype=np.uint64)
        np.cumsum(self.table[data] * self._powers[: len(data)], out=sums[1:])
        hashes = sums[self.width :] - sums[: -self.width]
        # The window at i has weights BASE**(i + j): divide by BASE**i.
        hashes *= self._inverses[: len(hashes)]
        return hashes


def _powers(base: int, count: int) -> np.ndarray:
    factors = np.full(count, base, dtype=np.uint64)
    factors[0] = 1
    return np.multiply.accumulate(factors)


def _block_hashes(corpus: Corpus, hasher: _RollingHash) -> np.ndarray:
    per_document = corpus.lengths // hasher.width
    total = int(per_document.sum())
    chosen = np.arange(0, total, max(1, -(-total // _MAX_BLOCKS)))
    first_block = starts_of(per_document)
    document = np.searchsorted(first_block, chosen, side="right") - 1
    offsets = corpus.starts[document] + (chosen - first_block[document]) * hasher.width
    within = np.arange(hasher.width)
    rows = max(1, _CHUNK_BYTES // hasher.width)
    hashes = [
        hasher.of_blocks(corpus.data[offsets[first : first + rows, None] + within])
        for first in range(0, len(offsets), rows)
    ]
    return np.concatenate(hashes) if hashes else np.empty(0, dtype=np.uint64)


def _occurring(hashes: np.ndarray, train: Corpus, hasher: _RollingHash) -> np.ndarray:
    """Tell which of the sorted `hashes` are those of a window of a training document."""
    shift = np.uint64(64 - _BITMAP_BITS)
    # The highest bits depend on all the lower ones, so they are the ones that spread.
    bitmap = np.zeros(1 << _BITMAP_BITS, dtype=bool)
    bitmap[hashes >> shift] = True
    is_found = np.zeros(len(hashes), dtype=bool)
    for data, ends in _chunks(train, hasher.width):
        windows = hasher.of_windows(data)
        likely = np.flatnonzero(bitmap[windows >> shift])
        # A window that runs over the end of its document is not in the training data.
        document = np.searchsorted(ends, likely, side="right")
        likely = likely[likely + hasher.width <= ends[document]]
        place = np.searchsorted(hashes, windows[likely]).clip(max=len(hashes) - 1)
        is_found[place[hashes[place] == windows[likely]]] = True
    return is_found


def _chunks(corpus: Corpus, width: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield runs of bytes, and where each document in the run ends; long documents overlap."""
    pieces: list[np.ndarray] = []
    size = 0
    for index in np.flatnonzero(corpus.lengths >= width):
        document = corpus.document(int(index))
        for first in range(0, len(document) - width + 1, _CHUNK_BYTES):
            piece = document[first : first + _CHUNK_BYTES + width - 1]
            if pieces and size + len(piece) >= _CHUNK_BYTES + width:
                yield _joined(pieces)
                pieces, size = [], 0
            pieces.append(piece)
            size += len(piece)
    if pieces:
        yield _joined(pieces)


def _joined(pieces: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    ends = np.cumsum([len(piece) for piece in pieces])
    return (pieces[0] if len(pieces) == 1 else np.concatenate(pieces)), ends


def _digest(corpus: Corpus, index: np.integer) -> bytes:
    return hashlib.sha256(corpus.document(int(index)).data).digest()
