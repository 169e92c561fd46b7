"""Numbers of a study over its seeds, and what may be said of two of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

RELEVANT = 0.001
"""Share below which a difference in size is not called one: what the size of a file may differ from
the model's own bits per byte."""


@dataclass(frozen=True)
class Sample:
    """One figure, measured with each seed."""

    values: tuple[float, ...]
    """At least one."""

    @property
    def mean(self) -> float:
        """Over the seeds."""
        return fmean(self.values)

    @property
    def low(self) -> float:
        """The lowest of the seeds."""
        return min(self.values)

    @property
    def high(self) -> float:
        """The highest of the seeds."""
        return max(self.values)

    def __str__(self) -> str:
        if len(self.values) == 1:
            return f"{self.mean:.4f}"
        return f"{self.mean:.4f} ({self.low:.4f} to {self.high:.4f})"


def sample(values: Sequence[float | None]) -> Sample | None:
    """What was measured of a figure; None where nothing was."""
    known = tuple(value for value in values if value is not None)
    return Sample(known) if known else None


def is_apart(one: Sample, other: Sample) -> bool:
    """Tell whether two figures are shown to differ.

    Every seed of one must lie on the same side of every seed of the other, and their means more
    than a tenth of a percent apart.
    """
    is_separate = one.high < other.low or one.low > other.high
    return is_separate and abs(one.mean / other.mean - 1) >= RELEVANT


def relation(ours: Sample, theirs: Sample) -> str:
    """Say by how much one figure is below or above another, or that no difference is shown.

    >>> relation(Sample((1.8,)), Sample((2.0,)))
    '10.0 % below'
    >>> relation(Sample((1.8, 2.1)), Sample((2.0,)))
    'not shown to differ from'
    """
    if not is_apart(ours, theirs):
        return "not shown to differ from"
    share = ours.mean / theirs.mean - 1
    return f"{100 * abs(share):.1f} % {'below' if share < 0 else 'above'}"


def change(first: Sample, last: Sample) -> str:
    """Say in percent how a figure changes from one to another, or that no difference is shown."""
    if not is_apart(first, last):
        return "no difference shown"
    return f"{100 * (last.mean / first.mean - 1):+.1f} %"
