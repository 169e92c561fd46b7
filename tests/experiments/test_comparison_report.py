"""What a comparison says. Oracles: answers put in; figures made anew from the CSV files."""

import csv
import io
import json
import math
import re
from collections import Counter
from dataclasses import replace

import pytest
from comparison_records import made_up, published, record, without
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from bytelm.data.tasks import TASKS, generate
from bytelm.evaluation import error_kind
from bytelm.experiments.comparison.contrasts import ALL_ROWS, contrasts, of_rows
from bytelm.experiments.comparison.findings import Found
from bytelm.experiments.comparison.groups import by_length, by_script, by_words, length_edges
from bytelm.experiments.comparison.origins import source_bytes
from bytelm.experiments.comparison.outputs import files
from bytelm.experiments.comparison.report import document
from bytelm.experiments.comparison.searched import Searched
from bytelm.experiments.document import as_html, as_markdown, as_text
from bytelm.experiments.results import Record

SECTIONS = [
    "Experimental Configuration",
    "Hyperparameter Analysis",
    "Training",
    "Statistical Analysis",
    "Performance Breakdown by Input Length",
    "Position in the Output",
    "Patch Edges",
    "Non-ASCII Text",
    "Kinds of Error",
    "Patch Size",
    "Speed",
    "Key Findings",
    "Conclusions",
    "Where it ran",
]

FIGURES = {
    "hyperparameter_analysis",
    "training_curves",
    "detailed_metrics",
    "accuracy_analysis",
    "positions",
    "patch_sizes",
}

ARMS = {"blt": "patched model", "baseline": "baseline"}


class Rendered:
    """What is made of a record, made once."""

    def __init__(self, made: Record) -> None:
        self.record = made
        self.document = document(made)
        self.files = files(made)


RENDERED: list[Rendered] = []


def rendered(made: Record) -> Rendered:
    if not RENDERED or RENDERED[0].record is not made:
        RENDERED[:] = [Rendered(made)]
    return RENDERED[0]


def tables(made: Record) -> list[list[dict[str, str]]]:
    """All tables of the report, each row as heading to cell."""
    found = []
    text = as_markdown(rendered(made).document)
    for block in re.findall(r"(?:^\|.*\n)+", text, flags=re.MULTILINE):
        cells = [
            [cell.strip() for cell in line.strip().strip("|").split(" | ")]
            for line in block.splitlines()
        ]
        found.append([dict(zip(cells[0], row, strict=True)) for row in cells[2:]])
    return found


def table(made: Record, heading: str) -> list[dict[str, str]]:
    """The table whose first heading this is."""
    return next(rows for rows in tables(made) if rows and next(iter(rows[0])) == heading)


def said(made: Record, title: str) -> str:
    text = as_text(rendered(made).document)
    part = text.partition(f"\n{title}\n")[2]
    return re.split(r"\n\n[^\n]+\n-{4,}\n\n", part)[0].replace("\n  ", " ").replace("\n", " ")


def rows_of(made: Record, name: str) -> list[dict[str, str]]:
    """A file of predictions, read as anybody would read it."""
    text = rendered(made).files[f"predictions/{name}.csv"].decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


def number(cell: str) -> float:
    return float(cell.split(" ")[0].replace(",", ""))


def interval(cell: str) -> tuple[float, float]:
    low, high = re.fullmatch(r"[\d.]+ \(([\d.]+) to ([\d.]+)\)", cell).groups()
    return float(low), float(high)


def distance(first: str, second: str) -> int:
    """Levenshtein by the plain table."""
    above = list(range(len(second) + 1))
    for row, one in enumerate(first, start=1):
        line = [row]
        for column, other in enumerate(second):
            line.append(min(above[column] + (one != other), above[column + 1] + 1, line[-1] + 1))
        above = line
    return above[-1]


# --- what it concludes -------------------------------------------------------------------------


