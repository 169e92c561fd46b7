"""Oracles: the plain table of distances, hand values, laws of edits."""

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.evaluation.paired import clustered_interval
from bytelm.evaluation.strings import (
    Edit,
    by_length,
    by_word_count,
    edge_accuracy,
    edit_distance,
    edits,
    error_kind,
    error_kinds,
    position_accuracy,
    score_row,
    string_metrics,
)

SHORT = st.text(alphabet="abé", max_size=9)
"""Few characters, so that they often repeat and there are many shortest ways."""


def plain_edits(prediction: str, target: str) -> list[Edit]:
    """The definition: the table of distances of all ends of both, walked from the left."""

    @cache
    def distance(i: int, j: int) -> int:
        """Between target[i:] and prediction[j:]."""
        if i == len(target) or j == len(prediction):
            return len(target) - i + len(prediction) - j
        if target[i] == prediction[j]:
            return distance(i + 1, j + 1)
        return 1 + min(distance(i + 1, j + 1), distance(i + 1, j), distance(i, j + 1))

    found: list[Edit] = []
    i = j = 0
    while i < len(target) or j < len(prediction):
        left = distance(i, j) - 1
        both = i < len(target) and j < len(prediction)
        if both and target[i] == prediction[j]:
            i, j = i + 1, j + 1
        elif both and distance(i + 1, j + 1) == left:
            found.append(Edit("substitution", i, target[i], prediction[j]))
            i, j = i + 1, j + 1
        elif i < len(target) and distance(i + 1, j) == left:
            found.append(Edit("missing", i, target[i], ""))
            i += 1
        else:
            found.append(Edit("extra", i, "", prediction[j]))
            j += 1
    return found


# --- edits -------------------------------------------------------------------------------------


@given(SHORT, SHORT)
def test_edits_are_those_of_the_plain_table(prediction, target):
    assert list(edits(prediction, target)) == plain_edits(prediction, target)


@given(st.text(alphabet="ab ", min_size=60, max_size=200), st.data())
def test_edits_of_more_characters_than_a_machine_word_has_bits(target, data):
    start = data.draw(st.integers(0, len(target)))
    prediction = target[:start] + data.draw(SHORT) + target[start + data.draw(st.integers(0, 9)) :]
    row = list(range(len(target) + 1))
    for got in prediction:
        diagonal, row[0] = row[0], row[0] + 1
        for i, wanted in enumerate(target, start=1):
            diagonal, row[i] = row[i], min(diagonal + (got != wanted), row[i] + 1, row[i - 1] + 1)
    assert edit_distance(prediction, target) == row[-1]


@given(st.text(max_size=12), st.text(max_size=12))
def test_the_edits_applied_to_the_target_give_the_prediction(prediction, target):
    built, place = "", 0
    for step in edits(prediction, target):
        built += target[place : step.place]
        place = step.place
        if step.kind != "extra":
            assert target[place] == step.wanted != step.got
            place += 1
        built += step.got
    assert built + target[place:] == prediction


@given(SHORT, SHORT, SHORT)
def test_edit_distance_is_a_metric(first, second, third):
    assert edit_distance(first, second) == edit_distance(second, first)
    assert (edit_distance(first, second) == 0) == (first == second)
    assert edit_distance(first, third) <= edit_distance(first, second) + edit_distance(
        second, third
    )


def test_ties_are_read_from_the_left():
    """Worked by hand: the doubled end is extra, the lost end is missing, not the same at the
    front; "a" for "b" is taken before leaving anything out."""
    assert edits("abab", "ab") == (Edit("extra", 2, "", "a"), Edit("extra", 2, "", "b"))
    assert edits("ab", "abab") == (Edit("missing", 2, "a", ""), Edit("missing", 3, "b", ""))
    assert edits("xa", "ab") == (
        Edit("substitution", 0, "a", "x"),
        Edit("substitution", 1, "b", "a"),
    )


# --- one row -----------------------------------------------------------------------------------


def test_one_row_by_hand():
    score = score_row("hxllo!", "hello")
    assert (score.exact, score.edit_distance, score.length_difference) == (False, 2, 1)
    assert (score.substitutions, score.insertions, score.deletions) == (1, 1, 0)
    assert score.character_accuracy == 4 / 6
    assert score.target_characters == 5


def test_a_missing_first_character_costs_all_places_but_one_edit():
    score = score_row("bcdef", "abcdef")
    assert score.character_accuracy == 0
    assert (score.edit_distance, score.deletions) == (1, 1)


