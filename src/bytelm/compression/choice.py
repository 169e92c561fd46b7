"""The smallest payload of a frame that is proven to come back: mixer, model, both, zstd, or stored.

What is written was decoded before, by the code that will decode it: a thread follows the encoder a
segment behind, so that on two cores the proof takes no time of its own.
Shape key: n bytes of the frame.
"""

import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import zstandard

from bytelm.compression import coder, frames
from bytelm.compression.container import MAX_LANES, NEEDS_MODEL, Mode, least_payload
from bytelm.compression.frames import CodecModel
from bytelm.errors import CompressionError, DamagedError

_LOGGER = logging.getLogger(__name__)

ModeName = Literal["auto", "model", "mixed", "mixer", "zstd", "stored"]

_SAMPLE_BYTES = 1 << 16
"""What is coded to see which way is worth it: so much, or a sixteenth of the frame if that is less.
With the mixer alone, shorter frames are coded at once."""

_HOPELESS = 0.998
"""A frame is not given to the mixer if neither a sample of it nor zstd gets below this share."""

_ZSTD_LEVEL = 19
_ZSTD_PIECE_BYTES = 1 << 20


class CancelledError(Exception):
    """Another part of the work failed, or the user stopped it."""


@dataclass(frozen=True)
class Payload:
    """A frame, coded."""

    mode: Mode
    lanes: int
    data: bytes


@dataclass(frozen=True)
class Work:
    """How a frame is to be coded, and who wants to know."""

    mode: ModeName
    lanes: int | None
    model: CodecModel | None
    verify: bool
    on_progress: Callable[[int], None]
    """Called with the number of bytes that were just coded, from the thread that coded them."""

    cancelled: threading.Event


def compress_frame(data: np.ndarray, work: Work) -> Payload:
    """Code one frame, uint8 `[n]`, n >= 1.

    Raises:
        CancelledError: `work.cancelled` was set.
        CompressionError: The one mode that was asked for did not come back as it was.

    """
    told = 0

    def progress(num_bytes: int) -> None:
        nonlocal told
        told += num_bytes
        work.on_progress(num_bytes)

    payload = _compress(data, replace(work, on_progress=progress))
    # What was given up, or was no work of ours, is done all the same.
    if told < len(data):
        work.on_progress(len(data) - told)
    return payload


def _compress(data: np.ndarray, work: Work) -> Payload:
    stored = Payload(Mode.STORED, 1, data.tobytes())
    if work.mode == "stored":
        return stored
    if work.mode == "zstd":
        return _smaller(_zstd(data, work), stored)
    if work.mode == "model":
        found = _code(data, Mode.MODEL, work)
        assert found is not None, "a model's payload has room for any bytes"
        return found
    if work.mode in ("mixer", "mixed"):
        return _code(data, Mode[work.mode.upper()], work) or stored
    return _best(data, stored, work)


