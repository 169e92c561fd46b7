"""Oracles: the same numbers give the same files; the SVG has the lines and marks asked for."""

import builtins
import re
import xml.etree.ElementTree as ET

import pytest

from bytelm.errors import RunError
from bytelm.experiments import plots
from bytelm.experiments.plots import Bar, Figure, Level, Line, Point, draw

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
    bars=(Bar(name="ours", value=1.5, low=1.4, high=1.6), Bar(name="xz", value=2, is_ours=False)),
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
    drawn = draw([LINES, BARS, PLAIN], tmp_path)
    assert draw([LINES, BARS, PLAIN], tmp_path / "again") == drawn
    for name in ("lines", "bars", "plain"):
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
