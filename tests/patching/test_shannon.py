import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.patching import ShannonWindow, patch_starts, window_entropies


def by_definition(data, window):
    """Entropy of the histogram of the bytes before each one."""
    found = []
    for t in range(len(data)):
        seen = data[max(0, t - window) : t]
        shares = [c / len(seen) for c in Counter(seen).values()]
        found.append(-sum(p * math.log(p) for p in shares))
    return found


@given(st.lists(st.integers(0, 4), max_size=80), st.integers(2, 12))
def test_equals_the_definition(values, window):
    got = window_entropies(np.array(values, np.uint8), window=window)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, by_definition(values, window), atol=1e-6)


def test_wide_windows():
    """Counts above 255 do not wrap."""
    data = np.zeros(1200, np.uint8)
    data[::3] = 1
    got = window_entropies(data, window=600)
    np.testing.assert_allclose(got[1190:], by_definition(data.tolist(), 600)[1190:], atol=1e-6)


def test_hand_made_example():
    # After "ab" the window holds two kinds (0.69 nats), after "abc" three (1.10).
    starts = patch_starts(ShannonWindow(window=3, threshold=1.0), np.frombuffer(b"abcaaa", "u1"))
    assert np.flatnonzero(starts).tolist() == [0, 3, 4]


def test_the_largest_entropy_is_that_of_the_window():
    with pytest.raises(ValueError, match=r"no entropy exceeds 1\.39 nats"):
        ShannonWindow(window=4, threshold=math.log(4))


@pytest.mark.parametrize("window", [0, 1, 5000])
def test_windows_out_of_range_are_refused(window):
    with pytest.raises(ValueError, match="window must be 2 to 4096"):
        ShannonWindow(window=window, threshold=0.1)
