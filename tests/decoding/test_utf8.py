"""Oracles: Python's own decoder, and all of Unicode."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.decoding import utf8

HARD = [0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF]
HARD += [0xE0, 0xE1, 0xEC, 0xED, 0xEE, 0xEF, 0xF0, 0xF1, 0xF3, 0xF4, 0xF5, 0xFF]
"""The bytes at every border of the table of RFC 3629."""

tricky = st.lists(st.sampled_from(HARD), max_size=8).map(bytes)
whole = st.text(st.characters(exclude_categories=["Cs"])).map(str.encode)


def is_valid(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def may_become_valid(data: bytes) -> bool:
    """Whether some bytes after `data` make it valid: tried with every kind of continuation."""
    tails = [b"", *(bytes([b]) + b"\x80" * n for b in (0x80, 0x90, 0xA0) for n in (0, 1, 2))]
    return any(is_valid(data + tail) for tail in tails)


@given(tricky)
def test_a_byte_is_allowed_where_the_decoder_could_go_on(data: bytes) -> None:
    text = b""
    for byte in data:
        open_row = utf8.penalties([utf8.state_after(text)], [100])[0]
        assert (open_row[byte] == 0) == may_become_valid(text + bytes([byte]))
        if open_row[byte] != 0:
            break
        text += bytes([byte])
        assert (utf8.state_after(text) == utf8.WHOLE) == is_valid(text)


def test_every_character_passes_and_the_rest_does_not() -> None:
    """All 1,112,064 characters, through the table at once; two-byte prefixes of everything else."""
    characters = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for size in (1, 2, 3, 4):
        encoded = [e for c in characters if len(e := chr(c).encode()) == size]
        table = np.frombuffer(b"".join(encoded), np.uint8).reshape(-1, size)
        states = np.zeros(len(table), int)
        for column in table.T:
            states = utf8._NEXT[states, column].astype(int)
            assert (states >= 0).all()
        assert (states == utf8.WHOLE).all()
    for first in range(256):
        for second in range(256):
            data = bytes([first, second])
            assert (utf8._advance(utf8.WHOLE, data) >= 0) == may_become_valid(data)


@given(whole, st.integers(1, 6), st.randoms(use_true_random=False))
def test_any_walk_within_the_budget_ends_whole(text: bytes, budget: int, random) -> None:
    """Whatever is chosen among the allowed bytes; the prompt may end inside a character."""
    for cut in range(4):
        prompt = text[: len(text) - cut]
        if utf8.NEEDS[utf8.state_after(prompt)] > budget:
            with pytest.raises(ValueError, match="lacks"):
                utf8.check_prompt(prompt, max_new_bytes=budget)
            continue
        utf8.check_prompt(prompt, max_new_bytes=budget)
        for left in range(budget, 0, -1):
            allowed = np.flatnonzero(utf8.penalties([utf8.state_after(prompt)], [left])[0] == 0)
            prompt += bytes([random.choice(allowed.tolist())])
        assert is_valid(prompt)


@given(st.binary() | tricky)
def test_what_is_no_text_is_refused_with_its_position(data: bytes) -> None:
    try:
        data.decode()
        position = None
    except UnicodeDecodeError as error:
        position = error.start if "unexpected end" not in error.reason else None
    if position is None:
        utf8.check_prompt(data, max_new_bytes=3)
    else:
        with pytest.raises(ValueError, match=f"at position {position}: "):
            utf8.check_prompt(data, max_new_bytes=3)


@given(st.binary() | tricky | whole)
def test_unfinished_is_what_the_decoder_waits_for(data: bytes) -> None:
    try:
        data.decode()
        expected = 0
    except UnicodeDecodeError as error:
        while "unexpected end" not in error.reason:
            try:
                data[error.end :].decode()
            except UnicodeDecodeError as next_error:
                data = data[error.end :]
                error = next_error
            else:
                error = None
                break
        expected = len(data) - error.start if error else 0
    assert utf8.unfinished(data) == expected


@given(st.lists(st.binary(max_size=4) | tricky | whole))
def test_recut_pieces_are_the_same_bytes_and_split_no_character(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    recut = list(utf8.whole_characters(pieces))
    assert b"".join(recut) == data
    assert all(recut)
    assert "".join(piece.decode(errors="replace") for piece in recut) == data.decode(
        errors="replace"
    )
    assert "".join(utf8.decoded(pieces)) == data.decode(errors="replace")