def test_from_the_published_counts_it_concludes_that_the_baseline_is_better():
    made = document(published())
    text = " ".join(as_text(made).split())
    sentence = "The patched model loses: the baseline is better by 22.75 points of exact match."
    assert made.lead.endswith(sentence)
    assert f"Conclusions ----------- WARNING: {sentence}" in text
    assert "patched model 76.70 (74.80 to 78.50), baseline 99.45 (99.02 to 99.69)" in text
    assert "the baseline is better (difference -22.75 points, -24.65 to -20.94, p < 0.0001)" in text
    assert (
        "Of 459 rows on which they differ the patched model has 2 right, the baseline 457." in text
    )
    assert "is better than the baseline" not in text


def test_the_test_behind_it_is_mcnemars():
    test = of_rows(contrasts(Found(published())))
    assert test.better == "baseline"
    assert (test.right.only_first, test.right.only_second) == (2, 457)
    assert test.p_value == pytest.approx(binomtest(2, 459).pvalue)
    assert test.difference == pytest.approx(-22.75)


def test_the_summary_says_the_same():
    made = made_up(rows=100, wrong={"blt": 0.5, "baseline": 0.02})
    text = rendered(made).files["results/summary_report.txt"].decode()
    sentence = rendered(made).document.lead.removeprefix("Do patches cost exactness? ")
    assert sentence.startswith("The patched model loses: the baseline is better by ")
    assert text.count(sentence) == 2
    for bullet in ("Exact match (beam 5), %: patched model", "The patched model has 1.00 times"):
        assert bullet in text


def test_the_same_rule_says_when_the_patched_model_is_better():
    made = made_up(rows=150, wrong={"blt": 0.01, "baseline": 0.3})
    assert of_rows(contrasts(Found(made))).better == "blt"
    assert "The patched model is better than the baseline by" in rendered(made).document.lead
    assert "loses" not in as_text(rendered(made).document)
    assert "WARNING" not in as_text(rendered(made).document)


@pytest.mark.parametrize("seeds", [1, 3])
def test_models_that_are_right_equally_often_show_no_difference(seeds):
    made = made_up(rows=120, seeds=seeds, wrong={"blt": 0.05, "baseline": 0.05})
    assert of_rows(contrasts(Found(made))).better is None
    assert "No difference in exact match is shown" in rendered(made).document.lead
    assert "is better" not in said(made, "Conclusions")
    assert "no difference shown" in said(made, "Key Findings")


def test_a_sign_alone_is_no_difference():
    """One row of a hundred: the patched model has it right, the baseline has not."""
    pairs = [(f"row {i:03}", f"{i:03} wor"[::1]) for i in range(100)]
    is_right = {("blt", 0): [True] * 100, ("baseline", 0): [i != 5 for i in range(100)]}
    test = of_rows(contrasts(Found(record(pairs, is_right, is_searched=False))))
    assert test.difference == pytest.approx(1.0)
    assert (test.p_value, test.better) == (1.0, None)


def test_where_nothing_is_wrong_no_place_is_held_against_another():
    nothing = dict.fromkeys(("blt", "baseline", "blt 4", "blt 6"), 0.0)
    made = made_up(wrong=nothing)
    text = said(made, "Key Findings")
    assert "patched model 100.00" in text
    assert "Wrong characters" not in text
    assert "Wrong characters of the baseline by tenth of the output: from" in said(
        made_up(), "Key Findings"
    )


def test_the_seeds_are_told():
    one, three = made_up(), made_up(seeds=3)
    assert "Each model was trained once" in said(one, "Key Findings")
    assert "another seed may change it" in said(one, "Conclusions")
    assert "Each model was trained once" not in said(three, "Key Findings")
    assert "This holds over 3 trainings of each model" in said(three, "Conclusions")
    assert {test.num_seeds for test in contrasts(Found(three)) if test.arms[1] != "blt"} == {3}


