"""The bytes of a `.blm` container: header, frame headers, trailer (docs/format.md).

Everything read here is hostile until its checksum was verified, and a little after: each size is
checked against what its place allows before anything of that size is read or allocated.
"""

import hashlib
import json
import os
import struct
import zlib
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bytelm.errors import DamagedError, LimitError, NotAContainerError, VersionError

MAGIC = b"\x89BLM\r\n\x1a\n"
"""As PNG's: a transfer that touches line ends, or the eighth bit, breaks it."""

END_MAGIC = MAGIC[::-1]
VERSION = 1
FRAME_SYNC = b"BLFR"
TRAILER_SYNC = b"BLIX"

MIN_FRAME_BYTES = 1 << 10
DEFAULT_FRAME_BYTES = 16 << 20
MAX_FRAME_BYTES = 64 << 20
MAX_LANES = 256
"""Each lane of a model has a state: a small file must not ask for thousands."""

MAX_EXTRAS_BYTES = 1 << 16
MAX_FRAMES = 1 << 28
_MAX_NAME = 64
UNKNOWN_SIZE = 2**64 - 1

DIGEST_BYTES = 8
FINGERPRINT_BYTES = 16

_HEADER = struct.Struct("<8sHBBIQI")
_FRAME = struct.Struct("<4sIBBHII8s")
_TRAILER = struct.Struct("<4sI")
_TRAILER_END = struct.Struct("<Q8sII8s")
_TRAILER_TAIL = struct.Struct("<I8s")
_CRC = struct.Struct("<I")
_PIECE_BYTES = 1 << 20

FRAME_HEADER_BYTES = _FRAME.size + _CRC.size

_RAW_BYTES_FOR_ONE = 46_000
"""A payload of n bytes holds at most this times n + 8 raw bytes: a decision costs at least
log2(65536 / 65535) bits, a byte has eight; zstandard stays below it too. Where the shortest
string that stands for the bytes is shorter, as of many bytes 255, zeros are written after it."""

_MAX_EXPANSION = 4
"""A model's own code of a byte has at most 24 bits."""


@runtime_checkable
class Source(Protocol):
    """What can be read: a file, a pipe, `io.BytesIO`."""

    def read(self, size: int, /) -> bytes | None:
        """Up to `size` bytes; none at the end. None means that it would have to wait."""
        ...


@runtime_checkable
class SeekableSource(Source, Protocol):
    """What can be read at any place; `seekable` says whether it can, in fact."""

    def seekable(self) -> bool:
        """Whether `seek` can be used."""
        ...

    def tell(self) -> int:
        """Where the next read begins."""
        ...

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, which is returned."""
        ...


@runtime_checkable
class Target(Protocol):
    """What can be written to."""

    def write(self, data: memoryview, /) -> int | None:
        """Take bytes, and return how many; None: all."""
        ...


@runtime_checkable
class SeekableTarget(Target, Protocol):
    """What can be written to at any place."""

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, which is returned."""
        ...


class Profile(IntEnum):
    """What the model of a container computes with."""

    NONE = 0
    EXACT = 1
    FLOAT = 2


class Mode(IntEnum):
    """How the bytes of a frame are coded."""

    STORED = 0
    ZSTD = 1
    MIXER = 2
    MODEL = 3
    MIXED = 4


NEEDS_MODEL = frozenset({Mode.MODEL, Mode.MIXED})


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """Which model a container was made with, and how to know that it computes the same here."""

    fingerprint: str
    """BLAKE2b-128 of all that its predictions depend on, hexadecimal."""

    kind: str
    """As in its configuration: recurrent, blt, ..."""

    probe: str
    """Digest of its predictions on a fixed text, hexadecimal."""

    environment: dict[str, str | int]
    """Float profile: what its arithmetic depends on; else empty."""


@dataclass(frozen=True, kw_only=True)
class Header:
    """The beginning of a container."""

    profile: Profile
    frame_bytes: int
    """Raw bytes of every frame but the last."""

    raw_bytes: int | None
    """Of the whole content; None where it was not known when the header was written."""

    model: ModelRecord | None = None


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """What stands before a frame's payload."""

    number: int
    """0, 1, ...; its raw offset is `number` times the header's `frame_bytes`."""

    mode: Mode
    lanes: int
    raw_bytes: int
    payload_bytes: int
    digest: bytes
    """BLAKE2b-64 of the raw bytes."""

    crc: int
    """CRC-32 of the header before it and of the payload."""

    @property
    def total_bytes(self) -> int:
        """Header and payload."""
        return FRAME_HEADER_BYTES + self.payload_bytes


