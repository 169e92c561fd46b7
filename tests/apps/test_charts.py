"""Oracles: positions computed by hand from the size of the plot."""

import re

import numpy as np
import pytest

from bytelm.apps.charts import Series, line_chart, ticks


@pytest.mark.parametrize("high", [0.003, 1.0, 7.3, 980.0])
def test_ticks_are_few_round_and_inside(high):
    marks = ticks(0.0, high)
    assert 3 <= len(marks) <= 7
    assert 0 <= marks[0] <= marks[-1] <= high


def test_line_ends_are_where_the_numbers_say():
    line = Series(name="a", x=np.array([0.0, 10.0]), y=np.array([1.0, 2.0]), color=0)
    svg = line_chart([line], x_label="x", y_label="y", y_range=(1.0, 2.0))
    start, end = re.search(r'points="(\S+) (\S+)"', svg).groups()
    # Left bottom and right top of the plot area.
    assert (start, end) == ("52.0,296.0", "670.0,14.0")


def test_a_line_from_above_the_range_begins_where_it_enters():
    line = Series(name="a", x=np.array([0.0, 5.0, 10.0]), y=np.array([9.0, 1.5, 1.0]), color=0)
    svg = line_chart([line], x_label="x", y_label="y", y_range=(1.0, 2.0))
    assert re.search(r'points="([^"]*)"', svg).group(1) == "361.0,155.0 670.0,296.0"


def test_names_at_line_ends_do_not_overlap():
    x, y = np.array([0.0, 1.0]), np.array([1.0, 1.0])
    lines = [Series(name=f"run{index}", x=x, y=y, color=index) for index in range(4)]
    svg = line_chart(lines, x_label="x", y_label="y", y_range=(0.5, 2.0))
    heights = sorted(map(float, re.findall(r'y="([\d.]+)" style="text-anchor:start', svg)))
    assert len(heights) == 4
    assert min(np.diff(heights)) >= 14
