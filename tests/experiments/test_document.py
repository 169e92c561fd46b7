"""Oracles: the words given are the words in all three forms; hostile text stays text."""

import re

import pytest

from bytelm.experiments.document import (
    Bullets,
    Commands,
    Document,
    Paragraph,
    Section,
    Table,
    as_html,
    as_markdown,
    as_text,
)
from bytelm.experiments.plots import Bar, Figure

HOSTILE = "</script><script>alert(1)</script> | *bold* `code` [a](http://b) \"'&"

FIGURE = Figure(name="bars", title=HOSTILE, caption="How to read it", y_label="bits", bars=())


def whole(text: str = HOSTILE) -> Document:
    table = Table(header=("name", "bits"), rows=((text, "1.5"), ("b", "12.25")))
    facts = Table(header=("", ""), rows=(("seeds", "3"),))
    blocks = (
        Paragraph(text=text),
        Paragraph(text="beware", is_warning=True),
        Bullets(items=(text, "second")),
        table,
        facts,
        Commands(lines=(f"bytelm report {text}",)),
        FIGURE,
    )
    return Document(title=text, lead=text, sections=(Section(title=text, blocks=blocks),))


def test_the_text_form_is_readable_alone():
    text = as_text(whole("words"))
    assert text.startswith("words\n=====\n\nwords\n\nwords\n-----\n\nwords\n")
    assert "WARNING: beware" in text
    assert "- words\n- second" in text
    assert "name    bits\n-----  -----\nwords    1.5\nb      12.25" in text
    assert "seeds  3" in text
    assert "  $ bytelm report words" in text
    assert "[bars.png, bars.svg:" in text
    assert max(map(len, as_text(whole("many words " * 30)).splitlines()[3:8])) <= 330


def test_markdown_links_the_figures_and_keeps_tables_whole():
    text = as_markdown(whole())
    rows = [line for line in text.splitlines() if line.startswith("|")]
    # A bar inside a cell would make another column.
    assert all(len(re.findall(r"(?<!\\)\|", row)) == 3 for row in rows)
    assert "| name | bits |\n| --- | ---: |" in text
    assert "](bars.svg)" in text
    assert "> **Warning:** beware" in text
    outside = text.replace("```console\n$ bytelm report " + HOSTILE + "\n```", "")
    assert "<script" not in outside
    assert "[a](http" not in outside


def test_the_page_escapes_everything_and_loads_nothing():
    text = as_html(whole(), {"bars": "<svg><path/></svg>"})
    assert "<script>alert" not in text
    assert not re.search(r"\b(?:src|href)=|@import|url\(", text)
    assert "default-src 'none'" in text
    assert "<figure><svg><path/></svg><figcaption>How to read it</figcaption></figure>" in text
    assert '<td class="number">12.25</td>' in text
    assert '<p class="warning">beware</p>' in text
    assert text.count("<thead>") == 1


def test_a_figure_that_was_not_drawn_is_left_out_of_the_page():
    assert "<figure>" not in as_html(whole(), {})


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="expected 2 cells, got"):
        Table(header=("a", "b"), rows=(("1", "2"), ("1",)))


def test_figures_are_found_in_order():
    other = Figure(name="other", title="", caption="", y_label="", bars=(Bar(name="x", value=1),))
    sections = tuple(Section(title="", blocks=(figure,)) for figure in (FIGURE, other))
    assert Document(title="", lead="", sections=sections).figures() == [FIGURE, other]