@dataclass(frozen=True, kw_only=True)
class Trailer:
    """The end of a container: its index and what all of it adds up to."""

    payload_bytes: np.ndarray
    """Of each frame, uint32: as small as it is in the file, which may be made to do harm."""

    raw_bytes: int
    digest: bytes
    """BLAKE2b-64 of the whole content."""


def digest(data: Any) -> bytes:
    """BLAKE2b-64 of a buffer."""
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest()


def pack_header(header: Header) -> bytes:
    """The bytes of a header."""
    extras = b"" if header.model is None else _pack_record(header.model)
    if len(extras) > MAX_EXTRAS_BYTES:
        raise LimitError(f"the model's record has {len(extras)} bytes, at most {MAX_EXTRAS_BYTES}")
    raw_bytes = UNKNOWN_SIZE if header.raw_bytes is None else header.raw_bytes
    fixed = _HEADER.pack(
        MAGIC, VERSION, header.profile, 0, header.frame_bytes, raw_bytes, len(extras)
    )
    return _with_crc(fixed + extras)


def read_header(source: Source) -> Header:
    """Read and check the header at the beginning of a container.

    Raises:
        NotAContainerError: Something else begins here.
        VersionError: Of a later version.
        DamagedError: Truncated, or its checksum is wrong.
        LimitError: It claims what no container may.

    """
    start = read_up_to(source, _HEADER.size)
    if start[: len(MAGIC)] != MAGIC:
        _refuse_magic(start)
    if len(start) < _HEADER.size:
        raise DamagedError(
            f"the header is cut off after {len(start)} bytes: the file is incomplete"
        )
    _, version, profile, reserved, frame_bytes, raw_bytes, extras_bytes = _HEADER.unpack(start)
    if version != VERSION:
        if version < VERSION:
            raise DamagedError(f"the header's version is {version}, which never was: it is damaged")
        raise VersionError(
            f"this container has version {version} of the format, this bytelm reads version "
            f"{VERSION}: install a later bytelm"
        )
    if extras_bytes > MAX_EXTRAS_BYTES:
        raise LimitError(
            f"the header claims {extras_bytes:,} bytes of model record, at most "
            f"{MAX_EXTRAS_BYTES:,} are allowed: it is damaged or made to do harm"
        )
    rest = read_up_to(source, extras_bytes + _CRC.size)
    _check_crc(start + rest, "header", complete=len(rest) == extras_bytes + _CRC.size)
    if profile not in set(Profile) or reserved:
        raise DamagedError(f"the header's profile {profile} and flags {reserved} are none of ours")
    if not MIN_FRAME_BYTES <= frame_bytes <= MAX_FRAME_BYTES:
        raise LimitError(
            f"the header claims frames of {frame_bytes:,} bytes, {MIN_FRAME_BYTES:,} to "
            f"{MAX_FRAME_BYTES:,} are allowed"
        )
    return Header(
        profile=Profile(profile),
        frame_bytes=frame_bytes,
        raw_bytes=None if raw_bytes == UNKNOWN_SIZE else raw_bytes,
        model=_read_record(rest[:extras_bytes], Profile(profile)),
    )


def _refuse_magic(start: bytes) -> None:
    if MAGIC.startswith(start) and start:
        raise DamagedError(f"the header is cut off after {len(start)} bytes")
    if start[1:4] == MAGIC[1:4]:
        raise NotAContainerError(
            f"this begins like a .blm container, but with {start[:8]!r} instead of {MAGIC!r}: "
            "it was transferred as text; transfer it as binary"
        )
    what = f"it begins with {start[:8]!r}" if start else "it is empty"
    raise NotAContainerError(f"this is no .blm container: {what}, expected {MAGIC!r}")


