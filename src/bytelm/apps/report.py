"""A report of a run or a demo as one HTML file: comparison, curves, patches, samples, settings.

Sections are made from results by the functions of this module, which escape everything they are
given; `write_report` puts them into one page that loads nothing.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.apps.charts import Series, line_chart
from bytelm.apps.glyphs import glyphs
from bytelm.apps.render import PatchView, page, patch_fragment, printable, template
from bytelm.evaluation.compressors import CompressorResult
from bytelm.evaluation.likelihood import Evaluation
from bytelm.training.metrics import read

_CURVE_POINTS = 300
"""Points of a training curve; each is the mean of the updates it stands for."""

_BAR_WIDTH = 360
_UNIFORM_BITS = 8.0


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and HTML that one of this module's functions escaped."""

    title: str
    """Plain text."""
    body: str
    """HTML."""


@dataclass(frozen=True, kw_only=True)
class Score:
    """One row of the comparison."""

    name: str
    """Model or compressor."""
    bits_per_byte: float | None
    """On the held-out bytes as one stream; None where it could not be measured."""
    is_model: bool = False
    """Models are drawn in color, compressors in gray."""
    interval: tuple[float, float] | None = None
    """95 %, bits per byte."""
    per_file_bits_per_byte: float | None = None
    """Files compressed apart; None for models, which read each file apart anyway."""
    detail: str = ""
    """Parameters, FLOPs per byte, bytes per patch: one line."""


@dataclass(frozen=True, kw_only=True)
class Sample:
    """What a model wrote."""

    label: str
    """Model and sampling settings."""
    prompt: bytes
    """Given to the model."""
    text: bytes
    """Written by it, without the prompt."""


def model_score(name: str, evaluation: Evaluation, *, detail: str = "") -> Score:
    """Return a model's row; without `detail`, its patch size and FLOPs per byte are told."""
    told = []
    if evaluation.mean_patch_bytes > 1:
        told.append(f"{evaluation.mean_patch_bytes:.2f} bytes per patch")
    if evaluation.flops_per_byte is not None:
        told.append(f"{evaluation.flops_per_byte / 1e6:.2f} MFLOP per byte")
    return Score(
        name=name,
        bits_per_byte=evaluation.bits_per_byte,
        is_model=True,
        interval=evaluation.interval,
        detail=detail or ", ".join(told),
    )


def compressor_score(result: CompressorResult) -> Score:
    """Return a compressor's row; a missing one says how to install it."""
    return Score(
        name=result.name,
        bits_per_byte=result.bits_per_byte,
        per_file_bits_per_byte=result.per_file_bits_per_byte,
        detail=result.note,
    )


def comparison_section(
    scores: Sequence[Score],
    *,
    title: str = "Bits per byte",
    note: str = "",
    warnings: Sequence[str] = (),
) -> Section:
    """Return a table of models and compressors on the same bytes, best first.

    Args:
        scores: Rows, in any order; those without a figure come last.
        title: Heading.
        note: One paragraph on what was measured.
        warnings: Lines a reader must see before the figures.

    """
    ordered = sorted(
        scores, key=lambda score: (score.bits_per_byte is None, score.bits_per_byte or 0)
    )
    highest = max((score.bits_per_byte or 0 for score in scores), default=0) or _UNIFORM_BITS
    rows = "".join(_score_row(score, highest) for score in ordered)
    paragraphs = "".join(f'<p class="warning">{html.escape(line)}</p>' for line in warnings)
    if note:
        paragraphs += f'<p class="quiet">{html.escape(note)}</p>'
    body = (
        f'{paragraphs}<div class="scroll"><table class="bars"><thead><tr><th></th>'
        '<th class="number">bits per byte</th><th>less is better; line: 95 % interval</th>'
        '<th class="number">files apart</th><th></th></tr></thead>'
        f"<tbody>{rows}</tbody></table></div>"
    )
    return Section(title=title, body=body)


def _score_row(score: Score, highest: float) -> str:
    value = score.bits_per_byte
    apart = score.per_file_bits_per_byte
    kind = "model" if score.is_model else "missing" if value is None else "compressor"
    return (
        f'<tr class="{kind}"><td>{html.escape(score.name)}</td>'
        f'<td class="number value">{"" if value is None else f"{value:.3f}"}</td>'
        f'<td class="bar">{"" if value is None else _bar(value, score.interval, highest)}</td>'
        f'<td class="number">{"" if apart is None else f"{apart:.3f}"}</td>'
        f'<td class="quiet">{html.escape(score.detail)}</td></tr>'
    )


def _bar(value: float, interval: tuple[float, float] | None, highest: float) -> str:
    # Room for the interval of the longest bar.
    scale = 0.88 * _BAR_WIDTH / highest
    whisker = ""
    label = f"{value:.3f} bits per byte"
    if interval is not None:
        low, high = (min(end * scale, _BAR_WIDTH - 1) for end in interval)
        whisker = (
            f'<path class="whisker" d="M{low:.1f} 5v8M{low:.1f} 9H{high:.1f}M{high:.1f} 5v8"/>'
        )
        label += f", 95 % interval {interval[0]:.3f} to {interval[1]:.3f}"
    return (
        f'<svg viewBox="0 0 {_BAR_WIDTH} 18" width="{_BAR_WIDTH}" height="18" role="img" '
        f'aria-label="{label}"><title>{label}</title><rect class="fill" x="0" y="2" '
        f'width="{value * scale:.1f}" height="14" rx="2"/>{whisker}</svg>'
    )


