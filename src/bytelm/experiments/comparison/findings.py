"""What a comparison measured, with its uncertainty, whatever of it is there.

Intervals are of 95 %. With one seed they are over rows, and of these trained models: Wilson's for
shares of rows, the bootstrap's for means. With several seeds they are over rows and seeds, and of
the way to train them.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from bytelm.evaluation import (
    EdgeAccuracy,
    Place,
    RowScore,
    bootstrap_ratio,
    clustered_interval,
    edge_accuracy,
    hierarchical_bootstrap,
    position_accuracy,
    score_row,
    wilson_interval,
)
from bytelm.experiments.comparison.origins import Sources, source_bytes
from bytelm.experiments.results import Record

BLT, BASELINE = "blt", "baseline"

MAIN = (BLT, BASELINE)
"""The arms that are compared; all others are the patched model at another patch size."""

GREEDY = "greedy"

SIZE = r"[0-9]{1,9}(?:\.[0-9]{1,9})?(?:e\+[0-9]{1,2})?"
"""A patch size in the name of an arm, and so in names of files: nothing else gets there."""

_ARM_AND_SEED = rf"(?P<arm>blt|baseline|blt {SIZE}) seed (?P<seed>0|[1-9][0-9]{{0,18}})"

SEARCHED = re.compile(r"search (?P<model>blt|baseline)")
TRAINED = re.compile(f"train {_ARM_AND_SEED}")
PREDICTED = re.compile(f"predict {_ARM_AND_SEED} (?P<decoding>greedy|beam [1-9][0-9]{{0,8}})")
"""Names of the stages of a task."""

_REPLICATES = 2000
"""Draws of an interval over seeds."""


def title_of(arm: str) -> str:
    """What an arm is called in a sentence."""
    if arm == BASELINE:
        return "baseline"
    size = arm.partition(" ")[2]
    return f"patched model, {size} bytes" if size else "patched model"


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number for each row, whose mean over rows is what is reported."""

    name: str
    """As in a table's heading, without the unit."""

    unit: str
    """As it is printed."""

    higher_is_better: bool
    """Whether much of it is good."""

    of: Callable[[RowScore], float]
    """In the unit."""

    digits: int
    """Printed after the point."""

    highest: float | None = None
    """No mean is above it."""

    @property
    def heading(self) -> str:
        """With the unit."""
        return f"{self.name}, {self.unit}"

    @property
    def unit_of_differences(self) -> str:
        """Shares differ by points."""
        return "points" if self.unit == "%" else self.unit


EXACT = Metric(
    name="exact match",
    unit="%",
    higher_is_better=True,
    of=lambda score: 100.0 * score.exact,
    digits=2,
    highest=100.0,
)
METRICS = (
    EXACT,
    Metric(
        name="character accuracy",
        unit="%",
        higher_is_better=True,
        of=lambda score: 100.0 * score.character_accuracy,
        digits=2,
        highest=100.0,
    ),
    Metric(
        name="edit distance",
        unit="characters",
        higher_is_better=False,
        of=lambda score: float(score.edit_distance),
        digits=3,
    ),
    Metric(
        name="error in length",
        unit="characters",
        higher_is_better=False,
        of=lambda score: float(abs(score.length_difference)),
        digits=3,
    ),
)


