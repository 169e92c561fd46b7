"""Oracles: the same numbers give the same files; the SVG has the lines and marks asked for."""

import builtins
import re
import xml.etree.ElementTree as ET

import pytest

from bytelm.errors import RunError
from bytelm.experiments import plots
from bytelm.experiments.plots import Bar, Figure, Level, Line, Plot, Point, draw

LINES = Figure(
    name="lines",
    title="Lanes",
    caption="",
    x_label="lanes",
    y_label="bits per byte",
    x_is_log=True,
    lines=(
        Line(name="a", points=(Point(x=1, y=2.0, low=1.9, high=2.2), Point(x=16, y=2.5))),
        Line(name="b", points=(Point(x=1, y=1.0), Point(x=16, y=1.5))),
    ),
    levels=(Level(name="level", y=1.7), Level(name="other", y=1.8)),
)
BARS = Figure(
    name="bars",
    title="Compressors",
    caption="",
    y_label="bits per byte",
    bars=(
        Bar(name="ours", value=1.5, low=1.4, high=1.6),
        Bar(name="xz", value=2, color=plots.QUIET_COLOR),
    ),
)
LEFT = Plot(
    title="left",
    x_label="epoch",
    y_label="bits",
    y_is_log=True,
    x_ticks=((1.0, "first"), (2.0, "second")),
    lines=(
        Line(name="ours", points=(Point(x=1, y=2.0), Point(x=2, y=0.02)), look=1, is_dashed=True),
        Line(name="trials", points=(Point(x=1, y=1.0), Point(x=2, y=0.1)), is_joined=False),
    ),
    levels=(Level(name="twin", y=0.5, look=2),),
    is_side_by_side=True,
)
PANELS = Figure(
    name="panels",
    title="Several",
    caption="",
    panels=(LEFT, Plot(title="bars", y_label="%", bars=BARS.bars, decimals=1), LEFT),
)
PLAIN = Figure(
    name="plain",
    title="Steps",
    caption="",
    x_label="bytes",
    y_label="bits per byte",
    lines=(Line(name="a", points=(Point(x=2_000_000, y=2.0),)),),
)


def test_files_are_drawn_and_the_same_again(tmp_path):
    (tmp_path / "again").mkdir()
    drawn = draw([LINES, BARS, PLAIN, PANELS], tmp_path)
    assert draw([LINES, BARS, PLAIN, PANELS], tmp_path / "again") == drawn
    for name in ("lines", "bars", "plain", "panels"):
        for ending in ("png", "svg"):
            one, other = (folder / f"{name}.{ending}" for folder in (tmp_path, tmp_path / "again"))
            assert one.read_bytes() == other.read_bytes()
        assert (tmp_path / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert ET.fromstring(drawn[name]).tag.endswith("svg")
    assert not list(tmp_path.glob(".tmp-*"))


def test_lines_differ_in_color_and_mark_and_a_drawing_loads_nothing(tmp_path):
    svg = draw([LINES], tmp_path)["lines"]
    assert {plots.COLORS[0], plots.COLORS[1]} <= set(re.findall(r"#[0-9a-f]{6}", svg))
    assert svg.startswith("<svg")
    # Marks are referred to inside the file; nothing outside is.
    assert all(target.startswith("#") for target in re.findall(r'href="([^"]*)"', svg))
    assert "<script" not in svg
    dashes = set(re.findall(r"stroke-dasharray: ([\d., ]+)", svg))
    assert len(dashes) >= 2


def axes_of(figure, monkeypatch, tmp_path):
    """The axes that matplotlib was given, and the names in the legend below them."""
    from matplotlib.figure import Figure as Canvas

    drawn = []
    real = Canvas.savefig
    monkeypatch.setattr(
        Canvas, "savefig", lambda self, *a, **k: drawn.append(self) or real(self, *a, **k)
    )
    draw([figure], tmp_path)
    names = [text.get_text() for legend in drawn[0].legends for text in legend.get_texts()]
    return drawn[0].axes, names


def test_panels_share_one_legend_and_keep_their_places(monkeypatch, tmp_path):
    axes, names = axes_of(PANELS, monkeypatch, tmp_path)
    assert [one.get_title(loc="left") for one in axes] == ["left", "bars", "left"]
    assert names == ["twin", "ours", "trials"]
    assert [one.get_legend() for one in axes] == [None] * 3
    # The third has its row to itself.
    assert axes[2].get_position().width > 1.5 * axes[0].get_position().width
    assert [tick.get_text() for tick in axes[0].get_xticklabels()] == ["first", "second"]
    assert axes[0].get_yscale() == "log"
    assert all(text.get_text() in (" 1.5", " 2.0") for text in axes[1].texts)


def test_marks_of_one_place_stand_side_by_side_and_in_the_middle(monkeypatch, tmp_path):
    axes, _ = axes_of(PANELS, monkeypatch, tmp_path)
    ours, trials = (line.lines[0].get_xdata() for line in axes[0].containers)
    assert ours[0] < 1 < trials[0]
    assert (ours[0] + trials[0]) / 2 == pytest.approx(1)
    assert ours[1] - ours[0] == pytest.approx(1)


def test_a_legend_is_never_wider_than_its_figure(monkeypatch, tmp_path):
    long = tuple(
        Line(name=f"a rather long name, number {i}", points=(Point(x=1, y=i),)) for i in range(5)
    )
    figure = Figure(name="f", title="", caption="", panels=(Plot(title="", lines=long),) * 2)
    axes, _ = axes_of(figure, monkeypatch, tmp_path)
    box = axes[0].figure.legends[0].get_window_extent()
    assert 0 <= box.x0 < box.x1 <= axes[0].figure.bbox.width


def test_the_colors_are_okabe_and_itos():
    published = {"000000", "e69f00", "56b4e9", "009e73", "f0e442", "0072b2", "d55e00", "cc79a7"}
    assert {color.removeprefix("#") for color in plots.COLORS} <= published
    assert len(set(plots.COLORS)) == len(plots.COLORS)


def test_names_from_outside_are_no_markup_and_no_formula(tmp_path):
    bar = Bar(name="<b> $\\frac{1$ &", value=1.0)
    assert draw([Figure(name="f", title="$a_", caption="", y_label="", bars=(bar,))], tmp_path)


def test_without_matplotlib_there_are_no_figures_and_it_is_said(tmp_path, monkeypatch, caplog):
    real = builtins.__import__

    def without(name, *rest):
        if name.partition(".")[0] == "matplotlib":
            raise ModuleNotFoundError("gone", name="matplotlib")
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without)
    assert draw([BARS], tmp_path) == {}
    assert list(tmp_path.iterdir()) == []
    assert "pip install 'bytelm[report]'" in caplog.text


def test_a_file_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(RunError, match=r"bars\.png was not written"):
        draw([BARS], tmp_path / "missing")
