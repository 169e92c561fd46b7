"""Oracle: one visible glyph per byte, whatever the bytes."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.apps.glyphs import byte_name, glyphs


@given(st.one_of(st.binary(max_size=80), st.text(max_size=40).map(lambda text: text.encode())))
def test_one_printable_glyph_per_byte(data):
    shown = glyphs(data)
    assert len(shown) == len(data)
    assert all(glyph.text.isprintable() and glyph.text for glyph in shown)


def test_all_256_bytes_alone_have_a_form():
    for value in range(256):
        (glyph,) = glyphs(bytes([value]))
        assert glyph.text
        assert glyph.kind != "rest"
        assert byte_name(value)


@pytest.mark.parametrize(
    ("data", "texts"),
    [
        (b"a b\n", ["a", " ", "b", "\u23ce"]),
        (
            "\u00fc\u65e5\U0001f389".encode(),
            ["\u00fc", "·", "\u65e5", "·", "·", "\U0001f389", "·", "·", "·"],
        ),
        (b"\x00\t\x1b\x7f", ["\u2400", "\u21e5", "\u241b", "\u2421"]),
        # A lone continuation byte, a cut character, an overlong form, a surrogate.
        (b"\x80a\xe6\x97", ["80", "a", "E6", "97"]),
        (b"\xc0\xaf\xed\xa0\x80", ["C0", "AF", "ED", "A0", "80"]),
    ],
)
def test_known_bytes(data, texts):
    assert [glyph.text for glyph in glyphs(data)] == texts


def test_direction_overrides_and_invisible_characters_are_shown_as_hex():
    for character in "\u202e\u2066\u200b\ufeff\u2028\u0085":
        assert unicodedata.category(character)[0] in "CZ"
        assert [glyph.kind for glyph in glyphs(character.encode())] == ["hex"] * len(
            character.encode()
        )
