"""One frame: raw bytes to a payload and back, by the mixer, by a model, or by both.

A frame is cut into lanes of equal length (the first ones are a byte longer where it does not come
out even). Step t codes byte t of each lane in turn, through one coder: all that adapts is shared by
the lanes, and learns from one before the next. Encoder and decoder are the same kernels in the same
order; a flag says which.
Shape key: n bytes of the frame, L lanes.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np

from bytelm.compression import coder
from bytelm.compression.container import Mode, Profile, payload_limit
from bytelm.compression.kernels import Integer, kernel
from bytelm.compression.mixer import Mixer, code_byte, new_mixer

SEGMENT_BYTES = 1 << 14
"""Bytes between two looks at the clock, at the size so far, and at the verification."""

_MARGIN_BYTES = 16 * SEGMENT_BYTES + 64
"""What one segment can add at most: sixteen bits a decision, eight decisions a byte."""


class Frame(NamedTuple):
    """What the kernels of a frame share."""

    coder: np.ndarray
    """The range coder's state, int64 `[STATE_SIZE]`."""

    buffer: np.ndarray
    """uint8: the payload, written by an encoder and read by a decoder."""

    data: np.ndarray
    """uint8 `[n]`: the raw bytes, read by an encoder and written by a decoder."""

    lane_begins: np.ndarray
    """int64 `[L + 1]`."""


@runtime_checkable
class Coding(Protocol):
    """The middle of coding a frame, in one direction."""

    frame: Frame

    def run(self, first: int, last: int) -> None:
        """Code the steps `first` to `last`."""
        ...


@runtime_checkable
class CodecModel(Protocol):
    """A model as the codec sees it: integer frequencies of the next byte of each lane."""

    profile: Profile
    kind: str
    fingerprint: bytes
    """BLAKE2b-128 of all that its predictions depend on."""

    num_bytes: int
    """What the model itself takes."""

    environment: dict[str, str | int]
    """What its arithmetic depends on; empty where it is exact."""

    is_threaded: bool
    """Whether several threads may code with it at once."""

    def probe(self) -> bytes:
        """Digest of its frequencies on a fixed text."""
        ...

    def lanes(self, num_bytes: int) -> int:
        """How many lanes a frame of so many bytes gets unless somebody asks for others."""
        ...

    def coding(self, frame: "Frame", mixer: Mixer | None, *, decoding: bool) -> Coding:
        """Begin to code a frame, with the mixer or alone."""
        ...


