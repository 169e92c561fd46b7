"""A container as it is written, and as it is read: frames in order, and what they add up to."""

import hashlib
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from bytelm.compression import container
from bytelm.compression.choice import Payload
from bytelm.compression.container import (
    DIGEST_BYTES,
    FRAME_HEADER_BYTES,
    FRAME_SYNC,
    MAX_FRAME_BYTES,
    MAX_FRAMES,
    NEEDS_MODEL,
    TRAILER_SYNC,
    FrameHeader,
    Header,
    SeekableSource,
    Source,
    Target,
    Trailer,
    read_up_to,
)
from bytelm.errors import DamagedError, LimitError


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What a container may ask for; more is refused before it is allocated or computed."""

    max_output_bytes: int = 1 << 40
    """Of the whole content."""

    max_frame_bytes: int = MAX_FRAME_BYTES
    """Of one frame: memory is a few times this for each worker."""


@dataclass(frozen=True, kw_only=True)
class FrameSummary:
    """One frame of a container."""

    mode: str
    lanes: int
    raw_bytes: int
    compressed_bytes: int
    """Its header included."""


@dataclass(frozen=True, kw_only=True)
class Summary:
    """What was compressed or decompressed."""

    raw_bytes: int
    compressed_bytes: int
    frames: tuple[FrameSummary, ...]
    seconds: float
    model_bytes: int = 0
    """Of the model that is needed to decompress, 0 without one."""

    @property
    def bits_per_byte(self) -> float:
        """Of the whole container, header included; 0.0 for nothing."""
        return 8 * self.compressed_bytes / self.raw_bytes if self.raw_bytes else 0.0


class ContainerWriter:
    """A container as it grows."""

    def __init__(self, target: Target, header: Header) -> None:
        self._target = target
        self._frames: list[FrameSummary] = []
        self._payload_bytes: list[int] = []
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        packed = container.pack_header(header)
        write_all(target, packed)
        self._written = len(packed)

    def read(self, data: bytes) -> None:
        """Note raw bytes, in order."""
        self._digest.update(data)

    def frame(self, raw_bytes: int, checksum: bytes, payload: Payload) -> None:
        """Write the next frame."""
        header = FrameHeader(
            number=len(self._frames),
            mode=payload.mode,
            lanes=payload.lanes,
            raw_bytes=raw_bytes,
            payload_bytes=len(payload.data),
            digest=checksum,
            crc=0,
        )
        assert container.is_possible(payload.mode, raw_bytes, len(payload.data)), "unreadable"
        write_all(self._target, container.pack_frame(header, payload.data))
        write_all(self._target, payload.data)
        self._payload_bytes.append(len(payload.data))
        self._frames.append(frame_summary(header))
        self._written += header.total_bytes

    def close(self, *, seconds: float, model_bytes: int) -> Summary:
        """Write the trailer."""
        raw_bytes = sum(frame.raw_bytes for frame in self._frames)
        trailer = container.pack_trailer(
            Trailer(
                payload_bytes=np.array(self._payload_bytes, np.uint32),
                raw_bytes=raw_bytes,
                digest=self._digest.digest(),
            )
        )
        write_all(self._target, trailer)
        return Summary(
            raw_bytes=raw_bytes,
            compressed_bytes=self._written + len(trailer),
            frames=tuple(self._frames),
            seconds=seconds,
            model_bytes=model_bytes,
        )


class ContainerReader:
    """A container as it is read, in order; or the frames of a span of its raw bytes."""

    def __init__(self, source: Source, limits: Limits, span: tuple[int, int] | None = None) -> None:
        self._source, self._limits, self._span = source, limits, span
        self.header = container.read_header(source)
        self._read = container.header_bytes(self.header)
        self._frames: list[FrameHeader] = []
        self._number, self._before = 0, self.header.frame_bytes
        self._trailer: Trailer | None = None
        self._digest = hashlib.blake2b(digest_size=DIGEST_BYTES)
        self._check_output(self.header.raw_bytes or 0)

    def frames(self) -> Iterator[tuple[FrameHeader, bytes]]:
        """Each frame that is wanted, with its payload; then the trailer, without a span."""
        first, last = 0, MAX_FRAMES
        if self._span is not None:
            first = self._span[0] // self.header.frame_bytes
            last = -(-self._span[1] // self.header.frame_bytes)
            if isinstance(self._source, SeekableSource) and self._source.seekable():
                self._seek_frame(self._source, first)
        while (found := self._next()) is not None:
            if found[0].number >= first:
                self._frames.append(found[0])
                yield found
            if found[0].number + 1 >= last:
                return

    def decoded(self, header: FrameHeader, data: np.ndarray) -> np.ndarray:
        """Note the raw bytes of a frame, in order; those of them that are wanted."""
        if self._span is None:
            self._digest.update(data.tobytes())
            return data
        begin = header.number * self.header.frame_bytes
        return data[max(0, self._span[0] - begin) : max(0, self._span[1] - begin)]

    def close(self, *, seconds: float, decoded: bool = True) -> Summary:
        """Check what the trailer says of the whole; without a span it has been read by now.

        Raises:
            DamagedError: Frames, header and trailer contradict each other.

        """
        raw_bytes = sum(frame.raw_bytes for frame in self._frames)
        if self._span is None:
            self._check_whole(raw_bytes, decoded=decoded)
        return Summary(
            raw_bytes=raw_bytes,
            compressed_bytes=self._read,
            frames=tuple(frame_summary(frame) for frame in self._frames),
            seconds=seconds,
        )

    def _next(self) -> tuple[FrameHeader, bytes] | None:
        """The next frame; None at the trailer, which is read."""
        sync = read_up_to(self._source, len(FRAME_SYNC))
        if sync == TRAILER_SYNC:
            self._trailer = container.read_trailer(
                self._source, after_sync=True, most_frames=self._number
            )
            self._read += container.trailer_bytes(len(self._trailer.payload_bytes))
            return None
        rest = read_up_to(self._source, FRAME_HEADER_BYTES - len(sync))
        if len(sync) + len(rest) < FRAME_HEADER_BYTES:
            raise DamagedError(
                f"the container is cut off after {self._number} frames: the file is "
                "incomplete; `bytelm salvage` writes what is there"
            )
        if sync != FRAME_SYNC:
            raise DamagedError(
                f"a frame was expected after {self._number} frames, and {sync!r} is there: "
                "the file is damaged; `bytelm salvage` writes what is whole"
            )
        header = container.parse_frame(sync + rest, self._limits.max_frame_bytes)
        self._check_frame(header)
        payload = read_up_to(self._source, header.payload_bytes)
        if len(payload) < header.payload_bytes:
            raise DamagedError(
                f"the container is cut off in frame {header.number}: the file is incomplete; "
                "`bytelm salvage` writes what is there"
            )
        self._read += header.total_bytes
        return header, payload

    def _check_frame(self, header: FrameHeader) -> None:
        frame_bytes, claimed = self.header.frame_bytes, self.header.raw_bytes
        if header.number != self._number:
            raise DamagedError(f"frame {header.number} stands where frame {self._number} belongs")
        if self._before != frame_bytes:
            raise DamagedError(
                f"frame {header.number - 1} has {self._before:,} bytes and is not the last one, "
                f"expected {frame_bytes:,}"
            )
        if header.raw_bytes > frame_bytes:
            raise DamagedError(
                f"frame {header.number} claims {header.raw_bytes:,} bytes, and the header "
                f"{frame_bytes:,} of every frame"
            )
        if header.mode in NEEDS_MODEL and self.header.model is None:
            raise DamagedError(f"frame {header.number} needs a model, and the header names none")
        end = header.number * frame_bytes + header.raw_bytes
        self._check_output(end)
        if claimed is not None and end > claimed:
            raise DamagedError(
                f"frame {header.number} ends at byte {end:,}, and the header claims {claimed:,}"
            )
        self._number, self._before = header.number + 1, header.raw_bytes

    def _check_output(self, num_bytes: int) -> None:
        if num_bytes > self._limits.max_output_bytes:
            raise LimitError(
                f"this container claims {num_bytes:,} bytes, at most "
                f"{self._limits.max_output_bytes:,} are allowed: allow more with --max-output"
            )

    def _seek_frame(self, source: SeekableSource, number: int) -> None:
        """Go to a frame by the index, or to the end; what is found there must have this number."""
        begin = source.tell()
        end = source.seek(0, os.SEEK_END)
        trailer = container.find_trailer(source, begin)
        count = len(trailer.payload_bytes)
        places = container.offsets(begin, trailer.payload_bytes)
        fits_bytes = count == -(-trailer.raw_bytes // self.header.frame_bytes)
        if not fits_bytes or places[-1] + container.trailer_bytes(count) != end:
            raise DamagedError(
                "the index at the end does not fit what is before it: frames are missing, or were "
                "put in"
            )
        self._number = min(number, count)
        source.seek(int(places[self._number]))

    def _check_whole(self, raw_bytes: int, *, decoded: bool) -> None:
        trailer = self._trailer
        if trailer is None:
            raise DamagedError("the end of the container is missing: the file is incomplete")
        sizes = [frame.payload_bytes for frame in self._frames]
        if trailer.payload_bytes.tolist() != sizes or trailer.raw_bytes != raw_bytes:
            raise DamagedError("the index at the end does not list the frames that are there")
        if self.header.raw_bytes not in (None, raw_bytes):
            raise DamagedError(
                f"the header claims {self.header.raw_bytes:,} bytes, the frames have {raw_bytes:,}"
            )
        if decoded and trailer.digest != self._digest.digest():
            raise DamagedError(
                "every frame is whole, but not all of them are of this container: its digest is "
                "another one"
            )


def write_all(target: Target, data: Any) -> None:
    """Write every byte: a file without a buffer may take a part of them at a time."""
    left = memoryview(data)
    while len(left):
        taken = target.write(left)
        if taken is None and isinstance(target, io.RawIOBase):
            raise BlockingIOError("the target does not block, and takes nothing now")
        left = left[len(left) if taken is None else taken :]


def frame_summary(header: FrameHeader) -> FrameSummary:
    """What is told of a frame."""
    return FrameSummary(
        mode=header.mode.name.lower(),
        lanes=header.lanes,
        raw_bytes=header.raw_bytes,
        compressed_bytes=header.total_bytes,
    )
