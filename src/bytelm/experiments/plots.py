"""Figures that can be printed: drawn by matplotlib to PNG and SVG from plain numbers.

Colors are Okabe and Ito's, told apart with every common color blindness; lines differ in their
marks as well. The same numbers give the same bytes.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.training.run_directory import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("--", ":", "-.")
QUIET_COLOR = "#8a8f98"

_WIDTH_INCHES, _HEIGHT_INCHES, _BAR_INCHES = 7.0, 4.2, 0.34
_DOTS_PER_INCH = 200

_STYLE: Any = {
    "svg.hashsalt": "bytelm",
    # Letters as outlines: the drawing looks the same wherever it is opened.
    "svg.fonttype": "path",
    # A name is a name, whatever signs it has.
    "text.parse_math": False,
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#e3e3e3",
}

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Point:
    """A measurement."""

    x: float
    """In the unit of the figure's horizontal axis."""

    y: float
    """In the unit of the vertical axis."""

    low: float | None = None
    """Low end of the range that is drawn around it; None for none."""

    high: float | None = None
    """High end."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """Points of one kind, joined."""

    name: str
    """In the legend."""

    points: tuple[Point, ...]
    """By rising x."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value that does not depend on x: a dashed line with its name."""

    name: str
    """In the legend."""

    y: float
    """Its height."""


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One bar, drawn from left to right."""

    name: str
    """At its left."""

    value: float
    """Its length."""

    low: float | None = None
    """Low end of the range that is drawn at its end; None for none."""

    high: float | None = None
    """High end."""

    is_ours: bool = True
    """Ours are colored, what they are compared with is gray."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Numbers, and what they mean."""

    name: str
    """Of the files, without ending."""

    title: str
    """Above the plot: what it shows, in words."""

    caption: str
    """Below it in a report: how to read it."""

    y_label: str
    """With its unit."""

    x_label: str = ""
    """With its unit; bars have none."""

    x_is_log: bool = False
    """Powers of two along x."""

    lines: tuple[Line, ...] = ()
    """Of a line chart."""

    levels: tuple[Level, ...] = ()
    """Beside the lines."""

    bars: tuple[Bar, ...] = ()
    """Of a bar chart, best first; such a figure has no lines."""


def draw(figures: Sequence[Figure], folder: Path) -> dict[str, str]:
    """Write each figure as PNG and SVG.

    Args:
        figures: With names of their own.
        folder: Exists.

    Returns:
        Name to the text of its SVG; nothing where matplotlib is not installed, which is logged.

    Raises:
        RunError: A file cannot be written.

    """
    try:
        import matplotlib as mpl
    except ModuleNotFoundError:
        log.warning("no figures: matplotlib is not installed; pip install 'bytelm[report]'")
        return {}
    drawn = {}
    for figure in figures:
        with mpl.rc_context(_STYLE):
            png, svg = _draw(figure)
        write_file(folder / f"{figure.name}.png", png)
        write_file(folder / f"{figure.name}.svg", svg)
        text = svg.decode()
        # Without the XML prologue, which has no place inside a page.
        drawn[figure.name] = text[text.index("<svg") :]
    return drawn


def _draw(figure: Figure) -> tuple[bytes, bytes]:
    from matplotlib.figure import Figure as Canvas

    height = _HEIGHT_INCHES
    if figure.bars:
        height = 1.1 + _BAR_INCHES * len(figure.bars)
    canvas = Canvas(figsize=(_WIDTH_INCHES, height), layout="constrained")
    axes = canvas.subplots()
    if figure.bars:
        _draw_bars(axes, figure)
    else:
        _draw_lines(axes, figure)
    axes.set_title(figure.title, loc="left", fontsize=10.5, fontweight="bold")
    png, svg = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue()


def _draw_lines(axes: "Axes", figure: Figure) -> None:
    from matplotlib.ticker import EngFormatter

    for index, line in enumerate(figure.lines):
        x, y = [point.x for point in line.points], [point.y for point in line.points]
        ranges = [_range(point.y, point.low, point.high) for point in line.points]
        axes.errorbar(
            x,
            y,
            yerr=list(zip(*ranges, strict=True)) if any(map(any, ranges)) else None,
            label=line.name,
            capsize=3,
            markersize=5,
            linewidth=1.6,
            color=COLORS[index % len(COLORS)],
            marker=MARKS[index % len(MARKS)],
        )
    for index, level in enumerate(figure.levels):
        dashes = DASHES[index % len(DASHES)]
        axes.axhline(level.y, color=QUIET_COLOR, linewidth=1.3, linestyle=dashes, label=level.name)
    if figure.x_is_log:
        axes.set_xscale("log", base=2)
        ticks = sorted({point.x for line in figure.lines for point in line.points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    else:
        # 2 M instead of 2000000.
        axes.xaxis.set_major_formatter(EngFormatter())
    axes.set_xlabel(figure.x_label)
    axes.set_ylabel(figure.y_label)
    axes.legend(fontsize=8.5, frameon=False)


def _draw_bars(axes: "Axes", figure: Figure) -> None:
    places = range(len(figure.bars))
    for place, bar in zip(places, figure.bars, strict=True):
        below, above = _range(bar.value, bar.low, bar.high)
        axes.barh(
            place,
            bar.value,
            xerr=[[below], [above]] if below or above else None,
            color=COLORS[0] if bar.is_ours else QUIET_COLOR,
            height=0.72,
            capsize=3,
        )
        axes.text(
            bar.value + above,
            place,
            f" {bar.value:.3f}",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(places, [bar.name for bar in figure.bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(figure.y_label)
    longest = max(bar.high or bar.value for bar in figure.bars)
    # Room for the numbers at the ends.
    axes.set_xlim(0, 1.1 * longest)


def _range(value: float, low: float | None, high: float | None) -> tuple[float, float]:
    """How far the range reaches below and above the value."""
    return (
        0.0 if low is None else max(0.0, value - low),
        0.0 if high is None else max(0.0, high - value),
    )
