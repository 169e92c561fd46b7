"""What is whole in a damaged container: frames stand alone, and each that is left comes back."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from bytelm.compression import container
from bytelm.compression.codec import check_model, decode_frame, require_model
from bytelm.compression.container import (
    FRAME_HEADER_BYTES,
    FRAME_SYNC,
    TRAILER_SYNC,
    FrameHeader,
    Header,
    SeekableSource,
    SeekableTarget,
    Trailer,
)
from bytelm.compression.frames import CodecModel
from bytelm.compression.stream import Limits, write_all
from bytelm.errors import (
    CompressionError,
    DamagedError,
    LimitError,
    NotAContainerError,
    VersionError,
)

_SCAN_BYTES = 1 << 12
"""Read at a time in search of a frame: little, as each false beginning reads as much again."""

_WORK = 64
"""Bytes that are read for each byte of the file, at most: false frames could ask for its square."""


@dataclass(frozen=True, kw_only=True)
class Gap:
    """Raw bytes that are lost."""

    begin: int
    end: int | None
    """None: to the end, which nobody knows."""

    reason: str


@dataclass(frozen=True, kw_only=True)
class SalvageReport:
    """What came back and what did not."""

    raw_bytes: int
    """Raw bytes that came back."""

    frames: tuple[int, ...]
    """Numbers of the frames that came back."""

    gaps: tuple[Gap, ...]
    """In order; their bytes are zeros in the output, which ends with the last frame."""

    header_error: str | None
    """What is wrong with the header; None where it is whole."""


def salvage(
    source: SeekableSource,
    target: SeekableTarget,
    *,
    model: CodecModel | None = None,
    limits: Limits | None = None,
    on_progress: Callable[[int], None] | None = None,
) -> SalvageReport:
    """Write every whole frame of a damaged container to its place; gaps become zeros.

    Args:
        source: The container; can seek.
        target: Empty; can seek. Where a gap is, nothing is written, so that it takes no room.
        model: The one that the container was made with, if it needs one.
        limits: What the container may ask for.
        on_progress: Called with the number of raw bytes just decoded.

    Raises:
        WrongModelError, EnvironmentMismatchError: As of `decompress_stream`.
        NotAContainerError: No header is here, and no frame either.
        LimitError: The output would be too large, or the file is made to be searched for ever.

    """
    limits = limits or Limits()
    source.seek(0)
    header, header_error = _header(source)
    if header is not None:
        check_model(header, model)
    plan = _Plan(header, _trailer(source))
    found = _found(source, limits, plan)
    if header is None and not found:
        if isinstance(header_error, VersionError):
            raise header_error
        raise NotAContainerError("there is no header and no whole frame in this file")
    if header is not None:
        for frame, _ in found:
            require_model(header, frame, model)
    frame_bytes = plan.frame_bytes([frame for frame, _ in found])
    gaps: list[Gap] = []
    numbers: list[int] = []
    position = raw_bytes = 0
    for frame, place in found:
        begin, end = frame.number * frame_bytes, frame.number * frame_bytes + frame.raw_bytes
        if end > limits.max_output_bytes:
            raise LimitError(
                f"frame {frame.number} would end at byte {end:,}, at most "
                f"{limits.max_output_bytes:,} are allowed: allow more with --max-output"
            )
        if begin > position:
            gaps.append(Gap(begin=position, end=begin, reason="no whole frame is left"))
        position = end
        source.seek(place)
        payload = container.read_up_to(source, frame.payload_bytes)
        try:
            require_model(header, frame, model)
            data = decode_frame(frame, payload, model=model, on_progress=on_progress or _nothing)
        except CompressionError as error:
            gaps.append(Gap(begin=begin, end=end, reason=str(error)))
            continue
        target.seek(begin)
        write_all(target, data)
        raw_bytes += len(data)
        numbers.append(frame.number)
    gaps += plan.end_gap(position)
    return SalvageReport(
        raw_bytes=raw_bytes,
        frames=tuple(numbers),
        gaps=tuple(gaps),
        header_error=header_error and str(header_error),
    )


def _found(source: SeekableSource, limits: Limits, plan: "_Plan") -> list[tuple[FrameHeader, int]]:
    """Every whole frame that is ours, by number, and where its payload begins."""
    first: dict[int, tuple[FrameHeader, int]] = {}
    for frame, place in _whole_frames(source, limits, plan):
        first.setdefault(frame.number, (frame, place))
    if not first:
        return []
    full, last = plan.frame_bytes([frame for frame, _ in first.values()]), max(first)
    # Only the last frame is shorter: any other is of a container inside of ours.
    kept = (n for n, (frame, _) in first.items() if n == last or frame.raw_bytes == full)
    return [first[number] for number in sorted(kept)]


def _header(source: SeekableSource) -> tuple[Header | None, CompressionError | None]:
    try:
        return container.read_header(source), None
    except (DamagedError, NotAContainerError, LimitError, VersionError) as error:
        return None, error


def _trailer(source: SeekableSource) -> Trailer | None:
    try:
        return container.find_trailer(source, 0)
    except DamagedError:
        return None


@dataclass(frozen=True)
class _Plan:
    """What header and trailer, as far as they are left, say of the frames."""

    header: Header | None
    trailer: Trailer | None

    def admits(self, frame: FrameHeader) -> bool:
        """Whether it can be one of ours: stored frames may hold frames of other containers."""
        if not self._has_right_size(frame):
            return False
        if self.trailer is None:
            return True
        sizes = self.trailer.payload_bytes
        return frame.number < len(sizes) and frame.payload_bytes == int(sizes[frame.number])

    def _has_right_size(self, frame: FrameHeader) -> bool:
        """Every frame but the last is full, and the last ends where header or trailer say."""
        if self.header is None:
            return True
        full, end = self.header.frame_bytes, self._raw_bytes()
        if end is None:
            return frame.raw_bytes <= full
        return frame.raw_bytes == min(full, end - frame.number * full)

    def _raw_bytes(self) -> int | None:
        if self.header is not None and self.header.raw_bytes is not None:
            return self.header.raw_bytes
        return None if self.trailer is None else self.trailer.raw_bytes

    def frame_bytes(self, found: list[FrameHeader]) -> int:
        """Raw bytes of every frame but the last."""
        if self.header is not None:
            return self.header.frame_bytes
        last = found[0]
        if len(found) == 1 and self.trailer is not None and last.number > 0:
            # Nothing but the last one may be left, which is shorter.
            before = self.trailer.raw_bytes - last.raw_bytes
            return max(last.raw_bytes, before // (len(self.trailer.payload_bytes) - 1))
        return max(frame.raw_bytes for frame in found)

    def end_gap(self, position: int) -> list[Gap]:
        """What is missing after the last frame that was found, as far as anything says so."""
        end = self._raw_bytes()
        if end is None:
            return [Gap(begin=position, end=None, reason="the end of the container is lost")]
        if end > position:
            return [Gap(begin=position, end=end, reason="no whole frame is left")]
        return []


def _whole_frames(
    source: SeekableSource, limits: Limits, plan: _Plan
) -> Iterator[tuple[FrameHeader, int]]:
    """Each frame whose checksum is right, wherever it stands, and where its payload begins."""
    size = source.seek(0, 2)
    work, position = _WORK * size + _SCAN_BYTES, 0
    while (position := _find_sync(source, position)) >= 0:
        source.seek(position)
        start = container.read_up_to(source, FRAME_HEADER_BYTES)
        frame = _plausible(start, limits, size - position)
        if frame is None or not plan.admits(frame):
            position += 1
            continue
        payload = container.read_up_to(source, frame.payload_bytes)
        work -= len(payload)
        if work < 0:
            raise LimitError(
                "this file holds so many beginnings of frames that are none that searching it "
                "would take too long: it is made to do harm"
            )
        if container.frame_is_whole(frame, payload):
            yield frame, position + FRAME_HEADER_BYTES
            position += frame.total_bytes
        elif _goes_on(source, position + frame.total_bytes):
            # Damaged, and its length is right: what looks like a frame inside of it is its content.
            position += frame.total_bytes
        else:
            position += 1


def _goes_on(source: SeekableSource, position: int) -> bool:
    """Whether a frame or the trailer begins here."""
    source.seek(position)
    return container.read_up_to(source, len(FRAME_SYNC)) in (FRAME_SYNC, TRAILER_SYNC)


def _plausible(start: bytes, limits: Limits, left: int) -> FrameHeader | None:
    if len(start) < FRAME_HEADER_BYTES:
        return None
    try:
        frame = container.parse_frame(start, limits.max_frame_bytes)
    except CompressionError:
        return None
    return frame if frame.total_bytes <= left else None


def _find_sync(source: SeekableSource, position: int) -> int:
    """Where the next frame may begin at or after `position`; -1 where none does."""
    keep = len(FRAME_SYNC) - 1
    while True:
        source.seek(position)
        piece = container.read_up_to(source, _SCAN_BYTES)
        found = piece.find(FRAME_SYNC)
        if found >= 0:
            return position + found
        if len(piece) < _SCAN_BYTES:
            return -1
        position += len(piece) - keep


def _nothing(num_bytes: int) -> None:
    """Nobody wants to know of progress."""