def test_characters_are_code_points():
    """A heart with its variation selector is two; a letter with an accent is not both apart."""
    assert score_row("\u2764", "\u2764\ufe0f").edit_distance == 1
    apart = score_row("\u00e9", "e\u0301")
    assert (apart.exact, apart.target_characters, apart.edit_distance) == (False, 2, 2)


def test_nothing_predicted_and_nothing_wanted():
    assert score_row("", "").character_accuracy == 1
    empty = score_row("", "ab")
    assert (empty.character_accuracy, empty.deletions, empty.length_difference) == (0, 2, -2)


@given(SHORT, SHORT)
def test_counts_of_a_row_fit_together(prediction, target):
    score = score_row(prediction, target)
    assert score.edit_distance == score.substitutions + score.insertions + score.deletions
    assert score.length_difference == score.insertions - score.deletions
    assert score.exact == (score.edit_distance == 0) == (score.character_accuracy == 1)
    assert abs(score.length_difference) <= score.edit_distance <= max(len(prediction), len(target))


# --- all rows ----------------------------------------------------------------------------------


def test_metrics_by_hand():
    metrics = string_metrics(["abc", "ab", "xbcde"], ["abc", "abcd", "abc"])
    assert metrics.to_dict() == {
        "rows": 3,
        "right": 1,
        "exact_match": pytest.approx(1 / 3),
        "character_accuracy": pytest.approx((1 + 2 / 4 + 2 / 5) / 3),
        "character_error_rate": pytest.approx(5 / 10),
        "mean_edit_distance": pytest.approx(5 / 3),
        "max_edit_distance": 3,
        "mean_length_difference": 0,
        "mean_absolute_length_difference": pytest.approx(4 / 3),
        "rows_with_length_error": 2,
        "substitutions": 1,
        "insertions": 2,
        "deletions": 2,
    }


@pytest.mark.parametrize(
    ("predictions", "targets", "message"),
    [
        ([], [], "at least one row"),
        (["a"], ["a", "b"], "one of predictions for each of 2 targets, got 1"),
        (["a"], [""], "at least one character"),
    ],
)
def test_rows_that_cannot_be_compared_are_named(predictions, targets, message):
    with pytest.raises(ValueError, match=message):
        string_metrics(predictions, targets)


# --- kinds of errors ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("prediction", "target", "kind"),
    [
        ("abc", "abc", None),
        ("ab", "abc", "cut short"),
        ("", "abc", "cut short"),
        ("abcabc", "abc", "ran on"),
        ("cafe", "café", "non-ASCII only"),
        ("caf\ufffd!", "café!", "non-ASCII only"),
        ("caf!", "café!", "non-ASCII only"),
        ("ca!e", "café", "other"),
        ("acb", "abc", "neighbors swapped"),
        ("axc", "abc", "one wrong"),
        ("ac", "abc", "one missing"),
        ("abbc", "abc", "one extra"),
        ("cab", "abc", "other order"),
        ("badc", "abcd", "other order"),
        ("xyz", "abc", "other"),
    ],
)
def test_kind_by_hand(prediction, target, kind):
    assert error_kind(prediction, target) == kind


@given(st.lists(st.tuples(SHORT, SHORT), min_size=1, max_size=9))
def test_every_wrong_row_has_one_kind(rows):
    predictions, targets = [row[0] for row in rows], [row[1] for row in rows]
    kinds = error_kinds(predictions, targets)
    assert sum(kinds.values()) == sum(prediction != target for prediction, target in rows)
    assert next(iter(kinds)) == "cut short"
    assert list(kinds)[-1] == "other"


# --- by length ---------------------------------------------------------------------------------


def test_bins_are_in_the_order_of_numbers():
    """As text, "100" would stand before "20"."""
    inputs = ["a" * 100, "a" * 20, "a" * 5, "a" * 39, "a" * 250]
    targets = ["t"] * 5
    predictions = ["t", "x", "t", "t", "x"]
    bins = by_length(inputs, predictions, targets, edges=[0, 20, 40, 60, 100])
    assert [(part.low, part.high, part.metrics.rows, part.metrics.right) for part in bins] == [
        (0, 19, 1, 1),
        (20, 39, 2, 1),
        (100, None, 2, 1),
    ]


def test_words_are_what_white_space_parts():
    inputs = ["one", "two words", " three\twords  here ", "one-word ♫"]
    bins = by_word_count(inputs, ["t"] * 4, ["t"] * 4, edges=range(1, 5))
    assert [(part.low, part.metrics.rows) for part in bins] == [(1, 1), (2, 2), (3, 1)]


