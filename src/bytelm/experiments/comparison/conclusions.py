"""What may be said at the end of a comparison: sentences made from signed, tested differences."""

from collections.abc import Callable, Iterable, Sequence
from statistics import fmean
from typing import Any

from bytelm.evaluation import EdgeAccuracy, Place, error_kinds
from bytelm.experiments.comparison.contrasts import ALL_ROWS, Contrast, of_rows
from bytelm.experiments.comparison.findings import (
    BASELINE,
    BLT,
    EXACT,
    GREEDY,
    MAIN,
    Found,
    estimate,
    title_of,
)

NOTHING = "Nothing was measured."

_FEWEST_CHARACTERS = 200
"""A place of fewer characters is not held against another."""


def headline(tests: Sequence[Contrast]) -> str:
    """Answer in one sentence; nothing where the models were not compared."""
    test = of_rows(tests)
    if test is None:
        return ""
    gap = f"{abs(test.difference):.2f} points of exact match"
    if test.better == BASELINE:
        return f"The patched model loses: the baseline is better by {gap}."
    if test.better == BLT:
        return f"The patched model is better than the baseline by {gap}."
    low, high = test.interval
    return (
        "No difference in exact match is shown between the patched model and the baseline: what "
        f"was measured fits differences from {low:+.2f} to {high:+.2f} points."
    )


def key_findings(found: Found, tests: Sequence[Contrast]) -> list[str]:
    """Sentences on what was found, whatever of the study is there."""
    said = [
        *_seeds(found),
        *_main(found, tests),
        *_matching(found),
        *_decoding(found),
        *_groups(tests),
        *_kinds(found),
        *_places(found),
        *_sizes(found, tests),
    ]
    return said or [NOTHING]


def conclusions(found: Found, tests: Sequence[Contrast]) -> list[str]:
    """What follows, and how far it reaches."""
    test = of_rows(tests)
    if test is None:
        return ["The two models were not compared: there are no predictions of both."]
    said = [headline(tests), _reach(found, test)]
    other = [t for t in tests if t.arms == MAIN and t.rows == ALL_ROWS and t is not test]
    against = [t for t in other if t.better is not None and t.better != test.better]
    if test.better is not None and against:
        said.append(
            "Not all metrics agree: "
            + "; ".join(f"{_named(t)}: the {title_of(t.better or '')} is better" for t in against)
            + "."
        )
    return [*said, *_price_of_size(found, tests)]


def _price_of_size(found: Found, tests: Sequence[Contrast]) -> Iterable[str]:
    """What larger patches cost; nothing where no larger ones were tried."""
    larger = [
        (sizes[0], test)
        for test in tests
        if test.arms[1] == BLT and (sizes := _mean_sizes(found, test)) and sizes[0] > sizes[1]
    ]
    for is_shown, what in (
        (True, "cost exact match"),
        (False, "are not shown to cost exact match"),
    ):
        named = [f"{size:.2f}" for size, test in larger if (test.better == BLT) == is_shown]
        if named:
            yield f"Larger patches {what}: mean bytes {', '.join(named)}."


def _mean_sizes(found: Found, test: Contrast) -> tuple[float, float] | None:
    """Mean bytes of a patch of the two models of a test."""
    known = [found.trained(arm) for arm in test.arms]
    if not all(known):
        return None
    first, second = (fmean(v["mean_patch_bytes"] for v in values) for values in known)
    return first, second


def _reach(found: Found, test: Contrast) -> str:
    if test.num_seeds == 1:
        return (
            f"This is one training of each model on one set of rows: it tells of these two models "
            f"on {test.num_rows:,} rows, and another seed may change it (--seeds N)."
        )
    return (
        f"This holds over {test.num_seeds} trainings of each model and {test.num_rows:,} rows "
        f"of the task '{found.record.data.get('task') or 'pairs'}' at this size, this budget and "
        "these data; it says nothing of larger ones."
    )


def _named(test: Contrast) -> str:
    """What a test is about, in words."""
    rows = "" if test.rows == ALL_ROWS else f", rows: {test.rows}"
    return f"{test.metric.name} ({test.decoding}{rows})"


def told(test: Contrast, names: Callable[[str], str] = title_of) -> str:
    """What a test shows, with its numbers, as the end of a sentence."""
    low, high = test.interval
    unit, digits = test.metric.unit_of_differences, test.metric.digits
    numbers = (
        f"difference {test.difference:+.{digits}f} {unit}, {low:+.{digits}f} to "
        f"{high:+.{digits}f}, {p_text(test.adjusted)}"
    )
    if test.better is None:
        return f"no difference shown ({numbers})"
    return f"the {names(test.better)} is better ({numbers})"


def p_text(p_value: float) -> str:
    """A p-value as it is printed: never 0."""
    return "p < 0.0001" if p_value < 0.0001 else f"p = {p_value:.4f}"


def _seeds(found: Found) -> Iterable[str]:
    if found.all_predicted() and min(len(found.predicted(a, found.decoding)) for a in MAIN) < 2:
        yield (
            "Each model was trained once: a difference is one of these two models, and another "
            "seed may change it (--seeds N)."
        )


