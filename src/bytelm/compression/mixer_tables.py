"""The fixed tables of the mixer: logistic scale, bit histories, divisions. All made in integers.

The logistic scale: a probability p of 2**16 is `stretch`ed to ln(p / (1 - p)) in units of
1/256, and `squash` goes back. Both come from exponentials worked out in long integers, so they are
the same numbers on every machine.
"""

import functools
from typing import Final, TypeAlias

import numpy as np

UNIT: Final = 256
"""Steps of the logistic scale for a factor e of the odds."""

LIMIT: Final = 2840
"""The end of the logistic scale: the odds of 2**16 - 1 to 1 are e**(2839 / 256)."""

_FRACTION_BITS: Final = 160
_ONE: Final = 1 << _FRACTION_BITS


def _exp_of_step() -> int:
    """e**(1 / UNIT) as an integer over 2**_FRACTION_BITS, by its series."""
    term, total, k = _ONE, 0, 0
    while term:
        total += term
        k += 1
        term //= k * UNIT
    return total


@functools.cache
def squash_table() -> np.ndarray:
    """Probability of 2**16 at each point of the scale, int32 `[2 * LIMIT + 1]`, from -LIMIT.

    At least 1 and at most 2**16 - 1.
    """
    step, odds = _exp_of_step(), _ONE
    upper = []
    for _ in range(LIMIT + 1):
        exact = ((odds << 17) // (odds + _ONE) + 1) >> 1
        upper.append(min(exact, (1 << 16) - 1))
        odds = (odds * step) >> _FRACTION_BITS
    lower = [(1 << 16) - p for p in upper[:0:-1]]
    return np.array(lower + upper, np.int32)


@functools.cache
def stretch_table() -> np.ndarray:
    """Point of the scale whose squash is next to a probability of 2**16, int32 `[2**16]`.

    The lower half mirrors the upper one; 0 is taken for 1.
    """
    squashed = squash_table()[LIMIT:].astype(np.int64)
    wanted = np.arange(1 << 15, 1 << 16, dtype=np.int64)
    above = np.clip(np.searchsorted(squashed, wanted), 1, LIMIT)
    nearer_below = wanted - squashed[above - 1] < squashed[above] - wanted
    upper = above - nearer_below
    return np.concatenate([-upper[-1:], -upper[:0:-1], upper]).astype(np.int32)


# -- Bit histories --------------------------------------------------------------------------------

_ORDERED_LENGTH: Final = 3
"""Histories up to this length are kept bit for bit, longer ones as two counts and the last bit."""

_CAPS: Final = (42, 40, 20, 10, 7, 6)
"""The larger count's cap by the smaller count: certainty is worth more states than a muddle."""

_History: TypeAlias = tuple[int, ...]
"""The bits themselves (first to last), or (-1, zeros, ones, last bit)."""


def _after(history: _History, bit: int) -> _History:
    """The history with one more bit, as far as it can be kept."""
    if history[:1] != (-1,):
        if len(history) < _ORDERED_LENGTH:
            return (*history, bit)
        counts = [history.count(0), history.count(1)]
    else:
        counts = [history[1], history[2]]
    other = counts[1 - bit]
    if other > 2:  # A surprise: most of what spoke against it is out of date.
        counts[1 - bit] = other.bit_length()
    if counts[bit] < _cap(counts[1 - bit]):
        counts[bit] += 1
    counts[1 - bit] = min(counts[1 - bit], _cap(counts[bit]))
    return (-1, counts[0], counts[1], bit)


def _cap(other: int) -> int:
    return _CAPS[other] if other < len(_CAPS) else len(_CAPS) - 1


def _counts(history: _History) -> tuple[int, int]:
    if history[:1] == (-1,):
        return history[1], history[2]
    return history.count(0), history.count(1)


@functools.cache
def histories() -> tuple[_History, ...]:
    """Every history that can come up, the shorter first; number 0 is the empty one."""
    found: list[_History] = [()]
    known: set[_History] = {()}
    for history in found:
        for bit in (0, 1):
            after = _after(history, bit)
            if after not in known:
                known.add(after)
                found.append(after)
    return tuple(sorted(found, key=lambda h: (sum(_counts(h)), h)))


@functools.cache
def next_history_table() -> np.ndarray:
    """Number of the history after another one and a bit, uint8 `[2 * histories]`, bit last."""
    number = {history: i for i, history in enumerate(histories())}
    after = [number[_after(history, bit)] for history in histories() for bit in (0, 1)]
    return np.array(after, np.int64).astype(np.uint8)


@functools.cache
def history_probabilities() -> np.ndarray:
    """First guess of a one after each history, of 2**22, int32 `[256]`."""
    guess = np.full(256, 1 << 21, np.int32)
    for i, history in enumerate(histories()):
        zeros, ones = _counts(history)
        guess[i] = ((2 * ones + 1) << 22) // (2 * (zeros + ones) + 2)
    return guess