def curves_section(runs: Mapping[str, Path], *, title: str = "Training") -> Section:
    """Return the curves of run directories, read from their `metrics.jsonl`.

    Args:
        runs: Name to run directory. Thin lines are the batches, thick ones the validation split.
        title: Heading.

    """
    series: list[Series] = []
    for index, (name, run_dir) in enumerate(runs.items()):
        series.extend(_run_series(name, read(run_dir), color=index))
    if not series:
        return Section(title=title, body='<p class="quiet">No measurements yet.</p>')
    values = np.concatenate([line.y for line in series])
    low = 0.95 * float(values.min())
    # The first updates fall from 8 bits: the range shows where the runs are told apart.
    high = min(float(values.max()) * 1.02, 2.5 * low) or 1.0
    chart = line_chart(
        series,
        x_label="million bytes of training text read",
        y_label="bits per byte",
        y_range=(low, high),
    )
    note = "Thin: the batches, before each update. Thick: the validation split."
    return Section(title=title, body=f'{chart}<p class="quiet">{note}</p>')


def _run_series(name: str, rows: Sequence[Mapping[str, Any]], *, color: int) -> list[Series]:
    trained = [(row["bytes_seen"] / 1e6, row["train_bpb"]) for row in rows]
    measured = [
        (row["bytes_seen"] / 1e6, row["valid_bpb"])
        for row in rows
        if row.get("valid_bpb") is not None
    ]
    lines = []
    for points, faint in ((trained, True), (measured, False)):
        values = np.array(points, dtype=np.float64).reshape(-1, 2)
        values = values[np.isfinite(values).all(axis=1)]
        if len(values):
            x, y = _thinned(values)
            label = "" if faint and measured else name
            lines.append(Series(name=label, x=x, y=y, color=color, faint=faint))
    return lines


def _thinned(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return at most `_CURVE_POINTS` means of neighboring points, and the last x kept."""
    groups = np.array_split(points, min(len(points), _CURVE_POINTS))
    return np.array([group[-1, 0] for group in groups]), np.array([g[:, 1].mean() for g in groups])


def patch_section(view: PatchView, *, title: str = "Patches") -> Section:
    """Return the patch view with its tooltips, as `bytelm patch --html` shows it."""
    name = f'<p class="quiet">{html.escape(printable(view.name))}</p>'
    return Section(title=title, body=name + patch_fragment(view))


def samples_section(samples: Sequence[Sample], *, title: str = "Samples") -> Section:
    """Return what models wrote after their prompts; bytes that are not text are shown as hex."""
    blocks = "".join(
        f'<h3>{html.escape(sample.label)}</h3><pre class="sample">'
        f'<span class="prompt">{_shown(sample.prompt)}</span>{_shown(sample.text)}</pre>'
        for sample in samples
    )
    return Section(title=title, body=blocks)


def _shown(data: bytes) -> str:
    """Return bytes as text: characters whole, line breaks kept, other bytes as symbols."""
    parts = []
    for glyph in glyphs(data):
        if glyph.kind == "newline":
            parts.append("\n")
        elif glyph.kind != "rest":
            parts.append(glyph.text)
    return html.escape("".join(parts))


def settings_section(
    settings: Mapping[str, object], *, commands: Sequence[str] = (), title: str = "Settings"
) -> Section:
    """Return a table of settings, and the commands that repeat the results."""
    rows = "".join(
        f'<tr><td>{html.escape(str(name))}</td><td class="mono">{html.escape(str(value))}</td></tr>'
        for name, value in settings.items()
    )
    body = f'<div class="scroll"><table class="settings"><tbody>{rows}</tbody></table></div>'
    if commands:
        lines = html.escape("\n".join(f"$ {command}" for command in commands))
        body += f"<h3>Commands</h3><pre>{lines}</pre>"
    return Section(title=title, body=body)


def report_page(*, title: str, sections: Sequence[Section], subtitle: str = "") -> str:
    """Return the whole report as one HTML page."""
    lead = f'<p class="lead">{html.escape(subtitle)}</p>' if subtitle else ""
    parts = "".join(
        f"<section><h2>{html.escape(section.title)}</h2>\n{section.body}</section>\n"
        for section in sections
    )
    body = (
        f'<header><p class="brand">bytelm report</p><h1>{html.escape(title)}</h1>{lead}</header>\n'
        f"{parts}<footer>Bits per byte: bits a model needs for one raw byte, every byte of the "
        "held-out files scored once. 8 is no compression at all.</footer>"
    )
    return page(
        title=title,
        body=body,
        styles=[template("patches.css"), template("report.css")],
        scripts=[template("patches.js")],
    )


def write_report(
    path: Path, *, title: str, sections: Sequence[Section], subtitle: str = ""
) -> None:
    """Write the report: one file that opens without a network.

    Args:
        path: The HTML file; its folder is made, an old report is replaced whole.
        title: Heading and window title.
        sections: In reading order.
        subtitle: One sentence below the title.

    """
    text = report_page(title=title, sections=sections, subtitle=subtitle)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(path.name + ".part")
    aside.write_text(text, encoding="utf-8")
    aside.replace(path)
