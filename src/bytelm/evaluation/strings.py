"""How far predicted strings are from the right ones, and where they go wrong.

Everything is counted on raw strings in characters, which are Unicode code points: nothing is
normalized, lower-cased or stripped, and a sign of two code points counts as two.

Edits are those of one shortest way (Levenshtein) from the target to the prediction. Where there
are several, it is the one found by reading both from the left: equal characters are matched,
otherwise a substitution is taken before a missing character before an extra one, as far as the
way stays shortest. So an output that ends early is right up to its end.

Source: Myers (1999), "A fast bit-vector algorithm for approximate string matching based on
dynamic programming", in the form of Hyyro (2003) for the distance of whole strings: a column of
the table is a few integers of as many bits as the target has characters.
"""

import functools
from bisect import bisect_right
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

from bytelm.evaluation.paired import clustered_interval

ErrorKind = Literal[
    "cut short",
    "ran on",
    "non-ASCII only",
    "neighbors swapped",
    "one wrong",
    "one missing",
    "one extra",
    "other order",
    "other",
]
"""How a prediction is wrong: the first kind that fits, so that each wrong row has one.

- cut short: the target without its end (nothing at all included)
- ran on: the target with something after it
- non-ASCII only: every character that is wrong, missing or extra is not ASCII
- neighbors swapped: two neighbors in the other order, all else right
- one wrong, one missing, one extra: one edit
- other order: the characters of the target, each as often, in another order
- other: all else
"""


@dataclass(frozen=True, slots=True)
class Edit:
    """One step from the target to the prediction."""

    kind: Literal["substitution", "missing", "extra"]
    """What is done to the target."""
    place: int
    """Index in the target; an extra character stands before it."""
    wanted: str
    """The target's character; empty for an extra one."""
    got: str
    """The prediction's character; empty for a missing one."""


@dataclass(frozen=True, kw_only=True)
class RowScore:
    """One prediction beside its target."""

    exact: bool
    """Every character is right and none is missing or extra."""
    character_accuracy: float
    """Places where both have the same character / length of the longer; 1.0 for two empty."""
    edit_distance: int
    """Fewest characters to put in, leave out or replace."""
    length_difference: int
    """Length of the prediction minus length of the target."""
    substitutions: int
    """Characters of the target that the prediction has another one for."""
    insertions: int
    """Extra characters of the prediction."""
    deletions: int
    """Characters of the target that the prediction lacks."""
    target_characters: int
    """Length of the target."""


@dataclass(frozen=True, kw_only=True)
class StringMetrics:
    """Predictions beside their targets, over rows."""

    rows: int
    """How many."""
    right: int
    """Rows that are exact."""
    exact_match: float
    """Share of rows that are exact."""
    character_accuracy: float
    """Mean over rows: a character in its place. One that is missing moves all that follow."""
    character_error_rate: float
    """Edits of all rows / characters of all targets; above 1 where outputs are far too long."""
    mean_edit_distance: float
    """Edits of a row."""
    max_edit_distance: int
    """Edits of the worst row."""
    mean_length_difference: float
    """Prediction minus target, characters; below 0 where outputs are too short."""
    mean_absolute_length_difference: float
    """The same without the sign."""
    rows_with_length_error: int
    """Rows whose prediction has not the target's length."""
    substitutions: int
    """Wrong characters of all rows."""
    insertions: int
    """Extra characters of all rows."""
    deletions: int
    """Missing characters of all rows."""

    def to_dict(self) -> dict[str, Any]:
        """Return the fields by name."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Bin:
    """The rows of one range of lengths."""

    low: int
    """Shortest length of the range."""
    high: int | None
    """Longest length of the range; None: no limit."""
    metrics: StringMetrics
    """Of the rows in it."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Characters of the targets at one place."""

    low: float
    """Where the place begins."""
    high: float
    """Where it ends; equal to `low` for a whole number."""
    right: int
    """Characters that no edit touches."""
    characters: int
    """All of them."""
    interval: tuple[float, float]
    """95 % interval of the accuracy; characters of one row count as dependent."""

    @property
    def accuracy(self) -> float:
        """Share of the characters that are right."""
        return self.right / self.characters


@dataclass(frozen=True, kw_only=True)
class EdgeAccuracy:
    """Accuracy of characters by where their source lies in a patch; places that occur, rising."""

    from_start: tuple[Place, ...]
    """By bytes after the first byte of the patch: 0 is that byte."""
    from_end: tuple[Place, ...]
    """By bytes before the last byte of the patch: 0 is that byte."""
    by_patch_length: tuple[Place, ...]
    """By bytes of the patch."""


