"""The report of a compression study, made from its record alone, whatever of it is there."""

from typing import Any

from bytelm import config
from bytelm.experiments.compression.conclusions import conclusions
from bytelm.experiments.compression.findings import Sample
from bytelm.experiments.compression.found import Found
from bytelm.experiments.compression.plan import CompressionPlan, Sweep
from bytelm.experiments.document import (
    Block,
    Bullets,
    Commands,
    Document,
    Paragraph,
    Section,
    Table,
)
from bytelm.experiments.plots import COLORS, QUIET_COLOR, Bar, Figure, Level, Line, Point
from bytelm.experiments.results import Record
from bytelm.experiments.study import environment_section, missing_section

BITS = "bits per byte"

MODES = {"model + mixer": "mixed", "model alone": "model", "mixer alone": "mixer"}
"""What each way of coding is called, and its mode."""


def document(record: Record) -> Document:
    """Make the report.

    Raises:
        ConfigError: The record's plan is none of this kind.

    """
    plan = config.from_dict(CompressionPlan, record.plan, where="the study's plan")
    found = Found(record, plan)
    sections = [
        *missing_section(record),
        Section(title="Key findings", blocks=(Bullets(items=tuple(conclusions(found))),)),
        _configuration(found),
        *_comparison(found),
        *(section for sweep in plan.sweeps for section in _sweep(found, sweep)),
        *_lanes(found),
        *_integers(found),
        *_patches(found),
        *_speed(found),
        environment_section(record),
    ]
    return Document(title=plan.title, lead=plan.question, sections=tuple(sections))


def _text(found: Sample | None) -> str:
    return "-" if found is None else str(found)


def _count(found: Sample | None) -> str:
    return "-" if found is None else f"{found.mean:,.0f}"


def _configuration(found: Found) -> Section:
    plan, data = found.plan, found.record.data
    sizes = data.get("bytes", {})
    rows = [
        ("model of the codec", " ".join([plan.recipe, *plan.settings])),
        ("patched models", " ".join([plan.patches.recipe, *plan.patches.settings])),
        *((f"bytes for {name}", f"{count:,}") for name, count in sizes.items()),
        ("bytes compressed", f"{data.get('compressed', 0):,}"),
        ("seeds", str(plan.seeds)),
        ("corpus", str(data.get("corpus", ""))[:32]),
    ]
    blocks: list[Block] = [
        Paragraph(
            text="Whole files are held out before anything is learned (a single file is cut, its "
            "end held out); the first bytes of the test split, as one stream, are what every row "
            "below compresses. Sizes are those of whole files, headers included, and every one was "
            "decompressed and compared. The size of a model is counted only where it is said."
        ),
        Table(header=("", ""), rows=tuple(rows)),
    ]
    shared = data.get("overlap", {}).get("test", 0.0)
    if shared > 0.1:
        blocks.insert(
            0,
            Paragraph(
                text=f"{100 * shared:.0f} % of the test bytes occur in the training data (blocks "
                "of 64 bytes): models look better here than on new files.",
                is_warning=True,
            ),
        )
    blocks.append(Commands(lines=("bytelm study plan.json --out ANOTHER_DIR",)))
    return Section(title="Configuration", blocks=tuple(blocks))


def _comparison(found: Found) -> list[Section]:
    ours = {name: found.coded(mode) for name, mode in MODES.items()}
    known = {name: value for name, value in ours.items() if value is not None}
    ranked = sorted({**known, **found.classics()}.items(), key=lambda item: item[1].mean)
    if not ranked:
        return []
    best = next(iter(found.classics().values()), None)
    counted = _counted(found)
    rows = tuple(
        (
            name,
            str(value),
            "" if best is None else f"{100 * (value.mean / best.mean - 1):+.1f} %",
            f"{counted[name]:.3f}" if name in counted else "",
        )
        for name, value in ranked
    )
    bars = tuple(
        Bar(
            name=name,
            value=value.mean,
            low=value.low,
            high=value.high,
            color=COLORS[0] if name in known else QUIET_COLOR,
        )
        for name, value in ranked
    )
    blocks: list[Block] = [
        Table(
            header=("", BITS, "against the best classical", "with the model's own bytes"),
            rows=rows,
        ),
        Figure(
            name="compressors",
            title="Bits per byte of the test bytes: less is better",
            caption="Blue: this codec. Gray: classical compressors on the same bytes.",
            y_label=BITS,
            bars=bars,
        ),
    ]
    problems = [
        f"{name}: {row['problem']}"
        for name, row in (found.record.values("classics") or {}).items()
        if row["problem"]
    ]
    if problems:
        blocks.append(Bullets(items=tuple(problems)))
    return [Section(title="Against the classical compressors", blocks=tuple(blocks))]


