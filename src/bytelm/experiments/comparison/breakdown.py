"""The sections of a comparison that look at parts: of the rows, of the outputs, of the patches."""

from collections.abc import Mapping, Sequence
from statistics import fmean

import numpy as np

from bytelm.evaluation import Place, error_kinds, string_metrics
from bytelm.experiments.comparison import figures
from bytelm.experiments.comparison.conclusions import p_text
from bytelm.experiments.comparison.contrasts import Contrast, of_rows
from bytelm.experiments.comparison.findings import (
    BASELINE,
    BLT,
    EXACT,
    MAIN,
    Found,
    Metric,
    Predicted,
    estimate,
    title_of,
)
from bytelm.experiments.comparison.groups import Group, by_length, by_script, by_words
from bytelm.experiments.document import Block, Paragraph, Section, Table
from bytelm.experiments.plots import Figure


def number_text(value: float | None, digits: int) -> str:
    """Print a number that may not be there."""
    return "-" if value is None else f"{value:.{digits}f}"


def estimated(models: Sequence[Predicted], metric: Metric, rows: np.ndarray | None = None) -> str:
    """Print a metric of a model with its interval."""
    figure = estimate(models, metric, rows)
    return "-" if figure is None else figure.text(metric.digits)


def drawn(figure: Figure | None) -> list[Block]:
    """Put a figure among the blocks of a section, if there is one."""
    return [] if figure is None else [figure]


def length_section(found: Found, tests: Sequence[Contrast]) -> list[Section]:
    """Tell how exact both models are on short and on long inputs."""
    if not any(found.predicted(arm, found.decoding) for arm in MAIN):
        return []
    blocks: list[Block] = [
        Paragraph(text=f"Exact match with {found.decoding}, with intervals, by size of the input."),
        _grouped(found, tests, by_length(found.pairs), "characters"),
        _grouped(found, [], by_words(found.pairs), "words"),
        *drawn(figures.accuracy_analysis(found)),
    ]
    return [Section(title="Performance Breakdown by Input Length", blocks=tuple(blocks))]


def _grouped(
    found: Found, tests: Sequence[Contrast], groups: Sequence[Group], heading: str
) -> Table:
    """Exact match and edits of both models by group, and the test of the group if there is one."""
    rows = []
    for group in groups:
        models = [found.predicted(arm, found.decoding) for arm in MAIN]
        test = of_rows(tests, group.name)
        shown = "-" if test is None else title_of(test.better) if test.better else "not shown"
        rows.append(
            (
                group.name,
                f"{len(group.rows):,}",
                *(estimated(seeds, EXACT, group.rows) for seeds in models),
                *(_error_rate(seeds, group.rows) for seeds in models),
                *((shown,) if tests else ()),
            )
        )
    names = [title_of(arm) for arm in MAIN]
    header = (
        heading,
        "rows",
        *(f"{name}, {EXACT.heading}" for name in names),
        *(f"{name}, character error rate, %" for name in names),
        *(("better",) if tests else ()),
    )
    return Table(header=header, rows=tuple(rows))


def _error_rate(models: Sequence[Predicted], rows: np.ndarray) -> str:
    if not models:
        return "-"
    rates = [
        string_metrics(
            [model.predictions[row] for row in rows], [model.targets[row] for row in rows]
        ).character_error_rate
        for model in models
    ]
    return f"{100 * fmean(rates):.3f}"


def position_section(found: Found) -> list[Section]:
    """Tell where in the output the wrong characters are."""
    known = {
        title_of(arm): models[0].positions
        for arm in MAIN
        if (models := found.predicted(arm, found.decoding))
    }
    if not known:
        return []
    note = Paragraph(
        text=f"Wrong characters of the target, with {found.decoding}, of the first seed: those "
        "that an edit of the shortest way to the prediction touches, so that one left out counts "
        "once. Intervals take the characters of a row as dependent."
    )
    blocks = (
        note,
        _placed(known, "tenth of the target", scale=100),
        *drawn(figures.positions(found)),
    )
    return [Section(title="Position in the Output", blocks=blocks)]


def _placed(known: Mapping[str, Sequence[Place]], heading: str, *, scale: int = 1) -> Table:
    """Wrong characters of each model by place."""
    places = sorted({(p.low, p.high) for known_places in known.values() for p in known_places})
    by_model = [{(p.low, p.high): p for p in known_places} for known_places in known.values()]
    rows = []
    for low, high in places:
        name = f"{scale * low:g}" if low == high else f"{scale * low:.0f} to {scale * high:.0f} %"
        cells = [_wrong(places_of.get((low, high))) for places_of in by_model]
        counted = next(known_at[low, high] for known_at in by_model if (low, high) in known_at)
        rows.append((name, f"{counted.characters:,}", *cells))
    header = (heading, "characters", *(f"{name}, wrong, %" for name in known))
    return Table(header=header, rows=tuple(rows))