def decompress_frame(
    payload: bytes,
    *,
    mode: Mode,
    lanes: int,
    num_bytes: int,
    model: CodecModel | None,
    on_progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Decode what `compress_frame` gave, uint8 `[num_bytes]`.

    Raises:
        DamagedError: The payload is no zstd frame of this size, and nothing else.

    """
    if mode is Mode.STORED:
        return np.frombuffer(payload, np.uint8)
    if mode is Mode.ZSTD:
        return np.frombuffer(_unzstd(payload, num_bytes), np.uint8)
    array = np.frombuffer(payload, np.uint8)
    return frames.decode_all(frames.decoding(array, num_bytes, lanes, mode, model), on_progress)


def lanes_of(mode: Mode, num_bytes: int, wanted: int | None, model: CodecModel | None) -> int:
    """How many lanes a frame gets: as wanted, or what suits the model, and never an empty one."""
    suited = 1 if model is None or mode not in NEEDS_MODEL else model.lanes(num_bytes)
    return max(1, min(wanted or suited, num_bytes, MAX_LANES))


def _best(data: np.ndarray, stored: Payload, work: Work) -> Payload:
    mode, sample_share = _promising(data, work)
    # Always: a faster level, or a guess, misses what repeats far away in short pieces.
    best = _smaller(_zstd(data, work), stored)
    if min(sample_share, len(best.data) / len(data)) > _HOPELESS:
        return best
    try:
        coded = _code(data, mode, work)
    except CompressionError as error:
        _LOGGER.warning("%s; this frame is compressed with zstd instead", error)
        coded = None
    return best if coded is None else _smaller(coded, best)


def _smaller(first: Payload, second: Payload) -> Payload:
    return first if len(first.data) < len(second.data) else second


def _promising(data: np.ndarray, work: Work) -> tuple[Mode, float]:
    """Whether the model helps on a sample of the frame, and what is left of the sample."""
    if work.model is None and len(data) <= _SAMPLE_BYTES:
        return Mode.MIXER, 0.0
    size = max(1, min(_SAMPLE_BYTES, max(len(data) // 16, 256)))
    begin = max(0, (len(data) - size) // 2)
    sample = data[begin : begin + size]
    quiet = Work(work.mode, work.lanes, work.model, False, lambda _: None, work.cancelled)
    modes = [Mode.MIXER] if work.model is None else [Mode.MIXED, Mode.MIXER]
    sizes = []
    for mode in modes:
        found = _code(sample, mode, quiet)
        sizes.append(len(sample) if found is None else len(found.data))
    best = int(np.argmin(sizes))
    return modes[best], sizes[best] / len(sample)


def _code(data: np.ndarray, mode: Mode, work: Work) -> Payload | None:
    """Code a frame in this mode; None where it does not become smaller."""
    lanes = lanes_of(mode, len(data), work.lanes, work.model)
    coding = frames.encoding(data, lanes, mode, work.model)
    check = None
    if work.verify:
        follows = mode is Mode.MIXER or (work.model is not None and work.model.is_threaded)
        check = (_FollowingProof if follows else _LaterProof)(coding.frame, lanes, mode, work)
    try:
        for first, last in frames.segments(coding.frame):
            if work.cancelled.is_set():
                raise CancelledError
            coding.run(first, last)
            if frames.is_too_long(coding.frame, mode):
                return None
            work.on_progress(frames.coded_bytes(coding.frame, first, last))
            if check is not None:
                check.encoded(first, last)
        length = coder.finish(coding.frame.coder, coding.frame.buffer)
        # A decoder reads zeros past the end, so a payload may end in zeros that it needs not have.
        length = max(length, least_payload(len(data)))
        if check is not None:
            check.finish()
    finally:
        if check is not None:
            check.close()
    if length >= len(data) and mode is not Mode.MODEL:
        return None
    return Payload(mode, lanes, coding.frame.buffer[:length].tobytes())


class _LaterProof:
    """Decodes after the encoder is done: a float model answers to one thread at a time."""

    def __init__(self, frame: frames.Frame, lanes: int, mode: Mode, work: Work) -> None:
        self._frame, self._lanes, self._mode, self._work = frame, lanes, mode, work

    def encoded(self, first: int, last: int) -> None:
        """Note that the encoder has done these steps."""

    def finish(self) -> None:
        """Compare; the payload is complete."""
        frame, data = self._frame, self._frame.data
        found = frames.decoding(frame.buffer, len(data), self._lanes, self._mode, self._work.model)
        for first, last in frames.segments(frame):
            if self._work.cancelled.is_set():
                raise CancelledError
            found.run(first, last)
        _compare(found.frame.data, data, self._mode)

    def close(self) -> None:
        """Nothing is open."""


class _FollowingProof:
    """Decodes in a thread of its own, a segment behind the encoder.

    A decoder is `TAIL_BYTES` ahead of what it has shifted out, and an encoder shifts as often: so
    the bytes that decoding a segment reads are known when the encoder has written that many.
    """

    def __init__(self, frame: frames.Frame, lanes: int, mode: Mode, work: Work) -> None:
        self._frame, self._mode = frame, mode
        self._arguments = (len(frame.data), lanes, mode, work.model)
        self._waiting: list[tuple[int, int, int]] = []
        self._ready: queue.SimpleQueue[tuple[int, int] | None] = queue.SimpleQueue()
        self._decoded: np.ndarray | None = None
        self._is_abandoned = False
        self._error: BaseException | None = None
        self._thread: threading.Thread | None = None

    def encoded(self, first: int, last: int) -> None:
        """Note that the encoder has done these steps, and hand over what can be decoded now."""
        state = self._frame.coder
        self._waiting.append((first, last, int(state[coder.SHIFTS]) + coder.TAIL_BYTES))
        while self._waiting and self._waiting[0][2] <= state[coder.POSITION]:
            self._hand_over()

    def finish(self) -> None:
        """Wait for the rest and compare; the payload is complete."""
        while self._waiting:
            self._hand_over()
        self._join()
        if self._error is not None:
            raise self._error
        assert self._decoded is not None
        _compare(self._decoded, self._frame.data, self._mode)

    def close(self) -> None:
        """Stop the thread, whatever was handed over."""
        self._is_abandoned = True
        self._join()

    def _join(self) -> None:
        if self._thread is not None:
            self._ready.put(None)
            self._thread.join()
            self._thread = None

    def _hand_over(self) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._decode, daemon=True)
            self._thread.start()
        first, last, _ = self._waiting.pop(0)
        self._ready.put((first, last))

    def _decode(self) -> None:
        try:
            # The decoder's first bytes are known by now: the first segment was handed over.
            found = frames.decoding(self._frame.buffer, *self._arguments)
            while (steps := self._ready.get()) is not None and not self._is_abandoned:
                found.run(*steps)
            self._decoded = found.frame.data
        except BaseException as error:  # noqa: BLE001  raised again by `finish`
            self._error = error


def _compare(decoded: np.ndarray, data: np.ndarray, mode: Mode) -> None:
    if not np.array_equal(decoded, data):
        raise CompressionError(
            f"the mode {mode.name.lower()} did not give the same bytes back when it was verified: "
            "this machine does not compute the same twice (float models do not, beside others, "
            "or with changing numbers of threads); please report it"
        )


def _zstd(data: np.ndarray, work: Work) -> Payload:
    packed = b"".join(_zstd_pieces(data, work))
    if work.verify:
        _compare(np.frombuffer(_unzstd(packed, len(data)), np.uint8), data, Mode.ZSTD)
    return Payload(Mode.ZSTD, 1, packed)


def _zstd_pieces(data: np.ndarray, work: Work) -> Iterator[bytes]:
    """What zstd makes of a frame, with a look in between at whether anybody still wants it."""
    encoder = zstandard.ZstdCompressor(level=_ZSTD_LEVEL).compressobj(size=len(data))
    for begin in range(0, len(data), _ZSTD_PIECE_BYTES):
        if work.cancelled.is_set():
            raise CancelledError
        yield encoder.compress(data[begin : begin + _ZSTD_PIECE_BYTES].tobytes())
    yield encoder.flush()


def _unzstd(payload: bytes, num_bytes: int) -> bytes:
    """Decode a zstd frame that says that it holds exactly `num_bytes`."""
    try:
        claimed = zstandard.get_frame_parameters(payload).content_size
        if claimed != num_bytes:
            raise DamagedError(f"a zstd frame claims {claimed:,} bytes, expected {num_bytes:,}")
        found = zstandard.ZstdDecompressor().decompress(payload, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise DamagedError(f"a zstd frame cannot be decoded: {error}") from None
    # A frame to be skipped has a size as well, and gives nothing.
    if len(found) != num_bytes:
        raise DamagedError(f"a zstd frame gives {len(found):,} bytes, expected {num_bytes:,}")
    return found
