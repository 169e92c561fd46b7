"""Sigmoid and powers of two as integers, made of integers: the same bits on any machine."""

import functools
import math
from typing import Final

import numpy as np

SIGMOID_STEPS: Final = 256
"""Entries for one unit of the argument."""

SIGMOID_HALF: Final = 12 * SIGMOID_STEPS
"""Index of the argument 0. At 12 a sigmoid is within 2**-17 of 1; beyond, the table's ends hold."""

ONE_BITS: Final = 24
"""A sigmoid is over 2**24."""

EXP2_FRACTION_BITS: Final = 11
"""Arguments of `exp2` are over 2**11: rounding one costs less than 2**-12 bits."""

EXP2_BITS: Final = 26
"""2**0 is 2**26."""

_WORK_BITS: Final = 128
"""Fixed point of the calculation; its errors are far below half a unit of the tables."""


@functools.cache
def sigmoid_table() -> np.ndarray:
    """1 / (1 + exp(-a)) over 2**24 for a = (i - 3072) / 256, int32 `[6145]`, rounded to nearest."""
    one = 1 << _WORK_BITS
    step, values = _exp_minus_one_over(SIGMOID_STEPS), []
    power = one
    for _ in range(SIGMOID_HALF + 1):
        values.append(_divided(one << ONE_BITS, one + power))
        power = (power * step) >> _WORK_BITS
    below = [(1 << ONE_BITS) - value for value in values[:0:-1]]
    return _constant(below + values)


@functools.cache
def exp2_table() -> np.ndarray:
    """2**(-i / 2048) over 2**26 for i from 0 to 2047, int32, rounded to nearest."""
    root = 1 << (_WORK_BITS - 1)
    for _ in range(EXP2_FRACTION_BITS):
        root = math.isqrt(root << _WORK_BITS)
    power, values = 1 << _WORK_BITS, []
    for _ in range(1 << EXP2_FRACTION_BITS):
        values.append(_divided(power, 1 << (_WORK_BITS - EXP2_BITS)))
        power = (power * root) >> _WORK_BITS
    return _constant(values)


def _exp_minus_one_over(steps: int) -> int:
    """exp(-1 / steps) over 2**128, by its series."""
    total, term = 0, 1 << _WORK_BITS
    count = 0
    while term:
        total += -term if count % 2 else term
        count += 1
        term //= steps * count
    return total


def _divided(numerator: int, denominator: int) -> int:
    """The nearest integer; halves up."""
    return (2 * numerator + denominator) // (2 * denominator)


def _constant(values: list[int]) -> np.ndarray:
    table = np.array(values, np.int32)
    table.flags.writeable = False
    return table
