"""Oracles: hand-computed cases, coverage on data of known truth, scipy's BCa."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bytelm.evaluation.statistics import bootstrap_ratio, holm, paired_difference


def _documents(generator: np.random.Generator, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Documents of 500 to 4,000 bytes that cost 2 bits per byte on average."""
    sizes = generator.integers(500, 4000, size=count)
    return sizes * generator.gamma(shape=8, scale=2 / 8, size=count), sizes


def test_equal_ratios_give_an_interval_of_width_zero():
    sizes = np.array([10, 200, 3000])
    assert bootstrap_ratio(2.5 * sizes, sizes) == pytest.approx((2.5, 2.5))


def test_coverage_is_near_the_nominal_95_percent():
    generator = np.random.default_rng(7)
    trials = 300
    hits = 0
    for trial in range(trials):
        bits, sizes = _documents(generator, count=30)
        low, high = bootstrap_ratio(bits, sizes, replicates=500, seed=trial)
        hits += low <= 2.0 <= high
    # Binomial(300, 0.95) has a standard deviation of 1.3 %; 30 documents cost about 2 % more.
    assert 0.89 <= hits / trials <= 0.99


def test_agrees_with_scipys_bca():
    bits, sizes = _documents(np.random.default_rng(3), count=40)

    def ratio(bits: np.ndarray, sizes: np.ndarray, axis: int) -> np.ndarray:
        return bits.sum(axis=axis) / sizes.sum(axis=axis)

    expected = stats.bootstrap(
        (bits, sizes), ratio, paired=True, method="BCa", n_resamples=5000, rng=1
    ).confidence_interval
    assert bootstrap_ratio(bits, sizes, replicates=5000) == pytest.approx(
        tuple(expected), abs=0.1 * (expected.high - expected.low)
    )


def test_same_seed_same_interval_and_wider_confidence_is_wider():
    bits, sizes = _documents(np.random.default_rng(0), count=12)
    assert bootstrap_ratio(bits, sizes, seed=5) == bootstrap_ratio(bits, sizes, seed=5)
    narrow = bootstrap_ratio(bits, sizes, confidence=0.8)
    wide = bootstrap_ratio(bits, sizes, confidence=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_many_documents_in_bounded_memory_give_the_normal_interval():
    bits, sizes = _documents(np.random.default_rng(1), count=20_000)
    low, high = bootstrap_ratio(bits, sizes, replicates=400)
    value = bits.sum() / sizes.sum()
    standard_error = np.sqrt(((bits - value * sizes) ** 2).sum()) / sizes.sum()
    assert high - low == pytest.approx(2 * 1.96 * standard_error, rel=0.15)


def test_paired_difference_sees_what_separate_intervals_cannot():
    generator = np.random.default_rng(2)
    bits, sizes = _documents(generator, count=40)
    better = bits - 0.05 * sizes + generator.normal(0, 0.02, size=40) * sizes
    result = paired_difference(better, bits, sizes)
    assert result.difference == pytest.approx(-0.05, abs=0.01)
    assert result.interval[0] < result.difference < result.interval[1] < 0
    assert result.p_value < 0.01
    assert bootstrap_ratio(better, sizes)[1] > bootstrap_ratio(bits, sizes)[0]


def test_a_model_against_itself_is_no_difference():
    bits, sizes = _documents(np.random.default_rng(2), count=9)
    result = paired_difference(bits, bits, sizes)
    assert (result.difference, result.interval, result.p_value) == (0, (0, 0), 1)


def test_sign_flip_p_value_by_hand():
    # Of the 8 sign patterns of (1, 1, 1), two reach |sum| = 3: p = 1/4.
    ones = np.ones(3)
    result = paired_difference(2 * ones, ones, ones, replicates=4000)
    assert result.p_value == pytest.approx(0.25, abs=0.03)


@pytest.mark.parametrize(
    ("numerators", "denominators", "message"),
    [
        ([1.0], [1], "at least 2 units"),
        ([1.0, 2.0], [1, 0], "above 0"),
        ([1.0, np.inf], [1, 1], "finite"),
        ([1.0, 2.0], [1, 1, 1], "one length"),
    ],
)
def test_bad_arguments_are_named(numerators, denominators, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_ratio(np.array(numerators), np.array(denominators))


# --- families of tests -------------------------------------------------------------------------


def test_holm_by_hand():
    """0.01 is multiplied by 3, 0.03 by 2, 0.04 by 1, and no later one is below an earlier one."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=8), st.floats(0.001, 0.5))
def test_holm_rejects_what_its_definition_rejects(p_values, level):
    """Step down: the smallest against level / n, the next against level / (n - 1), to the first
    that fails."""
    order = sorted(range(len(p_values)), key=lambda index: p_values[index])
    rejected = set()
    for place, index in enumerate(order):
        if p_values[index] * (len(p_values) - place) > level:
            break
        rejected.add(index)
    adjusted = holm(p_values)
    assert {index for index, value in enumerate(adjusted) if value <= level} == rejected
    assert all(value >= before for value, before in zip(adjusted, p_values, strict=True))