def test_seeds_that_disagree_show_less_than_one_of_them_would():
    """Rows alone call both gaps real; over seeds that gain and lose nothing is shown."""
    pairs = [(f"{i:04}", f"{i:04}"[::-1]) for i in range(400)]
    ours = {0: 0.02, 1: 0.30}
    is_right = {
        ("blt", seed): [i >= 400 * share for i in range(400)] for seed, share in ours.items()
    }
    is_right |= {("baseline", seed): [i >= 64 for i in range(400)] for seed in ours}
    both = of_rows(contrasts(Found(record(pairs, is_right, is_searched=False))))
    first = {key: value for key, value in is_right.items() if key[1] == 0}
    alone = of_rows(contrasts(Found(record(pairs, first, is_searched=False))))
    assert (alone.better, both.better) == ("blt", None)


def test_larger_patches_are_told_apart_where_the_test_does():
    found = said(made_up(rows=250), "Conclusions")
    assert "Larger patches cost exact match: mean bytes" in found
    same = made_up(rows=120, wrong=dict.fromkeys(("blt", "blt 4", "blt 6"), 0.05))
    assert "Larger patches are not shown to cost exact match: mean bytes 4.00, 6.00." in said(
        same, "Conclusions"
    )
    assert (
        "Patches of 4.00 bytes instead of 3.20, exact match (beam 5): no difference shown"
        in said(same, "Key Findings")
    )


def test_all_tests_are_one_family():
    """Holm by hand: the k-th smallest of n times n - k + 1, never falling."""
    tests = sorted(contrasts(Found(made_up(rows=300))), key=lambda test: test.p_value)
    assert len(tests) > 8
    highest = 0.0
    for place, test in enumerate(tests):
        highest = max(highest, min(1.0, (len(tests) - place) * test.p_value))
        assert test.adjusted == pytest.approx(highest)


# --- every figure again, from the CSV files ----------------------------------------------------


@pytest.mark.parametrize("seeds", [1, 2])
def test_metrics_are_those_of_the_prediction_files(seeds):
    made = made_up(seeds=seeds, rows=150)
    metrics = table(made, "model")
    assert metrics[0].keys() >= {"parameters"}
    metrics = next(rows for rows in tables(made) if rows and "edit distance, characters" in rows[0])
    assert [row["model"] for row in metrics] == [
        f"{name}, {how}" for name in ARMS.values() for how in ("beam 5", "greedy")
    ]
    for row in metrics:
        name, how = row["model"].rsplit(", ", 1)
        arm = next(arm for arm, title in ARMS.items() if title == name)
        stem = [f"predictions_{arm}" + (f"_seed{seed}" if seed else "") for seed in range(seeds)]
        known = [rows_of(made, one + ("" if how == "beam 5" else "_greedy")) for one in stem]
        lines = [line for each in known for line in each]
        right = [line["prediction"] == line["target"] for line in lines]
        edits = [distance(line["prediction"], line["target"]) for line in lines]
        gaps = [len(line["prediction"]) - len(line["target"]) for line in lines]
        same = [
            sum(map(str.__eq__, line["prediction"], line["target"]))
            / max(len(line["prediction"]), len(line["target"]))
            for line in lines
        ]
        assert [int(line["correct"]) for line in lines] == right
        assert [int(line["edit_distance"]) for line in lines] == edits
        assert row["seeds"] == str(seeds)
        n, characters = len(lines), sum(len(line["target"]) for line in lines)
        assert number(row["exact match, %"]) == pytest.approx(100 * sum(right) / n, abs=0.006)
        assert number(row["character accuracy, %"]) == pytest.approx(100 * sum(same) / n, abs=0.006)
        assert number(row["edit distance, characters"]) == pytest.approx(sum(edits) / n, abs=6e-4)
        assert number(row["character error rate, %"]) == pytest.approx(
            100 * sum(edits) / characters, abs=6e-4
        )
        assert number(row["largest edit distance"]) == max(edits)
        assert number(row["length difference, characters"]) == pytest.approx(
            sum(gaps) / n, abs=6e-4
        )
        assert number(row["error in length, characters"]) == pytest.approx(
            sum(map(abs, gaps)) / n, abs=6e-4
        )
        if seeds == 1:
            wilson = binomtest(sum(right), n).proportion_ci(method="wilson")
            assert interval(row["exact match, %"]) == pytest.approx(
                (100 * wilson.low, 100 * wilson.high), abs=0.006
            )


