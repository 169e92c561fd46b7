import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.patching.lengths import check_limits, limit_lengths


def plain_loop(candidates, min_bytes, max_bytes, open_length, forced):
    """The definition, one byte after the other."""
    starts = []
    for asked, must in zip(candidates, forced, strict=True):
        open_length += 1
        start = must or (asked and open_length >= min_bytes) or open_length == max_bytes
        open_length = 0 if start else open_length
        starts.append(start)
    return starts, open_length


@st.composite
def cases(draw):
    candidates = draw(st.lists(st.booleans(), max_size=60))
    forced = draw(st.lists(st.sampled_from([False] * 5 + [True]), min_size=60, max_size=60))
    min_bytes = draw(st.integers(1, 6))
    max_bytes = draw(st.none() | st.integers(min_bytes, min_bytes + 8))
    open_length = draw(st.integers(0, 20 if max_bytes is None else max_bytes - 1))
    return candidates, forced[: len(candidates)], min_bytes, max_bytes, open_length


@given(cases())
def test_equals_the_plain_loop(case):
    candidates, forced, min_bytes, max_bytes, open_length = case
    got, still_open = limit_lengths(
        np.array(candidates, bool),
        min_bytes=min_bytes,
        max_bytes=max_bytes,
        open_length=open_length,
        forced=np.array(forced, bool),
    )
    expected = plain_loop(candidates, min_bytes, max_bytes, open_length, forced)
    assert (got.tolist(), still_open) == expected


def test_does_not_write_into_its_argument():
    candidates = np.zeros(10, bool)
    limit_lengths(candidates, min_bytes=1, max_bytes=2, open_length=0)
    assert not candidates.any()


@pytest.mark.parametrize(("shortest", "longest"), [(0, None), (-1, 4), (5, 4)])
def test_impossible_limits_are_refused(shortest, longest):
    with pytest.raises(ValueError, match="patch_bytes must be at least"):
        check_limits(shortest, longest)
