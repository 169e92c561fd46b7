"""Products of packed matrices. Oracle: NumPy's product of int64 matrices."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.compression import products

VERSIONS = [products.multiply, products._multiply]


def product(multiply, weight: np.ndarray, vector: np.ndarray) -> np.ndarray:
    n, k = weight.shape
    filled = np.zeros(products.filled(k, products.COLUMNS), np.int16)
    filled[:k] = vector
    out = np.full(products.filled(n, products.ROWS) + 3, -7, np.int32)
    multiply(products.pack(weight), filled, out)
    assert (out[-3:] == -7).all()
    assert (out[n:-3] == 0).all()
    return out[:n]


@given(st.integers(1, 150), st.integers(1, 70), st.integers(0, 2**32 - 1))
def test_a_product_is_that_of_int64(n, k, seed):
    random = np.random.default_rng(seed)
    weight = random.integers(-127, 128, (n, k)).astype(np.int8)
    vector = random.integers(-32768, 32768, k).astype(np.int16)
    expected = weight.astype(np.int64) @ vector.astype(np.int64)
    for multiply in VERSIONS:
        assert np.array_equal(product(multiply, weight, vector), expected)


@pytest.mark.parametrize("weight", [-128, -127, 0, 1, 127])
@pytest.mark.parametrize("value", [-32768, -1, 1, 32767])
def test_the_largest_factors(weight, value):
    # 500 * 128 * 32768 is close to 2**31; the two sums it is made of are far beyond and wrap.
    weights = np.full((64, 500), weight, np.int8)
    weights[::3] *= -1 if weight > -128 else 1
    vector = np.full(500, value, np.int16)
    expected = weights.astype(np.int64) @ vector.astype(np.int64)
    assert abs(expected).max() < 2**31
    for multiply in VERSIONS:
        assert np.array_equal(product(multiply, weights, vector), expected)


def test_packing_by_hand():
    weight = np.zeros((64, 4), np.int8)
    weight[0] = [1, 2, 3, 4]
    weight[16] = [-5, 6, -7, 8]
    packed = products.pack(weight)
    assert packed.shape == (1, 2, 64)
    assert packed[0, :, :2].tolist() == [[256 * -5 + 129, 256 * 6 + 130], [-1661, 256 * 8 + 132]]
    assert (packed[0, :, 2:] == 128).all()