def _counted(found: Found) -> dict[str, float]:
    """Bits per byte with the model's bytes on top, by name of the row."""
    counted = {}
    for name, mode in MODES.items():
        size, own, raw = (
            found.coded(mode, key=key) for key in ("compressed_bytes", "model_bytes", "raw_bytes")
        )
        if size is not None and own is not None and raw is not None:
            counted[name] = 8 * (size.mean + own.mean) / raw.mean
    return counted


def _sweep(found: Found, sweep: Sweep) -> list[Section]:
    modes = {name: mode for name, mode in MODES.items() if mode != "mixer"}
    rows = []
    lines: dict[str, list[Point]] = {name: [] for name in modes}
    for value in sweep.values:
        arm = sweep.arm(value)
        across = found.trained(arm, sweep.axis)
        figures = {name: found.coded(mode, arm) for name, mode in modes.items()}
        rows.append(
            (
                str(value),
                _count(found.trained(arm, "parameters")),
                _count(found.trained(arm, "bytes_seen")),
                _count(found.coded("model", arm, key="model_bytes")),
                *(_text(figure) for figure in figures.values()),
            )
        )
        for name, figure in figures.items():
            if figure is not None and across is not None:
                lines[name].append(_point(across.mean, figure))
    blocks: list[Block] = [
        Table(
            header=(
                sweep.key,
                "parameters",
                "bytes learned from",
                "bytes of the integer model",
                *modes,
            ),
            rows=tuple(rows),
        )
    ]
    drawn = tuple(
        Line(name=name, points=tuple(sorted(points, key=lambda point: point.x)))
        for name, points in lines.items()
        if points
    )
    if drawn:
        blocks.append(
            Figure(
                name=f"sweep_{sweep.name}",
                title=f"{sweep.title}: bits per byte of the test bytes",
                caption="Bars reach from the lowest to the highest seed. Dashed: without a model.",
                x_label={"parameters": "parameters", "bytes_seen": "bytes learned from"}[
                    sweep.axis
                ],
                y_label=BITS,
                lines=drawn,
                levels=_levels(found),
            )
        )
    return [Section(title=sweep.title, blocks=tuple(blocks))]


def _point(x: float, figure: Sample) -> Point:
    return Point(x=x, y=figure.mean, low=figure.low, high=figure.high)


def _levels(found: Found) -> tuple[Level, ...]:
    levels = {"mixer alone": found.coded("mixer"), **dict(list(found.classics().items())[:1])}
    return tuple(
        Level(name=name, y=value.mean) for name, value in levels.items() if value is not None
    )


def _lanes(found: Found) -> list[Section]:
    counts = sorted(found.plan.lanes)
    rows = tuple(
        (str(count), *(_text(found.coded(mode, lanes=count)) for mode in MODES.values()))
        for count in counts
    )
    lines = []
    for name, mode in MODES.items():
        known = [(count, found.coded(mode, lanes=count)) for count in counts]
        points = tuple(_point(count, figure) for count, figure in known if figure is not None)
        if points:
            lines.append(Line(name=name, points=points))
    if not lines:
        return []
    figure = Figure(
        name="lanes",
        title="What parallel decoding costs: lanes in lock-step that share their tables",
        caption="Bars reach from the lowest to the highest seed.",
        x_label="lanes",
        x_is_log=True,
        y_label=BITS,
        lines=tuple(lines),
    )
    table = Table(header=("lanes", *MODES), rows=rows)
    return [Section(title="Lanes", blocks=(table, figure))]


