import math

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from bytelm.models.fixed_point import ENTROPY_BITS, LOG_BITS, ONE, entropy_term, log2


@given(st.integers(1, 1 << 52))
def test_log2_is_within_its_bound(value):
    got = int(log2(np.array([value]))[0]) / (1 << LOG_BITS)
    assert abs(got - math.log2(value)) < 2**-22


def test_log2_of_powers_of_two_is_exact():
    assert log2(1 << np.arange(53)).tolist() == [i << LOG_BITS for i in range(53)]


def test_entropy_terms_of_a_uniform_distribution_add_up_to_eight_bits():
    assert entropy_term(np.full(256, ONE // 256)).sum() == 8 << ENTROPY_BITS
