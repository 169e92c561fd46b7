"""Oracles: the published SplitMix64 sequence, and the definition of a permutation."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import shuffle
from bytelm.data.shuffle import Purpose, keyed_hash, keyed_permutation


def test_the_mixing_function_is_splitmix64():
    """The first three outputs of the reference implementation for the seed 1234567."""
    states = np.uint64(1234567) + np.arange(1, 4, dtype=np.uint64) * np.uint64(shuffle._GAMMA)
    expected = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    assert shuffle._mix(states).tolist() == expected


@given(size=st.integers(0, 300), seed=st.integers(0, 2**70), stream=st.integers(0, 2**40))
def test_a_permutation_has_each_index_once(size, seed, stream):
    order = keyed_permutation(size, seed=seed, purpose=Purpose.ROWS, stream=stream)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(size))


def test_seed_purpose_and_stream_each_change_the_order():
    orders = {
        tuple(keyed_permutation(50, seed=seed, purpose=purpose, stream=stream).tolist())
        for seed in (0, 1, 2)
        for purpose in Purpose
        for stream in (0, 1, 2)
    }
    assert len(orders) == 3 * len(Purpose) * 3


def test_every_order_is_as_likely_as_any_other():
    """Chi-square of the 6 orders of 3 things over 6,000 seeds: 5 degrees of freedom, p = 0.001."""
    counts = np.zeros((3, 3, 3))
    for seed in range(6000):
        counts[tuple(keyed_permutation(3, seed=seed, purpose=Purpose.ROWS))] += 1
    observed = counts[counts > 0]
    assert len(observed) == 6
    assert ((observed - 1000) ** 2 / 1000).sum() < 20.5


def test_negative_keys_are_refused():
    with pytest.raises(ValueError, match="got -1 and 0"):
        keyed_hash(np.arange(3), seed=-1, purpose=Purpose.ROWS)
