"""Containers put together by hand, with right checksums around whatever is claimed.

Written from docs/format.md with `struct` alone, so that it is also an oracle for the writer.
"""

import hashlib
import struct
import zlib

MAGIC = bytes.fromhex("89424c4d0d0a1a0a")
UNKNOWN = 2**64 - 1
STORED, ZSTD, MIXER, MODEL, MIXED = range(5)


def digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=8).digest()


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def header(
    *,
    version: int = 1,
    profile: int = 0,
    reserved: int = 0,
    frame_bytes: int = 1024,
    raw_bytes: int = UNKNOWN,
    record: bytes = b"",
    record_bytes: int | None = None,
) -> bytes:
    size = len(record) if record_bytes is None else record_bytes
    fixed = struct.pack("<HBBIQI", version, profile, reserved, frame_bytes, raw_bytes, size)
    return with_crc(MAGIC + fixed + record)


def frame(
    number: int,
    payload: bytes,
    *,
    mode: int = STORED,
    reserved: int = 0,
    lanes: int = 1,
    raw: bytes | None = None,
    raw_bytes: int | None = None,
    payload_bytes: int | None = None,
) -> bytes:
    """A frame of `raw`, which is the payload where it is stored."""
    raw = payload if raw is None else raw
    start = b"BLFR" + struct.pack(
        "<IBBHII8s",
        number,
        mode,
        reserved,
        lanes,
        len(raw) if raw_bytes is None else raw_bytes,
        len(payload) if payload_bytes is None else payload_bytes,
        digest(raw),
    )
    return start + struct.pack("<I", zlib.crc32(start + payload)) + payload


def trailer(payload_bytes: list[int], raw: bytes, *, raw_bytes: int | None = None) -> bytes:
    count = len(payload_bytes)
    start = b"BLIX" + struct.pack(f"<I{count}I", count, *payload_bytes)
    start += struct.pack("<Q8s", len(raw) if raw_bytes is None else raw_bytes, digest(raw))
    return with_crc(start) + struct.pack("<I8s", count, MAGIC[::-1])


def stored(raw: bytes, *, frame_bytes: int = 1024, raw_bytes: int | None = None) -> bytes:
    """A whole container of stored frames."""
    pieces = [raw[at : at + frame_bytes] for at in range(0, len(raw), frame_bytes)]
    return (
        header(frame_bytes=frame_bytes, raw_bytes=len(raw) if raw_bytes is None else raw_bytes)
        + b"".join(frame(number, piece) for number, piece in enumerate(pieces))
        + trailer([len(piece) for piece in pieces], raw)
    )


def one_frame(raw: bytes, framed: bytes, payload_bytes: int, **claims: int) -> bytes:
    """A container of one frame that was made by `frame`."""
    claims.setdefault("frame_bytes", 1 << 16)
    return header(**claims) + framed + trailer([payload_bytes], raw)


def cut(blob: bytes) -> list[bytes]:
    """Header, each frame, and trailer of a whole container."""
    (record_bytes,) = struct.unpack_from("<I", blob, 24)
    places = [0, 28 + record_bytes + 4]
    while blob[places[-1] : places[-1] + 4] == b"BLFR":
        (payload_bytes,) = struct.unpack_from("<I", blob, places[-1] + 16)
        places.append(places[-1] + 32 + payload_bytes)
    return [blob[a:b] for a, b in zip(places, [*places[1:], len(blob)], strict=True)]
