"""Oracles: the page is parsed back and compared with the bytes; hostile bytes stay text."""

import base64
import io
import json
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from closed_form import AfterE
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from bytelm.apps.glyphs import glyphs
from bytelm.apps.render import (
    PatchView,
    html_page,
    patch_view,
    printable,
    script_json,
    terminal_legend,
    terminal_text,
)

ALL_BYTES = bytes(range(256)) * 2
HOSTILE = (
    b"</script><script>alert(1)</script><img src=x onerror=\"alert('2')\">&amp;<!--]]>\x00\xff"
)


class _Page(HTMLParser):
    """Collects what a browser would build."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.cells: list[str] = []
        self.json = ""
        self._open: list[str] = []
        self._is_json = False
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        attributes = dict(attrs)
        self.tags.append((tag, attributes))
        self._is_json = attributes.get("type") == "application/json"
        if tag == "i":
            self.cells.append("")
        if tag not in ("meta", "br", "rect"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        if self._open and self._open[-1] == tag:
            self._open.pop()

    def handle_data(self, data):
        if self._open and self._open[-1] == "i":
            self.cells[-1] += data
        elif self._open and self._open[-1] == "script" and self._is_json:
            self.json += data


def _view(data: bytes, name: str = "file") -> PatchView:
    return patch_view(AfterE(), data, name=name)


def test_figures_of_the_view_by_hand():
    view = _view(b"ae x")
    # Three uniform bytes and one of probability 1/2: (8 + 8 + 1 + 8) / 4 bits.
    assert view.bits_per_byte == pytest.approx(25 / 4)
    assert view.starts.tolist() == [True, False, True, False]
    assert view.lengths.tolist() == [2, 2]
    assert view.mean_patch_bytes == 2
    assert view.top_bytes[2, 0] == ord(" ")
    assert view.top_probs[2, 0] == pytest.approx(0.5)
    assert (np.diff(view.top_probs, axis=1) <= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=120))
def test_the_page_holds_exactly_the_bytes(data):
    view = _view(data)
    page = _Page(html_page(view))
    stored = json.loads(page.json)
    assert base64.b64decode(stored["bytes"]) == data
    assert sum(stored["lengths"]) == len(data)
    assert page.cells == [glyph.text for glyph in glyphs(data)]
    entropies = np.frombuffer(base64.b64decode(stored["entropies"]), dtype="<u2") / 1000
    assert entropies == pytest.approx(view.entropies, abs=1e-3)
    surprises = np.frombuffer(base64.b64decode(stored["surprises"]), dtype="<u2") / 1000
    assert surprises == pytest.approx(view.surprises, abs=1e-3)


def test_hostile_bytes_and_names_stay_text():
    text = html_page(_view(HOSTILE, name=HOSTILE.decode("latin-1") + "\u202e\udcff"))
    page = _Page(text)
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert scripts == [{"type": "application/json"}, {}]
    assert not any(tag == "img" for tag, _ in page.tags)
    assert not any(name.startswith("on") for _, attributes in page.tags for name in attributes)
    assert "alert(1)</script>" not in text
    assert text.encode("utf-8")


def test_script_json_never_closes_its_element():
    for value in ("</script>", "<!--", "&lt;", "\u2028", "'\""):
        encoded = script_json({"name": value})
        assert "<" not in encoded
        assert "&" not in encoded
        assert json.loads(encoded) == {"name": value}


def test_the_page_loads_nothing():
    text = html_page(_view(b"some text\n"))
    assert not re.search(r"(?:https?:)?//[a-z]|@import|url\(", text)
    assert "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'" in text
    for tag, attributes in _Page(text).tags:
        assert tag not in ("link", "img", "iframe", "object", "base", "form")
        assert not {"src", "href", "action", "srcset"} & set(attributes)


def test_a_long_file_is_cut_and_says_so():
    view = patch_view(AfterE(), b"x" * 500, name="long", max_bytes=100)
    assert len(view.data) == 100
    assert "the first 100 of 500 bytes" in view.cut_message
    assert view.cut_message in html_page(view)
    assert view.cut_message in terminal_legend(view, color=False).plain
    with pytest.raises(ValueError, match="max_bytes"):
        patch_view(AfterE(), b"", name="x", max_bytes=0)


@pytest.mark.parametrize("data", [b"", b"\x00", ALL_BYTES, HOSTILE, b"\xff" * 9])
def test_any_bytes_render(data):
    without_model = PatchView(name="x", data=data, starts=np.arange(len(data)) % 4 == 0)
    for view in (_view(data), without_model):
        assert _Page(html_page(view)).cells == [glyph.text for glyph in glyphs(data)]
        for color in (True, False):
            plain = terminal_text(view, color=color).plain
            shown = "".join(glyph.text for glyph in glyphs(data))
            assert plain.replace("\n", "").replace("\u2502", "") == shown


def _printed(view: PatchView, *, color: bool) -> str:
    out = io.StringIO()
    console = Console(
        file=out, force_terminal=color, color_system="truecolor" if color else None, width=80
    )
    console.print(terminal_legend(view, color=color))
    console.print(terminal_text(view, color=color))
    return out.getvalue()


def test_the_terminal_gets_no_control_byte_of_the_file():
    colored = _printed(_view(ALL_BYTES + b"\x1b[31m\x07\r"), color=True)
    assert set(re.sub(r"\x1b\[[0-9;]*m", "", colored)) & set(map(chr, range(32))) == {"\n"}
    assert "48;2;" in colored
    plain = _printed(_view(ALL_BYTES), color=False)
    assert set(plain) & set(map(chr, range(32))) == {"\n"}


def test_patches_are_visible_without_color():
    view = PatchView(name="x", data=b"abcdef", starts=np.array([1, 0, 1, 0, 0, 1], dtype=bool))
    assert terminal_text(view, color=False).plain == "ab\u2502cde\u2502f"


def test_neighboring_patches_differ_and_uncertain_bytes_are_underlined():
    view = PatchView(
        name="x",
        data=b"abc",
        starts=np.array([True, False, True]),
        entropies=np.array([0.0, math.log(256), 0.0], dtype=np.float32),
    )
    styles = [span.style for span in terminal_text(view, color=True).spans]
    assert styles[0].bgcolor != styles[2].bgcolor
    assert [style.underline for style in styles] == [False, True, False]


def test_rows_must_match_the_bytes():
    with pytest.raises(ValueError, match="starts: expected 3 rows, got 2"):
        PatchView(name="x", data=b"abc", starts=np.ones(2, dtype=bool))


def test_infinite_surprise_is_drawn():
    view = PatchView(
        name="x",
        data=b"a",
        starts=np.ones(1, dtype=bool),
        entropies=np.zeros(1, dtype=np.float32),
        surprises=np.array([np.inf], dtype=np.float32),
    )
    assert "s7" in html_page(view)


def test_names_are_printable():
    assert printable("a\udcffb\x1b") == "a\ufffdb\ufffd"