class _Column(NamedTuple):
    """One column of the table of distances; bit i belongs to row i + 1."""

    below: int
    """Set where the distance is one more than in the row above."""
    diagonal: int
    """Set where the distance is that of the row above in the column before."""


def edits(prediction: str, target: str) -> tuple[Edit, ...]:
    """Return the edits that make the prediction of the target, from the left; () where equal."""
    return () if prediction == target else _edits(prediction, target)


_ROWS_KEPT = 1 << 12
"""More than the rows of a test file: each breakdown of one model's rows needs the same edits."""


@functools.lru_cache(maxsize=_ROWS_KEPT)
def _edits(prediction: str, target: str) -> tuple[Edit, ...]:
    # Both are reversed in the table, so that the way back through it reads them from the left.
    columns = _columns(prediction[::-1], target[::-1])
    found: list[Edit] = []
    row, column = len(target), len(prediction)
    while row or column:
        place = len(target) - row
        wanted = target[place] if row else ""
        got = prediction[len(prediction) - column] if column else ""
        bit = 1 << row >> 1
        if wanted == got:
            row, column = row - 1, column - 1
        elif row and column and not columns[column].diagonal & bit:
            found.append(Edit("substitution", place, wanted, got))
            row, column = row - 1, column - 1
        elif row and columns[column].below & bit:
            found.append(Edit("missing", place, wanted, ""))
            row -= 1
        else:
            found.append(Edit("extra", place, "", got))
            column -= 1
    return tuple(found)


def _columns(text: str, pattern: str) -> list[_Column]:
    """Return the columns of the table of distances of prefixes, the column of no text first."""
    mask = (1 << len(pattern)) - 1
    occurs: dict[str, int] = {}
    for index, character in enumerate(pattern):
        occurs[character] = occurs.get(character, 0) | 1 << index
    rising, falling = mask, 0
    columns = [_Column(below=mask, diagonal=0)]
    for character in text:
        equal = occurs.get(character, 0)
        diagonal = ((((equal & rising) + rising) ^ rising) | equal | falling) & mask
        right_up = (falling | ~(diagonal | rising)) << 1 | 1
        right_down = (diagonal & rising) << 1
        rising = (right_down | ~(diagonal | right_up)) & mask
        falling = right_up & diagonal
        columns.append(_Column(below=rising, diagonal=diagonal))
    return columns


def edit_distance(first: str, second: str) -> int:
    """Return the fewest characters to put in, leave out or replace to get one from the other.

    >>> edit_distance("kitten", "sitting")
    3
    """
    return len(edits(first, second))


def score_row(prediction: str, target: str) -> RowScore:
    """Compare one prediction with its target.

    >>> score_row("abd", "abc").character_accuracy
    0.6666666666666666
    """
    steps = edits(prediction, target)
    kinds = Counter(step.kind for step in steps)
    longer = max(len(prediction), len(target))
    same = sum(got == wanted for got, wanted in zip(prediction, target, strict=False))
    return RowScore(
        exact=prediction == target,
        character_accuracy=same / longer if longer else 1.0,
        edit_distance=len(steps),
        length_difference=len(prediction) - len(target),
        substitutions=kinds["substitution"],
        insertions=kinds["extra"],
        deletions=kinds["missing"],
        target_characters=len(target),
    )


def string_metrics(predictions: Sequence[str], targets: Sequence[str]) -> StringMetrics:
    """Compare predictions with their targets.

    Args:
        predictions: One string for each row.
        targets: The right ones, in the same order.

    Returns:
        The figures over all rows.

    Raises:
        ValueError: No rows, not as many predictions as targets, or targets that are all empty.

    """
    scores = _scores(predictions, targets)
    rows = len(scores)
    characters = sum(score.target_characters for score in scores)
    if not characters:
        raise ValueError(f"expected targets with at least one character, got {rows} empty ones")
    right = sum(score.exact for score in scores)
    distances = [score.edit_distance for score in scores]
    lengths = [score.length_difference for score in scores]
    return StringMetrics(
        rows=rows,
        right=right,
        exact_match=right / rows,
        character_accuracy=sum(score.character_accuracy for score in scores) / rows,
        character_error_rate=sum(distances) / characters,
        mean_edit_distance=sum(distances) / rows,
        max_edit_distance=max(distances),
        mean_length_difference=sum(lengths) / rows,
        mean_absolute_length_difference=sum(map(abs, lengths)) / rows,
        rows_with_length_error=sum(length != 0 for length in lengths),
        substitutions=sum(score.substitutions for score in scores),
        insertions=sum(score.insertions for score in scores),
        deletions=sum(score.deletions for score in scores),
    )


def _scores(predictions: Sequence[str], targets: Sequence[str]) -> list[RowScore]:
    _check_rows(targets, predictions=predictions)
    return [score_row(*row) for row in zip(predictions, targets, strict=True)]


