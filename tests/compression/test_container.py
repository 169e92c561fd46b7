"""The bytes of a container. Oracles: docs/format.md written again with struct, and hand values."""

import io
import json
import struct

import forging
import numpy as np
import pytest

from bytelm.compression import Limits, ModelRecord, Profile, container, decompress, describe
from bytelm.compression.container import FrameHeader, Header, Mode, Trailer
from bytelm.errors import DamagedError, LimitError, NotAContainerError, VersionError

RAW = bytes(range(256)) * 9

RECORD = ModelRecord(
    fingerprint="0f" * 16,
    kind="recurrent",
    probe="a0" * 16,
    environment={"torch": "2.13.0+cpu", "threads": 1},
)


def packed_record(**changes) -> bytes:
    stored = {**vars(RECORD), **changes}
    return json.dumps(stored, sort_keys=True, separators=(",", ":")).encode()


def read(data: bytes) -> Header:
    return container.read_header(io.BytesIO(data))


@pytest.mark.parametrize("raw_bytes", [None, 0, 2304, 2**40])
def test_header_is_written_and_read_as_specified(raw_bytes):
    header = Header(profile=Profile.NONE, frame_bytes=1 << 20, raw_bytes=raw_bytes)
    claimed = forging.UNKNOWN if raw_bytes is None else raw_bytes
    expected = forging.header(frame_bytes=1 << 20, raw_bytes=claimed)
    assert container.pack_header(header) == expected
    assert len(expected) == 32
    assert read(expected) == header


def test_header_with_a_model():
    header = Header(profile=Profile.FLOAT, frame_bytes=4096, raw_bytes=7, model=RECORD)
    expected = forging.header(profile=2, frame_bytes=4096, raw_bytes=7, record=packed_record())
    assert container.pack_header(header) == expected
    assert read(expected) == header
    assert container.header_bytes(header) == len(expected)


def test_too_long_a_record_is_not_written():
    record = ModelRecord(fingerprint="", kind="", probe="", environment={"x": "y" * (1 << 16)})
    with pytest.raises(LimitError, match="record"):
        container.pack_header(
            Header(profile=Profile.FLOAT, frame_bytes=4096, raw_bytes=7, model=record)
        )


def test_frame_is_written_and_read_as_specified():
    header = FrameHeader(
        number=3,
        mode=Mode.MIXER,
        lanes=5,
        raw_bytes=len(RAW),
        payload_bytes=40,
        digest=container.digest(RAW),
        crc=0,
    )
    payload = bytes(range(40))
    expected = forging.frame(3, payload, mode=forging.MIXER, lanes=5, raw=RAW)
    assert container.pack_frame(header, payload) + payload == expected
    assert len(expected) == container.FRAME_HEADER_BYTES + 40 == header.total_bytes
    found = container.parse_frame(expected[:32], 1 << 20)
    assert (found.number, found.mode, found.lanes) == (3, Mode.MIXER, 5)
    assert (found.raw_bytes, found.payload_bytes) == (len(RAW), 40)
    assert container.frame_is_whole(found, payload)
    assert not container.frame_is_whole(found, payload[:-1] + b"\0")
    assert not container.frame_is_whole(
        container.parse_frame(expected[:28] + b"abcd", 9999), payload
    )


@pytest.mark.parametrize("sizes", [[], [9], [1024, 1024, 256]])
def test_trailer_is_written_and_read_as_specified(sizes):
    raw = RAW[: sum(sizes)]
    trailer = Trailer(
        payload_bytes=np.array(sizes, np.uint32), raw_bytes=len(raw), digest=container.digest(raw)
    )
    expected = forging.trailer(sizes, raw)
    assert container.pack_trailer(trailer) == expected
    assert container.trailer_bytes(len(sizes)) == len(expected)
    for found in (
        container.read_trailer(io.BytesIO(expected), after_sync=False, most_frames=3),
        container.find_trailer(io.BytesIO(b"frames before" + expected), 13),
    ):
        assert found.payload_bytes.tolist() == sizes
        assert (found.raw_bytes, found.digest) == (len(raw), container.digest(raw))


def test_offsets():
    assert container.offsets(32, np.array([10, 0, 5], np.uint32)).tolist() == [32, 74, 106, 143]
    # Sums pass 32 bits.
    most = np.full(3, 2**32 - 1, np.uint32)
    assert container.offsets(0, most)[-1] == 3 * (2**32 + 31)


