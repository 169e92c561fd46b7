"""The shortest and the longest patch, imposed on the starts that a rule asks for.

The rule is sequential: a start that is asked for fewer than `min_bytes` after the last one is
ignored, and a patch that reaches `max_bytes` ends. It is computed without a Python loop.
"""

import functools
import re

import numpy as np


def check_limits(min_patch_bytes: int, max_patch_bytes: int | None) -> None:
    """Refuse limits that no patch can meet.

    Raises:
        ValueError: `min_patch_bytes` is below 1, or `max_patch_bytes` below `min_patch_bytes`.

    """
    if min_patch_bytes < 1:
        raise ValueError(f"min_patch_bytes must be at least 1, got {min_patch_bytes}")
    if max_patch_bytes is not None and max_patch_bytes < min_patch_bytes:
        raise ValueError(
            f"max_patch_bytes must be at least min_patch_bytes ({min_patch_bytes}), "
            f"got {max_patch_bytes}"
        )


def limit_lengths(
    candidates: np.ndarray,
    *,
    min_bytes: int,
    max_bytes: int | None,
    open_length: int,
    forced: np.ndarray | None = None,
) -> tuple[np.ndarray, int]:
    """Choose among candidate starts so that every patch keeps its limits.

    Args:
        candidates: bool `[n]`; entry i asks for a start after the i-th byte that is read.
        min_bytes: A candidate closer than this to the last start is ignored.
        max_bytes: A patch of this many bytes ends. None: no limit.
        open_length: Bytes that the open patch had before the first of these was read.
        forced: bool `[n]`; starts that no limit suppresses: those of documents.

    Returns:
        The starts, bool `[n]`, and the length of the patch that is open at the end.

    """
    count = len(candidates)
    if min_bytes > 1:
        starts = _spaced_starts(candidates, min_bytes, max_bytes, open_length, forced)
    else:
        starts = candidates.copy() if forced is None else candidates | forced
        if max_bytes is not None:
            _fill_long_(starts, max_bytes, open_length)
    backwards = starts[::-1]
    since = int(backwards.argmax()) if count else 0
    if count == 0 or not backwards[since]:
        return starts, open_length + count
    return starts, since


def _fill_long_(starts: np.ndarray, max_bytes: int, open_length: int) -> None:
    """Add a start after every `max_bytes` bytes of each patch."""
    bounds = np.concatenate(([-1 - open_length], np.flatnonzero(starts), [len(starts)]))
    missing = (np.diff(bounds) - 1) // max_bytes
    long = np.flatnonzero(missing)
    if not len(long):
        return
    missing = missing[long]
    first = np.repeat(np.cumsum(missing) - missing, missing)
    nth = np.arange(len(first)) - first + 1
    starts[np.repeat(bounds[long], missing) + nth * max_bytes] = True


_FORCED = 2


@functools.cache
def _patch_pattern(min_bytes: int, max_bytes: int | None) -> re.Pattern[bytes]:
    """One patch in a string of marks: 1 is a candidate start, 2 a forced one, 0 neither.

    The limits are a regular language: a patch is its first byte, the bytes in which a candidate
    comes too early, and then bytes up to the next candidate.
    """
    tail = "*+" if max_bytes is None else f"{{0,{max_bytes - min_bytes}}}+"
    return re.compile(rf"(?s:.)[\x00\x01]{{0,{min_bytes - 1}}}+\x00{tail}".encode())


def _spaced_starts(
    candidates: np.ndarray,
    min_bytes: int,
    max_bytes: int | None,
    open_length: int,
    forced: np.ndarray | None,
) -> np.ndarray:
    # A longer open patch without a limit behaves as one of exactly min_bytes.
    before = open_length if max_bytes is not None else min(open_length, min_bytes)
    marks = np.zeros(before + 1 + len(candidates), np.uint8)
    marks[before + 1 :] = candidates
    if forced is not None:
        marks[before + 1 :][forced] = _FORCED
    found = _patch_pattern(min_bytes, max_bytes).findall(marks.tobytes())
    ends = np.cumsum(np.fromiter(map(len, found), np.int64, len(found)))
    starts = np.zeros(len(marks) + 1, bool)
    starts[ends] = True
    return starts[before + 1 : -1]