def _check_rows(targets: Sequence[str], **others: Sequence[Any]) -> None:
    if not len(targets):
        raise ValueError("expected at least one row, got none")
    for name, values in others.items():
        if len(values) != len(targets):
            raise ValueError(
                f"expected one of {name} for each of {len(targets)} targets, got {len(values)}"
            )


def error_kind(prediction: str, target: str) -> ErrorKind | None:
    """Name how a prediction is wrong; None where it is right.

    >>> error_kind("olleh", "ollehx")
    'cut short'
    """
    if prediction == target:
        return None
    if target.startswith(prediction):
        return "cut short"
    if prediction.startswith(target):
        return "ran on"
    steps = edits(prediction, target)
    # A wrong character is judged by what was wanted: "e" for "é" is an error of non-ASCII text.
    if not any((step.wanted or step.got).isascii() for step in steps):
        return "non-ASCII only"
    if _are_neighbors_swapped(prediction, target):
        return "neighbors swapped"
    if len(steps) == 1:
        names: dict[str, ErrorKind] = {
            "substitution": "one wrong",
            "missing": "one missing",
            "extra": "one extra",
        }
        return names[steps[0].kind]
    return "other order" if Counter(prediction) == Counter(target) else "other"


def _are_neighbors_swapped(prediction: str, target: str) -> bool:
    if len(prediction) != len(target):
        return False
    pairs = enumerate(zip(prediction, target, strict=True))
    wrong = [place for place, (got, wanted) in pairs if got != wanted]
    if len(wrong) != 2 or wrong[0] + 1 != wrong[1]:
        return False
    first, second = wrong
    return (prediction[first], prediction[second]) == (target[second], target[first])


def error_kinds(predictions: Sequence[str], targets: Sequence[str]) -> dict[ErrorKind, int]:
    """Count the wrong rows of each kind, all kinds in the order of `ErrorKind`.

    Raises:
        ValueError: No rows, or not as many predictions as targets.

    """
    _check_rows(targets, predictions=predictions)
    found = Counter(map(error_kind, predictions, targets))
    return {kind: found[kind] for kind in get_args(ErrorKind)}


def by_length(
    inputs: Sequence[str],
    predictions: Sequence[str],
    targets: Sequence[str],
    *,
    edges: Sequence[int],
) -> tuple[Bin, ...]:
    """Break the metrics down by the characters of the input.

    Args:
        inputs: What the model read, one string for each row.
        predictions: In the same order.
        targets: In the same order.
        edges: Shortest length of each bin, rising; the last bin has no upper limit.

    Returns:
        The bins that hold a row, shortest first.

    Raises:
        ValueError: Edges that do not rise, a length below the first of them, or as in
            `string_metrics`.

    """
    return _in_bins([len(text) for text in inputs], predictions, targets, edges=edges)


def by_word_count(
    inputs: Sequence[str],
    predictions: Sequence[str],
    targets: Sequence[str],
    *,
    edges: Sequence[int],
) -> tuple[Bin, ...]:
    """Break the metrics down by the words of the input: runs without white space.

    Args:
        inputs: What the model read, one string for each row.
        predictions: In the same order.
        targets: In the same order.
        edges: Fewest words of each bin, rising; the last bin has no upper limit.

    Returns:
        The bins that hold a row, fewest words first.

    Raises:
        ValueError: As in `by_length`.

    """
    return _in_bins([len(text.split()) for text in inputs], predictions, targets, edges=edges)


def _in_bins(
    sizes: Sequence[int],
    predictions: Sequence[str],
    targets: Sequence[str],
    *,
    edges: Sequence[int],
) -> tuple[Bin, ...]:
    _check_rows(targets, inputs=sizes, predictions=predictions)
    if not edges or any(low >= high for low, high in pairwise(edges)):
        raise ValueError(f"expected edges that rise, got {list(edges)}")
    if min(sizes) < edges[0]:
        raise ValueError(f"expected a first edge of at most {min(sizes)}, got {edges[0]}")
    rows_of: dict[int, list[int]] = {}
    for row, size in enumerate(sizes):
        rows_of.setdefault(bisect_right(edges, size) - 1, []).append(row)
    return tuple(
        Bin(
            low=edges[index],
            high=edges[index + 1] - 1 if index + 1 < len(edges) else None,
            metrics=string_metrics([predictions[r] for r in rows], [targets[r] for r in rows]),
        )
        for index, rows in sorted(rows_of.items())
    )


