"""Patches and entropies made visible: in the terminal, and as one self-contained HTML page.

The page holds everything it needs: no network, no fonts, no images, and a content security policy
that would refuse them. Every byte of the file reaches it escaped or as base64, so that a hostile
file is a picture of its bytes and nothing else.
"""

import base64
import html
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Protocol, runtime_checkable

import numpy as np
from rich.style import Style
from rich.text import Text

from bytelm.apps.glyphs import Glyph, glyphs
from bytelm.evaluation.likelihood import ScoringModel

DEFAULT_MAX_BYTES = 64 << 10
"""A page of this size is about 5 MB and opens at once; a terminal has scrolled long before."""

TOP_MAX_BYTES = 1 << 20
"""Longest text whose predictions are shown: the full distributions take 1 KiB per byte."""

NUM_TOP = 5
"""Predictions shown for each byte."""

_LEVELS = 8
"""Steps of shading; more cannot be told apart."""

_FULL_SCALE_NATS = 4.0
"""Entropy or surprise at which the shading is strongest: 5.8 bits, as rare as in the text itself
at the start of a word. A scale of ln 256 would leave real text almost without contrast."""

_HISTOGRAM_BINS = 24

_TERMINAL_HUES = ((52, 101, 164), (196, 120, 32))
"""Blue and orange: the pair that every common color blindness keeps apart."""


@runtime_checkable
class ShownModel(ScoringModel, Protocol):
    """The part of a language model that a picture needs."""

    def log_probs(self, data: np.ndarray) -> np.ndarray:
        """Natural log probabilities, float32 `[n, 256]`; row t given the bytes before t."""
        ...


@dataclass(frozen=True, kw_only=True)
class PatchView:
    """A text, its patches, and what a model thought of every byte of it."""

    name: str
    """Path or another name."""
    data: bytes
    """The bytes shown, n of them."""
    starts: np.ndarray
    """True where a patch starts, bool `[n]`."""
    entropies: np.ndarray | None = None
    """Nats, float32 `[n]`; None for a patcher without a model."""
    surprises: np.ndarray | None = None
    """-log p of the byte that came, nats, float32 `[n]`."""
    top_bytes: np.ndarray | None = None
    """Most probable bytes, best first, uint8 `[n, K]`."""
    top_probs: np.ndarray | None = None
    """Their probabilities, float32 `[n, K]`."""
    total_bytes: int | None = None
    """Size of the whole file where only its beginning is shown."""

    def __post_init__(self) -> None:
        for field in ("starts", "entropies", "surprises", "top_bytes", "top_probs"):
            values = getattr(self, field)
            if values is not None and len(values) != len(self.data):
                raise ValueError(f"{field}: expected {len(self.data)} rows, got {len(values)}")

    @property
    def lengths(self) -> np.ndarray:
        """Bytes of each patch shown, int64 `[P]`; the last one may be cut."""
        return np.diff(np.append(np.flatnonzero(self.starts), len(self.data)))

    @property
    def mean_patch_bytes(self) -> float:
        """Bytes / patches of what is shown; 0.0 for no bytes."""
        num_patches = int(np.count_nonzero(self.starts))
        return len(self.data) / num_patches if num_patches else 0.0

    @property
    def bits_per_byte(self) -> float | None:
        """Bits per byte of what is shown; None without a model."""
        if self.surprises is None or not len(self.data):
            return None
        return float(self.surprises.mean(dtype=np.float64)) / math.log(2)

    @property
    def cut_message(self) -> str | None:
        """One line where only the beginning of the file is shown."""
        if self.total_bytes is None or self.total_bytes == len(self.data):
            return None
        return f"showing the first {len(self.data):,} of {self.total_bytes:,} bytes"