def _integers(found: Found) -> list[Section]:
    arms = ["base", *(sweep.arm(value) for sweep in found.plan.sweeps for value in sweep.values)]
    rows = []
    for arm in arms:
        as_trained = found.scored(arm)
        exact = found.coded("model", arm, key="payload_bits_per_byte")
        if as_trained is not None and exact is not None:
            gap = exact.mean - as_trained.mean
            rows.append((arm, str(as_trained), str(exact), f"{gap:+.4f}"))
    if not rows:
        return []
    return [
        Section(
            title="Floats and integers",
            blocks=(
                Paragraph(
                    text="The trained model's own likelihood in floating point, and what its "
                    "integer version writes alone, with one lane, the container's headers aside."
                ),
                Table(header=("model", "float", "integers, coded", "cost"), rows=tuple(rows)),
            ),
        )
    ]


def _patches(found: Found) -> list[Section]:
    rows, bars = [], []
    for rule in found.plan.patches.rules:
        bits = found.scored(rule.name)
        patch_bytes = found.scored(rule.name, "mean_patch_bytes")
        flops = found.scored(rule.name, "flops_per_byte")

        def floats(key: str, name: str = rule.name) -> Sample | None:
            return found.over_seeds(lambda seed: f"float codec {name} seed {seed}", key)

        size, expected = floats("payload_bits_per_byte"), floats("expected_bits_per_byte")
        rows.append(
            (
                rule.name,
                "-" if patch_bytes is None else f"{patch_bytes.mean:.2f}",
                _count(found.trained(rule.name, "parameters")),
                "-" if flops is None else f"{flops.mean / 1e6:.3f}",
                _text(bits),
                _text(expected),
                _text(size),
            )
        )
        if bits is not None:
            bars.append(Bar(name=rule.name, value=bits.mean, low=bits.low, high=bits.high))
    if not bars:
        return []
    blocks: tuple[Block, ...] = (
        Paragraph(
            text="Patched models in the float profile, each model alone. Bits per byte are those "
            "of all test bytes; the codec wrote and read back the first "
            f"{min(found.plan.patches.num_bytes, found.plan.test_bytes):,} of them, in "
            f"{found.plan.patches.lanes} lanes, beside what the model's likelihood promises for "
            "the same lanes."
        ),
        Table(
            header=(
                "patches",
                "bytes per patch",
                "parameters",
                "MFLOP per byte",
                BITS,
                "codec: promised",
                "codec: written",
            ),
            rows=tuple(rows),
        ),
        Figure(
            name="patch_rules",
            title="Patch rules: bits per byte of the test bytes, model alone",
            caption="Bars reach from the lowest to the highest seed.",
            y_label=BITS,
            bars=tuple(sorted(bars, key=lambda bar: bar.value)),
        ),
    )
    return [Section(title="Patch rule", blocks=blocks)]


def _speed(found: Found) -> list[Section]:
    raw = found.record.data.get("compressed", 0)
    ours = {name: found.record.timing(f"speed {mode}") for name, mode in MODES.items()}
    measured = {**ours, **(found.record.timing("classics") or {})}
    rows = tuple(
        (name, *_effort(raw, timing.get("encode")), *_effort(raw, timing.get("decode")))
        for name, timing in measured.items()
        # Beside the compressors there is how long the stage took.
        if isinstance(timing, dict)
    )
    if not rows:
        return []
    header = ("", "encode, KB/s", "MB", "decode, KB/s", "MB")
    note = Paragraph(
        text="By the clock on the wall, once, on this machine, each direction in a process of its "
        "own on one worker, with the most memory that process had."
    )
    return [
        Section(title="Speed", blocks=(note, Table(header=header, rows=rows)), varies=True),
    ]


def _effort(num_bytes: int, effort: dict[str, Any] | None) -> tuple[str, str]:
    if effort is None:
        return "-", "-"
    seconds, peak = effort["seconds"], effort["peak_bytes"]
    return (
        f"{num_bytes / seconds / 1000:,.0f}" if seconds > 0 else "-",
        "-" if peak is None else f"{peak / 1e6:,.0f}",
    )
