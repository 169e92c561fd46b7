"""Products of int8 matrices with int16 vectors, in an order of weights that fills vector registers.

A packed matrix is int16 `[N / 64, K / 2, 64]`: of each 64 rows two columns, then the next two; N is
filled up to a multiple of 64, K to one of 4. Each int16 holds two weights, a of one row and b of
the row 16 further, as v = 256 b + a + 128. So v >> 8 is b, and because

    sum a x = sum v x - 256 sum b x - 128 sum x

a needs no unpacking: the first two sums are of int16 products, 32 of them in an instruction, and no
sum crosses a register (measured on a Zen 5: 200 weights a nanosecond; a plain loop over
rows, as numba compiles it: 50). Sums wrap around at 32 bits; those of a row do not reach that far,
`integer_model` proves it of its weights, so they are exact in whatever order.
Shape key: N rows, K columns.
"""

from collections.abc import Callable

import numpy as np

from bytelm.compression.kernels import BACKEND

ROWS = 64
"""Rows that are multiplied at once."""

COLUMNS = 4
"""Columns that are; also a vector that is multiplied has a multiple of this size, zeros last."""

LANES = 16
"""Rows of a vector register."""


def pack(weight: np.ndarray) -> np.ndarray:
    """The packed int16 `[N / 64, K / 2, 64]` of a matrix int8 `[N, K]`; zeros fill it up."""
    n, k = weight.shape
    padded = np.zeros((filled(n, ROWS), filled(k, COLUMNS)), np.int16)
    padded[:n, :k] = weight
    blocks, pairs = len(padded) // ROWS, padded.shape[1] // 2
    parts = padded.reshape(blocks, 2, 2, LANES, pairs, 2)
    both = 256 * parts[:, :, 1] + parts[:, :, 0] + 128
    return np.ascontiguousarray(both.transpose(0, 3, 1, 2, 4)).reshape(blocks, pairs, ROWS)


def filled(size: int, unit: int) -> int:
    """The next multiple of `unit`."""
    return -(-size // unit) * unit


def _multiply(packed: np.ndarray, vector: np.ndarray, out: np.ndarray) -> None:
    """`out = weight @ vector`: packed int16 `[N / 64, K / 2, 64]`, int16 `[K]`, int32 `[>= N]`."""
    blocks, pairs, _ = packed.shape
    parts = packed.reshape(blocks, pairs, 2, LANES, 2).astype(np.int32)
    weights = np.stack(((parts & 255) - 128, parts >> 8), axis=3)
    weights *= vector.reshape(pairs, 1, 1, 1, 2)
    out[: blocks * ROWS] = weights.sum((1, 5)).reshape(-1)


multiply: Callable[[np.ndarray, np.ndarray, np.ndarray], None] = _multiply

if BACKEND == "numba":
    from bytelm.compression import products_numba

    multiply = products_numba.multiply
