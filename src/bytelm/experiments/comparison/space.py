"""What a search may try: settings with their values or ranges, and how often."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bytelm import config

Value = bool | int | float | str
"""What a setting may be given."""

Params = dict[str, Value]
"""Dotted setting to its value."""


@dataclass(frozen=True, kw_only=True)
class Dimension:
    """One setting, and what a search may give it: a list of values, or a range."""

    key: str
    """The setting, dotted, as `optim.lr`."""

    values: tuple[Value, ...] = ()
    """In any order; none where there is a range."""

    low: int | float | None = None
    """Least value of a range. Two whole ends make a range of whole numbers."""

    high: int | float | None = None
    """Largest value of the range."""

    log: bool = False
    """Every factor alike, instead of every difference: for rates and sizes."""

    def __post_init__(self) -> None:
        if bool(self.values) == (self.low is not None) or (self.low is None) != (self.high is None):
            raise ValueError(
                f"{self.key}: expected `values`, or `low` and `high`, got values = "
                f"{list(self.values)}, low = {self.low}, high = {self.high}"
            )
        if len(set(map(repr, self.values))) < len(self.values):
            raise ValueError(f"{self.key}: values must be different, got {list(self.values)}")
        if self.low is None or self.high is None:
            return
        least = 0.0 if self.log else -math.inf
        if not least < self.low < self.high < math.inf:
            raise ValueError(
                f"{self.key}: low must be below high and both finite, above 0 where log is true; "
                f"got low = {self.low}, high = {self.high}, log = {self.log}"
            )

    @property
    def points(self) -> Sequence[Value] | None:
        """Every value; None where they cannot be counted."""
        if self.values:
            return self.values
        if isinstance(self.low, int) and isinstance(self.high, int):
            return range(self.low, self.high + 1)
        return None

    def described(self) -> list[Value] | dict[str, Any]:
        """The values or the range, JSON-able."""
        if self.values:
            return list(self.values)
        return {"low": self.low, "high": self.high, "log": self.log}


@dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What a search may try, and how often."""

    trials: int = 12
    """For each model, failed ones included."""

    epochs: int = 3
    """Of each trial."""

    seed: int = 0
    """Of the choice of points and of the trials' trainings."""

    storage: str | None = None
    """A file or a database (`postgresql://...`) where trials are kept, which several machines may
    share; None: a file in the study's directory."""

    space: tuple[Dimension, ...] = ()
    """What is searched. A model is spared the settings that it does not have."""

    def __post_init__(self) -> None:
        config.require_positive(self, "trials", "epochs")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        keys = [dimension.key for dimension in self.space]
        if len(set(keys)) < len(keys) or not keys:
            raise ValueError(f"space must have different keys and at least one, got {keys}")


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A file of what is searched, in place of a plan's own."""

    space: tuple[Dimension, ...]
    """As in `SearchConfig`."""


def size_of(space: Sequence[Dimension]) -> int | None:
    """Count the points of a space; None where they cannot be counted."""
    counts = [None if d.points is None else len(d.points) for d in space]
    return None if None in counts else math.prod(count for count in counts if count is not None)


def without_password(storage: str) -> str:
    """Return the address of a storage without its password."""
    scheme, separator, rest = storage.partition("://")
    login, at, host = rest.rpartition("@")
    if not (separator and at and ":" in login):
        return storage
    return f"{scheme}://{login.partition(':')[0]}:***@{host}"
