"""What is whole in a damaged container. Oracle: the raw bytes, frame by frame."""

import io
import tracemalloc

import forging
import pytest

from bytelm.compression import Limits, Options, compress, compress_stream, salvage
from bytelm.compression.salvage import Gap
from bytelm.errors import LimitError, NotAContainerError, VersionError

FRAME = 1024
RAW = b"".join(b"%05d, the house by the river. " % n for n in range(200))[: 5 * FRAME + 300]
PIECES = [RAW[at : at + FRAME] for at in range(0, len(RAW), FRAME)]


def packed(raw: bytes, *, size: int | None = None, mode: str = "auto") -> bytes:
    target = io.BytesIO()
    options = Options(frame_bytes=FRAME, mode=mode)
    compress_stream(io.BytesIO(raw), target, options=options, size=size)
    return target.getvalue()


BEGIN, *FRAMES, END = forging.cut(packed(RAW, size=len(RAW)))


def damaged(frame: bytes) -> bytes:
    return frame[:-1] + bytes([frame[-1] ^ 0x40])


def saved(blob: bytes, **options):
    target = io.BytesIO()
    report = salvage(io.BytesIO(blob), target, **options)
    return report, target.getvalue()


def with_holes(*lost: int) -> bytes:
    return b"".join(
        bytes(len(piece)) if number in lost else piece for number, piece in enumerate(PIECES)
    )


def gap(first: int, last: int | None = None) -> tuple[int, int]:
    return first * FRAME, min(((first if last is None else last) + 1) * FRAME, len(RAW))


def ends(report) -> list[tuple[int, int | None]]:
    return [(gap.begin, gap.end) for gap in report.gaps]


def test_a_whole_container_has_no_gaps():
    report, out = saved(b"".join((BEGIN, *FRAMES, END)))
    assert out == RAW
    assert report.frames == (0, 1, 2, 3, 4, 5)
    assert report.raw_bytes == len(RAW)
    assert report.gaps == ()
    assert report.header_error is None


@pytest.mark.parametrize("lost", range(6))
def test_a_damaged_frame_loses_itself_alone(lost):
    frames = [damaged(frame) if n == lost else frame for n, frame in enumerate(FRAMES)]
    report, out = saved(b"".join((BEGIN, *frames, END)))
    assert report.frames == tuple(n for n in range(6) if n != lost)
    assert ends(report) == [gap(lost)]
    expected = with_holes(lost)
    assert out == (expected[: 5 * FRAME] if lost == 5 else expected)
    assert report.raw_bytes == len(RAW) - len(PIECES[lost])


def test_neighbouring_gaps_and_two_gaps():
    frames = [damaged(frame) if n in (1, 2, 4) else frame for n, frame in enumerate(FRAMES)]
    report, out = saved(b"".join((BEGIN, *frames, END)))
    assert out == with_holes(1, 2, 4)
    assert ends(report) == [gap(1, 2), gap(4)]


@pytest.mark.parametrize("cut", [1, 40, 200, 500])
def test_what_is_cut_off_is_lost(cut):
    whole = b"".join((BEGIN, *FRAMES, END))
    report, out = saved(whole[:-cut])
    places = [len(BEGIN)]
    for frame in FRAMES:
        places.append(places[-1] + len(frame))
    left = sum(place <= len(whole) - cut for place in places[1:])
    assert report.frames == tuple(range(left))
    assert out == RAW[: left * FRAME]
    assert ends(report) == ([] if left == 6 else [gap(left, 5)])


def test_without_header_and_end():
    for lost in (b"".join(FRAMES), b"".join(FRAMES[:-1]) + damaged(FRAMES[-1])):
        report, out = saved(lost)
        assert report.header_error is not None
        assert out == RAW[: len(report.frames) * FRAME]
        assert report.gaps[-1].end is None
    # The end's index tells where frames lie even when only the last, short one is left.
    report, out = saved(FRAMES[-1] + END)
    assert report.frames == (5,)
    assert out == bytes(5 * FRAME) + PIECES[5]


def test_a_pipe_that_was_cut_has_an_unknown_end():
    report, out = saved(packed(RAW)[:-10])
    assert out == RAW
    assert report.gaps == (Gap(begin=len(RAW), end=None, reason=report.gaps[0].reason),)


@pytest.mark.parametrize("junk", [b"\0" * 999, b"BLFR" * 50, b"BLFRBLIX\x89BLM", FRAMES[0][:40]])
def test_junk_between_frames(junk):
    report, out = saved(junk.join((BEGIN, *FRAMES, END)))
    assert out == RAW
    assert report.gaps == ()


def test_frames_in_any_order_come_to_their_places():
    report, out = saved(b"".join((BEGIN, *FRAMES[::-1], FRAMES[2], END)))
    assert out == RAW
    assert report.frames == (0, 1, 2, 3, 4, 5)