def test_pairs_and_tests_are_those_of_the_prediction_files():
    made = made_up(rows=150, seeds=2)
    counts = next(rows for rows in tables(made) if rows and "McNemar" in rows[0])
    assert len(counts) == 4
    for row in counts:
        tail = (f"_seed{row['seed']}" if row["seed"] != "0" else "") + (
            "" if row["rows right, by decoding"] == "beam 5" else "_greedy"
        )
        ours, theirs = (
            [line["correct"] == "1" for line in rows_of(made, f"predictions_{arm}{tail}")]
            for arm in ARMS
        )
        cells = Counter(zip(ours, theirs, strict=True))
        b, c = cells[True, False], cells[False, True]
        assert [row[k] for k in ("both", "only patched", "only baseline", "neither")] == [
            str(cells[True, True]), str(b), str(c), str(cells[False, False]),
        ]  # fmt: skip
        p_value = binomtest(b, b + c).pvalue if b + c else 1.0
        assert row["McNemar"] == ("p < 0.0001" if p_value < 1e-4 else f"p = {p_value:.4f}")
        assert float(row["odds ratio"]) == pytest.approx((b + 0.5) / (c + 0.5), rel=1e-3)
        shares = sum(ours) / 150, sum(theirs) / 150
        h = 2 * math.asin(shares[0] ** 0.5) - 2 * math.asin(shares[1] ** 0.5)
        assert float(row["Cohen's h"]) == pytest.approx(h, abs=6e-4)


def test_breakdowns_are_those_of_the_prediction_files():
    made = made_up(rows=200)
    known = {title: rows_of(made, f"predictions_{arm}") for arm, title in ARMS.items()}
    for heading, size in (
        ("characters", lambda line: len(line["input"])),
        ("words", lambda line: len(line["input"].split())),
        ("input and target", lambda line: line["input"].isascii()),
    ):
        rows = table(made, heading)
        assert sum(int(row["rows"]) for row in rows) == 200
        lows = [int(row[heading].split()[0]) for row in rows if row[heading][0].isdigit()]
        assert lows == sorted(lows)
        for row in rows:
            for title, lines in known.items():
                mine = [line for line in lines if belongs(size(line), row[heading])]
                assert len(mine) == int(row["rows"])
                right = sum(line["correct"] == "1" for line in mine)
                assert number(row[f"{title}, exact match, %"]) == pytest.approx(
                    100 * right / len(mine), abs=0.006
                )
                wilson = binomtest(right, len(mine)).proportion_ci(method="wilson")
                assert interval(row[f"{title}, exact match, %"]) == pytest.approx(
                    (100 * wilson.low, 100 * wilson.high), abs=0.006
                )
                edits = sum(int(line["edit_distance"]) for line in mine)
                characters = sum(len(line["target"]) for line in mine)
                assert number(row[f"{title}, character error rate, %"]) == pytest.approx(
                    100 * edits / characters, abs=6e-4
                )


def belongs(size: int | bool, name: str) -> bool:
    if isinstance(size, bool):
        return size == (name == "ASCII only")
    low, _, high = name.partition(" to ")
    return int(low) <= size <= int(high or low)


def test_kinds_of_error_add_up():
    made = made_up(rows=150, seeds=2)
    rows = table(made, "kind of error")
    for arm, title in ARMS.items():
        lines = rows_of(made, f"predictions_{arm}") + rows_of(made, f"predictions_{arm}_seed1")
        kinds = Counter(error_kind(line["prediction"], line["target"]) for line in lines)
        wrong = sum(line["correct"] == "0" for line in lines)
        shown = {row["kind of error"]: int(row[title]) for row in rows}
        assert shown.pop("of rows") == 300
        assert shown.pop("wrong rows") == wrong == sum(shown.values())
        assert shown == {kind: kinds[kind] for kind in shown}


