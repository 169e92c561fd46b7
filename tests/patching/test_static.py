import numpy as np
import pytest

from bytelm.patching import Static, patch_starts


@pytest.mark.parametrize("size", [1, 3, 4, 100])
def test_starts_are_the_multiples_of_the_patch_size(size):
    starts = patch_starts(Static(patch_size=size), np.zeros(23, np.uint8))
    assert np.flatnonzero(starts).tolist() == list(range(0, 23, size))


def test_a_patch_size_below_one_is_refused():
    with pytest.raises(ValueError, match="patch_size must be at least 1, got 0"):
        Static(patch_size=0)
