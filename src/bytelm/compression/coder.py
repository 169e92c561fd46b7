"""A range coder over integers: symbols with integer frequencies in, bytes out, and back.

The coder of Martin (1979, "Range encoding") with carries instead of a lost range: the state is a
56-bit interval [low, low + range), a symbol of frequency `size` out of 2**bits takes its share of
it, and a byte leaves at the top once range < 2**48. Frequencies have at most 24 bits, so that the
share that integer division loses is below 2**-24 of a symbol's probability. One code serves both
bytes (24 bits) and binary decisions (16 bits). The same operations on int64 values everywhere.

An encoder's end is the shortest string of bytes that stands for a number of its interval, a decoder
reads zeros past the end: it never fails, whatever it reads. Checksums are the container's matter.
"""

from typing import Final

import numpy as np

from bytelm.compression.kernels import Integer, kernel

FREQUENCY_BITS: Final = 24
"""The frequencies of a byte sum to 2**24."""

BIT_BITS: Final = 16
"""The probability of a binary decision is of 2**16."""

TAIL_BYTES: Final = 7
"""A decoder is this many bytes ahead of what decides its symbols."""

LOW: Final = 0
RANGE: Final = 1
CODE: Final = 2
"""Decoder: the number read, less `low`."""
POSITION: Final = 3
"""Bytes written, or read."""
CACHE: Final = 4
"""Encoder: the byte that a carry may still change, -1 before the first."""
PENDING: Final = 5
"""Encoder: bytes 0xFF after it, which a carry would change as well."""
SHIFTS: Final = 6
"""Bytes that left the interval at its top so far: the same number in encoder and decoder."""
STATE_SIZE: Final = 7

_WHOLE: Final = 1 << 56
_LEAST: Final = 1 << 48
_FULL_BYTE: Final = 0xFF << 48


def new_encoder() -> np.ndarray:
    """The state of an encoder that has coded nothing, int64 `[STATE_SIZE]`."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[RANGE], state[CACHE] = _WHOLE, -1
    return state


def new_decoder(payload: np.ndarray) -> np.ndarray:
    """The state of a decoder at the start of `payload`, uint8 `[n]`."""
    state = np.zeros(STATE_SIZE, np.int64)
    state[RANGE] = _WHOLE
    for _ in range(TAIL_BYTES):
        state[CODE] = (state[CODE] << 8) | _next_byte(state, payload)
    return state


def finish(state: np.ndarray, out: np.ndarray) -> int:
    """Write an encoder's end; the number of bytes of `out` that are the payload.

    `out` needs room for the bytes pending and eight more.
    """
    low, end = int(state[LOW]), int(state[LOW]) + int(state[RANGE])
    zeros, value = 56, (low + (1 << 56) - 1) >> 56 << 56
    while value >= end:
        zeros -= 1
        value = (low + (1 << zeros) - 1) >> zeros << zeros
    state[LOW] = value
    for _ in range(TAIL_BYTES + 1):
        shift(state, out)
    length = int(state[POSITION])
    while length and out[length - 1] == 0:
        length -= 1
    return length


@kernel
def shift(state: np.ndarray, out: np.ndarray) -> None:
    """Encoder: move the top byte out of the interval."""
    low = state[LOW]
    if low < _FULL_BYTE or low >= _WHOLE:
        carry, position = low >> 56, state[POSITION]
        if state[CACHE] >= 0:
            out[position] = (state[CACHE] + carry) & 0xFF
            position += 1
        for _ in range(state[PENDING]):
            out[position] = (0xFF + carry) & 0xFF
            position += 1
        state[POSITION], state[PENDING] = position, 0
        state[CACHE] = (low >> 48) & 0xFF
    else:
        state[PENDING] += 1
    state[LOW] = (low & (_LEAST - 1)) << 8
    state[RANGE] <<= 8
    state[SHIFTS] += 1


@kernel
def _next_byte(state: np.ndarray, payload: np.ndarray) -> Integer:
    position = state[POSITION]
    state[POSITION] = position + 1
    # np.int64: the interpreter would otherwise go on in the payload's eight bits
    return np.int64(payload[position] if position < payload.shape[0] else 0)


@kernel
def encode(
    state: np.ndarray, out: np.ndarray, start: Integer, size: Integer, bits: Integer
) -> None:
    """Code a symbol whose frequencies are [start, start + size) of 2**bits; size is at least 1."""
    share = state[RANGE] >> bits
    state[LOW] += share * start
    state[RANGE] = share * size
    while state[RANGE] < _LEAST:
        shift(state, out)


@kernel
def decode_target(state: np.ndarray, bits: Integer) -> Integer:
    """Decoder: a frequency inside of the next symbol's; call `decode_took` with that symbol."""
    target = state[CODE] // (state[RANGE] >> bits)
    return min(target, (1 << bits) - 1)


@kernel
def decode_took(
    state: np.ndarray, payload: np.ndarray, start: Integer, size: Integer, bits: Integer
) -> None:
    """Decoder: the symbol was that of [start, start + size)."""
    share = state[RANGE] >> bits
    # Below the range wherever an encoder wrote it; anything else must not grow for ever.
    state[CODE] = min(state[CODE] - share * start, share * size - 1)
    state[RANGE] = share * size
    while state[RANGE] < _LEAST:
        state[CODE] = (state[CODE] << 8) | _next_byte(state, payload)
        state[RANGE] <<= 8
        state[SHIFTS] += 1


@kernel
def encode_bit(state: np.ndarray, out: np.ndarray, p_one: Integer, bit: Integer) -> None:
    """Code a decision; `p_one` of 2**16, 1 to 2**16 - 1, is the probability of a one."""
    if bit:
        encode(state, out, 0, p_one, BIT_BITS)
    else:
        encode(state, out, p_one, (1 << BIT_BITS) - p_one, BIT_BITS)


@kernel
def decode_bit(state: np.ndarray, payload: np.ndarray, p_one: Integer) -> int:
    """The decision that `encode_bit` coded with this probability."""
    if state[CODE] < (state[RANGE] >> BIT_BITS) * p_one:
        decode_took(state, payload, 0, p_one, BIT_BITS)
        return 1
    decode_took(state, payload, p_one, (1 << BIT_BITS) - p_one, BIT_BITS)
    return 0