@dataclass(frozen=True)
class Estimate:
    """A figure and the interval around it."""

    value: float
    low: float
    high: float

    def text(self, digits: int) -> str:
        """The figure with its interval."""
        return f"{self.value:.{digits}f} ({self.low:.{digits}f} to {self.high:.{digits}f})"


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """What one model answered to the test rows with one decoding."""

    arm: str
    seed: int
    decoding: str
    targets: tuple[str, ...]
    predictions: tuple[str, ...]
    patch_lengths: tuple[tuple[int, ...], ...] | None
    """Bytes of the patches of each input; None where there are no patches."""

    @property
    def name(self) -> str:
        """Unique in its study."""
        return f"{self.arm} seed {self.seed} {self.decoding}"

    @cached_property
    def scores(self) -> list[RowScore]:
        """Of each row."""
        return [score_row(*row) for row in zip(self.predictions, self.targets, strict=True)]

    @cached_property
    def is_exact(self) -> np.ndarray:
        """Whether each row is right."""
        return np.array([score.exact for score in self.scores], dtype=bool)

    def per_row(self, metric: Metric) -> np.ndarray:
        """The metric of each row."""
        if metric.name not in self._per_row:
            values = [metric.of(score) for score in self.scores]
            self._per_row[metric.name] = np.array(values, dtype=np.float64)
        return self._per_row[metric.name]

    @cached_property
    def _per_row(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def positions(self) -> tuple[Place, ...]:
        """Accuracy by tenths of the output."""
        return position_accuracy(self.predictions, self.targets)


@dataclass(frozen=True)
class Found:
    """What was measured, by what was asked."""

    record: Record

    @cached_property
    def sweep_arms(self) -> tuple[str, ...]:
        """Other patch sizes, as they were asked for."""
        arms = dict.fromkeys(match["arm"] for match in self._matches(TRAINED))
        return tuple(arm for arm in arms if arm not in MAIN)

    @cached_property
    def seeds(self) -> tuple[int, ...]:
        """Of the compared models, as they were asked for."""
        found = {int(m["seed"]) for m in self._matches(TRAINED) if m["arm"] in MAIN}
        return tuple(sorted(found)) or (0,)

    def decodings(self, *arms: str) -> tuple[str, ...]:
        """Ways of decoding that all of these arms were asked for, the widest last."""
        asked = [{m["decoding"] for m in self._matches(PREDICTED) if m["arm"] == a} for a in arms]
        # An arm that is no part of the study takes none away.
        known = [decodings for decodings in asked if decodings]
        return tuple(sorted(set.intersection(*known), key=beam_width)) if known else ()

    def _widest(self, *arms: str) -> str:
        """The widest beam with which all of these arms have predicted, if any have."""
        asked = self.decodings(*arms) or (GREEDY,)
        done = [how for how in asked if all(self.predicted(arm, how) for arm in arms)]
        return (done or asked)[-1]

    @cached_property
    def decoding(self) -> str:
        """The one by which the models are compared."""
        return self._widest(*MAIN)

    @cached_property
    def curve_decoding(self) -> str:
        """The one by which patch sizes are compared."""
        return self._widest(BLT, *self.sweep_arms)

    @cached_property
    def pairs(self) -> tuple[tuple[str, str], ...]:
        """Test rows; none where the test file was not read."""
        values = self.record.values("test") or {"pairs": []}
        return tuple((text, target) for text, target in values["pairs"])

    @cached_property
    def _sources(self) -> list[Sources] | None:
        """The byte of the input that each character of each target comes from."""
        return source_bytes(self.pairs)

    def edges(self, model: Predicted, *, patched: Predicted) -> EdgeAccuracy | None:
        """Break the accuracy of a model down by the patches of a model.

        Args:
            model: Whose errors.
            patched: Whose patches; the same model, or another to hold it against.

        Returns:
            None where targets are not made of characters of the input, or `patched` has no patches.

        """
        if self._sources is None or patched.patch_lengths is None:
            return None
        key = (model.name, patched.name)
        if key not in self._edges:
            self._edges[key] = edge_accuracy(
                model.predictions,
                model.targets,
                source_index=self._sources,
                patch_lengths=patched.patch_lengths,
            )
        return self._edges[key]

    @cached_property
    def _edges(self) -> dict[tuple[str, str], EdgeAccuracy]:
        return {}

    @cached_property
    def _predicted(self) -> dict[tuple[str, int, str], Predicted]:
        found = {}
        for match in self._matches(PREDICTED):
            values = self.record.values(match.group())
            if values is None or not self.pairs:
                continue
            arm, seed, decoding = match["arm"], int(match["seed"]), match["decoding"]
            lengths = values["patch_lengths"]
            found[arm, seed, decoding] = Predicted(
                arm=arm,
                seed=seed,
                decoding=decoding,
                targets=tuple(target for _, target in self.pairs),
                predictions=tuple(values["predictions"]),
                patch_lengths=None if lengths is None else tuple(map(tuple, lengths)),
            )
        return found

    def all_predicted(self) -> list[Predicted]:
        """Everything that was predicted, in the order of the stages."""
        return list(self._predicted.values())

    def predicted(self, arm: str, decoding: str) -> list[Predicted]:
        """Of each seed that there is."""
        return [
            predicted
            for (name, _, how), predicted in sorted(self._predicted.items())
            if name == arm and how == decoding
        ]

    def trained(self, arm: str) -> list[dict[str, Any]]:
        """Values of the trainings of an arm, one for each seed that there is."""
        return [
            values
            for match in self._matches(TRAINED)
            if match["arm"] == arm and (values := self.record.values(match.group())) is not None
        ]

    def _matches(self, pattern: re.Pattern[str]) -> list[re.Match[str]]:
        matches = (pattern.fullmatch(stage.name) for stage in self.record.stages)
        return [match for match in matches if match is not None]


def beam_width(decoding: str) -> int:
    """Of a way of decoding; greedy decoding has the width 1."""
    return 1 if decoding == GREEDY else int(decoding.removeprefix("beam "))


def estimate(
    models: Sequence[Predicted], metric: Metric, rows: np.ndarray | None = None
) -> Estimate | None:
    """Return the mean of a metric over rows and seeds.

    Args:
        models: One for each seed.
        metric: What is averaged.
        rows: Places of the rows that count; None for all.

    """
    scores = np.array([model.per_row(metric) for model in models])
    if rows is not None and models:
        scores = scores[:, rows]
    if scores.size == 0:
        return None
    intervals = []
    if metric is EXACT:
        intervals.append(_of_shares(scores / 100))
    if len(scores) > 1 and scores.shape[1] > 1:
        nothing = np.zeros((2, scores.shape[1]))
        found = hierarchical_bootstrap(scores, nothing, replicates=_REPLICATES)
        intervals.append(found.interval)
    elif metric is not EXACT and scores.shape[1] > 1:
        intervals.append(bootstrap_ratio(scores[0], np.ones(scores.shape[1])))
    value = float(scores.mean())
    # Where every row of every seed is right a bootstrap has no width: the wider one holds.
    low = min((value, *(low for low, _ in intervals)))
    high = max((value, *(high for _, high in intervals)))
    top = high if metric.highest is None else metric.highest
    return Estimate(value, max(0.0, low), min(top, high))


def _of_shares(scores: np.ndarray) -> tuple[float, float]:
    """Bound a share of rows, in percent; the seeds of a row count as one trial or few."""
    seeds, rows = scores.shape
    if seeds == 1:
        low, high = wilson_interval(float(scores.sum()), rows)
    else:
        low, high = clustered_interval(scores.sum(axis=0), np.full(rows, seeds))
    return 100 * low, 100 * high
