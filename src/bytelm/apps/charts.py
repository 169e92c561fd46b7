"""Small charts as inline SVG that follow the page's light or dark colors.

Drawn here and not by matplotlib, so that the demo's report has its curves on every machine, in a
few kilobytes, with the page's own fonts and themes.
"""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

NUM_COLORS = 6
"""`page.css` has the colors `--series0` on: Okabe and Ito's palette, told apart with every common
color blindness, lighter on dark."""

_WIDTH, _HEIGHT = 820, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 150, 14, 44
_WANTED_TICKS = 5


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line of a chart."""

    name: str
    """Written at the end of the line; an empty name is not written."""
    x: np.ndarray
    """Rising, float `[n]`."""
    y: np.ndarray
    """Float `[n]`, finite."""
    color: int
    """Which of the page's series colors; they repeat after `NUM_COLORS`."""
    faint: bool = False
    """Drawn thin and pale, without points: measurements with noise."""


def ticks(low: float, high: float) -> list[float]:
    """Return round numbers from `low` to `high`, about five of them.

    >>> ticks(0, 10)
    [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]
    """
    if not high > low:
        return [low]
    raw = (high - low) / _WANTED_TICKS
    magnitude = 10.0 ** math.floor(math.log10(raw))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(float(index * step), 10) for index in range(first, last + 1)]


def line_chart(
    series: Sequence[Series], *, x_label: str, y_label: str, y_range: tuple[float, float]
) -> str:
    """Return an SVG with one line per series and its name at its end."""
    x_high = max(float(line.x[-1]) for line in series)
    y_low, y_high = y_range
    x_scale = (_WIDTH - _LEFT - _RIGHT) / (x_high or 1.0)
    y_scale = (_HEIGHT - _TOP - _BOTTOM) / ((y_high - y_low) or 1.0)

    def place(x: float, y: float) -> tuple[float, float]:
        return _LEFT + x * x_scale, _HEIGHT - _BOTTOM - (y - y_low) * y_scale

    parts = [_axes(ticks(0.0, x_high), ticks(y_low, y_high), place, x_label, y_label)]
    taken: list[float] = []
    for line in series:
        points = [place(x, y) for x, y in zip(line.x.tolist(), line.y.tolist(), strict=True)]
        parts.append(_line(line, points))
        if line.name:
            parts.append(_end_label(line, points[-1][1], taken))
    label = html.escape(f"{y_label} against {x_label}")
    return (
        f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" aria-label="{label}">'
        f"{''.join(parts)}</svg>"
    )


def _axes(
    x_ticks: Sequence[float],
    y_ticks: Sequence[float],
    place: Callable[[float, float], tuple[float, float]],
    x_label: str,
    y_label: str,
) -> str:
    right = _WIDTH - _RIGHT
    bottom = _HEIGHT - _BOTTOM
    parts = []
    for value in y_ticks:
        _, y = place(0.0, value)
        parts.append(
            f'<line class="grid" x1="{_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
            f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" style="text-anchor:end">{value:g}</text>'
        )
    for value in x_ticks:
        x, _ = place(value, 0.0)
        parts.append(f'<text x="{x:.1f}" y="{bottom + 17}">{value:g}</text>')
    middle = (_LEFT + right) / 2
    parts.append(f'<text x="{middle}" y="{bottom + 36}">{html.escape(x_label)}</text>')
    parts.append(
        f'<text transform="translate(13 {(_TOP + bottom) / 2}) rotate(-90)">'
        f"{html.escape(y_label)}</text>"
    )
    return "".join(parts)


def _line(line: Series, points: Sequence[tuple[float, float]]) -> str:
    color = f"var(--series{line.color % NUM_COLORS})"
    width, opacity = (1.2, 0.45) if line.faint else (2.2, 1.0)
    # The first updates are above the range: the line begins where it enters it.
    inside = [index for index, (_, y) in enumerate(points) if y >= _TOP - 0.1]
    seen = points[inside[0] :] if inside else points
    path = " ".join(f"{x:.1f},{max(y, _TOP):.1f}" for x, y in seen)
    drawn = (
        f'<polyline points="{path}" fill="none" style="stroke:{color}" stroke-width="{width}" '
        f'stroke-opacity="{opacity}" stroke-linejoin="round"/>'
    )
    if line.faint:
        return drawn
    return drawn + "".join(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" style="fill:{color}"><title>'
        f"{html.escape(line.name)}: {value:.3f}</title></circle>"
        for (x, y), value in zip(points, line.y.tolist(), strict=True)
        if y >= _TOP
    )


def _end_label(line: Series, end: float, taken: list[float]) -> str:
    """Write the name and the last value right of the plot, below names that are there."""
    color = f"var(--series{line.color % NUM_COLORS})"
    x, y = _WIDTH - _RIGHT + 10, max(end, _TOP) + 4
    while any(abs(y - other) < 14 for other in taken):
        y += 2
    taken.append(y)
    return (
        f'<text x="{x}" y="{y:.1f}" style="text-anchor:start;fill:{color};font-weight:600">'
        f"{html.escape(line.name)} {line.y[-1]:.2f}</text>"
    )
