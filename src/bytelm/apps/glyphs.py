"""What to show for a byte: every one of the 256 values, in any order, has one visible form.

A UTF-8 character is shown at its first byte and its other bytes as small dots, so that the
picture keeps one cell per byte. What would act on the page or the terminal rather than be seen
(control characters, direction overrides, invisible format characters) is shown as a symbol.
"""

from typing import Literal, NamedTuple

Kind = Literal["text", "space", "newline", "control", "rest", "hex"]


class Glyph(NamedTuple):
    """One byte as shown."""

    text: str
    """Printable characters only; a newline is the symbol, not the line break."""
    kind: Kind
    """text, space, newline, control (a symbol), rest (of a character), hex (not valid UTF-8)."""


_CONTROL_PICTURES = 0x2400
_DELETE = 0x7F
_REST = Glyph("\u00b7", "rest")


def _character_bytes(lead: int) -> int:
    """Return the length of the UTF-8 character that `lead` begins; 0 where it begins none."""
    if lead < 0x80:
        return 1
    if 0xC2 <= lead < 0xE0:
        return 2
    if 0xE0 <= lead < 0xF0:
        return 3
    return 4 if 0xF0 <= lead < 0xF5 else 0


def _ascii_glyph(value: int) -> Glyph:
    if value == ord("\n"):
        return Glyph("\u23ce", "newline")
    if value == ord(" "):
        return Glyph(" ", "space")
    if value == ord("\t"):
        return Glyph("\u21e5", "control")
    if value == _DELETE:
        return Glyph("\u2421", "control")
    if value < ord(" "):
        return Glyph(chr(_CONTROL_PICTURES + value), "control")
    return Glyph(chr(value), "text")


def byte_name(value: int) -> str:
    """Return one byte as a short label: a character where it is printable ASCII, else hex.

    >>> byte_name(97), byte_name(10), byte_name(255)
    ('a', '\u23ce', 'FF')
    """
    return _ascii_glyph(value).text if value < 0x80 else f"{value:02X}"


def _decoded(data: bytes) -> str | None:
    """Return the character that these bytes are; None where they are none."""
    try:
        return data.decode("utf-8") if data else None
    except UnicodeDecodeError:
        return None


def glyphs(data: bytes) -> list[Glyph]:
    """Return one glyph per byte; `data` need not be valid UTF-8."""
    shown: list[Glyph] = []
    position = 0
    while position < len(data):
        lead = data[position]
        size = _character_bytes(lead)
        if size == 1:
            shown.append(_ascii_glyph(lead))
            position += 1
            continue
        character = _decoded(data[position : position + size])
        if character is not None and character.isprintable():
            shown.extend([Glyph(character, "text"), *[_REST] * (size - 1)])
            position += size
        else:
            shown.append(Glyph(f"{lead:02X}", "hex"))
            position += 1
    return shown
