"""The family of tests of a comparison: signed differences, corrected together.

One seed: the exact McNemar test for exact match, a sign-flip test for the other metrics, both on
the same rows; such a difference is one of two trained models. Several seeds: a hierarchical
bootstrap over rows and seeds; such a difference is one of two ways to train.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from bytelm.evaluation import (
    RightAndWrong,
    Verdict,
    compare_right,
    hierarchical_bootstrap,
    holm,
    judge,
    paired_bootstrap,
)
from bytelm.experiments.comparison.findings import (
    BLT,
    EXACT,
    GREEDY,
    MAIN,
    METRICS,
    Found,
    Metric,
    Predicted,
    title_of,
)
from bytelm.experiments.comparison.groups import Group, by_length, by_script

ALL_ROWS = "all rows"

_FEWEST_ROWS = 20
"""A group of fewer rows is shown and not tested."""

_REPLICATES = 5000
"""Draws over rows and seeds: p-values reach down to 0.0004, enough for some hundred tests."""


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """One test of the family."""

    metric: Metric
    """What is compared; differences are in its unit."""

    arms: tuple[str, str]
    """First and second."""

    decoding: str
    """Of both."""

    rows: str
    """Which rows: `ALL_ROWS` or the name of a group."""

    num_rows: int
    """Rows of the test."""

    num_seeds: int
    """Trainings of each model that it is about."""

    difference: float
    """First minus second."""

    interval: tuple[float, float]
    """Of the difference."""

    p_value: float
    """Of this test alone."""

    adjusted: float = 1.0
    """The p-value as one of its family."""

    right: RightAndWrong | None = None
    """The counts behind it, for exact match of one seed."""

    @property
    def verdict(self) -> Verdict:
        """What it shows, in names."""
        first, second = map(title_of, self.arms)
        return judge(
            metric=self.metric.name,
            first=first,
            second=second,
            difference=self.difference,
            interval=self.interval,
            p_value=self.adjusted,
            higher_is_better=self.metric.higher_is_better,
        )

    @property
    def better(self) -> str | None:
        """The arm that is shown to be better; None where no difference is shown."""
        names = {title_of(arm): arm for arm in self.arms}
        return names.get(self.verdict.better or "")


def contrasts(found: Found) -> list[Contrast]:
    """Test all that is said to differ, as one family (Holm)."""
    tests = list(_family(found))
    adjusted = holm([test.p_value for test in tests])
    return [replace(test, adjusted=p) for test, p in zip(tests, adjusted, strict=True)]


def _family(found: Found) -> Iterable[Contrast]:
    everything = Group(ALL_ROWS, np.arange(len(found.pairs)))
    first, second = (found.predicted(arm, found.decoding) for arm in MAIN)
    for metric in METRICS:
        yield from _measured(first, second, metric, everything)
    for group in (*by_length(found.pairs), *by_script(found.pairs)):
        # All rows of one script are all rows once more.
        if _FEWEST_ROWS <= len(group.rows) < len(found.pairs):
            yield from _measured(first, second, EXACT, group)
    if found.decoding != GREEDY:
        first, second = (found.predicted(arm, GREEDY) for arm in MAIN)
        yield from _measured(first, second, EXACT, everything)
    usual = found.predicted(BLT, found.curve_decoding)
    for arm in found.sweep_arms:
        other = found.predicted(arm, found.curve_decoding)
        yield from _measured(other, usual, EXACT, everything)


def _measured(
    first: Sequence[Predicted], second: Sequence[Predicted], metric: Metric, group: Group
) -> Iterable[Contrast]:
    """Nothing where a model has no predictions."""
    if not first or not second or not len(group.rows):
        return
    num_seeds = min(len(first), len(second))
    one, other = (
        np.array([model.per_row(metric)[group.rows] for model in models])
        for models in (first, second)
    )
    right = None
    if num_seeds > 1 and len(group.rows) > 1:
        found = hierarchical_bootstrap(one, other, replicates=_REPLICATES)
        difference, interval, p_value = found.difference, found.interval, found.p_value
    elif metric is EXACT:
        # Both trained with the same seed, where there is one.
        right = compare_right(one[0] > 0, other[0] > 0)
        low, high = right.interval
        difference, interval, p_value = (
            100 * right.difference,
            (100 * low, 100 * high),
            right.p_value,
        )
    elif len(group.rows) > 1:
        paired = paired_bootstrap(one[0], other[0])
        difference, interval, p_value = paired.difference, paired.interval, paired.p_value
    else:
        return
    yield Contrast(
        metric=metric,
        arms=(first[0].arm, second[0].arm),
        decoding=first[0].decoding,
        rows=group.name,
        num_rows=len(group.rows),
        num_seeds=num_seeds,
        difference=difference,
        interval=interval,
        p_value=p_value,
        right=right,
    )


def of_rows(tests: Sequence[Contrast], rows: str = ALL_ROWS) -> Contrast | None:
    """Exact match of the two models on all rows or those of a group; None if not tested."""
    return next((t for t in tests if t.arms == MAIN and t.metric is EXACT and t.rows == rows), None)