def test_a_container_by_hand_is_read():
    assert decompress(forging.stored(RAW)) == RAW
    assert decompress(forging.stored(b"")) == b""
    found = describe(io.BytesIO(forging.stored(RAW)))
    assert [frame.raw_bytes for frame in found.frames] == [1024, 1024, 256]
    assert (found.raw_bytes, found.compressed_bytes) == (2304, len(forging.stored(RAW)))


BEGINNINGS = {
    "empty": (b"", NotAContainerError, "it is empty"),
    "text": (b"Call me Ishmael", NotAContainerError, "begins with b'Call me '"),
    "gzip": (b"\x1f\x8b\x08" + bytes(40), NotAContainerError, "no .blm container"),
    "magic cut": (forging.MAGIC[:5], DamagedError, "cut off after 5"),
    "header cut": (forging.header()[:20], DamagedError, "cut off after 20"),
    "crc cut": (forging.header()[:-2], DamagedError, "header of the container is cut off"),
    "line ends": (
        forging.header().replace(b"\r\n", b"\n"),
        NotAContainerError,
        "transferred as text",
    ),
    "eighth bit": (b"\x09" + forging.header()[1:], NotAContainerError, "transferred as text"),
    "utf-8": (
        forging.header().decode("latin-1").encode(),
        NotAContainerError,
        "no .blm container",
    ),
    "later version": (forging.header(version=2), VersionError, "version 2.*version 1"),
    "far version": (forging.header(version=65535), VersionError, "65535"),
    "version before crc": (forging.header(version=3)[:30] + b"??", VersionError, "later"),
    "profile": (forging.header(profile=3), DamagedError, "profile 3"),
    "flags": (forging.header(reserved=1), DamagedError, "flags 1"),
    "small frames": (forging.header(frame_bytes=1023), LimitError, "1,023"),
    "no frames": (forging.header(frame_bytes=0), LimitError, "frames of 0 bytes"),
    "large frames": (forging.header(frame_bytes=2**32 - 1), LimitError, "4,294,967,295"),
    "record claim": (forging.header(record_bytes=2**32 - 1), LimitError, "model record"),
    "record cut": (forging.header(record_bytes=65536), DamagedError, "cut off"),
    "record for none": (forging.header(record=b"{}"), DamagedError, "no model"),
    "no record": (forging.header(profile=1), DamagedError, "no JSON"),
    "crc": (forging.header()[:-1] + b"\0", DamagedError, "checksum"),
}


@pytest.mark.parametrize("name", BEGINNINGS)
def test_bad_beginnings(name):
    data, error, message = BEGINNINGS[name]
    with pytest.raises(error, match=message):
        read(data)
    with pytest.raises(error):
        decompress(data)
    with pytest.raises(error):
        describe(io.BytesIO(data))


RECORDS = {
    "no json": b"{",
    "not utf-8": b'{"kind":"\xff"}',
    "a list": b"[]",
    "deep": b"[" * 60000,
    "deep inside": packed_record().replace(b'"recurrent"', b"[" * 5000 + b"]" * 5000),
    "long number": packed_record().replace(b":1,", b":" + b"9" * 5000 + b","),
    "missing key": json.dumps({"kind": "x"}).encode(),
    "other key": packed_record(more=1),
    "key twice": packed_record().replace(b'"kind":', b'"kind":"a","kind":'),
    "nested environment": packed_record(environment={"a": {"b": 1}}),
    "float": packed_record(environment={"a": 1.5}),
    "null": packed_record(kind=None),
    "number": packed_record(fingerprint=5),
    "spaces": json.dumps(vars(RECORD)).encode(),
    "order": json.dumps(dict(reversed(vars(RECORD).items())), separators=(",", ":")).encode(),
    "raw utf-8": packed_record().replace(b"recurrent", "r\u00e9current".encode()),
    "utf-16": packed_record().decode().encode("utf-16"),
    "escape sequence": packed_record(kind="\x1b[2Jrecurrent"),
    "surrogate": packed_record(kind="\ud800"),
    "line end": packed_record(environment={"torch\n": 1}),
}