def patch_view(
    model: ShownModel, data: bytes, *, name: str, max_bytes: int = DEFAULT_MAX_BYTES
) -> PatchView:
    """Ask a model about every byte of the beginning of a text.

    Args:
        model: Any model with `log_probs` and `score`.
        data: The whole text.
        name: Shown as the title.
        max_bytes: Bytes shown; at most `TOP_MAX_BYTES` with their predictions.

    Returns:
        The view. `total_bytes` tells whether it is cut.

    Raises:
        ValueError: `max_bytes` is below 1 or above `TOP_MAX_BYTES`.

    """
    if not 1 <= max_bytes <= TOP_MAX_BYTES:
        raise ValueError(
            f"max_bytes must be between 1 and {TOP_MAX_BYTES:,} (predictions of each byte are "
            f"held in memory), got {max_bytes}"
        )
    shown = data[:max_bytes]
    values = np.frombuffer(shown, dtype=np.uint8)
    scored = model.score(values)
    log_probs = model.log_probs(values)
    picked = np.argpartition(-log_probs, NUM_TOP - 1, axis=1)[:, :NUM_TOP]
    order = np.argsort(-np.take_along_axis(log_probs, picked, axis=1), axis=1, kind="stable")
    top = np.take_along_axis(picked, order, axis=1)
    return PatchView(
        name=name,
        data=shown,
        starts=scored.starts,
        entropies=scored.entropies,
        surprises=scored.nll_nats,
        top_bytes=top.astype(np.uint8),
        top_probs=np.exp(np.take_along_axis(log_probs, top, axis=1)),
        total_bytes=len(data),
    )


def _levels(nats: np.ndarray | None, size: int) -> np.ndarray:
    if nats is None:
        return np.zeros(size, dtype=np.int64)
    scaled = np.nan_to_num(np.asarray(nats, dtype=np.float64), posinf=_FULL_SCALE_NATS)
    return np.clip(scaled / _FULL_SCALE_NATS * _LEVELS, 0, _LEVELS - 1).astype(np.int64)


def terminal_text(view: PatchView, *, color: bool) -> Text:
    """Return the patches as text for `rich.console.Console.print`.

    Args:
        view: What to show.
        color: Alternate blue and orange backgrounds, darker where the next byte was uncertain,
            the most uncertain bytes underlined. Without color a bar stands before each patch,
            so that nothing is lost in a pipe or under NO_COLOR.

    Returns:
        One character or symbol per byte, and a line break after each newline byte.

    """
    text = Text(no_wrap=False, end="")
    levels = _levels(view.entropies, len(view.data))
    patch = -1
    for position, (glyph, start) in enumerate(
        zip(glyphs(view.data), view.starts.tolist(), strict=True)
    ):
        patch += start
        if start and position and not color:
            text.append("\u2502")
        style = _terminal_style(patch, int(levels[position]), glyph) if color else None
        text.append(glyph.text, style=style)
        if glyph.kind == "newline":
            text.append("\n")
    return text


def _terminal_style(patch: int, level: int, glyph: Glyph) -> Style:
    # Strongest at the highest entropy, and never so pale that the two hues look alike.
    share = 0.35 + 0.65 * level / (_LEVELS - 1)
    red, green, blue = (round(channel * share) for channel in _TERMINAL_HUES[patch % 2])
    return Style(
        color="white" if glyph.kind in ("text", "space") else "grey70",
        bgcolor=f"rgb({red},{green},{blue})",
        underline=level >= _LEVELS // 2,
        dim=glyph.kind == "rest",
    )


def terminal_legend(view: PatchView, *, color: bool) -> Text:
    """Return what the colors or bars mean, and the numbers of the view, in two or three lines."""
    numbers = (
        f"{len(view.data):,} bytes, {int(np.count_nonzero(view.starts)):,} patches, "
        f"{view.mean_patch_bytes:.2f} bytes per patch"
    )
    if view.bits_per_byte is not None:
        numbers += f", {view.bits_per_byte:.3f} bits per byte"
    legend = Text(f"{view.name}: {numbers}\n")
    if color:
        for patch, label in enumerate((" patch ", " next patch ")):
            legend.append(label, style=_terminal_style(patch, _LEVELS - 1, Glyph("", "text")))
        if view.entropies is not None:
            legend.append("  entropy, bits: ")
            for level in range(_LEVELS):
                bits = level * _FULL_SCALE_NATS / _LEVELS / math.log(2)
                style = _terminal_style(0, level, Glyph("", "text"))
                legend.append(f" {bits:.1f} ", style=style)
        legend.append("\n")
    else:
        legend.append("\u2502 stands before each patch\n")
    if view.cut_message:
        legend.append(view.cut_message + "\n")
    return legend


