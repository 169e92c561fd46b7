"""Every number on accuracy in a report of a comparison, made again from `predictions*.csv`.

Oracle: this file, which takes the definitions from the report's own words and the documentation,
and shares no code with what made the report: `csv`, plain tables of distances, plain loops, scipy
for tests and intervals. What the report draws by chance is drawn here with other numbers, so
those ends may differ by a part of the interval's width; everything else has to agree in every
digit. `BYTELM_STUDY=PATH` checks the directory of a finished study of reversal too.
"""

import csv
import html
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
from comparison_records import made_up
from scipy import stats

from bytelm.experiments.comparison import document, files
from bytelm.experiments.document import as_markdown

MODELS = {"patched model": "blt", "baseline": "baseline"}
DRAWS = 4000
NEVER_TESTED = 20
"""Groups of fewer rows have no test."""


# --- the directory -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Line:
    """One line of a file of predictions."""

    input: str
    target: str
    prediction: str
    is_right: bool
    edit_distance: int
    patches: tuple[int, ...]


@dataclass(frozen=True)
class Study:
    """What stands in a study's directory."""

    folder: Path

    @cached_property
    def sections(self) -> dict[str, list[str]]:
        """Lines of the report by the heading above them; the lead has the heading ''."""
        text = (self.folder / "results" / "experimental_report.md").read_text(encoding="utf-8")
        found: dict[str, list[str]] = {"": []}
        heading = ""
        for line in html.unescape(text).splitlines():
            if line.startswith("## "):
                heading = line.removeprefix("## ")
                found[heading] = []
            else:
                found[heading].append(line)
        return found

    @cached_property
    def tables(self) -> list[list[dict[str, str]]]:
        """Every table, each row by its headings."""
        found, block = [], []
        for line in [line for lines in self.sections.values() for line in [*lines, ""]]:
            if line.startswith("| "):
                block.append(line.removeprefix("| ").removesuffix(" |").split(" | "))
            elif block:
                found.append([dict(zip(block[0], row, strict=True)) for row in block[2:]])
                block = []
        return found

    def table(self, heading: str) -> list[dict[str, str]]:
        """The table that has a column of this name; empty if there is none."""
        return next((rows for rows in self.tables if rows and heading in rows[0]), [])

    def metrics(self, arm: str) -> dict[str, Any]:
        """The figures of the main decoding."""
        file = self.folder / "predictions" / f"predictions_{arm}_metrics.json"
        return json.loads(file.read_text(encoding="utf-8"))

    @cached_property
    def decoding(self) -> str:
        return self.metrics("blt")["decoding"]

    @cached_property
    def tests(self) -> list[dict[str, Any]]:
        """All of the family; the patched model is in each."""
        return self.metrics("blt")["tests"]

    def predicted(self, arm: str, decoding: str) -> list[list[Line]]:
        """Lines of each seed that there is, the first seed first."""
        name = "_".join(["predictions", *arm.split(" ")])
        tail = "" if decoding == self.usual(arm) else "_" + decoding.replace(" ", "")
        found = []
        for seed in range(100):
            middle = f"_seed{seed}" if seed else ""
            file = self.folder / "predictions" / f"{name}{middle}{tail}.csv"
            if file.is_file():
                found.append(read(file))
        return found

    def usual(self, arm: str) -> str:
        """The decoding that a name of a file leaves out."""
        return self.curve_decoding if " " in arm else self.decoding

    @cached_property
    def curve_decoding(self) -> str:
        """The decoding by which patch sizes are compared."""
        heads = [head for table in self.tables if table for head in table[0]]
        known = (re.fullmatch(r"exact match, %, (greedy|beam \d+)", head) for head in heads)
        return next((match[1] for match in known if match), self.decoding)


@cache
def read(file: Path) -> list[Line]:
    with file.open(encoding="utf-8", newline="") as text:
        return [
            Line(
                row["input"],
                row["target"],
                row["prediction"],
                row["correct"] == "1",
                int(row["edit_distance"]),
                tuple(map(int, row["patch_lengths"].split())),
            )
            for row in csv.DictReader(text)
        ]


FINISHED = os.environ.get("BYTELM_STUDY")


@pytest.fixture(scope="module", params=["one seed", "two seeds", *([FINISHED] if FINISHED else [])])
def study(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Study:
    if request.param == FINISHED:
        return Study(Path(request.param))
    folder = tmp_path_factory.mktemp("study")
    made = made_up(seeds=1 if request.param == "one seed" else 2, rows=150)
    for name, content in files(made).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    report = folder / "results" / "experimental_report.md"
    report.write_text(as_markdown(document(made)), encoding="utf-8")
    return Study(folder)


# --- definitions, once more --------------------------------------------------------------------


@cache
def edits(prediction: str, target: str) -> tuple[tuple[str, int, str], ...]:
    """Kind, place in the target and character of each edit, read from the left."""
    if prediction == target:
        return ()
    rows, columns = len(target), len(prediction)
    rest = [[0] * (columns + 1) for _ in range(rows + 1)]
    for i in range(rows, -1, -1):
        for j in range(columns, -1, -1):
            if i == rows or j == columns:
                rest[i][j] = rows - i + columns - j
            elif target[i] == prediction[j]:
                rest[i][j] = rest[i + 1][j + 1]
            else:
                rest[i][j] = 1 + min(rest[i + 1][j + 1], rest[i + 1][j], rest[i][j + 1])
    found, i, j = [], 0, 0
    while i < rows or j < columns:
        if i < rows and j < columns and target[i] == prediction[j]:
            i, j = i + 1, j + 1
        elif i < rows and j < columns and rest[i + 1][j + 1] == rest[i][j] - 1:
            found.append(("wrong", i, target[i]))
            i, j = i + 1, j + 1
        elif i < rows and rest[i + 1][j] == rest[i][j] - 1:
            found.append(("missing", i, target[i]))
            i += 1
        else:
            found.append(("extra", i, prediction[j]))
            j += 1
    return tuple(found)


def kind(line: Line) -> str | None:
    """The first kind that fits."""
    got, wanted, steps = line.prediction, line.target, edits(line.prediction, line.target)
    if got == wanted:
        return None
    if wanted[: len(got)] == got:
        return "cut short"
    if got[: len(wanted)] == wanted:
        return "ran on"
    if all(ord(character) > 127 for _, _, character in steps):
        return "non-ASCII only"
    swaps = [
        wanted[:i] + wanted[i + 1] + wanted[i] + wanted[i + 2 :] for i in range(len(wanted) - 1)
    ]
    if got in swaps:
        return "neighbors swapped"
    if len(steps) == 1:
        return f"one {steps[0][0]}"
    return "other order" if sorted(got) == sorted(wanted) else "other"


def same_places(line: Line) -> float:
    longer = max(len(line.prediction), len(line.target))
    return sum(map(str.__eq__, line.prediction, line.target)) / longer


SCORES: dict[str, Callable[[Line], float]] = {
    "exact match, %": lambda line: 100 * (line.prediction == line.target),
    "character accuracy, %": lambda line: 100 * same_places(line),
    "edit distance, characters": lambda line: len(edits(line.prediction, line.target)),
    "error in length, characters": lambda line: abs(len(line.prediction) - len(line.target)),
}


def string_metrics(lines: Sequence[Line]) -> dict[str, float]:
    steps = [edits(line.prediction, line.target) for line in lines]
    kinds = Counter(kind for each in steps for kind, _, _ in each)
    gaps = [len(line.prediction) - len(line.target) for line in lines]
    right = sum(line.prediction == line.target for line in lines)
    return {
        "rows": len(lines),
        "right": right,
        "exact_match": right / len(lines),
        "character_accuracy": fmean(map(same_places, lines)),
        "character_error_rate": sum(map(len, steps)) / sum(len(line.target) for line in lines),
        "mean_edit_distance": fmean(map(len, steps)),
        "max_edit_distance": max(map(len, steps)),
        "mean_length_difference": fmean(gaps),
        "mean_absolute_length_difference": fmean(map(abs, gaps)),
        "rows_with_length_error": sum(gap != 0 for gap in gaps),
        "substitutions": kinds["wrong"],
        "insertions": kinds["extra"],
        "deletions": kinds["missing"],
    }


def wilson(right: float, total: float) -> tuple[float, float]:
    """The two shares from which what was seen is 1.96 standard errors away: a quadratic."""
    z = float(stats.norm.ppf(0.975))
    share = right / total
    low, high = sorted(np.roots([1 + z**2 / total, -2 * share - z**2 / total, share**2]).real)
    return max(0.0, float(low)), min(1.0, float(high))


def wilson_of_rows(counts: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Of (right, all) of each row: as many trials as have the variance between rows."""
    counts = [(right, total) for right, total in counts if total]
    rows, trials = len(counts), sum(total for _, total in counts)
    share = sum(right for right, _ in counts) / trials
    spread = sum((right - share * total) ** 2 for right, total in counts)
    effective = float(rows)
    if 0 < share < 1 and rows > 1 and spread:
        variance = spread * rows / (rows - 1) / trials**2
        effective = min(share * (1 - share) / variance, trials)
    return wilson(share * effective, effective)


def drawn(first: np.ndarray, second: np.ndarray, *, seed: int = 99) -> np.ndarray:
    """Differences of means over seeds and rows: rows resampled, the luck of seeds from t."""
    generator = np.random.default_rng(seed)
    rows = first.shape[1]
    gaps = first.mean(axis=0) - second.mean(axis=0)
    draws = np.array([gaps[generator.integers(0, rows, rows)].mean() for _ in range(DRAWS)])
    for scores in (first, second):
        seeds = len(scores)
        means = scores.mean(axis=1)
        left = scores - scores.mean(axis=0) - means[:, None] + means.mean()
        noise = (left**2).sum() / ((seeds - 1) * (rows - 1)) / rows
        variance = max(0.0, means.var(ddof=1) - noise)
        draws += np.sqrt(variance / seeds) * generator.standard_t(seeds - 1, DRAWS)
    return draws


def bca(scores: np.ndarray) -> tuple[float, float]:
    if (scores == scores[0]).all():
        return float(scores[0]), float(scores[0])
    found = stats.bootstrap((scores,), np.mean, method="BCa", n_resamples=DRAWS, rng=99)
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


@dataclass(frozen=True)
class Expected:
    """What a figure has to be, and how far its ends may be off."""

    value: float
    low: float
    high: float
    slack: float

    def agrees(self, value: float, low: float, high: float, *, rounding: float = 1e-9) -> bool:
        return (
            abs(value - self.value) <= rounding
            and abs(low - self.low) <= rounding + self.slack
            and abs(high - self.high) <= rounding + self.slack
        )


def mean_of(seeds: Sequence[Sequence[Line]], metric: str) -> Expected:
    """The mean over rows and seeds with its interval."""
    scores = np.array([[SCORES[metric](line) for line in lines] for lines in seeds], dtype=float)
    value, ends, slack = float(scores.mean()), [], 0.0
    is_share = metric == "exact match, %"
    if is_share and len(seeds) == 1:
        ends.append(wilson(scores.sum() / 100, scores.shape[1]))
    elif is_share:
        ends.append(wilson_of_rows([(sum(row) / 100, len(row)) for row in scores.T.tolist()]))
    ends = [(100 * low, 100 * high) for low, high in ends]
    if scores.shape[1] > 1 and (len(seeds) > 1 or not is_share):
        if len(seeds) > 1:
            draws = drawn(scores, np.zeros((2, scores.shape[1])))
            chance = tuple(np.quantile(draws, [0.025, 0.975]))
        else:
            chance = bca(scores[0])
        slack = 0.15 * (chance[1] - chance[0])
        if np.array_equal(scores, scores.round()):
            # Means of whole numbers lie 1 / rows apart, and so do the ends of two bootstraps.
            slack = max(slack, 1 / scores.shape[1])
        ends.append(chance)
    low, high = min(value, *(e[0] for e in ends)), max(value, *(e[1] for e in ends))
    top = 100.0 if metric.endswith("%") else high
    return Expected(value, max(0.0, low), min(top, high), slack)


# --- reading cells -----------------------------------------------------------------------------


def numbers(text: str) -> list[float]:
    return [float(n) for n in re.findall(r"[-+]?\d+\.\d+", text)]


def half_unit(text: str) -> float:
    """How far rounding may move the first number of a cell."""
    found = re.search(r"\.(\d+)", text)
    return 0.5000001 * 10.0 ** -(len(found[1]) if found else 0)


def p_text(p_value: float) -> str:
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"


def arm_of(title: str) -> str:
    size = re.fullmatch(r"patched model, ([\d.]+) bytes", title)
    return f"blt {size[1]}" if size else MODELS[title]


def cell_agrees(cell: str, expected: Expected) -> bool:
    return expected.agrees(*numbers(cell), rounding=half_unit(cell))


# --- metrics -----------------------------------------------------------------------------------


def test_the_columns_of_the_files_are_right(study):
    texts = set()
    for file in sorted((study.folder / "predictions").glob("*.csv")):
        lines = read(file)
        texts.add(tuple((line.input, line.target) for line in lines))
        for line in lines:
            assert line.is_right == (line.prediction == line.target)
            assert line.edit_distance == len(edits(line.prediction, line.target))
            if line.patches:
                assert sum(line.patches) == len(line.input.encode())
    # Every model was asked the same.
    assert len(texts) == 1


def test_the_table_of_metrics(study):
    rows = study.table("largest edit distance")
    assert rows
    for row in rows:
        title, decoding = row["model"].rsplit(", ", 1)
        seeds = study.predicted(MODELS[title], decoding)
        assert row["seeds"] == f"{len(seeds)}"
        for metric in SCORES:
            assert cell_agrees(row[metric], mean_of(seeds, metric)), (row["model"], metric)
        known = [string_metrics(lines) for lines in seeds]
        rate = 100 * fmean(each["character_error_rate"] for each in known)
        assert float(row["character error rate, %"]) == pytest.approx(rate, abs=5.1e-4)
        assert row["largest edit distance"] == f"{max(e['max_edit_distance'] for e in known)}"
        assert float(row["length difference, characters"]) == pytest.approx(
            fmean(each["mean_length_difference"] for each in known), abs=5.1e-4
        )


def test_the_files_of_metrics(study):
    for arm in MODELS.values():
        told = study.metrics(arm)
        lines = study.predicted(arm, study.decoding)[0]
        whole = string_metrics(lines)
        assert {key: told[key] for key in whole} == pytest.approx(whole)
        for key, size in (
            ("by_length", lambda line: len(line.input)),
            ("by_word_count", lambda line: len(line.input.split())),
        ):
            for part in told[key]:
                high = part.pop("high")
                low = part.pop("low")
                mine = [x for x in lines if low <= size(x) <= (high or size(x))]
                assert part == pytest.approx(string_metrics(mine))
            assert sum(part["rows"] for part in told[key]) == len(lines)
        for name, part in told["by_script"].items():
            assert part == pytest.approx(string_metrics(in_group(lines, name)))
        kinds = Counter(filter(None, map(kind, lines)))
        assert {name: n for name, n in told["error_kinds"].items() if n} == kinds
        for each in told["all"]:
            seeds = study.predicted(arm, each["decoding"])
            assert each["of_each_seed"] == [pytest.approx(string_metrics(s)) for s in seeds]
            for metric, known in each["intervals"].items():
                assert mean_of(seeds, metric).agrees(**renamed(known)), (each["decoding"], metric)
        for metric, known in told["intervals"].items():
            assert mean_of([lines], metric).agrees(**renamed(known)), metric


def renamed(known: dict[str, float]) -> dict[str, float]:
    return {"value": known["mean"], "low": known["low"], "high": known["high"]}


def in_group(lines: Sequence[Line], name: str) -> list[Line]:
    """Rows of a length in characters, or of a script."""
    if name in ("ASCII only", "with non-ASCII"):
        wanted = name == "ASCII only"
        return [line for line in lines if (line.input + line.target).isascii() == wanted]
    low, _, high = name.partition(" to ")
    return [line for line in lines if int(low) <= len(line.input) <= int(high or low)]


# --- tests -------------------------------------------------------------------------------------


def newcombe(cells: Counter[tuple[bool, bool]]) -> tuple[float, float]:
    """Newcombe (1998), method 10, from the counts of the four cells."""
    a, b, c, d = (cells[x, y] for x in (True, False) for y in (True, False))
    n = a + b + c + d
    share = [(a + b) / n, (a + c) / n]
    ends = [wilson(a + b, n), wilson(a + c, n)]
    cross = a * d - b * c
    cross = max(cross - n / 2, 0) if cross > 0 else cross
    margins = (a + b) * (c + d) * (a + c) * (b + d)
    phi = cross / margins**0.5 if margins else 0.0
    reach = []
    for one, other in ((0, 1), (1, 0)):
        x, y = share[one] - ends[one][0], ends[other][1] - share[other]
        reach.append(max(x * x - 2 * phi * x * y + y * y, 0.0) ** 0.5)
    return share[0] - share[1] - reach[0], share[0] - share[1] + reach[1]


def mcnemar(only_first: int, only_second: int) -> float:
    """Of so many tosses of a coin, so many heads."""
    tosses = only_first + only_second
    return float(stats.binomtest(only_first, tosses).pvalue) if tosses else 1.0


def compared(
    first: list[list[Line]], second: list[list[Line]], metric: str
) -> tuple[Expected, float, float]:
    """The difference, its p-value, and how far that may be off by chance."""
    one, other = (
        np.array([[SCORES[metric](line) for line in lines] for lines in seeds], dtype=float)
        for seeds in (first, second)
    )
    if min(len(one), len(other)) > 1:
        draws = drawn(one, other)
        low, high = np.quantile(draws, [0.025, 0.975])
        beyond = min((draws <= 0).sum(), (draws >= 0).sum())
        p_value = min(1.0, 2 * (beyond + 1) / (DRAWS + 1))
        value = one.mean() - other.mean()
        chance = 0.002 + 8 * (p_value * (1 - p_value / 2) / DRAWS) ** 0.5
        return Expected(float(value), low, high, 0.15 * (high - low)), p_value, chance
    gaps = one[0] - other[0]
    value = float(gaps.mean())
    if metric == "exact match, %":
        cells = Counter(zip((one[0] > 0).tolist(), (other[0] > 0).tolist(), strict=True))
        b, c = cells[True, False], cells[False, True]
        low, high = newcombe(cells)
        p_value = mcnemar(b, c)
        return Expected(value, 100 * low, 100 * high, 1e-9), p_value, 1e-9
    low, high = bca(gaps)
    generator = np.random.default_rng(98)
    seen, tiny = abs(gaps.sum()), 1e-9
    far = sum(
        abs((generator.choice((-1, 1), len(gaps)) * gaps).sum()) >= seen - tiny
        for _ in range(DRAWS)
    )
    p_value = (far + 1) / (DRAWS + 1)
    chance = 0.002 + 6 * (p_value * (1 - p_value) / DRAWS) ** 0.5
    return Expected(value, low, high, 0.15 * (high - low)), p_value, chance


def test_the_family_of_tests(study):
    assert len(study.tests) == len(study.table("p, Holm")) > 4
    for test in study.tests:
        first, second = (
            [
                in_group(lines, test["rows"]) if test["rows"] != "all rows" else lines
                for lines in study.predicted(test[place], test["decoding"])
            ]
            for place in ("first", "second")
        )
        name = (test["metric"], test["rows"], test["first"])
        assert test["num_rows"] == len(first[0]) == len(second[0]), name
        assert test["num_seeds"] == min(len(first), len(second)), name
        expected, p_value, chance = compared(first, second, test["metric"])
        assert expected.agrees(test["difference"], *test["interval"]), name
        assert test["p_value"] == pytest.approx(p_value, abs=chance), name


def test_no_group_that_is_large_enough_goes_untested(study):
    rows = [*study.table("characters"), *study.table("input and target")]
    groups = {row.get("characters") or row["input and target"]: row["rows"] for row in rows}
    total = len(study.predicted("blt", study.decoding)[0])
    large = {name for name, count in groups.items() if NEVER_TESTED <= int(count) < total}
    assert large == {test["rows"] for test in study.tests} - {"all rows"}


def test_holm_and_what_each_test_shows(study):
    waiting = sorted(study.tests, key=lambda test: test["p_value"])
    lowest = 0.0
    while waiting:
        test = waiting[0]
        lowest = max(lowest, min(1.0, len(waiting) * test["p_value"]))
        assert test["p_value_holm"] == pytest.approx(lowest)
        low, high = test["interval"]
        is_good_if_high = test["metric"].endswith("%")
        better = None
        if lowest < 0.05 and low * high > 0:
            is_first = (test["difference"] > 0) == is_good_if_high
            better = test["first"] if is_first else test["second"]
        assert test["better"] == better
        waiting = waiting[1:]


def test_the_table_of_tests_is_the_file_of_tests(study):
    for row, test in zip(study.table("p, Holm"), study.tests, strict=True):
        digits = 2 if test["metric"].endswith("%") else 3
        low, high = test["interval"]
        metric, _, titles = row["difference"].partition(": ")
        assert metric == test["metric"]
        assert [arm_of(title) for title in titles.split(" - ")] == [test["first"], test["second"]]
        assert row["decoding"] == test["decoding"]
        assert (row["rows"], row["n"]) == (test["rows"], f"{test['num_rows']:,}")
        assert row["seeds"] == f"{test['num_seeds']}"
        assert row["signed"] == f"{test['difference']:+.{digits}f}"
        assert row["interval"] == f"{low:+.{digits}f} to {high:+.{digits}f}"
        assert row["p"] == p_text(test["p_value"])
        assert row["p, Holm"] == p_text(test["p_value_holm"])
        is_open = row["better"] == "no difference shown"
        assert (None if is_open else arm_of(row["better"])) == test["better"]


def test_the_table_of_pairs(study):
    rows = study.table("McNemar")
    assert rows
    for row in rows:
        ours, theirs = (
            study.predicted(arm, row["rows right, by decoding"])[int(row["seed"])]
            for arm in MODELS.values()
        )
        cells = Counter((a.is_right, b.is_right) for a, b in zip(ours, theirs, strict=True))
        b, c = cells[True, False], cells[False, True]
        counts = [row[key] for key in ("both", "only patched", "only baseline", "neither")]
        assert counts == [f"{n}" for n in (cells[True, True], b, c, cells[False, False])]
        assert row["McNemar"] == p_text(mcnemar(b, c))
        assert float(row["odds ratio"]) == pytest.approx((b + 0.5) / (c + 0.5), rel=6e-4)
        shares = [fmean(line.is_right for line in lines) for lines in (ours, theirs)]
        angles = np.arcsin(np.sqrt(shares))
        assert float(row["Cohen's h"]) == pytest.approx(2 * (angles[0] - angles[1]), abs=5.1e-4)


# --- breakdowns --------------------------------------------------------------------------------


@pytest.mark.parametrize("heading", ["characters", "words", "input and target"])
def test_breakdowns_of_rows(study, heading):
    rows = [row for row in study.table(heading) if "rows" in row]
    total = 0
    for row in rows:
        name = row[heading]
        for title, arm in MODELS.items():
            seeds = [
                by_words(lines, name) if heading == "words" else in_group(lines, name)
                for lines in study.predicted(arm, study.decoding)
            ]
            assert row["rows"] == f"{len(seeds[0]):,}"
            assert cell_agrees(row[f"{title}, exact match, %"], mean_of(seeds, "exact match, %")), (
                name,
                title,
            )
            rate = 100 * fmean(string_metrics(lines)["character_error_rate"] for lines in seeds)
            assert numbers(row[f"{title}, character error rate, %"]) == [
                pytest.approx(rate, abs=5.1e-4)
            ]
        total += int(row["rows"].replace(",", ""))
        if heading != "words":
            test = next((test for test in study.tests if test["rows"] == name), None)
            shown = "-" if test is None else MODELS_BY_ARM.get(test["better"], "not shown")
            assert row["better"] == shown
    assert total == len(study.predicted("blt", study.decoding)[0])


MODELS_BY_ARM = {arm: title for title, arm in MODELS.items()}


def by_words(lines: Sequence[Line], name: str) -> list[Line]:
    low, _, high = name.partition(" to ")
    return [line for line in lines if int(low) <= len(line.input.split()) <= int(high or low)]


Counts = dict[float, list[tuple[int, int]]]
"""By place: right and all characters of each row."""


def by_tenth(lines: Sequence[Line]) -> Counts:
    return placed(lines, lambda row, i: 10 * i // len(lines[row].target))


def by_patch(lines: Sequence[Line], patched: Sequence[Line], what: str) -> Counts:
    """By the patch of the byte that a character of a reversed string comes from."""

    def place(row: int, i: int) -> int:
        line = lines[row]
        assert line.target == line.input[::-1], "a study of reversal"
        offset = len(line.input[: len(line.input) - 1 - i].encode())
        start = 0
        for size in patched[row].patches:
            if offset < start + size:
                return {
                    "from_start": offset - start,
                    "from_end": start + size - 1 - offset,
                    "by_patch_length": size,
                }[what]
            start += size
        raise AssertionError("no patch holds the byte")

    return placed(lines, place)


def placed(lines: Sequence[Line], place: Callable[[int, int], int]) -> Counts:
    found: Counts = {}
    for row, line in enumerate(lines):
        wrong = {i for what, i, _ in edits(line.prediction, line.target) if what != "extra"}
        own: dict[int, list[int]] = {}
        for i in range(len(line.target)):
            own.setdefault(place(row, i), []).append(i not in wrong)
        for where, are_right in own.items():
            found.setdefault(where, []).append((sum(are_right), len(are_right)))
    return found


def wrong_at(counts: list[tuple[int, int]]) -> Expected:
    """Wrong characters in percent."""
    share = sum(right for right, _ in counts) / sum(total for _, total in counts)
    low, high = wilson_of_rows(counts)
    return Expected(100 * (1 - share), 100 * (1 - high), 100 * (1 - low), 1e-9)


PLACES = {
    "tenth of the target": "tenth",
    "bytes after the first byte of the patch": "from_start",
    "bytes before the last byte of the patch": "from_end",
    "bytes of the patch": "by_patch_length",
}


def places(study: Study, arm: str, what: str) -> Counts:
    lines = study.predicted(arm, study.decoding)[0]
    if what == "tenth":
        return by_tenth(lines)
    return by_patch(lines, study.predicted("blt", study.decoding)[0], what)


@pytest.mark.parametrize("heading", PLACES)
def test_breakdowns_of_characters(study, heading):
    rows = study.table(heading)
    assert rows
    for title, arm in MODELS.items():
        known = places(study, arm, PLACES[heading])
        assert len(rows) == len(known)
        for row, (place, counts) in zip(rows, sorted(known.items()), strict=True):
            is_tenth = PLACES[heading] == "tenth"
            name = f"{10 * place} to {10 * place + 10} %" if is_tenth else f"{place}"
            assert row[heading] == name
            assert row["characters"] == f"{sum(total for _, total in counts):,}"
            assert cell_agrees(row[f"{title}, wrong, %"], wrong_at(counts)), (name, title)


def test_places_of_the_files_of_metrics(study):
    for arm in MODELS.values():
        told = study.metrics(arm)
        parts = {"tenth": told["by_position"], **told["by_patch_edge"]}
        for what, listed in parts.items():
            known = places(study, arm, what)
            assert len(listed) == len(known)
            for part, (place, counts) in zip(listed, sorted(known.items()), strict=True):
                assert part["low"] == pytest.approx(place / 10 if what == "tenth" else place)
                assert part["right"] == sum(right for right, _ in counts)
                assert part["characters"] == sum(total for _, total in counts)
                assert part["interval"] == pytest.approx(wilson_of_rows(counts))


def test_kinds_of_error(study):
    rows = {row["kind of error"]: row for row in study.table("kind of error")}
    titles = [head for head in next(iter(rows.values())) if head != "kind of error"]
    for title in titles:
        arm = arm_of(title)
        lines = [line for each in study.predicted(arm, study.usual(arm)) for line in each]
        kinds = Counter(filter(None, map(kind, lines)))
        told = {name: int(row[title]) for name, row in rows.items()}
        assert told.pop("of rows") == len(lines)
        assert told.pop("wrong rows") == kinds.total()
        assert {name: n for name, n in told.items() if n} == kinds


def test_the_curve_of_patch_sizes(study):
    rows = study.table("points against the patched model, p of Holm")
    assert len(rows) > 2
    for row in rows:
        arm = arm_of(row["model"])
        seeds = study.predicted(arm, study.curve_decoding)
        assert cell_agrees(
            row[f"exact match, %, {study.curve_decoding}"], mean_of(seeds, "exact match, %")
        )
        test = next((t for t in study.tests if (t["first"], t["second"]) == (arm, "blt")), None)
        expected = (
            "-" if test is None else f"{test['difference']:+.2f}, {p_text(test['p_value_holm'])}"
        )
        assert row["points against the patched model, p of Holm"] == expected


# --- sentences ---------------------------------------------------------------------------------


def told_of(test: dict[str, Any]) -> list[float]:
    """The numbers that a sentence on a test ends with."""
    digits = 2 if test["metric"].endswith("%") else 3
    found = [round(test["difference"], digits), *(round(x, digits) for x in test["interval"])]
    return found if test["p_value_holm"] < 0.0001 else [*found, round(test["p_value_holm"], 4)]


def main_sentence(study: Study, said: re.Match[str]) -> None:
    """`Exact match (beam 5), %: patched model ..., baseline ...: ...`."""
    name = f"{said['metric'].lower()}, {said['unit']}"
    test = next(
        t
        for t in study.tests
        if (t["metric"], t["decoding"], t["second"], t["rows"])
        == (name, said["decoding"], "baseline", "all rows")
    )
    cells = {row["model"]: row[name] for row in study.table("largest edit distance")}
    figures = [n for title in MODELS for n in numbers(cells[f"{title}, {said['decoding']}"])]
    text = said[0].replace("p < 0.0001", "")
    assert numbers(text) == pytest.approx([*figures, *told_of(test)], abs=1e-9)
    if counts := re.search(r"Of (\d+) rows .* has (\d+) right, the baseline (\d+)", text):
        row = next(
            r
            for r in study.table("McNemar")
            if (r["rows right, by decoding"], r["seed"]) == (said["decoding"], "0")
        )
        b, c = int(row["only patched"]), int(row["only baseline"])
        assert [int(n) for n in counts.groups()] == [b + c, b, c]


def decoding_sentence(study: Study, said: re.Match[str]) -> None:
    cells = {row["model"]: row["exact match, %"] for row in study.table("largest edit distance")}
    for value, decoding in ((said["beam"], said["decoding"]), (said["greedy"], "greedy")):
        assert float(value) == numbers(cells[f"{said['model']}, {decoding}"])[0]


def group_sentence(study: Study, said: re.Match[str]) -> None:
    better = MODELS.get(said["model"]) if said["model"] else None
    groups = re.split(", ", re.sub(r"(rows | characters)", "", said["groups"]))
    assert groups == [
        test["rows"]
        for test in study.tests
        if test["rows"] != "all rows" and test["better"] == better
    ]


def kinds_sentence(study: Study, said: re.Match[str]) -> None:
    seeds = study.predicted(MODELS[said["model"]], study.decoding)
    kinds = Counter(filter(None, (kind(line) for lines in seeds for line in lines)))
    assert (int(said["wrong"]), int(said["most"])) == (kinds.total(), max(kinds.values()))
    assert kinds[said["kind"]] == max(kinds.values())


def places_sentence(study: Study, said: re.Match[str]) -> None:
    what = {
        "by tenth of the output": "tenth",
        "by bytes after the start of a patch": "from_start",
        "by bytes before its end": "from_end",
    }[said["what"]]
    counts = places(study, MODELS[said["model"]], what)
    known = {
        place + (what == "tenth"): wrong_at(each)
        for place, each in counts.items()
        if sum(total for _, total in each) >= 200
    }
    best, worst = known[int(said["best"])], known[int(said["worst"])]
    assert best.value == min(each.value for each in known.values())
    assert worst.value == max(each.value for each in known.values())
    expected = [x for each in (best, worst) for x in (each.value, each.low, each.high)]
    assert numbers(said["numbers"]) == pytest.approx(expected, abs=5.1e-3)
    assert (said["shown"] == "apart") == (worst.low > best.high)


def sizes_sentence(study: Study, said: re.Match[str]) -> None:
    told = numbers(said["told"].partition("(difference")[2].replace("p < 0.0001", ""))
    tests = [test for test in study.tests if test["second"] == "blt"]
    assert pytest.approx(told) in [told_of(test) for test in tests]


def headline(study: Study, said: re.Match[str]) -> None:
    test = next(t for t in study.tests if t["metric"] == "exact match, %")
    assert (test["rows"], test["second"]) == ("all rows", "baseline")
    text = said[0]
    if "No difference" in text:
        assert test["better"] is None
        assert numbers(text) == [round(end, 2) for end in test["interval"]]
    else:
        assert ("loses" in text) == (test["better"] == "baseline")
        assert numbers(text) == [round(abs(test["difference"]), 2)]


def reach(study: Study, said: re.Match[str]) -> None:
    test = study.tests[0]
    assert said["rows"] == f"{test['num_rows']:,}"
    assert int(said["seeds"] or 1) == test["num_seeds"]


SENTENCES: list[tuple[str, Callable[[Study, re.Match[str]], None] | None]] = [
    (
        r"(?P<metric>[A-Z][a-z ]+) \((?P<decoding>greedy|beam \d+)\), (?P<unit>%|\w+): .*",
        main_sentence,
    ),
    (
        r"Exact match of the (?P<model>[a-z ]+) is (?P<beam>[\d.]+) % with (?P<decoding>beam \d+) "
        r"and (?P<greedy>[\d.]+) % greedily\.",
        decoding_sentence,
    ),
    (
        r"(?:Exact match is shown to be better with the (?P<model>[a-z ]+) for|"
        r"No difference is shown for) (?P<groups>.*)\.",
        group_sentence,
    ),
    (
        r"Of (?P<wrong>\d+) wrong rows of the (?P<model>[a-z ]+?)(?: \(all seeds\))? "
        r"(?P<most>\d+) are '(?P<kind>.*)', the commonest kind\.",
        kinds_sentence,
    ),
    (
        r"Wrong characters of the (?P<model>patched model|baseline) (?P<what>by [a-z ]+): "
        r"(?P<numbers>from .* at (?P<best>\d+) to .* at (?P<worst>\d+)), (?P<shown>.*)\.",
        places_sentence,
    ),
    (
        r"Patches of [\d.]+ bytes instead of [\d.]+, exact match \(.*?\): (?P<told>.*)",
        sizes_sentence,
    ),
    (r"The patched model (?:loses|is better).* points of exact match\.", headline),
    (r"No difference in exact match is shown .* points\.", headline),
    (r"This is one training of each model .* on (?P<rows>[\d,]+) rows, (?P<seeds>)and .*", reach),
    (r"This holds over (?P<seeds>\d+) trainings of each model and (?P<rows>[\d,]+) rows .*", reach),
    # Not of accuracy: sizes of models and of patches, and the names of tests.
    (r"The patched model has .* times the parameters .*", None),
    (r"Larger patches (?:cost|are not shown to cost) exact match: mean bytes [\d., ]+\.", None),
    (r"Not all metrics agree: .*", None),
]  # fmt: skip


def test_every_number_in_a_sentence_is_one_of_the_tables(study):
    """A sentence with a number that no rule here knows fails, so that none goes unread."""
    lead = [line for line in study.sections[""] if line and not line.startswith("#")]
    question = " ".join(lead).partition("? ")[2] or " ".join(lead)
    findings = [line.removeprefix("- ") for line in study.sections["Key Findings"]]
    concluded = [line.removeprefix("> **Warning:** ") for line in study.sections["Conclusions"]]
    sentences = [line for line in (question, *findings, *concluded) if re.search(r"\d", line)]
    assert len(sentences) > 6
    for sentence in (re.sub(r"\\(.)", r"\1", line) for line in sentences):
        matches = ((re.fullmatch(rule, sentence), check) for rule, check in SENTENCES)
        found = next(((match, check) for match, check in matches if match), None)
        assert found is not None, sentence
        match, check = found
        if check is not None:
            check(study, match)