@pytest.mark.parametrize("name", RECORDS)
def test_bad_records(name):
    with pytest.raises(DamagedError, match="record"):
        read(forging.header(profile=2, record=RECORDS[name]))


FRAMES = {
    "mode": (forging.frame(0, RAW, mode=5), DamagedError, "mode 5"),
    "flags": (forging.frame(0, RAW, reserved=9), DamagedError, "none of ours"),
    "no lanes": (forging.frame(0, RAW, lanes=0), DamagedError, "0 lanes"),
    "too many lanes": (
        forging.frame(0, b"x" * 100, mode=2, raw=RAW, lanes=4097),
        DamagedError,
        "4097 lanes",
    ),
    "empty lanes": (forging.frame(0, b"abc", lanes=4), DamagedError, "4 lanes"),
    "no bytes": (forging.frame(0, b""), DamagedError, "lanes for 0"),
    "beyond the header": (
        forging.frame(0, b"x" * 9, mode=1, raw_bytes=65537),
        DamagedError,
        "65,537",
    ),
    "stored, of another size": (forging.frame(0, RAW, raw_bytes=2303), DamagedError, "cannot do"),
    "bomb": (forging.frame(0, b"", mode=2, raw_bytes=65536, payload_bytes=0), None, ""),
    "payload too long": (
        forging.frame(0, b"", mode=2, raw_bytes=10, payload_bytes=105),
        DamagedError,
        "cannot do",
    ),
    "endless payload": (
        forging.frame(0, b"", mode=3, raw_bytes=10, payload_bytes=2**32 - 1),
        DamagedError,
        "cannot do",
    ),
    "number": (forging.frame(1, RAW), DamagedError, "frame 1 stands where frame 0"),
    "model without a record": (
        forging.frame(0, b"x", mode=4, raw_bytes=100),
        DamagedError,
        "names none",
    ),
    "checksum": (forging.frame(0, RAW)[:-1] + b"\0", DamagedError, "checksum"),
    "no zstd": (forging.frame(0, b"x" * 50, mode=1, raw=RAW), DamagedError, "zstd"),
}


@pytest.mark.parametrize("name", FRAMES)
def test_bad_frames(name):
    framed, error, message = FRAMES[name]
    blob = forging.one_frame(RAW, framed, len(framed) - 32)
    if error is None:
        assert container.parse_frame(framed[:32], 1 << 16).raw_bytes == 1 << 16
        return
    with pytest.raises(error, match=message):
        decompress(blob)


def test_a_payload_cannot_claim_more_than_its_coder_can_do():
    framed = forging.frame(0, b"", mode=2, raw_bytes=8 * 46_000 + 1, payload_bytes=0)
    with pytest.raises(DamagedError, match="cannot do"):
        container.parse_frame(framed[:32], 1 << 26)


whole = forging.stored(RAW)
begin, *parts, end = forging.cut(whole)
ENDS = {
    "missing": (begin + b"".join(parts), DamagedError, "cut off after 3 frames"),
    "garbage": (whole + b"\0", DamagedError, "more bytes after the end"),
    "two containers": (whole + whole, DamagedError, "more bytes after the end"),
    "cut in a frame": (whole[:500], DamagedError, "cut off in frame 0"),
    "cut in a frame's header": (whole[:50], DamagedError, "cut off after 0 frames"),
    "cut in the trailer": (whole[:-9], DamagedError, "trailer of the container is cut off"),
    "frame missing": (begin + parts[0] + parts[2] + end, DamagedError, "frame 2 stands where"),
    "frame twice": (begin + parts[0] + parts[0] + end, DamagedError, "frame 0 stands where"),
    "frames in another order": (begin + parts[1] + parts[0] + end, DamagedError, "frame 1 stands"),
    "last frame missing": (begin + parts[0] + parts[1] + end, DamagedError, "lists 3 frames"),
    "no sync": (begin + parts[0] + b"JUNK" + parts[1], DamagedError, "expected after 1 frames"),
    "more after a short frame": (
        begin + forging.frame(0, b"abc") + forging.frame(1, b"abc") + end,
        DamagedError,
        "frame 0 has 3 bytes and is not the last",
    ),
    "size unknown to the header": (forging.stored(RAW, raw_bytes=2303), DamagedError, "2,303"),
    "header claims more": (forging.stored(RAW, raw_bytes=2305), DamagedError, "2,305"),
    "header claims 2**60": (forging.stored(RAW, raw_bytes=2**60), LimitError, "--max-output"),
    "index": (
        begin + b"".join(parts) + forging.trailer([1024, 1024, 255], RAW),
        DamagedError,
        "does not list the frames",
    ),
    "index of 2**32 frames": (
        begin + b"".join(parts) + b"BLIX" + struct.pack("<I", 2**32 - 1) + bytes(99),
        DamagedError,
        "4,294,967,295",
    ),
    "trailer's size": (
        begin + b"".join(parts) + forging.trailer([1024, 1024, 256], RAW, raw_bytes=9),
        DamagedError,
        "does not list",
    ),
    "frames of another container": (
        begin + parts[0] + forging.frame(1, bytes(1024)) + parts[2] + end,
        DamagedError,
        "not all of them are of this container",
    ),
    "last bytes": (whole[:-1] + b"x", DamagedError, "last bytes"),
}