def test_edges_are_counted_on_the_bytes_of_the_input():
    """By hand: patches "ab" "cd" "e", the target is "edcba", and what came from c is wrong."""
    made = record([("abcde", "edcba")] * 30, {("blt", 0): [True] * 30}, is_searched=False)
    stages = tuple(
        replace(stage, values={**stage.values, "predictions": ["ed#ba"] * 30,
                               "patch_lengths": [[2, 2, 1]] * 30})
        if stage.task == "predict" else stage
        for stage in made.stages
    )  # fmt: skip
    made = replace(made, stages=stages)
    starts = table(made, "bytes after the first byte of the patch")
    assert [(row["characters"], number(row["patched model, wrong, %"])) for row in starts] == [
        ("90", 33.333),
        ("60", 0.0),
    ]
    lengths = table(made, "bytes of the patch")
    assert [(r["characters"], number(r["patched model, wrong, %"])) for r in lengths] == [
        ("30", 0.0),
        ("120", 25.0),
    ]
    tenths = table(made, "tenth of the target")
    assert [number(row["patched model, wrong, %"]) for row in tenths] == [0, 0, 100, 0, 0]


def test_patch_sizes_stand_beside_what_they_cost():
    made = made_up(rows=150)
    rows = next(
        t for t in tables(made) if t and "points against the patched model, p of Holm" in t[0]
    )
    assert [row["model"] for row in rows] == [
        "baseline", "patched model", "patched model, 4 bytes", "patched model, 6 bytes",
    ]  # fmt: skip
    for row, stem in zip(rows, ("baseline", "blt", "blt_4", "blt_6"), strict=True):
        lines = rows_of(made, f"predictions_{stem}")
        share = 100 * sum(line["correct"] == "1" for line in lines) / len(lines)
        assert number(row["exact match, %, beam 5"]) == pytest.approx(share, abs=0.006)


# --- form and files ----------------------------------------------------------------------------


def test_the_report_has_its_sections_and_figures():
    made = document(made_up())
    assert [section.title for section in made.sections] == SECTIONS
    assert {figure.name for figure in made.figures()} == FIGURES
    assert [s.title for s in made.sections if s.varies] == ["Speed", "Where it ran"]


def test_both_models_are_shown_with_and_without_hash_tables():
    rows = table(made_up(), "model")
    shown = {row["model"]: row for row in rows}
    assert shown["patched model"]["parameters"] == "1,700,000"
    assert shown["patched model"]["without hash tables"] == "1,175,712"
    assert shown["baseline"]["without hash tables"] == "1,705,000"
    assert shown["baseline"]["MFLOP per example"] == "505.0"


def test_the_search_is_shown_whole():
    made = made_up()
    rows = table(made, "trial of the patched model")
    assert len(rows) == 12
    assert rows[3]["failed with"] == "MemoryError: too wide"
    effects = next(rows for rows in tables(made) if rows and "least" in rows[0])
    rate = [row for row in effects if row["setting"].startswith("optim.lr")]
    assert len(rate) == 6
    trials = made.values("search blt")["trials"]
    for row in [row for row in rate if row["model"] == "patched model"]:
        value = float(row["setting"].partition(": ")[2])
        bits = [t["valid_bpb"] for t in trials if t["params"]["optim.lr"] == value]
        bits = [b for b in bits if b is not None]
        assert int(row["trials"]) == len(bits)
        assert float(row["least"]) == min(bits)
        assert float(row["mean bits per target byte"]) == pytest.approx(
            sum(bits) / len(bits), abs=6e-5
        )


def test_a_range_is_cut_at_the_median():
    trials = [
        {"params": {"lr": value}, "valid_bpb": bits}
        for value, bits in [(1.0, 5.0), (2.0, 3.0), (30.0, 2.0), (40.0, None)]
    ]
    search = Searched("blt", {"space": {"lr": {"low": 1, "high": 50}}, "trials": trials})
    assert [(e.value, e.bits) for e in search.effects("lr")] == [
        ("up to 2", (5.0, 3.0)),
        ("above 2", (2.0,)),
    ]