@given(st.lists(st.tuples(SHORT, SHORT, SHORT), min_size=1, max_size=9))
def test_bins_part_the_rows(rows):
    inputs, predictions, targets = ([f"{row[i]}." for row in rows] for i in range(3))
    bins = by_length(inputs, predictions, targets, edges=[0, 3, 5])
    whole = string_metrics(predictions, targets)
    for field in ("rows", "right", "substitutions", "insertions", "deletions"):
        assert sum(part.metrics.to_dict()[field] for part in bins) == whole.to_dict()[field]


@pytest.mark.parametrize(
    ("edges", "message"),
    [([], "edges that rise"), ([0, 3, 3], "edges that rise"), ([2, 3], "first edge of at most 1")],
)
def test_edges_that_do_not_fit_are_named(edges, message):
    with pytest.raises(ValueError, match=message):
        by_length(["a"], ["a"], ["a"], edges=edges)


# --- by place ----------------------------------------------------------------------------------


def test_positions_by_hand():
    """The first row lacks its second character of four, the other has its last of two wrong."""
    places = position_accuracy(["acd", "ax"], ["abcd", "ab"], bins=2)
    assert [(place.low, place.high) for place in places] == [(0, 0.5), (0.5, 1)]
    assert [(place.right, place.characters) for place in places] == [(2, 3), (2, 3)]
    assert places[0].accuracy == 2 / 3
    low, high = places[0].interval
    assert 0 < low < 2 / 3 < high < 1


def test_short_targets_leave_parts_without_characters():
    """Characters 0, 1 and 2 of three belong to parts 0, 3 and 6 of ten."""
    places = position_accuracy(["abc"], ["abc"])
    assert [round(10 * place.low) for place in places] == [0, 3, 6]


@given(st.lists(st.tuples(SHORT, st.text("abé", min_size=1)), min_size=1, max_size=9))
def test_positions_count_every_character_once(rows):
    predictions, targets = [row[0] for row in rows], [row[1] for row in rows]
    places = position_accuracy(predictions, targets, bins=4)
    metrics = string_metrics(predictions, targets)
    characters = sum(map(len, targets))
    assert sum(place.characters for place in places) == characters
    assert sum(place.right for place in places) == (
        characters - metrics.substitutions - metrics.deletions
    )


def test_edges_of_patches_by_hand():
    """ "aéb c" reversed; patches of 3 and 3 bytes: a é | b _ c, "é" begins at byte 1."""
    found = edge_accuracy(
        ["c xéa"],
        ["c béa"],
        source_index=[[5, 4, 3, 1, 0]],
        patch_lengths=[[3, 3]],
    )
    assert [(place.low, place.right, place.characters) for place in found.from_start] == [
        (0, 1, 2),
        (1, 2, 2),
        (2, 1, 1),
    ]
    assert [(place.low, place.right, place.characters) for place in found.from_end] == [
        (0, 1, 1),
        (1, 2, 2),
        (2, 1, 2),
    ]
    assert [(place.low, place.right, place.characters) for place in found.by_patch_length] == [
        (3, 4, 5)
    ]


def test_characters_from_nowhere_do_not_count_and_rows_are_put_together():
    found = edge_accuracy(
        ["a-b", "xy"],
        ["a-b", "ay"],
        source_index=[[0, None, 1], [1, 0]],
        patch_lengths=[[2], [1, 1]],
    )
    # Patches of 2 bytes have both characters right, patches of 1 byte one of two.
    assert [(place.low, place.right, place.characters) for place in found.by_patch_length] == [
        (1, 1, 2),
        (2, 2, 2),
    ]
    [alone, _] = found.by_patch_length
    assert alone.interval == clustered_interval(np.array([0, 1]), np.array([0, 2]))


@pytest.mark.parametrize(
    ("sources", "patches", "message"),
    [
        ([[0]], [[2]], "row 0: expected a source for each of 2 characters, got 1"),
        ([[0, 2]], [[2]], "row 0: expected sources from 0 to 1, within the patches; got 0 to 2"),
        ([[-1, 0]], [[2]], "got -1 to 0"),
        ([], [[2]], "one of source_index for each of 1 targets, got 0"),
        ([[0, 1]], [], "one of patch_lengths for each of 1 targets, got 0"),
    ],
)
def test_sources_outside_the_patches_are_named(sources, patches, message):
    with pytest.raises(ValueError, match=message):
        edge_accuracy(["ab"], ["ab"], source_index=sources, patch_lengths=patches)