@pytest.mark.parametrize("name", ENDS)
def test_bad_ends(name):
    data, error, message = ENDS[name]
    with pytest.raises(error, match=message):
        decompress(data)


def test_limits_come_before_any_work():
    blob = forging.stored(RAW)
    with pytest.raises(LimitError, match="--max-output"):
        decompress(blob, limits=Limits(max_output_bytes=2303))
    assert decompress(blob, limits=Limits(max_output_bytes=2304)) == RAW
    with pytest.raises(LimitError, match="frame 0 claims 1,024 bytes"):
        decompress(blob, limits=Limits(max_frame_bytes=1023))
    # Unknown sizes are found out frame by frame.
    with pytest.raises(LimitError, match="2,048"):
        decompress(
            forging.stored(RAW, raw_bytes=forging.UNKNOWN), limits=Limits(max_output_bytes=2000)
        )


def test_a_zstd_frame_that_gives_nothing_is_no_frame():
    """A skippable frame has a content size, and no content; digest and checksum may be right."""
    payload = struct.pack("<II", 0x184D2A50, 100) + bytes(100)
    framed = forging.frame(0, payload, mode=forging.ZSTD, raw=b"", raw_bytes=100)
    with pytest.raises(DamagedError, match="zstd frame"):
        decompress(forging.one_frame(b"", framed, len(payload)))


def test_a_zstd_frame_ends_where_it_says():
    import zstandard

    packed = zstandard.ZstdCompressor().compress(RAW)
    framed = forging.frame(0, packed, mode=forging.ZSTD, raw=RAW)
    assert decompress(forging.one_frame(RAW, framed, len(packed))) == RAW
    for more in (b"x", packed):
        framed = forging.frame(0, packed + more, mode=forging.ZSTD, raw=RAW)
        with pytest.raises(DamagedError, match="zstd"):
            decompress(forging.one_frame(RAW, framed, len(packed + more)))


def test_a_zstd_bomb_is_refused_by_its_own_header():
    import zstandard

    packed = zstandard.ZstdCompressor().compress(bytes(64 << 20))
    framed = forging.frame(0, packed, mode=forging.ZSTD, raw=bytes(1000))
    with pytest.raises(DamagedError, match="67,108,864"):
        decompress(forging.one_frame(bytes(1000), framed, len(packed)))
    unknown = zstandard.ZstdCompressor(write_content_size=False).compress(bytes(1000))
    framed = forging.frame(0, unknown, mode=forging.ZSTD, raw=bytes(1000))
    with pytest.raises(DamagedError, match="zstd"):
        decompress(forging.one_frame(bytes(1000), framed, len(unknown)))


def test_a_claimed_size_allocates_no_more_than_is_there():
    class Short(io.BytesIO):
        most = 0

        def read(self, size=-1, /):
            self.most = max(self.most, size)
            return super().read(size)

    source = Short(b"abc")
    assert container.read_up_to(source, 2**40) == b"abc"
    assert source.most <= 1 << 20


def test_sources_that_give_a_little_at_a_time():
    class Slow(io.BytesIO):
        def read(self, size=-1, /):
            return super().read(min(size, 7))

    assert describe(Slow(forging.stored(RAW))).raw_bytes == len(RAW)


def test_cutting_by_hand_is_the_inverse_of_putting_together():
    assert b"".join(forging.cut(whole)) == whole
    assert len(parts) == 3