def test_frames_of_a_container_inside_are_not_ours():
    """A stored frame may hold a container, whose frames are whole though it is damaged."""
    inner = packed(RAW[:700], mode="stored") + packed(RAW[1000:1900], mode="stored")
    raw = inner[:FRAME] + RAW[:FRAME] + inner[FRAME:]
    begin, *frames, end = forging.cut(packed(raw, mode="stored"))
    frames[0] = damaged(frames[0])
    report, out = saved(b"".join((begin, *frames, end)))
    assert report.frames == tuple(range(1, len(frames)))
    assert out == bytes(FRAME) + raw[FRAME:]


def test_frames_larger_than_the_header_says_are_not_ours():
    blob = forging.header(frame_bytes=FRAME) + forging.frame(0, bytes(2000))
    report, out = saved(blob)
    assert (report.frames, out) == ((), b"")


def test_a_frame_whose_bytes_are_others_is_a_gap_of_its_own():
    """Its checksum is right and its digest is not: as of another machine's arithmetic."""
    frame = forging.frame(1, b"x" * 60, mode=forging.MIXER, raw=PIECES[1])
    blob = forging.header(frame_bytes=FRAME, raw_bytes=3 * FRAME)
    blob += forging.frame(0, PIECES[0]) + frame + forging.frame(2, PIECES[2])
    report, out = saved(blob)
    assert report.frames == (0, 2)
    assert ends(report) == [gap(1)]
    assert "other bytes come out" in report.gaps[0].reason
    assert out == PIECES[0] + bytes(FRAME) + PIECES[2]


def test_nothing_to_save():
    for blob in (b"", b"Call me Ishmael", b"BLFR" * 99, b"\0" * 5000):
        with pytest.raises(NotAContainerError, match="no header and no whole frame"):
            saved(blob)
    with pytest.raises(VersionError):
        saved(forging.header(version=2) + b"what a later version writes")


def test_limits():
    blob = b"".join((BEGIN, *FRAMES, END))
    with pytest.raises(LimitError, match="--max-output"):
        saved(blob, limits=Limits(max_output_bytes=len(RAW) - 1))
    far = forging.header(frame_bytes=FRAME) + forging.frame(2**32 - 1, b"x")
    with pytest.raises(LimitError, match="4,398,046,510,081"):
        saved(far, limits=Limits(max_output_bytes=1 << 30))


def test_progress_counts_what_came_back():
    told = []
    frames = [FRAMES[0], damaged(FRAMES[1]), *FRAMES[2:]]
    report, _ = saved(b"".join((BEGIN, *frames, END)), on_progress=told.append)
    assert sum(told) == report.raw_bytes


class Counting(io.BytesIO):
    taken = 0

    def read(self, size=-1, /):
        data = super().read(size)
        self.taken += len(data)
        return data


@pytest.mark.parametrize(
    "piece",
    [b"BLFR", forging.frame(0, b"", mode=2, raw_bytes=1000, payload_bytes=4000)[:32]],
    ids=["sync", "header"],
)
def test_false_beginnings_cost_a_bounded_multiple_of_the_file(piece):
    """A search reads some kilobytes at each; payloads are read 64 times the file at most."""
    source = Counting(piece * (20_000 // len(piece)))
    with pytest.raises((NotAContainerError, LimitError)):
        salvage(source, io.BytesIO())
    assert source.taken < 1200 * len(source.getvalue())


def test_payloads_that_lie_in_each_other_are_not_read_for_ever():
    false = forging.frame(0, b"", mode=2, raw_bytes=1 << 16, payload_bytes=(1 << 16) + 1)[:32]
    with pytest.raises(LimitError, match="made to do harm"):
        saved(false * 6000, limits=Limits(max_frame_bytes=1 << 26))


def test_memory_is_that_of_a_frame():
    blob = compress(bytes(3 << 20), options=Options(frame_bytes=1 << 16, mode="stored"))
    source, target = io.BytesIO(blob), io.BytesIO(bytes(3 << 20))
    tracemalloc.start()
    salvage(source, target)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1 << 20


def test_a_damaged_version_does_not_keep_the_frames_from_coming_back():
    report, out = saved(b"".join((BEGIN[:8] + b"\x03" + BEGIN[9:], *FRAMES, END)))
    assert out == RAW
    assert report.header_error is not None


def test_a_container_inside_of_a_lost_frame_is_not_taken_for_ours():
    inner = packed(RAW[:300], mode="stored")
    raw = (inner + bytes(FRAME))[:FRAME] + RAW[FRAME:]
    begin, first, *rest, _ = forging.cut(packed(raw, size=None, mode="stored"))
    report, out = saved(b"".join((begin, damaged(first), *rest)))
    assert 0 not in report.frames
    assert out[:FRAME] == bytes(FRAME)
    assert out[FRAME:] == raw[FRAME:]