def _wrong(place: Place | None) -> str:
    if place is None:
        return "-"
    low, high = (100 * (1 - end) for end in reversed(place.interval))
    return f"{100 * (1 - place.accuracy):.3f} ({low:.3f} to {high:.3f})"


def edge_section(found: Found) -> list[Section]:
    """Tell where in the patches the wrong characters come from."""
    models = {arm: seeds[0] for arm in MAIN if (seeds := found.predicted(arm, found.decoding))}
    if BLT not in models:
        return []
    known = {
        title_of(arm): edges
        for arm, model in models.items()
        if (edges := found.edges(model, patched=models[BLT])) is not None
    }
    if not known:
        text = (
            "The targets are not made of characters of the input by a known rule, so that errors "
            "cannot be traced to patches."
        )
        return [Section(title="Patch Edges", blocks=(Paragraph(text=text),))]
    note = Paragraph(
        text="The same errors, by where the source of a character lies in its patch of the input. "
        "The baseline has no patches and is shown at the same bytes."
    )
    tables = [
        _placed({name: getattr(edges, key) for name, edges in known.items()}, heading)
        for heading, key in (
            ("bytes after the first byte of the patch", "from_start"),
            ("bytes before the last byte of the patch", "from_end"),
            ("bytes of the patch", "by_patch_length"),
        )
    ]
    return [Section(title="Patch Edges", blocks=(note, *tables))]


def script_section(found: Found, tests: Sequence[Contrast]) -> list[Section]:
    """Tell how exact both models are on rows that are not all ASCII."""
    groups = by_script(found.pairs)
    if not groups or not any(found.predicted(arm, found.decoding) for arm in MAIN):
        return []
    table = _grouped(found, tests, groups, "input and target")
    return [Section(title="Non-ASCII Text", blocks=(table,))]


def error_section(found: Found) -> list[Section]:
    """Count the wrong rows by how they are wrong."""
    models = {
        arm: seeds
        for arm in (*MAIN, *found.sweep_arms)
        if (seeds := found.predicted(arm, _decoding_of(found, arm)))
    }
    counts = {
        arm: error_kinds(
            [text for model in seeds for text in model.predictions],
            [text for model in seeds for text in model.targets],
        )
        for arm, seeds in models.items()
    }
    if not counts:
        return []
    kinds = next(iter(counts.values()))
    rows = [(kind, *(f"{known[kind]}" for known in counts.values())) for kind in kinds]
    rows.append(("wrong rows", *(f"{sum(known.values())}" for known in counts.values())))
    rows.append(
        ("of rows", *(f"{sum(len(m.targets) for m in seeds)}" for seeds in models.values()))
    )
    note = Paragraph(
        text="Each wrong row has one kind: the first that fits, in the order of the table. Rows "
        "of all seeds are counted."
    )
    table = Table(header=("kind of error", *map(title_of, counts)), rows=tuple(rows))
    return [Section(title="Kinds of Error", blocks=(note, table))]


def _decoding_of(found: Found, arm: str) -> str:
    """The main decoding of an arm."""
    return found.decoding if arm in MAIN else found.curve_decoding


def size_section(found: Found, tests: Sequence[Contrast]) -> list[Section]:
    """Tell what larger patches cost, and what they save."""
    figure = figures.patch_sizes(found)
    if figure is None:
        return []
    decoding = found.curve_decoding
    rows = []
    for arm in (BASELINE, BLT, *found.sweep_arms):
        trained, models = found.trained(arm), found.predicted(arm, decoding)
        if not trained:
            continue
        test = next((t for t in tests if t.arms == (arm, BLT)), None)
        rows.append(
            (
                title_of(arm),
                number_text(trained[0]["mean_patch_bytes"], 2),
                f"{trained[0]['flops_per_example'] / 1e6:,.1f}",
                f"{fmean(values['best_valid_bpb'] for values in trained):.4f}",
                estimated(models, EXACT),
                "-" if test is None else f"{test.difference:+.2f}, {p_text(test.adjusted)}",
            )
        )
    header = (
        "model",
        "mean bytes of a patch",
        "MFLOP per example",
        f"{figures.BITS_LABEL}, validation",
        f"{EXACT.heading}, {decoding}",
        "points against the patched model, p of Holm",
    )
    blocks: tuple[Block, ...] = (Table(header=header, rows=tuple(rows)), figure)
    return [Section(title="Patch Size", blocks=blocks)]
