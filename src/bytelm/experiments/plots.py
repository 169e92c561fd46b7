"""Figures that can be printed: drawn by matplotlib to PNG and SVG from plain numbers.

A figure is one plot, or several in one file that share a legend.

Colors are Okabe and Ito's, told apart with every common color blindness; lines differ in their
marks as well. The same numbers give the same bytes.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.training.run_directory import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Canvas

COLORS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")
MARKS = ("o", "s", "^", "D", "v", "P", "X")
DASHES = ("--", ":", "-.")
QUIET_COLOR = "#8a8f98"

_WIDTH_INCHES, _HEIGHT_INCHES, _PANEL_INCHES, _BAR_INCHES = 7.0, 4.2, 2.6, 0.34
_DOTS_PER_INCH = 200

_LEGEND_LETTERS = 88
"""That fit in the width of a figure; a name has a mark of some six letters before it."""

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

    look: int | None = None
    """Which color and mark; lines of one look belong together. None for its place in the plot."""

    is_dashed: bool = False
    """Tells two lines of one look apart."""

    is_joined: bool = True
    """False for points alone."""


@dataclass(frozen=True, kw_only=True)
class Level:
    """A value that does not depend on x: a dashed line with its name."""

    name: str
    """In the legend."""

    y: float
    """Its height."""

    look: int | None = None
    """The color of the lines of that look; None for gray."""


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

    color: str = COLORS[0]
    """As "#0072b2"; what ours are compared with may be gray."""


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Numbers in one pair of axes."""

    title: str
    """Above the plot: what it shows, in words."""

    y_label: str = ""
    """With its unit."""

    x_label: str = ""
    """With its unit; bars have none."""

    x_is_log: bool = False
    """Powers of two along x."""

    x_ticks: tuple[tuple[float, str], ...] = ()
    """Places along x and what is written there; none for round numbers."""

    y_is_log: bool = False
    """Powers of ten along y; every y is above 0."""

    lines: tuple[Line, ...] = ()
    """Of a line chart."""

    is_side_by_side: bool = False
    """Marks of one x stand beside one another, so that their ranges can be told apart."""

    levels: tuple[Level, ...] = ()
    """Beside the lines."""

    bars: tuple[Bar, ...] = ()
    """Of a bar chart, best first; such a plot has no lines."""

    decimals: int = 3
    """After the point, of the numbers at the bars."""


