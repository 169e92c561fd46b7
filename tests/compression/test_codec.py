"""Streams in and out. Oracles: the bytes that went in, slices of them, what an option says."""

import hashlib
import io
import os
import threading

import forging
import hypothesis.strategies as st
import numpy as np
import pytest
import zstandard
from hypothesis import example, given, settings

from bytelm.compression import (
    Limits,
    Options,
    choice,
    compress,
    compress_stream,
    decompress,
    decompress_stream,
    describe,
)
from bytelm.errors import CompressionError, DamagedError, LimitError

FRAME = 1024
TEXT = b" ".join(b"%d green bottles hanging on the wall," % n for n in range(200, 0, -1))
NOISE = np.random.default_rng(7).bytes(3000)
MIXED = TEXT[:1500] + NOISE + bytes(900) + TEXT[:700]
MODES = ("auto", "mixer", "zstd", "stored")


class Pipe(io.RawIOBase):
    """Bytes that can be read once, a few at a time, and neither sought nor told."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)

    def readable(self):
        return True

    def readinto(self, buffer, /):
        return self._data.readinto(memoryview(buffer)[:333])


class Collected(io.RawIOBase):
    """Takes at most a hundred bytes a write, as an unbuffered file may."""

    def __init__(self) -> None:
        self.data = b""

    def writable(self):
        return True

    def write(self, data, /):
        self.data += bytes(data[:100])
        return min(len(data), 100)


def packed(data: bytes, **options) -> bytes:
    target = io.BytesIO()
    compress_stream(
        io.BytesIO(data),
        target,
        options=Options(**{"frame_bytes": FRAME, **options}),
        size=len(data),
    )
    return target.getvalue()


BLOB = packed(MIXED)


@settings(max_examples=25)
@given(data=st.binary(max_size=3000), mode=st.sampled_from(MODES), lanes=st.integers(1, 256))
@example(data=b"", mode="auto", lanes=1)
@example(data=b"a", mode="mixer", lanes=1)
@example(data=bytes(8), mode="auto", lanes=8)
@example(data=bytes(FRAME + 1), mode="auto", lanes=256)
def test_any_bytes_come_back(data, mode, lanes):
    blob = packed(data, mode=mode, lanes=lanes)
    assert decompress(blob) == data
    found = describe(io.BytesIO(blob))
    assert (found.raw_bytes, found.compressed_bytes) == (len(data), len(blob))
    assert found.header.raw_bytes == len(data)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("verify", [True, False])
def test_modes_are_those_asked_for(mode, verify):
    blob = packed(TEXT[:FRAME], mode=mode, verify=verify)
    (frame,) = describe(io.BytesIO(blob)).frames
    assert frame.mode == ("mixer" if mode == "auto" else mode)
    assert decompress(blob) == TEXT[:FRAME]


def test_what_does_not_shrink_is_stored():
    for mode in MODES:
        frames = describe(io.BytesIO(packed(NOISE, mode=mode))).frames
        assert {frame.mode for frame in frames} == {"stored"}
        assert {frame.lanes for frame in frames} == {1}


@pytest.mark.parametrize(("num_bytes", "frame_bytes"), [(0, 1 << 20), (1, 1024), (70_000, 1 << 16)])
def test_incompressible_bytes_grow_by_what_the_format_says(num_bytes, frame_bytes):
    """32 for the header, 36 for each frame, 40 for the trailer: 108 with one frame."""
    data = np.random.default_rng(0).bytes(num_bytes)
    frames = -(-num_bytes // frame_bytes)
    assert len(packed(data, frame_bytes=frame_bytes)) == num_bytes + 32 + 36 * frames + 40


@pytest.mark.parametrize("lanes", [1, 2, 3, 7, 255, 256])
def test_lanes_around_the_number_of_bytes(lanes):
    for num_bytes in (lanes - 1, lanes, lanes + 1, 2 * lanes - 1, FRAME + lanes):
        data = (b"abracadabra " * 200)[:num_bytes]
        blob = packed(data, lanes=lanes, mode="mixer")
        assert decompress(blob) == data
        for frame in describe(io.BytesIO(blob)).frames:
            assert frame.mode == "stored" or frame.lanes == min(lanes, frame.raw_bytes)


# Streams.


def test_pipes_in_and_out():
    packed_target, target = Collected(), Collected()
    options = Options(frame_bytes=FRAME)
    summary = compress_stream(Pipe(MIXED), packed_target, options=options)
    assert describe(Pipe(packed_target.data)).header.raw_bytes is None
    found = decompress_stream(Pipe(packed_target.data), target)
    assert target.data == MIXED
    assert found.frames == summary.frames
    assert found.raw_bytes == summary.raw_bytes == len(MIXED)
    assert found.compressed_bytes == summary.compressed_bytes == len(packed_target.data)
    # But for the size, which a pipe does not tell, the same bytes.
    assert packed_target.data[32:] == BLOB[32:]


def test_real_pipes():
    def copy(data: bytes) -> int:
        reader, writer = os.pipe()

        def feed() -> None:
            with os.fdopen(writer, "wb") as stream:
                stream.write(data)

        threading.Thread(target=feed).start()
        return reader

    target = io.BytesIO()
    with os.fdopen(copy(MIXED), "rb", buffering=0) as source:
        compress_stream(source, target, options=Options(frame_bytes=FRAME))
    found = io.BytesIO()
    with os.fdopen(copy(target.getvalue()), "rb") as source:
        decompress_stream(source, found)
    assert found.getvalue() == MIXED
    with os.fdopen(copy(target.getvalue()), "rb") as source:
        part = io.BytesIO()
        decompress_stream(source, part, span=(1500, 4200))
    assert part.getvalue() == MIXED[1500:4200]


def test_bytes_like_things():
    for data in (bytearray(MIXED), memoryview(MIXED), np.frombuffer(MIXED, np.uint8)):
        assert decompress(bytearray(compress(data))) == MIXED
    every_second = np.frombuffer(MIXED, np.uint8)[::2]
    assert decompress(memoryview(compress(every_second))) == MIXED[::2]
    for wrong in ("text", 5, None):
        with pytest.raises(TypeError):
            compress(wrong)
        with pytest.raises(TypeError):
            decompress(wrong)


@pytest.mark.parametrize("said", [0, len(MIXED) - 1, len(MIXED) + 1, 2**40])
def test_a_source_that_changed_its_size_is_refused(said):
    with pytest.raises(CompressionError, match="it changed while it was read"):
        compress_stream(
            io.BytesIO(MIXED), io.BytesIO(), options=Options(frame_bytes=FRAME), size=said
        )


def test_checking_without_writing():
    summary = decompress_stream(io.BytesIO(BLOB), None)
    assert summary.raw_bytes == len(MIXED)
    damaged = bytearray(BLOB)
    damaged[len(BLOB) // 2] ^= 1
    with pytest.raises(DamagedError):
        decompress_stream(io.BytesIO(damaged), None)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("lanes", [1, 5, 256])
@pytest.mark.parametrize("data", [b"", b"x", MIXED, NOISE, TEXT], ids=len)
def test_progress_sums_to_the_raw_size(mode, lanes, data):
    told, again = [], []
    target = io.BytesIO()
    options = Options(mode=mode, lanes=lanes, frame_bytes=FRAME)
    compress_stream(io.BytesIO(data), target, options=options, on_progress=told.append)
    assert sum(told) == len(data)
    decompress_stream(io.BytesIO(target.getvalue()), None, on_progress=again.append)
    assert sum(again) == len(data)
    assert all(num_bytes > 0 for num_bytes in told + again)


def test_progress_over_many_segments_of_uneven_lanes():
    told, again, data = [], [], TEXT * 6
    target = io.BytesIO()
    options = Options(mode="mixer", lanes=77)
    compress_stream(io.BytesIO(data), target, options=options, on_progress=told.append)
    decompress_stream(io.BytesIO(target.getvalue()), None, on_progress=again.append)
    assert sum(told) == sum(again) == len(data)
    assert len(told) > 2


# Spans.

EDGES = sorted(
    {
        edge
        for number in range(len(MIXED) // FRAME + 2)
        for edge in (number * FRAME - 1, number * FRAME, number * FRAME + 1)
        if edge >= 0
    }
    | {len(MIXED) - 1, len(MIXED), len(MIXED) + 1, 10 * len(MIXED), 2**45}
)


def part(blob: bytes, span, source=io.BytesIO) -> bytes:
    target = io.BytesIO()
    decompress_stream(source(blob), target, span=span)
    return target.getvalue()


@settings(max_examples=80)
@given(
    ends=st.tuples(
        st.one_of(st.sampled_from(EDGES), st.integers(0, len(MIXED))),
        st.one_of(st.sampled_from(EDGES), st.integers(0, len(MIXED))),
    ),
    source=st.sampled_from([io.BytesIO, Pipe]),
)
def test_a_span_is_a_slice(ends, source):
    begin, end = sorted(ends)
    assert part(BLOB, (begin, end), source) == MIXED[begin:end]


def test_spans_of_nothing():
    empty = packed(b"")
    for span in ((0, 0), (0, 5), (5, 9)):
        assert part(empty, span) == b""
        assert part(empty, span, Pipe) == b""


@pytest.mark.parametrize("span", [(-1, 5), (3, 2), (-5, -2)])
def test_wrong_spans(span):
    with pytest.raises(ValueError, match="span"):
        part(BLOB, span)


def test_a_span_reads_its_frames_alone():
    class Counting(io.BytesIO):
        taken = 0

        def read(self, size=-1, /):
            data = super().read(size)
            self.taken += len(data)
            return data

    blob = packed(NOISE * 20, mode="stored")
    source, target = Counting(blob), io.BytesIO()
    summary = decompress_stream(source, target, span=(30_000, 30_100))
    assert target.getvalue() == (NOISE * 20)[30_000:30_100]
    assert [frame.raw_bytes for frame in summary.frames] == [FRAME]
    assert source.taken < 3 * FRAME


def test_a_span_goes_around_damage_elsewhere_and_refuses_it_inside():
    begin, *frames, end = forging.cut(BLOB)
    frames[2] = frames[2][:-1] + bytes([frames[2][-1] ^ 1])
    damaged = b"".join((begin, *frames, end))
    assert part(damaged, (0, 2 * FRAME)) == MIXED[: 2 * FRAME]
    assert part(damaged, (3 * FRAME, len(MIXED))) == MIXED[3 * FRAME :]
    for span in ((2 * FRAME, 2 * FRAME + 1), (0, len(MIXED))):
        with pytest.raises(DamagedError, match="frame 2"):
            part(damaged, span)


@pytest.mark.parametrize("source", [io.BytesIO, Pipe])
def test_a_span_of_missing_or_exchanged_frames_is_refused(source):
    begin, *frames, end = forging.cut(BLOB)
    missing = b"".join((begin, *frames[:1], *frames[2:], end))
    swapped = b"".join((begin, frames[0], frames[2], frames[1], *frames[3:], end))
    for blob in (missing, swapped):
        with pytest.raises(DamagedError):
            part(blob, (FRAME + 5, 2 * FRAME + 5), source)


def test_an_index_that_lies_is_refused():
    raw = MIXED[: 3 * FRAME]
    begin, *frames, _ = forging.cut(packed(raw, mode="stored"))
    # The index fits the file's length, and points into a payload.
    for sizes in ([FRAME, FRAME - 7, FRAME + 7], [2 * FRAME + 32, FRAME]):
        blob = b"".join((begin, *frames, forging.trailer(sizes, raw)))
        with pytest.raises(DamagedError):
            part(blob, (2 * FRAME, 3 * FRAME))
    with pytest.raises(DamagedError, match="index"):
        part(b"".join((begin, *frames, forging.trailer([5], raw))), (0, 9))


def test_limits_hold_for_spans():
    with pytest.raises(LimitError):
        decompress_stream(io.BytesIO(BLOB), None, span=(0, 5), limits=Limits(max_output_bytes=100))


# Workers.


@pytest.mark.parametrize("workers", [1, 2, 3, 9])
def test_bytes_do_not_depend_on_workers(workers):
    data = MIXED * 3
    blob = packed(data, workers=workers)
    assert blob == packed(data, workers=1)
    target = io.BytesIO()
    decompress_stream(io.BytesIO(blob), target, workers=workers)
    assert target.getvalue() == data


def test_frames_are_written_in_order_whoever_is_first(monkeypatch):
    """The first frame is held back until others are done: no clock decides."""
    others = threading.Semaphore(0)
    code = choice._code

    def late(data, mode, work):
        if data[0] == 0:
            assert others.acquire(timeout=60)
            assert others.acquire(timeout=60)
        else:
            others.release()
        return code(data, mode, work)

    monkeypatch.setattr(choice, "_code", late)
    data = b"".join(bytes([n]) + TEXT[: FRAME - 1] for n in range(6))
    assert decompress(packed(data, workers=3, mode="mixer")) == data


class Full(io.BytesIO):
    """A disk that is full after so many bytes."""

    room = 2000

    def write(self, data, /):
        if self.tell() + len(data) > self.room:
            raise OSError(28, "No space left on device")
        return super().write(data)


@pytest.mark.parametrize("workers", [1, 3])
def test_a_full_disk_stops_the_workers(workers):
    before = threading.active_count()
    source = io.BytesIO(NOISE * 300)
    with pytest.raises(OSError, match="No space"):
        compress_stream(source, Full(), options=Options(frame_bytes=FRAME, workers=workers))
    assert source.tell() < 20 * FRAME
    assert threading.active_count() == before
    blob = packed(TEXT[:5000] * 30, mode="stored")
    source = io.BytesIO(blob)
    with pytest.raises(OSError, match="No space"):
        decompress_stream(source, Full(), workers=workers)
    assert source.tell() < 20 * FRAME
    assert threading.active_count() == before


def test_an_error_in_a_worker_stops_the_others(monkeypatch):
    before = threading.active_count()

    def broken(data, mode, work):
        raise CompressionError("as if the proof had failed")

    monkeypatch.setattr(choice, "_code", broken)
    with pytest.raises(CompressionError, match="as if"):
        packed(TEXT, mode="mixer", workers=3)
    assert threading.active_count() == before


def test_what_the_proof_refuses_is_kept_another_way(monkeypatch, caplog):
    """A frame that does not come back is compressed by zstd, and the log says so."""
    code = choice._code

    def unproven(data, mode, work):
        if len(data) < FRAME:
            return code(data, mode, work)
        raise CompressionError("the mode mixer did not give the same bytes back")

    monkeypatch.setattr(choice, "_code", unproven)
    blob = packed(TEXT[:FRAME])
    (frame,) = describe(io.BytesIO(blob)).frames
    assert frame.mode == "zstd"
    assert decompress(blob) == TEXT[:FRAME]
    assert "did not give the same bytes back" in caplog.text


def test_progress_that_raises_ends_the_work():
    class StoppedError(Exception):
        pass

    def stop(num_bytes):
        raise StoppedError

    before = threading.active_count()
    with pytest.raises(StoppedError):
        compress_stream(io.BytesIO(TEXT), io.BytesIO(), on_progress=stop)
    with pytest.raises(StoppedError):
        decompress_stream(io.BytesIO(BLOB), io.BytesIO(), on_progress=stop)
    assert threading.active_count() == before


# Options.


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"lanes": 0}, "lanes must be 1 to 256, got 0"),
        ({"lanes": 4097}, "lanes"),
        ({"workers": 0}, "workers"),
        ({"workers": 1000}, "workers"),
        ({"frame_bytes": 1023}, "frame_bytes must be 1,024"),
        ({"frame_bytes": (64 << 20) + 1}, "frame_bytes"),
    ],
)
def test_wrong_options(wrong, message):
    with pytest.raises(ValueError, match=message):
        Options(**wrong)


def test_summaries_count_what_was_written():
    target = io.BytesIO()
    summary = compress_stream(io.BytesIO(MIXED), target, options=Options(frame_bytes=FRAME))
    assert summary.compressed_bytes == len(target.getvalue())
    assert sum(frame.compressed_bytes for frame in summary.frames) == len(
        b"".join(forging.cut(target.getvalue())[1:-1])
    )
    assert summary.bits_per_byte == pytest.approx(8 * len(target.getvalue()) / len(MIXED))
    assert summary.model_bytes == 0
    assert compress_stream(io.BytesIO(b""), io.BytesIO()).bits_per_byte == 0.0


def test_the_digest_at_the_end_is_that_of_the_content():
    assert BLOB[-24:-16] == hashlib.blake2b(MIXED, digest_size=8).digest()


@pytest.mark.parametrize("mode", ["auto", "mixer"])
@pytest.mark.parametrize("tail", [0xFF, 0x00, 0x80])
def test_a_long_run_is_readable_although_it_takes_no_bits(mode, tail):
    # The decision "one" is the low end of the interval: a run of ones has the shortest string "".
    data = os.urandom(100) + bytes([tail]) * 600_000
    blob = compress(data, options=Options(mode=mode))
    assert decompress(blob) == data


class NotBlocking(io.RawIOBase):
    """A pipe that has nothing now, and has not ended."""

    def readable(self):
        return True

    def writable(self):
        return True

    def readinto(self, buffer, /):
        return None

    def write(self, data, /):
        return None


def test_a_stream_that_does_not_block_is_not_taken_for_one_that_ended():
    with pytest.raises(BlockingIOError):
        compress_stream(NotBlocking(), io.BytesIO())
    with pytest.raises(BlockingIOError):
        compress_stream(io.BytesIO(b"text"), NotBlocking())


def test_what_repeats_far_away_in_short_pieces_is_not_left_to_a_fast_zstd():
    rng = np.random.default_rng(0)
    digests = rng.integers(0, 256, (30_000, 16), np.uint8)
    data = np.concatenate((digests, digests[rng.permutation(len(digests))])).tobytes()
    best = len(zstandard.ZstdCompressor(level=19).compress(data))
    assert best < 0.7 * len(data)
    assert len(compress(data)) <= best * 1.001 + 110


def test_a_version_that_never_was_is_no_later_version():
    blob = bytearray(compress(TEXT))
    blob[8] = 0
    with pytest.raises(DamagedError, match="never was"):
        decompress(blob)
