"""The report of a comparison, made from its record alone, whatever of it is there."""

from collections.abc import Iterable, Sequence
from statistics import fmean, median
from typing import Any

from bytelm.evaluation import RightAndWrong, compare_right, string_metrics
from bytelm.experiments.comparison import figures
from bytelm.experiments.comparison.breakdown import (
    drawn,
    edge_section,
    error_section,
    estimated,
    length_section,
    number_text,
    position_section,
    script_section,
    size_section,
)
from bytelm.experiments.comparison.conclusions import (
    conclusions,
    headline,
    key_findings,
    p_text,
)
from bytelm.experiments.comparison.contrasts import Contrast, contrasts, of_rows
from bytelm.experiments.comparison.findings import (
    BASELINE,
    MAIN,
    METRICS,
    Found,
    title_of,
)
from bytelm.experiments.comparison.searched import Searched, searches
from bytelm.experiments.document import Block, Bullets, Document, Paragraph, Section, Table
from bytelm.experiments.results import Record
from bytelm.experiments.study import environment_section, missing_section


def document(record: Record) -> Document:
    """Make the report."""
    found = Found(record)
    tests = contrasts(found)
    lead = f"{record.plan.get('question', '')} {headline(tests)}".strip()
    sections = (
        *missing_section(record),
        _configuration(found),
        *_hyperparameters(found),
        *_training(found),
        *_statistics(found, tests),
        *length_section(found, tests),
        *position_section(found),
        *edge_section(found),
        *script_section(found, tests),
        *error_section(found),
        *size_section(found, tests),
        *_speed(found),
        Section(title="Key Findings", blocks=(Bullets(items=tuple(key_findings(found, tests))),)),
        _concluded(found, tests),
        environment_section(record),
    )
    return Document(title=f"{record.plan.get('title', 'Comparison')}", lead=lead, sections=sections)


def summary(found: Found, tests: Sequence[Contrast]) -> Document:
    """Make the report on one page: the figures that answer the question, and what follows."""
    record = found.record
    sections = (
        *missing_section(record),
        Section(title="Models", blocks=(_matching(found),)),
        Section(title=f"Test rows ({len(found.pairs):,})", blocks=(_metrics(found),)),
        Section(title="Key Findings", blocks=(Bullets(items=tuple(key_findings(found, tests))),)),
        _concluded(found, tests),
    )
    return Document(
        title=f"{record.plan.get('title', 'Comparison')}", lead=headline(tests), sections=sections
    )


def _concluded(found: Found, tests: Sequence[Contrast]) -> Section:
    test = of_rows(tests)
    blocks = tuple(
        Paragraph(text=text, is_warning=index == 0 and test is not None and test.better == BASELINE)
        for index, text in enumerate(conclusions(found, tests))
    )
    return Section(title="Conclusions", blocks=blocks)


# --- configuration -----------------------------------------------------------------------------


def _configuration(found: Found) -> Section:
    plan, data = found.record.plan, found.record.data
    counts = data.get("rows", {})
    tested = len(found.pairs) or counts.get("test")
    rows = [
        ("task", f"{data.get('task') or plan.get('task') or 'pairs of a file'}"),
        ("source of the training rows", f"{data.get('source', '-')}"),
        ("rows for training", _count(counts.get("train"))),
        ("rows for validation, cut from them", _count(counts.get("valid"))),
        ("rows for the test, read once after all trainings", _count(tested)),
        ("mean bytes of an input", number_text(data.get("mean_input_bytes"), 1)),
        ("mean bytes of a target", number_text(data.get("mean_target_bytes"), 1)),
        ("longest input in training, bytes", _count(data.get("longest_input_bytes"))),
        ("the baseline has as much as the patched model of", f"{plan.get('match', '-')}"),
        ("seeds", f"{len(found.seeds)}"),
        ("decoding", ", ".join(found.decodings(*MAIN)) or "-"),
        ("fingerprint of the training rows", f"{data.get('train_fingerprint', '-')}"[:32]),
    ]
    blocks: list[Block] = [
        *_warnings(found),
        Paragraph(
            text="Both models read and write UTF-8 bytes and have the same decoder; they differ in "
            "the encoder: of bytes, or of patches. The validation rows chose the epoch and the "
            "settings; the test rows chose nothing. Metrics are of raw strings, in characters "
            "(Unicode code points). FLOPs are those of an example of mean length; hash tables are "
            "looked up and cost none."
        ),
        Table(header=("", ""), rows=tuple(rows)),
        _matching(found),
        *_settings(found),
    ]
    return Section(title="Experimental Configuration", blocks=tuple(blocks))


