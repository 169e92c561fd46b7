import numpy as np
import pytest

from bytelm.patching import Space, patch_starts
from bytelm.patching.space import SPACE_LIKE


def cut(text, **limits):
    data = np.frombuffer(text, np.uint8)
    ends = np.flatnonzero(patch_starts(Space(**limits), data))[1:]
    return [piece.tobytes() for piece in np.split(data, ends)]


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (b"the cat sat", [b"the ", b"cat ", b"sat"]),
        (b"one,  two", [b"one,", b"  two"]),
        (b" lead", [b" ", b"lead"]),
        (b"a.b", [b"a.", b"b"]),
        # the lead byte of a UTF-8 character is space-like, its continuation bytes are not
        ("n\u00e4h".encode(), [b"n\xc3", b"\xa4h"]),
        (b"\x00\x00x", [b"\x00", b"\x00x"]),
        (b"word", [b"word"]),
    ],
)
def test_hand_made_examples(text, pieces):
    assert cut(text) == pieces


def test_limits_on_a_hand_made_example():
    assert cut(b"a b c defghijk", min_patch_bytes=3) == [b"a b ", b"c defghijk"]
    assert cut(b"a b c defghijk", max_patch_bytes=3) == [b"a ", b"b ", b"c ", b"def", b"ghi", b"jk"]


def test_space_like_is_what_the_released_blt_takes():
    """Oracle: the definition, byte by byte."""
    word = set(b"0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ") | set(
        range(0x80, 0xC0)
    )
    assert [b for b in range(256) if not SPACE_LIKE[b]] == sorted(word)