def test_the_files_have_their_names_and_keys():
    made = files(made_up(seeds=2))
    assert set(made) == {
        "results/summary_report.txt",
        *(f"results/hyperparameter_tuning_{mode}.json" for mode in ("blt", "char")),
        *(
            f"predictions/predictions_{arm}{seed}{how}.csv"
            for arm in ("blt", "baseline")
            for seed in ("", "_seed1")
            for how in ("", "_greedy")
        ),
        *(f"predictions/predictions_blt_{size}.csv" for size in (4, 6)),
        *(f"predictions/predictions_blt_{size}_greedy.csv" for size in (4, 6)),
        *(f"predictions/predictions_{arm}_metrics.json" for arm in ("blt", "baseline")),
        *(f"checkpoints/history_{name}.json" for name in
          ("blt", "blt_seed1", "char", "char_seed1", "blt_4", "blt_6")),
    }  # fmt: skip
    tuning = json.loads(made["results/hyperparameter_tuning_char.json"])
    assert tuning.keys() >= {
        "mode", "tune_epochs", "total_combinations", "successful_runs", "best_params",
        "best_score", "all_results",
    }  # fmt: skip
    assert (tuning["mode"], tuning["total_combinations"], tuning["successful_runs"]) == (
        "char",
        12,
        11,
    )
    assert tuning["best_score"] == min(t["valid_bpb"] or 9 for t in tuning["all_results"])
    history = json.loads(made["checkpoints/history_char_seed1.json"])
    assert history.keys() >= {"train_loss", "val_loss", "lr", "seed", "commit"}
    assert history["val_loss"][-1] == pytest.approx(math.log(2) * history["val_bits_per_byte"][-1])
    assert history["timing"]["epoch_times"] == [120.0 + epoch for epoch in range(10)]
    assert (history["seed"], history["commit"]) == (1, "0123abcd")


def test_the_metrics_file_holds_every_metric_with_its_interval():
    made = made_up(rows=150, seeds=2)
    metrics = json.loads(rendered(made).files["predictions/predictions_blt_metrics.json"])
    lines = rows_of(made, "predictions_blt")
    right = sum(line["correct"] == "1" for line in lines)
    assert (metrics["rows"], metrics["right"], metrics["seed"]) == (150, right, 0)
    assert metrics["exact_match"] == right / 150
    wilson = binomtest(right, 150).proportion_ci(method="wilson")
    shown = metrics["intervals"]["exact match, %"]
    assert (shown["low"], shown["high"]) == pytest.approx((100 * wilson.low, 100 * wilson.high))
    assert sum(part["rows"] for part in metrics["by_length"]) == 150
    assert sum(part["rows"] for part in metrics["by_word_count"]) == 150
    assert sum(metrics["error_kinds"].values()) == 150 - right
    assert [each["seeds"] for each in metrics["all"]] == [[0, 1], [0, 1]]
    assert {test["better"] for test in metrics["tests"]} <= {None, "blt", "baseline"}
    assert len(metrics["by_position"]) == 10


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), min_size=1, max_size=4))
def test_prediction_files_give_back_every_string(rows):
    pairs = [(text, target) for text, target, _ in rows]
    made = record(pairs, {("baseline", 0): [True] * len(pairs)}, is_searched=False)
    stages = tuple(
        replace(stage, values={**stage.values, "predictions": [third for _, _, third in rows]})
        if stage.task == "predict"
        else stage
        for stage in made.stages
    )
    text = files(replace(made, stages=stages))["predictions/predictions_baseline.csv"].decode()
    known = list(csv.DictReader(io.StringIO(text, newline="")))
    assert [(line["input"], line["target"], line["prediction"]) for line in known] == rows
    assert [line["patch_lengths"] for line in known] == [""] * len(rows)


