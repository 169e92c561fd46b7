"""Oracles: each row alone, written out one position at a time."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.rope import rotations
from bytelm.nn.rows import Rows

COUNTS = st.lists(st.integers(1, 9), min_size=1, max_size=6)


@given(counts=COUNTS, seed=st.integers(0, 99))
def test_padded_rows_are_the_rows_and_zeros_and_packing_is_the_inverse(
    counts: list[int], seed: int
) -> None:
    rows, generator = Rows(np.array(counts)), torch.Generator().manual_seed(seed)
    x = torch.randn(sum(counts), 2, 3, generator=generator)
    padded = rows.padded(x)
    assert padded.shape == (len(counts), max(counts), 2, 3)
    for row, (own, piece) in enumerate(zip(padded, x.split(counts), strict=True)):
        assert own[: counts[row]].equal(piece)
        assert not own[counts[row] :].any()
    assert rows.packed(padded).equal(x)
    # What stands after the end of a row is not packed.
    assert rows.packed(torch.where(padded == 0, 7.0, padded)).equal(x)


@given(counts=COUNTS, begins=st.none() | st.lists(st.integers(0, 9_000), min_size=6, max_size=6))
def test_positions_count_on_in_each_row(counts: list[int], begins: list[int] | None) -> None:
    chosen = None if begins is None else np.array(begins[: len(counts)])
    rows = Rows(np.array(counts), begins=chosen)
    first = [0] * len(counts) if begins is None else begins
    expected = [
        begin + at for begin, count in zip(first, counts, strict=False) for at in range(count)
    ]
    assert rows.positions.tolist() == expected
    assert rows.ends.tolist() == np.cumsum(counts).tolist()
    assert rows.is_step == (set(counts) == {1})
    assert rows.length == (counts[0] if len(set(counts)) == 1 else None)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@given(counts=COUNTS, begins=st.none() | st.lists(st.integers(0, 9_000), min_size=6, max_size=6))
def test_turns_are_the_rotations_of_the_positions(
    counts: list[int], begins: list[int] | None, dtype: torch.dtype
) -> None:
    chosen = None if begins is None else np.array(begins[: len(counts)])
    rows, like = Rows(np.array(counts), begins=chosen), torch.zeros(0, dtype=dtype)
    for width, theta in ((8, 1e4), (4, 1e4), (8, 5e5)):
        expected = rotations(rows.positions, width, theta, like)
        assert rows.turns(width, theta, like).equal(expected)
        assert rows.turns(width, theta, like) is rows.turns(width, theta, like)


def test_full_rows_begin_here_and_have_one_length() -> None:
    rows = Rows.full(3, 4)
    assert rows.counts.tolist() == [4, 4, 4]
    assert rows.positions.tolist() == [0, 1, 2, 3] * 3
    x = torch.randn(12, 5)
    assert rows.padded(x).equal(x.view(3, 4, 5))
