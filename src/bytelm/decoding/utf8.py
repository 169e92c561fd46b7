"""UTF-8 byte by byte: which bytes may follow, and where characters end.

The automaton is the table of RFC 3629, section 4: no overlong forms, no surrogates, nothing above
U+10FFFF. Text here means bytes that are valid UTF-8 but for a character at the end that still
lacks bytes.
"""

import codecs
from collections.abc import Iterable, Iterator

import numpy as np

from bytelm.vocab import NUM_BYTES

WHOLE = 0
"""The state between two characters."""

_REJECT = -1

NEEDS = (0, 1, 2, 3, 2, 2, 3, 3)
"""State -> bytes that the open character still lacks; the last four allow a part of the
continuation bytes: after E0, ED, F0 and F4."""

_MOST_NEEDED = 4
"""Bytes of the longest character: with more than these to go, every character fits."""

_ASCII = 0x80
_FIRST_LEAD = 0xC0

_RULES = (
    # state, first byte, last byte, next state
    (WHOLE, 0x00, 0x7F, WHOLE),
    (WHOLE, 0xC2, 0xDF, 1),
    (WHOLE, 0xE0, 0xE0, 4),
    (WHOLE, 0xE1, 0xEF, 2),
    (WHOLE, 0xED, 0xED, 5),
    (WHOLE, 0xF0, 0xF0, 6),
    (WHOLE, 0xF1, 0xF3, 3),
    (WHOLE, 0xF4, 0xF4, 7),
    (1, 0x80, 0xBF, WHOLE),
    (2, 0x80, 0xBF, 1),
    (3, 0x80, 0xBF, 2),
    (4, 0xA0, 0xBF, 1),
    (5, 0x80, 0x9F, 1),
    (6, 0x90, 0xBF, 2),
    (7, 0x80, 0x8F, 2),
)


def _next_states() -> np.ndarray:
    table = np.full((len(NEEDS), NUM_BYTES), _REJECT, np.int8)
    for state, first, last, after in _RULES:
        table[state, first : last + 1] = after
    return table


_NEXT = _next_states()
_NEXT_ROWS: list[list[int]] = _NEXT.tolist()


def _penalties() -> np.ndarray:
    """Added to log-probabilities: 0, or -inf where the byte may not come. `[state, left, 256]`."""
    needs = np.array([*NEEDS, _MOST_NEEDED])[_NEXT]
    left = np.arange(_MOST_NEEDED + 1)
    fits = needs[:, None, :] <= left[None, :, None] - 1
    return np.where(fits, 0.0, -np.inf)


_PENALTIES = _penalties()


def penalties(states: list[int], left: list[int]) -> np.ndarray:
    """What to add to the log-probabilities so that the text stays, and ends, valid.

    Args:
        states: State of each of R texts.
        left: Bytes that may still be written, the one to choose included; at least what the
            open character lacks.

    Returns:
        float64 `[R, 256]`: 0 where the byte may come, else -inf.

    """
    return _PENALTIES[states, [min(count, _MOST_NEEDED) for count in left]]


def unfinished(data: bytes | bytearray) -> int:
    r"""How many last bytes, 0 to 3, begin a character that is not whole; the rest may be anything.

    >>> unfinished("a€".encode()[:-1]), unfinished(b"a\xff")
    (2, 0)
    """
    for back in range(1, min(len(data), _MOST_NEEDED - 1) + 1):
        byte = data[-back]
        if byte < _ASCII:
            return 0
        if byte >= _FIRST_LEAD:
            return back if _advance(WHOLE, data[-back:]) > WHOLE else 0
    return 0


def state_after(text: bytes | bytearray) -> int:
    """The automaton's state after a text: its last bytes alone decide."""
    if not text or text[-1] < _ASCII:
        return WHOLE
    return _advance(WHOLE, text[len(text) - unfinished(text) :])


def _advance(state: int, data: bytes | bytearray) -> int:
    """The state after more bytes; negative where they are not UTF-8."""
    for byte in data:
        state = _NEXT_ROWS[state][byte]
        if state < WHOLE:
            break
    return state


def check_prompt(prompt: bytes, *, max_new_bytes: int, name: str = "the prompt") -> None:
    """Make sure that a prompt can be continued to valid UTF-8.

    Raises:
        ValueError: It holds something else, or its last character lacks more than
            `max_new_bytes`.

    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        decoder.decode(prompt)
    except UnicodeDecodeError as error:
        raise ValueError(
            f"valid_utf8 needs a prompt of UTF-8, but {name} has the byte "
            f"{prompt[error.start]:#04x} at position {error.start}: {error.reason}; mend it, or "
            "generate without valid_utf8"
        ) from error
    lacking = NEEDS[state_after(prompt)]
    if lacking > max_new_bytes:
        raise ValueError(
            f"{name} ends in a character that lacks {lacking} bytes, and max_new_bytes is "
            f"{max_new_bytes}: give at least {lacking}"
        )


def whole_characters(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Cut pieces anew, so that none ends inside a character that can still become whole.

    Bytes that are not UTF-8 pass as soon as that is certain; what is open at the end comes last.
    """
    pending = b""
    for piece in pieces:
        pending += piece
        ready = len(pending) - unfinished(pending)
        if ready:
            yield pending[:ready]
            pending = pending[ready:]
    if pending:
        yield pending


def decoded(pieces: Iterable[bytes]) -> Iterator[str]:
    """Pieces as text that never splits a character; what is not UTF-8 becomes U+FFFD."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest
