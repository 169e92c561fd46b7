"""The figures of a comparison: the patched model blue and round, the baseline orange and square."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from bytelm.evaluation import Place
from bytelm.experiments.comparison.findings import (
    BASELINE,
    BLT,
    EXACT,
    MAIN,
    METRICS,
    Estimate,
    Found,
    Metric,
    estimate,
    title_of,
)
from bytelm.experiments.comparison.groups import (
    Group,
    by_length,
    by_words,
    length_edges,
    word_edges,
)
from bytelm.experiments.comparison.searched import Searched
from bytelm.experiments.plots import COLORS, Bar, Figure, Level, Line, Plot, Point

LOOKS = {BLT: 0, BASELINE: 1}

NAMES = (
    "training_curves",
    "hyperparameter_analysis",
    "accuracy_analysis",
    "detailed_metrics",
    "positions",
    "patch_sizes",
)
"""Of all figures that a comparison may have."""

EXACT_LABEL = "exact match, % of rows"
WRONG_LABEL = "wrong characters, %"
BITS_LABEL = "bits per target byte"

INTERVALS = "Vertical bars: 95 % intervals. The vertical axis need not begin at 0."

_FEWEST_CHARACTERS = 50
"""A place with fewer characters is in the table and not in the figure."""


def training_curves(found: Found) -> Figure | None:
    """How both models learned."""
    lines, exact = [], []
    for arm in MAIN:
        histories = [values["history"] for values in found.trained(arm)]
        if not any(histories):
            continue
        name, look = title_of(arm), LOOKS[arm]
        for key, what in (("valid_bpb", "validation"), ("train_bpb", "training")):
            points = _over_epochs(histories, key)
            lines.append(
                Line(
                    name=f"{name}, {what}",
                    points=points,
                    look=look,
                    is_dashed=what == "training",
                )
            )
        points = _over_epochs(histories, "valid_exact", scale=100.0)
        exact.append(Line(name=f"{name}, validation", points=points, look=look))
    if not lines:
        return None
    ticks = _whole_ticks(max(point.x for line in lines for point in line.points))
    bits = [point.y for line in lines for point in line.points]
    return Figure(
        name="training_curves",
        title="Learning: both models, by epoch",
        caption="Exact match here is that of every byte given the true bytes before it. With "
        "several seeds: the mean, and bars from the lowest to the highest.",
        panels=(
            Plot(
                title="What a target byte costs",
                x_label="epoch",
                y_label=BITS_LABEL,
                x_ticks=ticks,
                y_is_log=min(bits) > 0,
                lines=tuple(lines),
            ),
            Plot(
                title="Validation rows that are right",
                x_label="epoch",
                y_label=EXACT_LABEL,
                x_ticks=ticks,
                lines=tuple(exact),
            ),
        ),
    )


def _over_epochs(
    histories: Sequence[Sequence[dict[str, Any]]], key: str, *, scale: float = 1.0
) -> tuple[Point, ...]:
    """Mean over the seeds that came so far, from the lowest to the highest."""
    values: dict[float, list[float]] = {}
    for history in histories:
        for entry in history:
            values.setdefault(float(entry["epoch"]), []).append(scale * entry[key])
    return tuple(
        Point(x=epoch, y=fmean(known), low=min(known), high=max(known))
        for epoch, known in sorted(values.items())
    )


def _whole_ticks(highest: float) -> tuple[tuple[float, str], ...]:
    step = 1 + int(highest) // 11
    return tuple((float(tick), f"{tick}") for tick in range(step, int(highest) + 1, step))


def hyperparameter_analysis(searched: Sequence[Searched]) -> Figure | None:
    """What each setting of the search did."""
    keys = list(dict.fromkeys(key for search in searched for key in search.keys))
    panels = tuple(plot for key in keys if (plot := _setting(searched, key)) is not None)
    if not panels:
        return None
    return Figure(
        name="hyperparameter_analysis",
        title="Search: each trial by each of its settings",
        caption="One mark is one trial of the search: less is better. Trials that failed have no "
        "mark. A trial differs from the others in all of its settings at once.",
        panels=panels,
    )


def _setting(searched: Sequence[Searched], key: str) -> Plot | None:
    tried = {value for search in searched for value in search.tried(key)}
    values = sorted(tried, key=lambda value: (isinstance(value, str), value))
    if not values:
        return None
    # A few values stand side by side, and so do words; many numbers are an axis.
    is_listed = len(values) <= 6 or any(isinstance(value, str) for value in values)
    places = {value: float(index) if is_listed else value for index, value in enumerate(values)}
    lines = tuple(
        Line(
            name=title_of(search.model),
            points=tuple(
                Point(x=places[trial["params"][key]], y=trial["valid_bpb"])
                for trial in search.complete
            ),
            look=LOOKS[search.model],
            is_joined=False,
        )
        for search in searched
        if search.tried(key)
    )
    bits = [point.y for line in lines for point in line.points]
    is_wide = not is_listed and 0 < 8 * values[0] < values[-1]
    ends = [values[0], (values[0] * values[-1]) ** 0.5, values[-1]] if is_wide else []
    ticks = values if is_listed else ends
    return Plot(
        title=key,
        x_label=key.rpartition(".")[2],
        y_label=f"{BITS_LABEL}, validation",
        x_is_log=is_wide,
        x_ticks=tuple((places.get(tick, tick), _short(tick)) for tick in ticks),
        y_is_log=0 < 10 * min(bits) < max(bits),
        lines=lines,
        is_side_by_side=is_listed,
    )


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else f"{value}"


def accuracy_analysis(found: Found) -> Figure | None:
    """Exact match by the size of the input."""
    panels = tuple(
        Plot(
            title=title,
            x_label=label,
            y_label=EXACT_LABEL,
            x_ticks=tuple((float(edge), f"{edge}") for edge in edges),
            lines=lines,
            is_side_by_side=True,
        )
        for title, label, groups, edges in (
            (
                "By length",
                "characters of the input",
                by_length(found.pairs),
                length_edges(found.pairs),
            ),
            ("By words", "words of the input", by_words(found.pairs), word_edges(found.pairs)),
        )
        if (lines := _by_group(found, groups))
    )
    if not panels:
        return None
    return Figure(
        name="accuracy_analysis",
        title=f"Exact match by input ({found.decoding})",
        caption=f"A mark stands for the rows of a range of sizes, at its middle. {INTERVALS}",
        panels=panels,
    )


def _by_group(found: Found, groups: Sequence[Group]) -> tuple[Line, ...]:
    lines = []
    for arm in MAIN:
        models = found.predicted(arm, found.decoding)
        points = tuple(
            _point(group.center, figure)
            for group in groups
            if (figure := estimate(models, EXACT, group.rows)) is not None
        )
        if points:
            lines.append(Line(name=title_of(arm), points=points, look=LOOKS[arm]))
    return tuple(lines)


def _point(x: float, figure: Estimate) -> Point:
    return Point(x=x, y=figure.value, low=figure.low, high=figure.high)


def detailed_metrics(found: Found) -> Figure | None:
    """All metrics of all ways of decoding, as errors: bars from 0."""
    models = [
        (arm, decoding, found.predicted(arm, decoding))
        for decoding in reversed(found.decodings(*MAIN))
        for arm in MAIN
    ]
    panels = []
    for metric in METRICS:
        bars = tuple(
            _bar(f"{'patched' if arm == BLT else arm}, {decoding}", LOOKS[arm], metric, figure)
            for arm, decoding, seeds in models
            if (figure := estimate(seeds, metric)) is not None
        )
        if bars:
            title = _AS_ERRORS[metric.name]
            panels.append(
                Plot(title=title, y_label=f"{metric.unit}: less is better", bars=bars, decimals=2)
            )
    if not panels:
        return None
    return Figure(
        name="detailed_metrics",
        title="Errors on the test rows",
        caption="Lines at the ends of the bars: 95 % intervals.",
        panels=tuple(panels),
    )


_AS_ERRORS = {
    "exact match": "Rows that are not right",
    "character accuracy": "Characters not in their place",
    "edit distance": "Edit distance, mean over rows",
    "error in length": "Error in length, mean over rows",
}
"""Titles of the metrics, each turned so that 0 is perfect."""


def _bar(name: str, look: int, metric: Metric, figure: Estimate) -> Bar:
    value, low, high = figure.value, figure.low, figure.high
    if metric.higher_is_better:
        value, low, high = (100 - end for end in (value, high, low))
    return Bar(name=name, value=value, low=low, high=high, color=COLORS[look])


def positions(found: Found) -> Figure | None:
    """Where in the output and in the patches the wrong characters are, of the first seed."""
    models = {arm: seeds[0] for arm in MAIN if (seeds := found.predicted(arm, found.decoding))}
    if not models:
        return None
    panels = [
        Plot(
            title="By place in the output",
            x_label="% of the target",
            y_label=WRONG_LABEL,
            lines=tuple(
                _line(arm, model.positions, look=LOOKS[arm], scale=100.0)
                for arm, model in models.items()
            ),
            is_side_by_side=True,
        )
    ]
    edges = {
        arm: known
        for arm, model in models.items()
        if BLT in models and (known := found.edges(model, patched=models[BLT]))
    }
    for title, label, key in (
        ("From the start of its patch", "bytes after the patch's first byte", "from_start"),
        ("From the end of its patch", "bytes before the patch's last byte", "from_end"),
        ("By the length of its patch", "bytes of the patch", "by_patch_length"),
    ):
        lines = tuple(
            _line(arm, getattr(known, key), look=LOOKS[arm]) for arm, known in edges.items()
        )
        if lines:
            panels.append(
                Plot(
                    title=title,
                    x_label=label,
                    y_label=WRONG_LABEL,
                    x_ticks=_ticks_of(lines),
                    lines=lines,
                    is_side_by_side=True,
                )
            )
    return Figure(
        name="positions",
        title=f"Where the wrong characters are ({found.decoding}, first seed)",
        caption="Patches are those of the patched model; the baseline, which has none, is shown at "
        "the same bytes: where both have their errors, patches are not the reason. Bars: 95 % "
        f"intervals; places of fewer than {_FEWEST_CHARACTERS} characters are left out.",
        panels=tuple(panels),
    )


def _line(
    arm: str, places: Sequence[Place], *, look: int, scale: float = 1.0, name: str = ""
) -> Line:
    """Percent of wrong characters by place."""
    return Line(
        name=name or title_of(arm),
        points=tuple(
            Point(
                x=scale * (place.low + place.high) / 2,
                y=100 * (1 - place.accuracy),
                low=100 * (1 - place.interval[1]),
                high=100 * (1 - place.interval[0]),
            )
            for place in places
            if place.characters >= _FEWEST_CHARACTERS
        ),
        look=look,
    )


def _ticks_of(lines: Sequence[Line]) -> tuple[tuple[float, str], ...]:
    places = sorted({point.x for line in lines for point in line.points})
    # Twelve numbers fit below half a page.
    step = 1 + len(places) // 13
    return tuple((place, f"{place:g}") for place in places[::step])


def patch_sizes(found: Found) -> Figure | None:
    """What larger patches cost, what they save, and where the errors are."""
    arms = [arm for arm in (BLT, *found.sweep_arms) if found.trained(arm)]
    if len(arms) < 2:
        return None
    panels = (*_curves(found, arms), *_edges_by_arm(found, arms))
    return Figure(
        name="patch_sizes",
        title=f"Patch size ({found.curve_decoding})",
        caption="Across: the mean measured on the validation inputs. Dashed: the baseline. "
        f"{INTERVALS} The lower row: wrong characters of the first seed by where their source lies "
        "in its patch.",
        panels=panels,
    )


def _curves(found: Found, arms: Sequence[str]) -> tuple[Plot, ...]:
    exact, flops = [], []
    for arm in arms:
        trained = found.trained(arm)
        across = fmean(values["mean_patch_bytes"] for values in trained)
        flops.append(Point(x=across, y=trained[0]["flops_per_example"] / 1e6))
        figure = estimate(found.predicted(arm, found.curve_decoding), EXACT)
        if figure is not None:
            exact.append(_point(across, figure))
    baseline = found.trained(BASELINE)
    level = estimate(found.predicted(BASELINE, found.curve_decoding), EXACT)
    name = title_of(BLT)
    curves = (
        (
            "What patches cost",
            EXACT_LABEL,
            exact,
            () if level is None else (Level(name=title_of(BASELINE), y=level.value, look=1),),
        ),
        (
            "What they save",
            "MFLOP per example",
            flops,
            tuple(
                Level(name=title_of(BASELINE), y=values["flops_per_example"] / 1e6, look=1)
                for values in baseline[:1]
            ),
        ),
    )
    return tuple(
        Plot(
            title=title,
            x_label="mean bytes of a patch",
            y_label=label,
            lines=(Line(name=name, points=tuple(sorted(points, key=lambda p: p.x)), look=0),),
            levels=levels,
        )
        for title, label, points, levels in curves
        if points
    )


def _edges_by_arm(found: Found, arms: Sequence[str]) -> tuple[Plot, ...]:
    models = {
        arm: seeds[0] for arm in arms if (seeds := found.predicted(arm, found.curve_decoding))
    }
    edges = {
        arm: known for arm, model in models.items() if (known := found.edges(model, patched=model))
    }
    plots = []
    for title, label, key in (
        ("From the start of its patch", "bytes after the patch's first byte", "from_start"),
        ("From the end of its patch", "bytes before the patch's last byte", "from_end"),
    ):
        lines = tuple(
            _line(
                arm,
                getattr(known, key),
                look=0 if arm == BLT else 1 + arms.index(arm),
                name=arm_in_legend(arm),
            )
            for arm, known in edges.items()
        )
        if lines:
            plots.append(
                Plot(
                    title=title,
                    x_label=label,
                    y_label=WRONG_LABEL,
                    x_ticks=_ticks_of(lines),
                    lines=lines,
                    is_side_by_side=True,
                )
            )
    return tuple(plots)


def arm_in_legend(arm: str) -> str:
    """Short: the patched model, or at how many bytes a patch."""
    size = arm.partition(" ")[2]
    return f"{size} bytes" if size else title_of(arm)