def position_accuracy(
    predictions: Sequence[str], targets: Sequence[str], *, bins: int = 10
) -> tuple[Place, ...]:
    """Break the accuracy of characters down by where they stand in the target.

    A character is right where no edit touches it, so that one left out costs one and not all that
    follow.

    Args:
        predictions: One string for each row.
        targets: The right ones, in the same order.
        bins: Equal parts of the target; character i of n belongs to part floor(i x bins / n).

    Returns:
        The parts that hold a character, from 0 (first character) to 1 (end).

    Raises:
        ValueError: No rows, not as many predictions as targets, or no bins.

    """
    _check_rows(targets, predictions=predictions)
    if bins < 1:
        raise ValueError(f"expected at least one bin, got {bins}")
    table = _Table()
    for row in zip(predictions, targets, strict=True):
        is_right = _untouched(*row)
        table.add(is_right, [index * bins // len(is_right) for index in range(len(is_right))])
    return tuple(
        Place(low=part / bins, high=(part + 1) / bins, **counts)
        for part, counts in table.places().items()
    )


def edge_accuracy(
    predictions: Sequence[str],
    targets: Sequence[str],
    *,
    source_index: Sequence[Sequence[int | None]],
    patch_lengths: Sequence[Sequence[int]],
) -> EdgeAccuracy:
    """Break the accuracy of characters down by where their source lies in a patch of the input.

    For tasks where each character of the target comes from a known place of the input. A
    character is right where no edit touches it.

    Args:
        predictions: One string for each row.
        targets: The right ones, in the same order.
        source_index: For each row and character of the target, the offset of the byte of the
            input that it comes from (its first byte); None: from none, not counted.
        patch_lengths: Bytes of the patches of each input, in order.

    Returns:
        The accuracy by distance from both edges of the patch, and by its length.

    Raises:
        ValueError: Not the same rows everywhere, not one source for each character, or a source
            that no patch holds.

    """
    _check_rows(
        targets, predictions=predictions, source_index=source_index, patch_lengths=patch_lengths
    )
    from_start, from_end, lengths = _Table(), _Table(), _Table()
    for row, (prediction, target) in enumerate(zip(predictions, targets, strict=True)):
        sources, patches = source_index[row], np.asarray(patch_lengths[row], dtype=np.int64)
        if len(sources) != len(target):
            raise ValueError(
                f"row {row}: expected a source for each of {len(target)} characters, got "
                f"{len(sources)}"
            )
        has_source = np.array([source is not None for source in sources], dtype=bool)
        offsets = np.array([source for source in sources if source is not None], dtype=np.int64)
        if len(offsets) and not 0 <= offsets.min() <= offsets.max() < patches.sum():
            raise ValueError(
                f"row {row}: expected sources from 0 to {patches.sum() - 1}, within the patches; "
                f"got {offsets.min()} to {offsets.max()}"
            )
        is_right = _untouched(prediction, target)[has_source]
        ends = np.cumsum(patches)
        patch = np.searchsorted(ends, offsets, side="right")
        from_start.add(is_right, offsets - (ends - patches)[patch])
        from_end.add(is_right, ends[patch] - 1 - offsets)
        lengths.add(is_right, patches[patch])
    return EdgeAccuracy(
        from_start=_whole_places(from_start),
        from_end=_whole_places(from_end),
        by_patch_length=_whole_places(lengths),
    )


def _untouched(prediction: str, target: str) -> np.ndarray:
    """Return whether no edit touches each character of the target, bool."""
    is_right = np.ones(len(target), dtype=bool)
    for step in edits(prediction, target):
        if step.kind != "extra":
            is_right[step.place] = False
    return is_right


class _Table:
    """Right and all characters of each row at each place."""

    def __init__(self) -> None:
        self._right: list[np.ndarray] = []
        self._all: list[np.ndarray] = []

    def add(self, is_right: np.ndarray, places: Sequence[int] | np.ndarray) -> None:
        """Take one row: whether each of its characters is right, and at which place it is."""
        places = np.asarray(places, dtype=np.int64)
        self._right.append(np.bincount(places[is_right]))
        self._all.append(np.bincount(places))

    def places(self) -> dict[int, dict[str, Any]]:
        """Return `right`, `characters` and `interval` of each place that occurs, rising."""
        width = max(len(row) for row in self._all)
        right, total = _stacked(self._right, width), _stacked(self._all, width)
        return {
            place: {
                "right": int(right[:, place].sum()),
                "characters": int(total[:, place].sum()),
                "interval": clustered_interval(right[:, place], total[:, place]),
            }
            for place in range(width)
            if total[:, place].any()
        }


def _stacked(rows: list[np.ndarray], width: int) -> np.ndarray:
    return np.stack([np.pad(row, (0, width - len(row))) for row in rows])


def _whole_places(table: _Table) -> tuple[Place, ...]:
    return tuple(Place(low=place, high=place, **counts) for place, counts in table.places().items())