@dataclass(frozen=True, kw_only=True)
class Figure(Plot):
    """A plot, or several, in a file."""

    name: str
    """Of the files, without ending."""

    caption: str
    """Below it in a report: how to read it."""

    panels: tuple[Plot, ...] = ()
    """From left to right and down; a figure that has any has no lines or bars of its own."""


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

    canvas = Canvas(layout="constrained")
    if figure.panels:
        _draw_panels(canvas, figure)
    else:
        canvas.set_size_inches(_WIDTH_INCHES, _height(figure, _HEIGHT_INCHES))
        axes = canvas.subplots()
        _draw_plot(axes, figure)
        axes.set_title(figure.title, loc="left", fontsize=10.5, fontweight="bold")
        if not figure.bars:
            axes.legend(fontsize=8.5, frameon=False)
    png, svg = io.BytesIO(), io.BytesIO()
    canvas.savefig(png, format="png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    canvas.savefig(svg, format="svg", metadata={"Date": None, "Creator": None})
    return png.getvalue(), svg.getvalue()


def _height(plot: Plot, height_of_lines: float) -> float:
    """Inches that a plot needs, its title and labels included."""
    return 1.1 + _BAR_INCHES * len(plot.bars) if plot.bars else height_of_lines


def _draw_panels(canvas: "Canvas", figure: Figure) -> None:
    """Two plots a row, one legend below all of them."""
    rows = [figure.panels[first : first + 2] for first in range(0, len(figure.panels), 2)]
    heights = [max(_height(plot, _PANEL_INCHES) for plot in row) for row in rows]
    # Room for the title above and the legend below.
    canvas.set_size_inches(_WIDTH_INCHES, sum(heights) + 0.7)
    # Labels of one plot keep off the axes of its neighbor.
    canvas.set_layout_engine("constrained", wspace=0.07, hspace=0.06)
    grid = canvas.add_gridspec(len(rows), len(rows[0]), height_ratios=heights)
    legend: dict[str, Any] = {}
    for place, plot in enumerate(figure.panels):
        row, column = divmod(place, len(rows[0]))
        # The last of an odd number has its row to itself.
        is_alone = len(rows[row]) < len(rows[0])
        axes = canvas.add_subplot(grid[row, :] if is_alone else grid[row, column])
        _draw_plot(axes, plot, is_narrow=len(rows[0]) > 1)
        axes.set_title(plot.title, loc="left", fontsize=9.5)
        handles, names = axes.get_legend_handles_labels()
        legend |= dict(zip(names, handles, strict=True))
    canvas.suptitle(figure.title, x=0.01, ha="left", fontsize=10.5, fontweight="bold")
    if legend:
        canvas.legend(
            legend.values(),
            legend.keys(),
            loc="outside lower center",
            ncols=max(1, _LEGEND_LETTERS // (6 + max(map(len, legend)))),
            fontsize=8.5,
            frameon=False,
        )


def _draw_plot(axes: "Axes", plot: Plot, *, is_narrow: bool = False) -> None:
    if plot.bars:
        _draw_bars(axes, plot, is_narrow=is_narrow)
    else:
        _draw_lines(axes, plot)


def _draw_lines(axes: "Axes", plot: Plot) -> None:
    shifts = _shifts(plot)
    for index, line in enumerate(plot.lines):
        x, y = [point.x + shifts[index] for point in line.points], [p.y for p in line.points]
        ranges = [_range(point.y, point.low, point.high) for point in line.points]
        look = index if line.look is None else line.look
        axes.errorbar(
            x,
            y,
            yerr=list(zip(*ranges, strict=True)) if any(map(any, ranges)) else None,
            label=line.name,
            capsize=3,
            markersize=5,
            linewidth=1.6,
            elinewidth=1.3,
            color=COLORS[look % len(COLORS)],
            marker=MARKS[look % len(MARKS)],
            markerfacecolor="white" if line.is_dashed else None,
            linestyle=("--" if line.is_dashed else "-") if line.is_joined else "",
        )
    for index, level in enumerate(plot.levels):
        dashes = DASHES[index % len(DASHES)]
        color = QUIET_COLOR if level.look is None else COLORS[level.look % len(COLORS)]
        axes.axhline(level.y, color=color, linewidth=1.3, linestyle=dashes, label=level.name)
    _label_x(axes, plot)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if plot.y_is_log:
        _label_powers(axes)
    else:
        # An offset such as "+9.9e1" in a corner is overlooked.
        axes.ticklabel_format(axis="y", useOffset=False)


def _label_powers(axes: "Axes") -> None:
    """A logarithmic y with numbers as they are read: 0.05, not five times ten to the minus two."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda y, _: f"{y:g}"))
    axes.yaxis.set_minor_locator(NullLocator())


def _shifts(plot: Plot) -> list[float]:
    """How far each line's marks stand from their x."""
    places = sorted({point.x for line in plot.lines for point in line.points})
    if not plot.is_side_by_side or len(places) < 2:
        return [0.0] * len(plot.lines)
    gap = min(after - before for before, after in pairwise(places))
    middle = (len(plot.lines) - 1) / 2
    return [0.14 * gap * (index - middle) for index in range(len(plot.lines))]


def _label_x(axes: "Axes", plot: Plot) -> None:
    from matplotlib.ticker import EngFormatter

    ticks = dict(plot.x_ticks)
    if plot.x_is_log:
        axes.set_xscale("log", base=2)
        places = sorted({point.x for line in plot.lines for point in line.points})
        ticks = ticks or {place: f"{place:g}" for place in places}
    if ticks:
        axes.set_xticks(list(ticks), list(ticks.values()))
        axes.minorticks_off()
    elif any(point.x >= 1000 for line in plot.lines for point in line.points):
        # 2 M instead of 2000000.
        axes.xaxis.set_major_formatter(EngFormatter())


def _draw_bars(axes: "Axes", plot: Plot, *, is_narrow: bool) -> None:
    places = range(len(plot.bars))
    for place, bar in zip(places, plot.bars, strict=True):
        below, above = _range(bar.value, bar.low, bar.high)
        axes.barh(
            place,
            bar.value,
            xerr=[[below], [above]] if below or above else None,
            color=bar.color,
            height=0.72,
            capsize=3,
        )
        axes.text(
            bar.value + above,
            place,
            f" {bar.value:.{plot.decimals}f}",
            va="center",
            fontsize=8.5,
        )
    axes.set_yticks(places, [bar.name for bar in plot.bars])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(plot.y_label)
    longest = max(bar.high or bar.value for bar in plot.bars)
    # Room for the numbers at the ends; a number takes more of a narrow plot.
    axes.set_xlim(0, (1.35 if is_narrow else 1.1) * longest or 1.0)


def _range(value: float, low: float | None, high: float | None) -> tuple[float, float]:
    """How far the range reaches below and above the value."""
    return (
        0.0 if low is None else max(0.0, value - low),
        0.0 if high is None else max(0.0, high - value),
    )