def _warnings(found: Found) -> Iterable[Block]:
    shared = (found.record.values("test") or {}).get("shared_with_train", 0)
    if shared:
        yield Paragraph(
            text=f"{shared} of {len(found.pairs)} test inputs occur in the training file: models "
            "look better here than on new rows.",
            is_warning=True,
        )
    if len(found.seeds) == 1:
        yield Paragraph(
            text="One seed: intervals and tests are over rows, of one training of each model."
        )


def _matching(found: Found) -> Table:
    rows = []
    for arm in (*MAIN, *found.sweep_arms):
        for values in found.trained(arm)[:1]:
            own = values["parameters"] - values["table_parameters"]
            rows.append(
                (
                    title_of(arm),
                    _count(values["parameters"]),
                    _count(own),
                    f"{values['flops_per_example'] / 1e6:,.1f}",
                    number_text(values["mean_patch_bytes"], 2),
                    number_text(values["threshold_nats"], 3),
                )
            )
    header = (
        "model",
        "parameters",
        "without hash tables",
        "MFLOP per example",
        "mean bytes of a patch",
        "threshold, nats",
    )
    return Table(header=header, rows=tuple(rows))


def _settings(found: Found) -> Iterable[Block]:
    """Every setting of both models; one column where they are the same."""
    runs = {arm: _flat(values[0]["run"]) for arm in MAIN if (values := found.trained(arm))}
    keys = sorted({key for run in runs.values() for key in run})
    if keys:
        yield Table(
            header=("setting", *(title_of(arm) for arm in runs)),
            rows=tuple(
                (key, *(f"{run.get(key, '-')}" for run in runs.values()))
                for key in keys
                if not key.startswith("hardware.")
            ),
        )


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tables.items():
        name = f"{prefix}{key}"
        flat |= _flat(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _count(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


# --- hyperparameters and training --------------------------------------------------------------


def _hyperparameters(found: Found) -> list[Section]:
    known = searches(found)
    if not known:
        text = "No search: both models were trained with the settings of the plan."
        if any(stage.task == "search" for stage in found.record.stages):
            text = "The search has no result."
        return [Section(title="Hyperparameter Analysis", blocks=(Paragraph(text=text),))]
    blocks: list[Block] = [_budgets(known), _best(known), _effects(known)]
    blocks += drawn(figures.hyperparameter_analysis(known))
    blocks += [_trials(search) for search in known]
    return [Section(title="Hyperparameter Analysis", blocks=tuple(blocks))]


def _budgets(known: Sequence[Searched]) -> Paragraph:
    told = [
        f"{title_of(search.model)}: {len(search.values['trials'])} of {search.values['budget']} "
        f"trials of {search.values['epochs']} epochs, {len(search.complete)} with a result"
        for search in known
    ]
    return Paragraph(
        text="Each model was searched for with its own trials, judged by the bits per byte of the "
        f"validation rows at the best epoch. {'; '.join(told)}."
    )


def _best(known: Sequence[Searched]) -> Table:
    keys = list(dict.fromkeys(key for search in known for key in search.keys))
    rows = [
        (key, *(_value(search.values["best_params"].get(key)) for search in known)) for key in keys
    ]
    best = [search.best for search in known]
    rows += [
        (name, *("-" if trial is None else number_text(trial[key], 4) for trial in best))
        for name, key in (
            (figures.BITS_LABEL, "valid_bpb"),
            ("exact match of validation, share", "valid_exact"),
        )
    ]
    return Table(
        header=("best trial", *(title_of(search.model) for search in known)), rows=tuple(rows)
    )


def _effects(known: Sequence[Searched]) -> Table:
    rows = [
        (
            f"{key}: {effect.value}",
            title_of(search.model),
            f"{len(effect.bits)}",
            f"{effect.mean:.4f}",
            f"{min(effect.bits):.4f}",
            f"{max(effect.bits):.4f}",
        )
        for search in known
        for key in search.keys
        for effect in search.effects(key)
    ]
    header = ("setting", "model", "trials", f"mean {figures.BITS_LABEL}", "least", "most")
    return Table(header=header, rows=tuple(rows))


def _trials(search: Searched) -> Table:
    rows = [
        (
            f"{trial['index']}",
            *(_value(trial["params"].get(key)) for key in search.keys),
            number_text(trial["valid_bpb"], 4),
            number_text(trial["valid_exact"], 4),
            _count(trial["parameters"]),
            trial["error"] or "",
        )
        for trial in search.values["trials"]
    ]
    header = (
        f"trial of the {title_of(search.model)}",
        *search.keys,
        figures.BITS_LABEL,
        "exact match",
        "parameters",
        "failed with",
    )
    return Table(header=header, rows=tuple(rows))


def _value(value: Any) -> str:
    return "-" if value is None else f"{value:.4g}" if isinstance(value, float) else f"{value}"


def _training(found: Found) -> list[Section]:
    rows = [
        (
            title_of(arm),
            f"{values['seed']}",
            _count(values["steps"]),
            f"{values['best_epoch']} of {values['epochs']}",
            f"{values['best_valid_bpb']:.4f}",
            f"{100 * values['best_valid_exact']:.2f}",
        )
        for arm in (*MAIN, *found.sweep_arms)
        for values in found.trained(arm)
    ]
    if not rows:
        return []
    header = (
        "model",
        "seed",
        "steps",
        "best epoch",
        f"{figures.BITS_LABEL}, validation",
        "exact match, %, true bytes before",
    )
    table = Table(header=header, rows=tuple(rows))
    return [Section(title="Training", blocks=(table, *drawn(figures.training_curves(found))))]


# --- statistics --------------------------------------------------------------------------------


def _statistics(found: Found, tests: Sequence[Contrast]) -> list[Section]:
    if not found.all_predicted():
        return []
    blocks: list[Block] = [
        Paragraph(
            text="Intervals are of 95 %. One seed: Wilson's for shares of rows, a bootstrap over "
            "rows (BCa) for means; the exact McNemar test with Newcombe's interval for exact "
            "match, a sign-flip test with the bootstrap's interval for the rest, both models on "
            "the same rows. Several seeds: a bootstrap over rows, shared by both models, with the "
            "luck of the seeds drawn from Student's t. All tests are one family (Holm); a "
            "difference is shown where the adjusted p-value is below 0.05 and the interval is on "
            "one side of 0."
        ),
        _metrics(found),
    ]
    if tests:
        blocks.append(_tests(tests))
    if counts := _counts(found):
        blocks.append(counts)
    blocks += drawn(figures.detailed_metrics(found))
    return [Section(title="Statistical Analysis", blocks=tuple(blocks))]


def _metrics(found: Found) -> Table:
    """All metrics; of several seeds their means."""
    rows = []
    for arm in MAIN:
        for decoding in reversed(found.decodings(arm)):
            models = found.predicted(arm, decoding)
            if not models:
                continue
            known = [string_metrics(model.predictions, model.targets) for model in models]
            rows.append(
                (
                    f"{title_of(arm)}, {decoding}",
                    f"{len(models)}",
                    *(estimated(models, metric) for metric in METRICS),
                    f"{100 * fmean(m.character_error_rate for m in known):.3f}",
                    f"{max(m.max_edit_distance for m in known)}",
                    f"{fmean(m.mean_length_difference for m in known):+.3f}",
                )
            )
    header = (
        "model",
        "seeds",
        *(metric.heading for metric in METRICS),
        "character error rate, %",
        "largest edit distance",
        "length difference, characters",
    )
    return Table(header=header, rows=tuple(rows))


def _tests(tests: Sequence[Contrast]) -> Table:
    rows = []
    for test in tests:
        digits = test.metric.digits
        low, high = test.interval
        rows.append(
            (
                f"{test.metric.heading}: {title_of(test.arms[0])} - {title_of(test.arms[1])}",
                test.decoding,
                test.rows,
                f"{test.num_rows:,}",
                f"{test.num_seeds}",
                f"{test.difference:+.{digits}f}",
                f"{low:+.{digits}f} to {high:+.{digits}f}",
                p_text(test.p_value),
                p_text(test.adjusted),
                title_of(test.better) if test.better else "no difference shown",
            )
        )
    header = (
        "difference",
        "decoding",
        "rows",
        "n",
        "seeds",
        "signed",
        "interval",
        "p",
        "p, Holm",
        "better",
    )
    return Table(header=header, rows=tuple(rows))


def _counts(found: Found) -> Table | None:
    """Row by row, for each decoding and each seed that both models have."""
    rows = []
    for decoding in reversed(found.decodings(*MAIN)):
        known = [{m.seed: m for m in found.predicted(arm, decoding)} for arm in MAIN]
        for seed in sorted(known[0].keys() & known[1].keys()):
            right = compare_right(*(models[seed].is_exact for models in known))
            rows.append((decoding, f"{seed}", *_counted(right)))
    if not rows:
        return None
    header = (
        "rows right, by decoding",
        "seed",
        "both",
        "only patched",
        "only baseline",
        "neither",
        "McNemar",
        "odds ratio",
        "Cohen's h",
    )
    return Table(header=header, rows=tuple(rows))


def _counted(right: RightAndWrong) -> tuple[str, ...]:
    return (
        f"{right.both}",
        f"{right.only_first}",
        f"{right.only_second}",
        f"{right.neither}",
        p_text(right.p_value),
        f"{right.odds_ratio:.4g}",
        f"{right.cohen_h:+.3f}",
    )


# --- speed -------------------------------------------------------------------------------------


def _speed(found: Found) -> list[Section]:
    timing = found.record.timing("speed") or {}
    measured = {"train, examples per second": timing.get("train_examples_per_second", {})}
    for decoding, rates in timing.get("decode_rows_per_second", {}).items():
        measured[f"decode, {decoding}, rows per second"] = rates
    rows = [(name, *_rates(rates)) for name, rates in measured.items() if rates]
    blocks: list[Block] = []
    if rows:
        blocks += [
            Paragraph(
                text="Median of rounds in which both models took turns on this machine, with the "
                "slowest and the fastest round; the ratio is that of the rounds."
            ),
            Table(
                header=("", *(title_of(arm) for arm in MAIN), "patched / baseline"),
                rows=tuple(rows),
            ),
        ]
    blocks += _automatic(found)
    return [Section(title="Speed", blocks=tuple(blocks), varies=True)] if blocks else []


def _rates(rates: dict[str, list[float]]) -> tuple[str, ...]:
    known = [rates.get(arm, []) for arm in MAIN]
    cells = [_spread(values, 1) for values in known]
    ratios = [first / second for first, second in zip(*known, strict=False) if second > 0]
    return (*cells, _spread(ratios, 2))


def _spread(values: Sequence[float], digits: int) -> str:
    if not values:
        return "-"
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def _automatic(found: Found) -> list[Block]:
    """What was set by the machine, of the first training of each model."""
    rows = []
    for arm in MAIN:
        timing = found.record.timing(f"train {arm} seed {found.seeds[0]}") or {}
        for name, chosen in timing.get("automatic", {}).items():
            rows.append((f"{title_of(arm)}: {name}", f"{chosen['choice']}", f"{chosen['why']}"))
    if not rows:
        return []
    return [Table(header=("set automatically", "choice", "why"), rows=tuple(rows))]
