"""The threshold that cuts held-back text into patches of a wanted mean size.

The mean falls as more bytes exceed the threshold, so a bisection over the values that occur finds
it; the patcher itself counts the starts, with its limits, so what is promised is what it does.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from bytelm.patching.entropy import Entropy
from bytelm.patching.shannon import ShannonWindow
from bytelm.patching.stream import patch_starts

TOLERANCE = 0.02
"""How far the mean patch size may be from the wanted one before a warning says so."""

_CLOSE_ENOUGH = 0.002
"""Relative error at which the search stops."""

_COLLAPSED = 1.5
"""Bytes per patch under which a BLT saves next to nothing (a missing window gave 1.15)."""

_SPREAD = 2.0
"""A document this many times off the overall mean is named."""

_MAX_NAMED = 5
"""Documents that one warning names."""


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """A patcher whose threshold gives the wanted mean patch size, and how well it does."""

    patcher: Entropy | ShannonWindow
    """The one that was given, with the threshold that was found."""

    threshold: float
    """Nats."""

    mean_patch_bytes: float
    """Bytes per start over all documents."""

    per_document: tuple[float, ...]
    """Bytes per start of each document; 0.0 for an empty one."""

    warnings: tuple[str, ...]
    """What a person should know: not attainable, collapsed, or very uneven."""


def calibrate_threshold(
    entropies: Sequence[np.ndarray],
    *,
    mean_patch_bytes: float,
    patcher: Entropy | ShannonWindow,
    names: Sequence[str] = (),
) -> Calibration:
    """Find the threshold for a wanted mean patch size.

    Args:
        entropies: For each document, float32 nats of the prediction of each byte; for a
            `ShannonWindow`, what `window_entropies` gives.
        mean_patch_bytes: Wanted bytes per start over all documents.
        patcher: Its limits are kept and its threshold replaced. An `Entropy` with both thresholds
            keeps the relative one; one with a relative threshold only gets that replaced.
        names: What warnings call the documents, one each; none: `document 0` and so on.

    Raises:
        ValueError: No bytes, a wanted size below 1, or not one name for each document.

    """
    if not mean_patch_bytes >= 1:
        raise ValueError(f"mean_patch_bytes must be at least 1, got {mean_patch_bytes}")
    if not sum(map(len, entropies)):
        raise ValueError("calibration needs at least one byte of text, got none")
    names = names or [f"document {i}" for i in range(len(entropies))]
    if len(names) != len(entropies):
        raise ValueError(f"expected {len(entropies)} names, one for a document, got {len(names)}")
    relative = isinstance(patcher, Entropy) and patcher.threshold is None
    thresholds = _distinct_thresholds(entropies, relative=relative)
    best = _search(thresholds, entropies, mean_patch_bytes, patcher, relative=relative)
    counts = _count_starts(best, entropies)
    sizes = tuple(len(h) / max(1, c) for h, c in zip(entropies, counts, strict=True))
    mean = sum(map(len, entropies)) / sum(counts)
    threshold = (
        best.relative_threshold if relative and isinstance(best, Entropy) else best.threshold
    )
    assert threshold is not None, "one of the two was searched"
    return Calibration(
        patcher=best,
        threshold=threshold,
        mean_patch_bytes=mean,
        per_document=sizes,
        warnings=_warnings(mean, mean_patch_bytes, sizes, names),
    )


def _distinct_thresholds(entropies: Sequence[np.ndarray], *, relative: bool) -> np.ndarray:
    """Every threshold that makes a difference, ascending: half-way between values that occur.

    Half-way, so that rounding elsewhere does not move a start.
    """
    values = [np.diff(h) if relative else h[1:] for h in entropies]
    positive = np.unique(np.concatenate([v[v > 0] for v in values] or [np.zeros(0)]))
    steps = np.concatenate(([0.0], positive.astype(np.float64)))
    return (steps[1:] + steps[:-1]) / 2 if len(positive) else steps


def _search(
    thresholds: np.ndarray,
    entropies: Sequence[np.ndarray],
    wanted: float,
    patcher: Entropy | ShannonWindow,
    *,
    relative: bool,
) -> Entropy | ShannonWindow:
    """Bisect over `thresholds`; the best patcher seen, as a minimum length bends the curve."""
    num_bytes = sum(map(len, entropies))
    low, high = 0, len(thresholds) - 1
    best, smallest = patcher, float("inf")
    while low <= high and smallest > _CLOSE_ENOUGH:
        middle = (low + high) // 2
        tried = _with_threshold(patcher, float(thresholds[middle]), relative=relative)
        mean = num_bytes / sum(_count_starts(tried, entropies))
        if abs(mean / wanted - 1) < smallest:
            best, smallest = tried, abs(mean / wanted - 1)
        if mean < wanted:
            low = middle + 1
        else:
            high = middle - 1
    return best


def _with_threshold(
    patcher: Entropy | ShannonWindow, threshold: float, *, relative: bool
) -> Entropy | ShannonWindow:
    if relative:
        return replace(patcher, relative_threshold=threshold)
    return replace(patcher, threshold=threshold)


def _count_starts(patcher: Entropy | ShannonWindow, entropies: Sequence[np.ndarray]) -> list[int]:
    """Starts in each document."""
    if isinstance(patcher, ShannonWindow):  # the same comparison, over entropies that are known
        patcher = Entropy(
            threshold=patcher.threshold,
            min_patch_bytes=patcher.min_patch_bytes,
            max_patch_bytes=patcher.max_patch_bytes,
        )
    return [int(patch_starts(patcher, np.zeros(len(h), np.uint8), h).sum()) for h in entropies]


def _warnings(
    mean: float, wanted: float, sizes: Sequence[float], names: Sequence[str]
) -> tuple[str, ...]:
    found = []
    if abs(mean / wanted - 1) > TOLERANCE:
        found.append(
            f"{wanted:g} bytes per patch is not attainable here: the closest is {mean:.3f}; "
            "change min_patch_bytes, max_patch_bytes or the entropy source"
        )
    if mean < _COLLAPSED:
        found.append(
            f"patches collapse toward one byte ({mean:.2f} bytes on average): the entropies are "
            "high everywhere; is the entropy source trained, and on this kind of data?"
        )
    uneven = [
        f"{name} ({size:.2f})"
        for name, size in zip(names, sizes, strict=True)
        if size and not 1 / _SPREAD <= size / mean <= _SPREAD
    ]
    if uneven:
        more = f" and {len(uneven) - _MAX_NAMED} more" if len(uneven) > _MAX_NAMED else ""
        found.append(
            f"{len(uneven)} of {len(sizes)} documents have patches more than {_SPREAD:g} times "
            f"off the overall {mean:.2f} bytes: {', '.join(uneven[:_MAX_NAMED])}{more}"
        )
    return tuple(found)