def test_patch_lengths_add_up_to_the_bytes_of_the_input():
    for line in rows_of(made_up(), "predictions_blt"):
        assert sum(map(int, line["patch_lengths"].split())) == len(line["input"].encode())


def test_what_is_measured_by_the_clock_stands_apart():
    """Another machine: nothing but the sections that vary and the timing blocks changes."""
    one = made_up()
    other = replace(
        one,
        environment={**one.environment, "device": "cuda"},
        stages=tuple(replace(stage, timing={"stage_seconds": 7.0}) for stage in one.stages),
    )
    sections = [
        [section for section in document(made).sections if not section.varies]
        for made in (one, other)
    ]
    assert sections[0] == sections[1]
    made, again = files(one), files(other)
    assert {name for name in made if made[name] != again[name]} == {
        name for name in made if "history" in name
    }


def test_test_rows_that_were_learned_are_a_warning():
    made = made_up()
    stages = tuple(
        replace(stage, values={**stage.values, "shared_with_train": 3})
        if stage.name == "test"
        else stage
        for stage in made.stages
    )
    text = as_text(document(replace(made, stages=stages)))
    assert "WARNING: 3 of 120 test inputs occur in the training file" in text


# --- partial results ---------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(st.data())
def test_whatever_is_missing_a_report_is_made_and_says_what(data):
    whole = made_up(seeds=2, rows=12)
    names = [stage.name for stage in whole.stages]
    gone = data.draw(st.sets(st.sampled_from(names)) | st.just(set(names)))
    partial = without(whole, gone)
    made = document(partial)
    text, page = as_text(made), as_html(made, {})
    for name in gone:
        assert f"<no {name}>" in text
        assert f"&lt;no {name}&gt;" in page
    assert ("have no result" in text) == bool(gone)
    assert "Nothing was measured." in text or gone != set(names)
    assert files(partial)["results/summary_report.txt"]


def test_without_the_beam_the_greedy_outputs_are_compared():
    made = without(made_up(), {"predict blt seed 0 beam 5"})
    assert of_rows(contrasts(Found(made)), ALL_ROWS).decoding == "greedy"
    assert "predictions/predictions_baseline_beam5.csv" in files(made)


# --- parts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", sorted(TASKS))
def test_sources_are_found_for_the_tasks_that_move_characters(task):
    pairs = [(pair.input, pair.target) for pair in generate(task, 40, seed=0)]
    sources = source_bytes(pairs)
    if task == "counting":
        assert sources is None
        return
    for (text, target), places in zip(pairs, sources, strict=True):
        raw = text.encode()
        assert len(places) == len(target)
        for character, place in zip(target, places, strict=True):
            if place is None:
                assert (task, character) == ("spelling", "-")
            else:
                assert raw[place:].decode().startswith(character)
    assert [
        set(map(str, places)) for places in sources if len(set(places)) < len(places)
    ] == [] or (task == "spelling")


@given(st.lists(st.integers(1, 3000), min_size=1, max_size=60))
def test_bins_of_lengths_part_the_rows(sizes):
    pairs = [("x" * size, "y") for size in sizes]
    groups = by_length(pairs)
    assert sorted(row for group in groups for row in group.rows) == list(range(len(sizes)))
    assert len(groups) <= 8
    edges = length_edges(pairs)
    assert edges == sorted(set(edges))
    assert edges[0] <= min(sizes)


def test_groups_by_hand():
    pairs = [("one two", "x"), ("a b c", "x"), ("\u00e9 b", "x"), ("a b", "\u00e9")]
    assert [(g.name, g.rows.tolist()) for g in by_words(pairs)] == [("2", [0, 2, 3]), ("3", [1])]
    assert [(g.name, g.rows.tolist()) for g in by_script(pairs)] == [
        ("ASCII only", [0, 1]),
        ("with non-ASCII", [2, 3]),
    ]
    assert by_length([]) == by_words([]) == by_script([]) == []