def _read_record(extras: bytes, profile: Profile) -> ModelRecord | None:
    if profile is Profile.NONE:
        if extras:
            raise DamagedError("the header has a model record, and its profile has no model")
        return None
    try:
        stored = json.loads(extras)
    except (ValueError, RecursionError) as error:
        raise DamagedError(f"the header's model record is no JSON: {error}") from None
    names = ("environment", "fingerprint", "kind", "probe")
    if not isinstance(stored, dict) or tuple(sorted(stored)) != names:
        raise DamagedError(f"the header's model record must have the keys {', '.join(names)}")
    environment = stored.pop("environment")
    is_flat = isinstance(environment, dict) and all(
        isinstance(value, str | int) for value in environment.values()
    )
    if not is_flat or not all(isinstance(value, str) for value in stored.values()):
        raise DamagedError("the header's model record has values of other types than expected")
    if any(len(text) > _MAX_NAME for text in stored.values()):
        raise DamagedError(f"the header's model record has a name of over {_MAX_NAME} characters")
    record = ModelRecord(environment=environment, **stored)
    # One way to write a record; and nothing in it that a terminal would obey when it is shown.
    texts = (*environment, *(str(value) for value in environment.values()), *stored.values())
    if _pack_record(record) != extras or not all(text.isprintable() for text in texts):
        raise DamagedError("the header's model record is not written as ours are")
    return record


def _pack_record(record: ModelRecord) -> bytes:
    return json.dumps(vars(record), sort_keys=True, separators=(",", ":")).encode()


def pack_frame(header: FrameHeader, payload: bytes) -> bytes:
    """The bytes of a frame's header, whose checksum covers the payload; `header.crc` is ignored."""
    start = _pack_frame_start(header)
    return start + _CRC.pack(zlib.crc32(payload, zlib.crc32(start)))


def _pack_frame_start(header: FrameHeader) -> bytes:
    return _FRAME.pack(
        FRAME_SYNC,
        header.number,
        header.mode,
        0,
        header.lanes,
        header.raw_bytes,
        header.payload_bytes,
        header.digest,
    )


def parse_frame(start: bytes, limit_bytes: int) -> FrameHeader:
    """The header of a frame, from its `FRAME_HEADER_BYTES` bytes.

    Nothing is believed yet: `frame_is_whole` says whether header and payload belong together.

    Raises:
        DamagedError: Its numbers contradict each other.
        LimitError: It claims more raw bytes than `limit_bytes`.

    """
    _, number, mode, reserved, lanes, raw_bytes, payload_bytes, checksum = _FRAME.unpack(
        start[: _FRAME.size]
    )
    (crc,) = _CRC.unpack(start[_FRAME.size :])
    where = f"frame {number}"
    if mode not in set(Mode) or reserved:
        raise DamagedError(f"{where} has the mode {mode}, which is none of ours")
    if raw_bytes > MAX_FRAME_BYTES:
        raise DamagedError(f"{where} claims {raw_bytes:,} bytes, more than any frame may have")
    if raw_bytes > limit_bytes:
        raise LimitError(f"{where} claims {raw_bytes:,} bytes, at most {limit_bytes:,} are allowed")
    if not 1 <= lanes <= min(MAX_LANES, raw_bytes):
        raise DamagedError(f"{where} claims {lanes} lanes for {raw_bytes:,} bytes")
    if not is_possible(Mode(mode), raw_bytes, payload_bytes):
        raise DamagedError(
            f"{where} claims {raw_bytes:,} bytes in a payload of {payload_bytes:,}, which its "
            "coding cannot do"
        )
    return FrameHeader(
        number=number,
        mode=Mode(mode),
        lanes=lanes,
        raw_bytes=raw_bytes,
        payload_bytes=payload_bytes,
        digest=checksum,
        crc=crc,
    )


def is_possible(mode: Mode, raw_bytes: int, payload_bytes: int) -> bool:
    """Whether a frame of this mode may have a payload of this size."""
    if mode is Mode.STORED:
        return payload_bytes == raw_bytes
    return least_payload(raw_bytes) <= payload_bytes <= payload_limit(raw_bytes)


