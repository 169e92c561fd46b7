"""Rows that are looked at apart: by length, by words, by script."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MOST_BINS = 8
_WIDTHS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000)

Pairs = Sequence[tuple[str, str]]


@dataclass(frozen=True)
class Group:
    """Some of the rows."""

    name: str
    """As it is printed."""

    rows: np.ndarray
    """Their places, ascending; at least one."""

    center: float = 0.0
    """Where it stands on an axis of sizes."""


def length_edges(pairs: Pairs) -> list[int]:
    """Shortest input of each bin of lengths, characters."""
    return _edges([len(text) for text, _ in pairs])


def word_edges(pairs: Pairs) -> list[int]:
    """Fewest words of each bin of word counts."""
    return _edges([len(text.split()) for text, _ in pairs])


def by_length(pairs: Pairs) -> list[Group]:
    """Rows by the characters of the input, shortest first."""
    return _binned([len(text) for text, _ in pairs], length_edges(pairs))


def by_words(pairs: Pairs) -> list[Group]:
    """Rows by the words of the input, fewest first."""
    return _binned([len(text.split()) for text, _ in pairs], word_edges(pairs))


def by_script(pairs: Pairs) -> list[Group]:
    """Rows of ASCII, and those with something else on either side."""
    is_ascii = np.array([text.isascii() and target.isascii() for text, target in pairs], dtype=bool)
    groups = [
        Group("ASCII only", np.flatnonzero(is_ascii)),
        Group("with non-ASCII", np.flatnonzero(~is_ascii)),
    ]
    return [group for group in groups if len(group.rows)]


def _edges(sizes: Sequence[int]) -> list[int]:
    """Round numbers, evenly apart, from at most the smallest size on."""
    if not sizes:
        return []
    low, high = min(sizes), max(sizes)
    fitting = (width for width in _WIDTHS if high // width - low // width < _MOST_BINS)
    width = next(fitting, high - low + 1)
    return [*range(low // width * width, high + 1, width)]


def _binned(sizes: Sequence[int], edges: Sequence[int]) -> list[Group]:
    """The bins that hold a row; none where there are no rows."""
    if not edges:
        return []
    width = edges[1] - edges[0] if len(edges) > 1 else 1 + max(sizes) - edges[0]
    places = np.searchsorted(edges, sizes, side="right") - 1
    return [
        Group(
            f"{low}" if width == 1 else f"{low} to {low + width - 1}",
            np.flatnonzero(places == place),
            low + (width - 1) / 2,
        )
        for place, low in enumerate(edges)
        if (places == place).any()
    ]