def lane_begins(num_bytes: int, lanes: int) -> np.ndarray:
    """Where each lane begins and the last one ends, int64 `[L + 1]`."""
    index = np.arange(lanes + 1)
    return index * (num_bytes // lanes) + np.minimum(index, num_bytes % lanes)


def encoding(data: np.ndarray, lanes: int, mode: Mode, model: CodecModel | None) -> Coding:
    """Begin to encode `data`, uint8 `[n]`, n >= 1."""
    room = np.zeros(payload_room(len(data), mode) + _MARGIN_BYTES, np.uint8)
    # Copies: an array that may not be written to is another type, and would be compiled again.
    frame = Frame(coder.new_encoder(), room, data.copy(), lane_begins(len(data), lanes))
    return _coding(frame, mode, model, decoding=False)


def decoding(
    payload: np.ndarray, num_bytes: int, lanes: int, mode: Mode, model: CodecModel | None
) -> Coding:
    """Begin to decode `num_bytes` bytes from `payload`, uint8."""
    data = np.zeros(num_bytes, np.uint8)
    writable = payload if payload.flags.writeable else payload.copy()
    frame = Frame(coder.new_decoder(writable), writable, data, lane_begins(num_bytes, lanes))
    return _coding(frame, mode, model, decoding=True)


def payload_room(num_bytes: int, mode: Mode) -> int:
    """The most bytes that a payload of this mode may take: a model alone may be far off."""
    return payload_limit(num_bytes) if mode is Mode.MODEL else num_bytes


def is_too_long(frame: Frame, mode: Mode) -> bool:
    """Whether an encoder has written more than `payload_room`, its end left out."""
    written = int(frame.coder[coder.POSITION] + frame.coder[coder.PENDING])
    return written > payload_room(len(frame.data), mode)


def segments(frame: Frame) -> Iterator[tuple[int, int]]:
    """First and last step of each piece of work."""
    lanes = len(frame.lane_begins) - 1
    steps = -(-len(frame.data) // lanes)
    size = max(1, SEGMENT_BYTES // lanes)
    for first in range(0, steps, size):
        yield first, min(first + size, steps)


def coded_bytes(frame: Frame, first: int, last: int) -> int:
    """How many raw bytes the steps `first` to `last` code."""
    lanes, num_bytes = len(frame.lane_begins) - 1, len(frame.data)
    return min(last * lanes, num_bytes) - min(first * lanes, num_bytes)


def decode_all(coding: Coding, on_progress: Callable[[int], None] | None = None) -> np.ndarray:
    """Run a decoder to its end; the raw bytes, uint8 `[n]`."""
    for first, last in segments(coding.frame):
        coding.run(first, last)
        if on_progress is not None:
            on_progress(coded_bytes(coding.frame, first, last))
    return coding.frame.data


def _coding(frame: Frame, mode: Mode, model: CodecModel | None, *, decoding: bool) -> Coding:
    mixer = None
    if mode is not Mode.MODEL:
        has_model = mode is Mode.MIXED
        mixer = new_mixer(len(frame.data), frame.lane_begins, has_model=has_model)
    if mode is Mode.MIXER:
        assert mixer is not None
        return _MixerCoding(frame, mixer, decoding)
    assert model is not None, "this mode needs a model"
    return model.coding(frame, mixer, decoding=decoding)


class _MixerCoding:
    """The mixer alone."""

    def __init__(self, frame: Frame, mixer: Mixer, decoding: bool) -> None:
        self.frame, self._mixer, self._decoding = frame, mixer, decoding
        self._row = np.zeros(0, np.int32)

    def run(self, first: int, last: int) -> None:
        _run_mixer(self.frame, self._mixer, self._row, first, last, self._decoding)


@kernel
def _run_mixer(
    frame: Frame, mixer: Mixer, row: np.ndarray, first: int, last: int, decoding: bool
) -> None:
    begins = frame.lane_begins
    for step in range(first, last):
        for lane in range(begins.shape[0] - 1):
            if begins[lane] + step < begins[lane + 1]:
                code_byte(mixer, frame.coder, frame.buffer, frame.data, lane, step, row, decoding)


@kernel
def step_mixed(frame: Frame, mixer: Mixer, rows: np.ndarray, step: int, decoding: bool) -> None:
    """Code one byte of each lane by the mixer and the frequencies of each, int32 `[L, 256]`."""
    begins = frame.lane_begins
    for lane in range(begins.shape[0] - 1):
        if begins[lane] + step < begins[lane + 1]:
            row = rows[lane]
            code_byte(mixer, frame.coder, frame.buffer, frame.data, lane, step, row, decoding)


@kernel
def step_alone(frame: Frame, rows: np.ndarray, step: int, decoding: bool) -> None:
    """Code one byte of each lane by the frequencies of each, int32 `[L, 256]`."""
    begins = frame.lane_begins
    for lane in range(begins.shape[0] - 1):
        at = begins[lane] + step
        if at < begins[lane + 1]:
            code_symbol(frame, rows[lane], at, decoding)


@kernel
def code_symbol(frame: Frame, row: np.ndarray, at: Integer, decoding: bool) -> None:
    """Code the byte at `at` by the frequencies of `row`, int32 `[256]`, which sum to 2**24."""
    value = start = 0
    if decoding:
        target = coder.decode_target(frame.coder, coder.FREQUENCY_BITS)
        while start + np.int64(row[value]) <= target:
            start += np.int64(row[value])
            value += 1
        size = np.int64(row[value])
        coder.decode_took(frame.coder, frame.buffer, start, size, coder.FREQUENCY_BITS)
        frame.data[at] = value
    else:
        for index in range(np.int64(frame.data[at])):
            start += np.int64(row[index])
        size = np.int64(row[frame.data[at]])
        coder.encode(frame.coder, frame.buffer, start, size, coder.FREQUENCY_BITS)
