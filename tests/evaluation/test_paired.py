"""Oracles: scipy, published examples, hand values, coverage on data of known truth."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from bytelm.evaluation.paired import (
    RightAndWrong,
    Verdict,
    clustered_interval,
    cohen_h,
    compare_right,
    hierarchical_bootstrap,
    judge,
    mcnemar_exact,
    odds_ratio,
    paired_bootstrap,
    wilson_interval,
)
from bytelm.evaluation.statistics import paired_difference


def right_rows(both: int, only_first: int, only_second: int, neither: int) -> list[np.ndarray]:
    """Which rows each of two models has right, from the four counts."""
    counts = (both, only_first, only_second, neither)
    return [np.repeat(which, counts) for which in ([1, 1, 0, 0], [1, 0, 1, 0])]


# --- proportions -------------------------------------------------------------------------------


@given(st.integers(1, 3000), st.floats(0, 1), st.sampled_from([0.5, 0.9, 0.95, 0.99]))
def test_wilson_is_scipys(trials, share, confidence):
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    found = wilson_interval(successes, trials, confidence=confidence)
    assert found == pytest.approx(tuple(expected), abs=1e-12)


def test_wilson_of_nothing_and_of_everything():
    """By hand: 0 of n gives 0 to z^2 / (n + z^2)."""
    z_squared = stats.norm.ppf(0.975) ** 2
    assert wilson_interval(0, 10) == (0, pytest.approx(z_squared / (10 + z_squared)))
    assert wilson_interval(10, 10) == (pytest.approx(10 / (10 + z_squared)), 1)


@pytest.mark.parametrize(("successes", "trials"), [(0, 0), (3, 2), (-1, 2), (math.nan, 2)])
def test_wilson_refuses_what_is_no_share(successes, trials):
    with pytest.raises(ValueError, match="successes <= trials"):
        wilson_interval(successes, trials)


def test_confidence_has_to_be_a_share():
    with pytest.raises(ValueError, match="between 0 and 1, got 95"):
        wilson_interval(1, 2, confidence=95)


def test_trials_that_agree_within_a_row_count_as_one():
    """By hand: 100 rows of 7 equal characters have the spread of 99 independent trials."""
    right = np.repeat([0, 7], [30, 70])
    assert clustered_interval(right, np.full(100, 7)) == pytest.approx(wilson_interval(69.3, 99))
    everything = clustered_interval(np.full(100, 7), np.full(100, 7))
    assert everything == wilson_interval(100, 100)


def test_rows_without_trials_do_not_count():
    right, total = np.array([3, 0, 1, 2]), np.array([3, 0, 2, 2])
    assert clustered_interval(right, total) == clustered_interval(
        right[total > 0], total[total > 0]
    )


@pytest.mark.parametrize(("right", "total"), [([0], [0]), ([2], [1])])
def test_rows_that_are_no_trials_are_refused(right, total):
    with pytest.raises(ValueError, match="at least one trial"):
        clustered_interval(np.array(right), np.array(total))


def test_clustered_interval_covers_the_truth_where_wilson_does_not():
    """One row in twenty has all of its 9 characters right with probability 1/2 only."""
    generator = np.random.default_rng(0)
    draws, rows, truth = 400, 300, 1 - 0.05 / 2
    covered = {"rows": 0, "characters": 0}
    for _ in range(draws):
        lost = generator.random(rows) < 0.05 / 2
        right = np.where(lost, 0, 9)
        for name, (low, high) in {
            "rows": clustered_interval(right, np.full(rows, 9)),
            "characters": wilson_interval(int(right.sum()), 9 * rows),
        }.items():
            covered[name] += low <= truth <= high
    # Binomial(400, 0.95) has a standard deviation of 1.1 %.
    assert 0.91 <= covered["rows"] / draws <= 0.99
    assert covered["characters"] / draws < 0.7


# --- two models, right or wrong ----------------------------------------------------------------


@given(st.integers(0, 600), st.integers(0, 600))
def test_mcnemar_is_scipys_exact_test(only_first, only_second):
    rows = only_first + only_second
    expected = stats.binomtest(only_first, rows).pvalue if rows else 1.0
    assert mcnemar_exact(only_first, only_second) == pytest.approx(expected, rel=1e-9)


def test_mcnemar_by_hand():
    """5 of 5 to one side: 2 / 2^5. One of 3: 2 (1 + 3) / 2^3, at most 1."""
    assert mcnemar_exact(5, 0) == 1 / 16
    assert mcnemar_exact(1, 2) == 1
    assert mcnemar_exact(0, 0) == 1
    with pytest.raises(ValueError, match="got -1 and 2"):
        mcnemar_exact(-1, 2)


def test_mcnemar_of_more_rows_than_a_float_can_count():
    # 2^4000 is no float; what it divides is.
    assert mcnemar_exact(1900, 2100) == pytest.approx(stats.binomtest(1900, 4000).pvalue, rel=1e-9)
    assert mcnemar_exact(0, 5000) == 0


@pytest.mark.parametrize(
    ("counts", "published"),
    [
        # Fagerland, Lydersen and Laake (2017), "Statistical analysis of contingency tables".
        ((59, 6, 16, 80), (-0.1186, -0.0046)),
        # The same authors (2014), Statistics in Medicine 33: airways before and after transplants.
        ((1, 1, 7, 12), (-0.507, -0.026)),
    ],
)
def test_interval_of_a_paired_difference_as_published(counts, published):
    found = compare_right(*right_rows(*counts))
    assert found.interval == pytest.approx(published, abs=0.0005)


def test_comparison_by_hand():
    found = compare_right(*right_rows(5, 3, 1, 1))
    assert found.difference == pytest.approx(0.2)
    assert (found.both, found.only_first, found.only_second, found.neither) == (5, 3, 1, 1)
    assert found.num_rows == 10
    assert found.p_value == 0.625  # 2 (1 + 4) / 2^4
    assert found.odds_ratio == 3.5 / 1.5
    assert found.cohen_h == pytest.approx(cohen_h(0.8, 0.6))


ROWS = st.integers(0, 60)


@given(ROWS, ROWS, ROWS, ROWS)
def test_the_other_model_first_turns_every_sign(both, only_first, only_second, neither):
    if both + only_first + only_second + neither == 0:
        return
    first, second = right_rows(both, only_first, only_second, neither)
    there, back = compare_right(first, second), compare_right(second, first)
    assert there.difference == -back.difference
    assert there.interval == pytest.approx((-back.interval[1], -back.interval[0]), abs=1e-12)
    assert there.p_value == back.p_value
    assert there.odds_ratio == pytest.approx(1 / back.odds_ratio)
    assert there.cohen_h == pytest.approx(-back.cohen_h)
    low, high = there.interval
    assert -1 <= low <= there.difference <= high <= 1


def test_two_models_that_are_never_wrong_differ_by_nothing_within_a_width():
    found = compare_right(*right_rows(200, 0, 0, 0))
    assert (found.difference, found.p_value) == (0, 1)
    assert found.interval[0] < 0 < found.interval[1]


@pytest.mark.parametrize(("one", "other"), [(0.004, 0.004), (0.03, 0.002)])
def test_interval_and_test_hold_what_they_promise(one, other):
    """2,000 rows, few of them wrong; the models agree on most rows."""
    generator = np.random.default_rng(1)
    draws = 400
    table = generator.multinomial(2000, [0.95, one, other, 0.05 - one - other], size=draws)
    found = [compare_right(*right_rows(*row)) for row in table.tolist()]
    covered = sum(low <= one - other <= high for low, high in (one.interval for one in found))
    assert 0.92 <= covered / draws <= 0.985
    shown = sum(result.p_value < 0.05 for result in found) / draws
    assert shown <= 0.07 if one == other else shown == 1


def test_rows_that_are_not_the_same_are_refused():
    with pytest.raises(ValueError, match="the same rows twice"):
        compare_right(np.ones(3, bool), np.ones(2, bool))
    with pytest.raises(ValueError, match="the same rows twice"):
        compare_right(np.ones(0, bool), np.ones(0, bool))


def test_effect_sizes_by_hand():
    """Half and a quarter: 2 arcsin of their roots are pi / 2 and pi / 3."""
    assert cohen_h(0.5, 0.25) == pytest.approx(math.pi / 6)
    assert odds_ratio(0, 0) == 1
    assert odds_ratio(7, 1) == 5


# --- two models, a score for each row ----------------------------------------------------------


def test_paired_bootstrap_is_the_paired_difference_of_means():
    generator = np.random.default_rng(5)
    second = generator.poisson(2, size=80).astype(float)
    first = second + generator.normal(0.5, 1, size=80)
    found = paired_bootstrap(first, second)
    assert found == paired_difference(first, second, np.ones(80))
    expected = stats.bootstrap(
        (first - second,), np.mean, method="BCa", n_resamples=5000, rng=1
    ).confidence_interval
    assert found.interval == pytest.approx(tuple(expected), abs=0.04)
    assert found.p_value == pytest.approx(stats.ttest_rel(first, second).pvalue, abs=0.01)


def test_denominators_make_a_rate_of_characters():
    edits, sizes = np.array([1.0, 0.0, 5.0]), np.array([10, 20, 70])
    assert paired_bootstrap(edits, np.zeros(3), denominators=sizes).difference == 6 / 100


# --- seeds and rows ----------------------------------------------------------------------------


def trained(
    generator: np.random.Generator, *, seeds: int, luck: float, rows: np.ndarray, noise: float
) -> np.ndarray:
    """Scores of a model whose true figure is 0, `[seeds, rows]`."""
    lucky = generator.normal(0, luck, size=(seeds, 1))
    return lucky + rows + generator.normal(0, noise, size=(seeds, len(rows)))


@pytest.mark.parametrize("luck", [0.0, 0.05, 0.5], ids=["rows alone", "both", "seeds alone"])
@pytest.mark.parametrize("seeds", [2, 3])
def test_an_interval_over_seeds_and_rows_covers_the_truth(seeds, luck):
    generator = np.random.default_rng(3)
    draws, covered, shown = 300, 0, 0
    for draw in range(draws):
        rows = generator.normal(0, 1, size=150)
        first = trained(generator, seeds=seeds, luck=luck, rows=rows, noise=0.5)
        second = trained(generator, seeds=seeds, luck=luck / 2, rows=rows, noise=0.5)
        found = hierarchical_bootstrap(first, second, replicates=400, seed=draw)
        covered += found.interval[0] <= 0 <= found.interval[1]
        shown += found.p_value < 0.05
    # Binomial(300, 0.95) has a standard deviation of 1.3 %.
    assert covered / draws >= 0.92
    assert shown / draws <= 0.08


def test_seeds_alone_give_students_interval():
    """Rows that do not vary: what is left is the t interval of the figures of the seeds."""
    figures = np.array([0.91, 0.95, 0.96, 0.98])
    found = hierarchical_bootstrap(
        np.repeat(figures[:, None], 50, axis=1), np.full((2, 50), 0.9), replicates=200_000
    )
    expected = stats.t.interval(0.95, 3, loc=figures.mean() - 0.9, scale=stats.sem(figures))
    assert found.difference == pytest.approx(0.05)
    assert found.interval == pytest.approx(expected, abs=0.002)
    _, p_value = stats.ttest_1samp(figures, 0.9)
    assert found.p_value == pytest.approx(p_value, abs=0.002)


def test_seeds_that_agree_give_the_interval_of_rows():
    generator = np.random.default_rng(4)
    first = generator.normal(0.1, 1, size=400)
    second = generator.normal(0.0, 1, size=400)
    over_seeds = hierarchical_bootstrap(np.stack([first] * 3), np.stack([second] * 3))
    over_rows = paired_bootstrap(first, second)
    assert over_seeds.difference == pytest.approx(over_rows.difference)
    assert over_seeds.interval == pytest.approx(over_rows.interval, abs=0.02)


def test_three_seeds_apart_on_other_rows_are_not_called_apart_by_their_order_alone():
    """Six trainings fall into this order by chance once in ten, however many rows there are."""
    first = np.repeat([[0.90], [0.94], [0.95]], 2000, axis=1)
    second = np.repeat([[0.955], [0.96], [0.99]], 2000, axis=1)
    found = hierarchical_bootstrap(first, second)
    assert found.p_value > 0.05
    assert found.interval[0] < 0 < found.interval[1]


def test_a_rate_over_seeds_by_hand():
    sizes = np.array([10, 30, 60])
    first = np.array([[1.0, 2.0, 3.0], [3.0, 0.0, 3.0]])
    found = hierarchical_bootstrap(first, np.zeros((3, 3)), denominators=sizes)
    assert found.difference == pytest.approx(6 / 100)
    assert found.num_units == 3


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(0).normal(size=(2, 3, 40))
    assert hierarchical_bootstrap(*scores, seed=1) == hierarchical_bootstrap(*scores, seed=1)
    nothing = hierarchical_bootstrap(scores[0], scores[0] * 0 + scores[0])
    assert nothing.difference == 0
    assert nothing.p_value > 0.9


@pytest.mark.parametrize(
    ("first", "second", "message"),
    [
        ((1, 9), (3, 9), r"at least 2 seeds, got \(1, 9\) for the first model"),
        ((3, 9), (3, 8), r"got \(3, 8\) for the second model"),
        ((9,), (3, 9), r"got \(9,\) for the first"),
        ((2, 1), (2, 1), "at least 2 units"),
    ],
)
def test_scores_of_other_shapes_are_named(first, second, message):
    with pytest.raises(ValueError, match=message):
        hierarchical_bootstrap(np.zeros(first), np.zeros(second))


# --- verdicts ----------------------------------------------------------------------------------


def verdict(found: RightAndWrong, *, p_value: float | None = None) -> Verdict:
    return judge(
        metric="exact match",
        first="patched",
        second="baseline",
        difference=found.difference,
        interval=found.interval,
        p_value=found.p_value if p_value is None else p_value,
        higher_is_better=True,
    )


def test_the_published_predictions_say_that_the_baseline_is_better():
    """2 against 457 of 2,000 rows: 76.7 % of the patched model, 99.45 % of the baseline."""
    found = compare_right(*right_rows(1532, 2, 457, 9))
    assert (found.both + found.only_first, found.both + found.only_second) == (1534, 1989)
    # The test of 458 such rows and its 3 most extreme outcomes, on both sides.
    assert found.p_value == 2 * (1 + 459 + 459 * 458 // 2) / 2**459
    assert found.difference == -0.2275
    assert verdict(found).better == "baseline"


@pytest.mark.parametrize(
    ("difference", "interval", "p_value", "higher_is_better", "better"),
    [
        (0.1, (0.05, 0.15), 0.01, True, "first"),
        (0.1, (0.05, 0.15), 0.01, False, "second"),
        (-0.1, (-0.15, -0.05), 0.01, True, "second"),
        (-0.1, (-0.15, -0.05), 0.01, False, "first"),
        # The sign alone, the interval alone and the test alone show nothing.
        (0.1, (-0.05, 0.25), 0.3, True, None),
        (0.1, (0.01, 0.19), 0.06, True, None),
        (0.1, (0.0, 0.2), 0.01, True, None),
        (0.0, (0.0, 0.0), 0.01, True, None),
        (0.1, (0.05, 0.15), math.nan, True, None),
    ],
)
def test_a_difference_takes_test_and_interval(
    difference, interval, p_value, higher_is_better, better
):
    found = judge(
        metric="edits",
        first="first",
        second="second",
        difference=difference,
        interval=interval,
        p_value=p_value,
        higher_is_better=higher_is_better,
    )
    assert found.better == better


def test_two_rows_against_five_show_nothing():
    assert verdict(compare_right(*right_rows(1990, 2, 5, 3))).better is None
    # Nor does a test that was one of many.
    found = compare_right(*right_rows(1980, 2, 14, 4))
    assert verdict(found).better == "baseline"
    assert verdict(found, p_value=min(1.0, 20 * found.p_value)).better is None