def template(name: str) -> str:
    """Return a stylesheet or script of `apps/templates`."""
    return resources.files("bytelm.apps").joinpath("templates", name).read_text("utf-8")


def script_json(value: object) -> str:
    r"""Return JSON that is safe inside a `<script>` element, whatever strings it holds.

    >>> print(script_json("</script>"))
    "\u003c/script>"
    """
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace("&", "\\u0026")


def page(*, title: str, body: str, styles: Sequence[str] = (), scripts: Sequence[str] = ()) -> str:
    """Return a complete HTML page that loads nothing.

    Args:
        title: Plain text; escaped here.
        body: HTML, already escaped.
        styles: CSS texts, after the common stylesheet.
        scripts: JavaScript texts, at the end of the body.

    """
    css = "\n".join([template("page.css"), *styles])
    script = "".join(f"<script>{text}</script>\n" for text in scripts)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; '
        "style-src 'unsafe-inline'; script-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>\n{css}\n</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n{script}</body>\n</html>\n"
    )


def html_page(view: PatchView) -> str:
    """Return the page of one text: header, histogram, and its bytes with their predictions."""
    heading = (
        '<header><p class="brand">bytelm patch</p>'
        f'<h1 class="name">{html.escape(printable(view.name))}</h1></header>'
    )
    return page(
        title=f"{printable(view.name)}: patches",
        body=heading + patch_fragment(view),
        styles=[template("patches.css")],
        scripts=[template("patches.js")],
    )


def printable(name: str) -> str:
    r"""Return a file's name with what cannot be printed or encoded replaced.

    >>> ascii(printable("a\u202eb\udcff"))
    "'a\\ufffdb\\ufffd'"
    """
    return "".join(char if char.isprintable() else "\ufffd" for char in name)


def patch_fragment(view: PatchView) -> str:
    """Return the summary, the histogram and the bytes as HTML for use inside a page.

    The page needs `patches.css` and `patches.js` once, however many fragments it has.
    """
    notice = f'<p class="notice">{html.escape(view.cut_message)}</p>' if view.cut_message else ""
    return (
        f'<section class="patch-view">\n<div class="summary">{_figures(view)}{_histogram(view)}'
        f"</div>\n{notice}{_controls(view)}\n"
        '<div class="bytes patch" tabindex="0" role="group" aria-label="Bytes of the file. '
        'Arrow keys move by byte, with Shift by patch; the details follow.">'
        f"{_byte_spans(view)}</div>\n"
        '<div class="tip" role="status" aria-live="polite" hidden></div>\n'
        f'<script type="application/json">{script_json(_embedded(view))}</script>\n</section>'
    )


def _figures(view: PatchView) -> str:
    figures = [
        ("bytes", f"{len(view.data):,}"),
        ("patches", f"{int(np.count_nonzero(view.starts)):,}"),
        ("bytes per patch", f"{view.mean_patch_bytes:.2f}"),
    ]
    if view.bits_per_byte is not None:
        figures.append(("bits per byte", f"{view.bits_per_byte:.3f}"))
    if view.entropies is not None and len(view.data):
        mean = float(view.entropies.mean(dtype=np.float64)) / math.log(2)
        figures.append(("mean entropy, bits", f"{mean:.3f}"))
    cells = "".join(f"<div><dt>{label}</dt><dd>{value}</dd></div>" for label, value in figures)
    return f'<dl class="figures">{cells}</dl>'


