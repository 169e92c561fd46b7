"""What a search of settings found, from its trials."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, median
from typing import Any

from bytelm.experiments.comparison.findings import MAIN, Found


@dataclass(frozen=True)
class Effect:
    """The trials with one value of a setting, or with values of one range."""

    value: str
    """As it is printed."""

    bits: tuple[float, ...]
    """Bits per byte of validation of each trial; at least one."""

    @property
    def mean(self) -> float:
        """Over the trials."""
        return fmean(self.bits)


@dataclass(frozen=True)
class Searched:
    """The search for one model."""

    model: str
    """Its arm."""

    values: dict[str, Any]
    """Of its stage."""

    @property
    def keys(self) -> list[str]:
        """Settings that were searched."""
        return list(self.values["space"])

    @property
    def complete(self) -> list[dict[str, Any]]:
        """Trials with a result."""
        return [trial for trial in self.values["trials"] if trial["valid_bpb"] is not None]

    @property
    def best(self) -> dict[str, Any] | None:
        """The trial that was taken."""
        best = self.values["best"]
        return next((trial for trial in self.complete if trial["index"] == best), None)

    def tried(self, key: str) -> list[Any]:
        """Values of a setting of the trials with a result."""
        return [trial["params"][key] for trial in self.complete] if key in self.keys else []

    def effects(self, key: str) -> list[Effect]:
        """The results by the values of a setting; many numbers are cut in two at the median."""
        found: dict[str, list[float]] = {}
        for label, trial in zip(self._labels(key), self.complete, strict=True):
            found.setdefault(label, []).append(trial["valid_bpb"])
        return [Effect(label, tuple(bits)) for label, bits in sorted(found.items(), key=_order)]

    def _labels(self, key: str) -> Sequence[str]:
        tried = self.tried(key)
        if isinstance(self.values["space"][key], list) or not tried:
            return [f"{value}" for value in tried]
        middle = median(tried)
        return [f"{'up to' if value <= middle else 'above'} {middle:.3g}" for value in tried]


def _order(item: tuple[str, Any]) -> tuple[bool, float, str]:
    """Numbers as numbers, then words; "up to" before "above"."""
    label = item[0]
    try:
        return False, float(label), ""
    except ValueError:
        return True, 0.0, "" if label.startswith("up to") else label


def searches(found: Found) -> list[Searched]:
    """Of each model that there is."""
    known = {arm: found.record.values(f"search {arm}") for arm in MAIN}
    return [Searched(arm, values) for arm, values in known.items() if values is not None]
