import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.patching import Patches

ROWS = torch.tensor([[True, False, False, True, True], [True, True, False, False, False]])


def test_hand_made_example():
    patches = Patches.from_starts(ROWS)
    assert patches.lengths.tolist() == [[3, 1, 1], [1, 4, 0]]
    assert patches.ids.tolist() == [[0, 0, 0, 1, 2], [0, 1, 1, 1, 1]]
    assert patches.num_patches.tolist() == [3, 2]
    assert patches.mean_patch_bytes == 2.0


@given(st.integers(1, 4), st.integers(0, 30), st.integers(0, 2**31))
def test_starts_lengths_and_ids_agree(rows, num_bytes, seed):
    starts = torch.rand(rows, num_bytes, generator=torch.Generator().manual_seed(seed)) < 0.3
    starts[:, :1] = True
    patches = Patches.from_starts(starts)
    assert Patches.from_lengths(patches.lengths).starts.equal(starts)
    assert patches.lengths.sum(1).tolist() == [num_bytes] * rows
    for ids, lengths in zip(patches.ids, patches.lengths, strict=True):
        assert ids.equal(torch.repeat_interleave(lengths))


@pytest.mark.parametrize(
    ("lengths", "message"),
    [
        ([[2, -1]], "must be positive, got -1"),
        ([[2, 0, 3]], "padding"),
        ([[2, 1], [2, 2]], r"same number of bytes, got \[3, 4\]"),
    ],
)
def test_impossible_lengths_are_refused(lengths, message):
    with pytest.raises(ValueError, match=message):
        Patches.from_lengths(torch.tensor(lengths))


def test_a_row_must_begin_with_a_start():
    with pytest.raises(ValueError, match="first byte of every row"):
        Patches.from_starts(torch.tensor([[False, True]]))