def least_payload(raw_bytes: int) -> int:
    """The fewest bytes that a payload may have: a small file cannot ask for much work."""
    return max(0, -(-raw_bytes // _RAW_BYTES_FOR_ONE) - 8)


def payload_limit(raw_bytes: int) -> int:
    """The most bytes that a payload may have."""
    return _MAX_EXPANSION * raw_bytes + 64


def frame_is_whole(header: FrameHeader, payload: bytes) -> bool:
    """Whether the checksum of header and payload is right."""
    return zlib.crc32(payload, zlib.crc32(_pack_frame_start(header))) == header.crc


def pack_trailer(trailer: Trailer) -> bytes:
    """The bytes of a trailer."""
    sizes = trailer.payload_bytes
    start = _TRAILER.pack(TRAILER_SYNC, len(sizes)) + sizes.astype("<u4").tobytes()
    start += struct.pack("<Q8s", trailer.raw_bytes, trailer.digest)
    return _with_crc(start) + _TRAILER_TAIL.pack(len(sizes), END_MAGIC)


def read_trailer(source: Source, *, after_sync: bool, most_frames: int) -> Trailer:
    """Read the trailer that begins here.

    Args:
        source: At the trailer.
        after_sync: Its first four bytes were read already.
        most_frames: More are refused before they are read.

    Raises:
        DamagedError: Truncated, changed, or followed by other bytes.

    """
    sync = TRAILER_SYNC if after_sync else read_up_to(source, len(TRAILER_SYNC))
    count_bytes = read_up_to(source, 4)
    if sync != TRAILER_SYNC or len(count_bytes) < 4:
        raise DamagedError("the end of the container is cut off")
    count = int.from_bytes(count_bytes, "little")
    if count > most_frames:
        raise DamagedError(
            f"the end of the container lists {count:,} frames, at most {most_frames:,} were found"
        )
    rest = read_up_to(source, 4 * count + _TRAILER_END.size)
    whole = len(rest) == 4 * count + _TRAILER_END.size
    _check_crc(sync + count_bytes + rest[: -_TRAILER_TAIL.size], "trailer", complete=whole)
    raw_bytes, checksum, _, again, magic = _TRAILER_END.unpack(rest[4 * count :])
    if magic != END_MAGIC or again != count:
        raise DamagedError("the end of the container is damaged: its last bytes are not its own")
    garbage = read_up_to(source, 1)
    if garbage:
        raise DamagedError(
            "there are more bytes after the end of the container: remove them, or take the "
            "container out of what it is part of"
        )
    sizes = np.frombuffer(rest, "<u4", count)
    return Trailer(payload_bytes=sizes, raw_bytes=raw_bytes, digest=checksum)


def find_trailer(source: SeekableSource, first_frame: int) -> Trailer:
    """Read the trailer of a container that can seek, from its end.

    The frames begin at `first_frame`. What the index says is to be checked where it points to.

    Raises:
        DamagedError: There is no whole trailer.

    """
    end = source.seek(0, os.SEEK_END)
    tail_begin = max(first_frame, end - _TRAILER_TAIL.size)
    source.seek(tail_begin)
    tail = read_up_to(source, _TRAILER_TAIL.size)
    count, magic = _TRAILER_TAIL.unpack(tail) if len(tail) == _TRAILER_TAIL.size else (0, b"")
    begin = end - trailer_bytes(count)
    if magic != END_MAGIC or begin < first_frame:
        raise DamagedError("the end of the container is damaged or cut off")
    source.seek(begin)
    return read_trailer(source, after_sync=False, most_frames=count)


def trailer_bytes(num_frames: int) -> int:
    """The size of a trailer."""
    return _TRAILER.size + 4 * num_frames + _TRAILER_END.size


def header_bytes(header: Header) -> int:
    """The size of a header."""
    return len(pack_header(header))


def offsets(first: int, payload_bytes: np.ndarray) -> np.ndarray:
    """Where each frame begins in the file, and where the trailer does, int64 `[frames + 1]`."""
    sizes = payload_bytes.astype(np.int64) + FRAME_HEADER_BYTES
    return first + np.concatenate(([0], np.cumsum(sizes)))


def read_up_to(source: Source, size: int) -> bytes:
    """Read `size` bytes, or what is left; a claimed size allocates no more than is there."""
    pieces = []
    while size:
        piece = source.read(min(size, _PIECE_BYTES))
        if piece is None:
            raise BlockingIOError(
                "the source does not block: it has nothing now, and has not ended"
            )
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _with_crc(data: bytes) -> bytes:
    return data + _CRC.pack(zlib.crc32(data))


def _check_crc(data: bytes, name: str, *, complete: bool) -> None:
    if not complete:
        raise DamagedError(f"the {name} of the container is cut off: the file is incomplete")
    if _CRC.pack(zlib.crc32(data[: -_CRC.size])) != data[-_CRC.size :]:
        raise DamagedError(f"the {name} of the container is damaged: its checksum is wrong")