def _main(found: Found, tests: Sequence[Contrast]) -> Iterable[str]:
    for test in tests:
        if test.arms != MAIN or test.rows != ALL_ROWS:
            continue
        figures = ", ".join(
            f"{title_of(arm)} {figure.text(test.metric.digits)}"
            for arm in MAIN
            if (figure := estimate(found.predicted(arm, test.decoding), test.metric)) is not None
        )
        counts = ""
        if test.right is not None:
            right = test.right
            counts = (
                f" Of {right.only_first + right.only_second} rows on which they differ the patched "
                f"model has {right.only_first} right, the baseline {right.only_second}."
            )
        yield f"{_capital(_named(test))}, {test.metric.unit}: {figures}: {told(test)}.{counts}"


def _matching(found: Found) -> Iterable[str]:
    runs = [found.trained(arm) for arm in MAIN]
    if not all(runs):
        return
    patched, baseline = (values[0] for values in runs)
    size = patched["mean_patch_bytes"]
    yield (
        f"The patched model has {_share(patched, baseline, 'parameters')} the parameters of the "
        f"baseline, hash tables included, and {_share(patched, baseline, 'flops_per_example')} its "
        f"FLOPs per example" + ("." if size is None else f", at a mean patch of {size:.2f} bytes.")
    )


def _share(patched: dict[str, Any], baseline: dict[str, Any], key: str) -> str:
    return f"{patched[key] / baseline[key]:.2f} times"


def _decoding(found: Found) -> Iterable[str]:
    if found.decoding == GREEDY:
        return
    for arm in MAIN:
        greedy, beam = (
            estimate(found.predicted(arm, how), EXACT) for how in (GREEDY, found.decoding)
        )
        if greedy is not None and beam is not None:
            yield (
                f"Exact match of the {title_of(arm)} is {beam.value:.2f} % with {found.decoding} "
                f"and {greedy.value:.2f} % greedily."
            )


def _groups(tests: Sequence[Contrast]) -> Iterable[str]:
    groups = [test for test in tests if test.arms == MAIN and test.rows != ALL_ROWS]
    for arm in MAIN:
        names = [test.rows for test in groups if test.better == arm]
        if names:
            yield f"Exact match is shown to be better with the {title_of(arm)} for {_list(names)}."
    if groups and (open_ones := [test.rows for test in groups if test.better is None]):
        yield f"No difference is shown for {_list(open_ones)}."


def _list(names: Sequence[str]) -> str:
    spoken = [f"{name} characters" if name[0].isdigit() else f"rows {name}" for name in names]
    return ", ".join(spoken)


def _kinds(found: Found) -> Iterable[str]:
    for arm in MAIN:
        models = found.predicted(arm, found.decoding)
        predictions = [text for model in models for text in model.predictions]
        targets = [text for model in models for text in model.targets]
        if not targets:
            continue
        kinds = {kind: n for kind, n in error_kinds(predictions, targets).items() if n}
        if kinds:
            most = max(kinds, key=lambda kind: kinds[kind])
            yield (
                f"Of {sum(kinds.values())} wrong rows of the {title_of(arm)}"
                f"{' (all seeds)' if len(models) > 1 else ''} {kinds[most]} are "
                f"'{most}', the commonest kind."
            )


def _places(found: Found) -> Iterable[str]:
    patched = found.predicted(BLT, found.decoding)
    for arm in MAIN:
        models = found.predicted(arm, found.decoding)
        if not models:
            continue
        name = f"Wrong characters of the {title_of(arm)}"
        yield from _extremes(f"{name} by tenth of the output", models[0].positions, 10)
        if arm == BLT and (edges := found.edges(models[0], patched=patched[0])):
            yield from _edges(edges, name)


def _edges(edges: EdgeAccuracy, name: str) -> Iterable[str]:
    yield from _extremes(f"{name} by bytes after the start of a patch", edges.from_start)
    yield from _extremes(f"{name} by bytes before its end", edges.from_end)


def _extremes(name: str, places: Sequence[Place], scale: int = 1) -> Iterable[str]:
    """The worst place against the best, if one is; apart only where their intervals are."""
    if all(place.right == place.characters for place in places):
        return
    known = [place for place in places if place.characters >= _FEWEST_CHARACTERS]
    if len(known) < 2:
        yield f"{name}: too few characters to tell."
        return
    worst = min(known, key=lambda place: place.accuracy)
    best = max(known, key=lambda place: place.accuracy)
    if worst.accuracy == best.accuracy:
        return
    first = 1 if scale > 1 else 0
    numbers = (
        f"from {_wrong(best)} at {scale * best.low + first:g} to {_wrong(worst)} at "
        f"{scale * worst.low + first:g}"
    )
    is_apart = worst.interval[1] < best.interval[0]
    yield f"{name}: {numbers}, {'apart' if is_apart else 'no difference shown'}."


def _wrong(place: Place) -> str:
    low, high = (100 * (1 - end) for end in reversed(place.interval))
    return f"{100 * (1 - place.accuracy):.2f} % ({low:.2f} to {high:.2f})"


def _sizes(found: Found, tests: Sequence[Contrast]) -> Iterable[str]:
    for test in tests:
        if test.arms[1] == BLT and (sizes := _mean_sizes(found, test)) is not None:
            names = dict(
                zip(test.arms, (f"patch of {size:.2f} bytes" for size in sizes), strict=True)
            )
            yield (
                f"Patches of {sizes[0]:.2f} bytes instead of {sizes[1]:.2f}, exact match "
                f"({test.decoding}): {told(test, names.__getitem__)}."
            )


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