def _histogram(view: PatchView) -> str:
    """Draw how many patches have each length, longer ones in the last bar."""
    counts = np.bincount(np.minimum(view.lengths, _HISTOGRAM_BINS), minlength=2)[1:]
    highest = max(int(counts.max(initial=0)), 1)
    width, height, step = 14 * len(counts) + 8, 74, 14
    bars = []
    for index, count in enumerate(counts.tolist()):
        tall = 50 * count / highest
        last = "+" if index + 1 == _HISTOGRAM_BINS else ""
        left = 4 + step * index
        bars.append(
            f'<g><title>{index + 1}{last} bytes: {count:,} patches</title><rect x="{left}" y="0" '
            f'width="{step}" height="54" fill="transparent"/><rect class="bar" x="{left + 1.5}" '
            f'y="{54 - tall:.1f}" width="{step - 3}" height="{tall:.1f}" rx="1.5"/></g>'
        )
        if index % 4 == 3 or index == 0:
            bars.append(f'<text x="{left + step / 2}" y="68">{index + 1}{last}</text>')
    return (
        '<figure class="histogram"><figcaption>patches by length, bytes</figcaption>'
        f'<svg viewBox="0 0 {width} {height}" width="{width}" height="{height}" role="img" '
        f'aria-label="Histogram of patch lengths">{"".join(bars)}</svg></figure>'
    )


def _controls(view: PatchView) -> str:
    if view.entropies is None:
        return (
            '<p class="legend"><span class="swatch even">patch</span>'
            '<span class="swatch odd">next patch</span></p>'
        )
    scale = "".join(f'<span class="cell level{level}"></span>' for level in range(_LEVELS))
    top_bits = _FULL_SCALE_NATS / math.log(2)
    return (
        '<div class="controls" role="group" aria-label="What the colors show">'
        '<button type="button" data-mode="patch" aria-pressed="true">patches</button>'
        '<button type="button" data-mode="entropy" aria-pressed="false">entropy</button>'
        '<button type="button" data-mode="surprise" aria-pressed="false">surprise</button>'
        f'<span class="scale">0 {scale} {top_bits:.1f}+ bits</span>'
        '<span class="hint">hover, or focus the text and use the arrow keys</span></div>'
    )


_KIND_CLASSES = {
    "text": "",
    "space": "",
    "newline": " k",
    "control": " k",
    "rest": " r",
    "hex": " h",
}


def _byte_spans(view: PatchView) -> str:
    """Return one <i> per byte inside one <span> per patch."""
    entropy_levels = _levels(view.entropies, len(view.data)).tolist()
    surprise_levels = _levels(view.surprises, len(view.data)).tolist()
    parts: list[str] = []
    patch = -1
    for position, glyph in enumerate(glyphs(view.data)):
        if view.starts[position]:
            patch += 1
            parts.append(("</span>" if patch else "") + f'<span class="{"eo"[patch % 2]}">')
        classes = f"e{entropy_levels[position]} s{surprise_levels[position]}"
        kind = _KIND_CLASSES[glyph.kind]
        parts.append(f'<i class="{classes}{kind}">{html.escape(glyph.text)}</i>')
        if glyph.kind == "newline":
            parts.append("<br>")
    return "".join(parts) + ("</span>" if patch >= 0 else "")


def _base64(values: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode("ascii")


def _milli(values: np.ndarray | None) -> str | None:
    """Pack nats as little-endian uint16 thousandths; 65.5 nats and above are one value."""
    if values is None:
        return None
    scaled = np.clip(np.nan_to_num(values.astype(np.float64), posinf=1e3) * 1000, 0, 65535)
    return _base64(np.round(scaled).astype("<u2"))


def _embedded(view: PatchView) -> dict[str, object]:
    probs = view.top_probs
    return {
        "bytes": base64.b64encode(view.data).decode("ascii"),
        "lengths": view.lengths.tolist(),
        "entropies": _milli(view.entropies),
        "surprises": _milli(view.surprises),
        "topBytes": None if view.top_bytes is None else _base64(view.top_bytes),
        "topProbs": None if probs is None else _base64(np.round(probs * 65535).astype("<u2")),
        "numTop": 0 if view.top_bytes is None else view.top_bytes.shape[1],
    }
