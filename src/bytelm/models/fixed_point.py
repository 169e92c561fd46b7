"""Logarithms and entropies in integers: the same bits on any machine.

A probability is an integer over 2**30, a logarithm is to base 2 over 2**24.
"""

import functools

import numpy as np

ONE_BITS = 30
ONE = 1 << ONE_BITS
"""The probability 1."""

LOG_BITS = 24
ENTROPY_BITS = 28
"""An entropy, in bits, is an integer over 2**28: products with a probability fit 64 bits."""

_TABLE_BITS = 12
"""Steps between powers of two; interpolation between them is within 2**-26."""


def log2(values: np.ndarray) -> np.ndarray:
    """Logarithm to base 2 of integers from 1 to 2**52, over 2**24; within 2**-22."""
    mantissa, exponent = np.frexp(values.astype(np.float64))  # exact: no rounding, no libm
    place = (mantissa * (2 << _TABLE_BITS)) - (1 << _TABLE_BITS)
    index = place.astype(np.int64)
    part = ((place - index) * (1 << LOG_BITS)).astype(np.int64)
    table = _log2_table()
    low = table[index]
    between = ((table[index + 1] - low) * part) >> LOG_BITS
    return ((exponent.astype(np.int64) - 1) << LOG_BITS) + low + between


def entropy_term(probs: np.ndarray) -> np.ndarray:
    """-p log2 p over 2**28, of probabilities over 2**30."""
    bits = (ONE_BITS << LOG_BITS) - log2(probs)
    return (probs * bits) >> (ONE_BITS + LOG_BITS - ENTROPY_BITS)


@functools.cache
def _log2_table() -> np.ndarray:
    """log2 of 1 + i / 4096 over 2**24, digit by digit: square, and see whether it passes 2."""
    fraction_bits = 31
    steps = np.arange(1 << _TABLE_BITS, dtype=np.uint64)
    x = np.uint64(1 << fraction_bits) + (steps << np.uint64(fraction_bits - _TABLE_BITS))
    digits = np.zeros(len(x), np.int64)
    for _ in range(LOG_BITS):
        x = (x * x) >> np.uint64(fraction_bits)
        passed = x >> np.uint64(fraction_bits + 1)
        digits = (digits << 1) | passed.astype(np.int64)
        x >>= passed
    return np.append(digits, 1 << LOG_BITS)
