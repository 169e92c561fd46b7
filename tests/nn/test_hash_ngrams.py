"""Oracles: Python integers, wrapped to 64 bits by hand, and a Horner loop in wrapping int64."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bytelm.nn.hash_ngrams import (
    HASH_PRIMES,
    HashNgrams,
    IdHistory,
    hash_windows,
    ngram_powers,
    ngram_windows,
)
from bytelm.nn.rows import Rows


def plain_hash(ids: list[int], at: int, size: int, buckets: int, prime: int) -> int:
    gram = [ids[i] if i >= 0 else 0 for i in range(at - size + 1, at + 1)]
    total = sum(value * prime**exponent for exponent, value in enumerate(gram))
    wrapped = (total + 2**63) % 2**64 - 2**63
    return wrapped % buckets


def horner_hash(ids: np.ndarray, size: int, buckets: int, prime: int) -> np.ndarray:
    """Of the n-gram that ends at each id; the oldest id has exponent 0, int64 wraps around."""
    padded, total = np.concatenate((np.zeros(size - 1, np.int64), ids)), np.zeros_like(ids)
    for offset in reversed(range(size)):
        total = total * np.int64(prime) + padded[offset : offset + len(ids)]
    return total % buckets


def buckets_of(ids: Tensor, sizes: tuple[int, ...], buckets: int, functions: int = 1) -> Tensor:
    windows = ngram_windows(ids, max(sizes))
    return hash_windows(windows, ngram_powers(sizes, functions), buckets)


@given(
    ids=st.lists(st.integers(0, 259), min_size=1, max_size=12),
    buckets=st.sampled_from([64, 5000, 500_002]),
    functions=st.integers(1, 13),
)
def test_equals_wrapped_integers(ids: list[int], buckets: int, functions: int) -> None:
    """By function, then by size; after the last prime the first one comes again."""
    sizes = (2, 3, 8)
    got = buckets_of(torch.tensor([ids]), sizes, buckets, functions)
    primes = [HASH_PRIMES[function % len(HASH_PRIMES)] for function in range(functions)]
    for at in range(len(ids)):
        assert got[at].tolist() == [
            plain_hash(ids, at, size, buckets, prime) for prime in primes for size in sizes
        ]


@pytest.mark.parametrize("buckets", [5000, 500_002])
@pytest.mark.parametrize("highest", [3, 259, 2**62])
def test_every_prime_and_size_equals_horner(buckets: int, highest: int) -> None:
    """Special ids alone, all ids, and numbers so large that every product wraps around."""
    ids = np.random.default_rng(0).integers(0, highest, 200, endpoint=True)
    sizes = tuple(range(2, 9))
    got = buckets_of(torch.from_numpy(ids)[None], sizes, buckets, len(HASH_PRIMES))
    expected = [horner_hash(ids, size, buckets, prime) for prime in HASH_PRIMES for size in sizes]
    np.testing.assert_array_equal(got.numpy(), np.stack(expected, axis=1))
    assert got.min() >= 0


def test_golden() -> None:
    """Tables outlive this code: the buckets of "hello" must never change."""
    ids = torch.tensor([[1, *(byte + 4 for byte in b"hello")]])
    prime = HASH_PRIMES[0]
    assert buckets_of(ids, (3, 8), 32_768).tolist() == [
        [plain_hash(ids[0].tolist(), at, size, 32_768, prime) for size in (3, 8)] for at in range(6)
    ]
    assert buckets_of(ids, (3,), 1000)[-1].item() == 835


def test_windows_stay_inside_their_row() -> None:
    got = ngram_windows(torch.tensor([[5, 6, 7], [8, 9, 10]]), 3).tolist()
    assert got == [[0, 0, 5], [0, 5, 6], [5, 6, 7], [0, 0, 8], [0, 8, 9], [8, 9, 10]]


def test_sum_of_table_rows_of_every_function_and_size() -> None:
    torch.manual_seed(0)
    tables = HashNgrams(5, ngram_sizes=(2, 4), num_buckets=11, num_functions=3)
    torch.nn.init.normal_(tables.weight)
    ids = torch.randint(0, 260, (2, 9))
    expected = torch.zeros(18, 5)
    for table, (function, size) in enumerate((f, g) for f in range(3) for g in (2, 4)):
        own = [horner_hash(row.numpy(), size, 11, HASH_PRIMES[function]) for row in ids]
        expected += tables.weight[11 * table + torch.from_numpy(np.concatenate(own))]
    torch.testing.assert_close(tables(ngram_windows(ids, tables.width)), expected)


@given(
    seed=st.integers(0, 999),
    width=st.integers(1, 9),
    steps=st.lists(st.lists(st.integers(0, 6), min_size=3, max_size=3), max_size=12),
)
def test_histories_of_ragged_rows_end_in_the_windows_of_whole_rows(
    seed: int, width: int, steps: list[list[int]]
) -> None:
    """Oracle: the windows of each row's ids up to then, some of which were taken back."""
    rng = np.random.default_rng(seed)
    history, read = IdHistory(3, width=width, spare=5), [np.zeros(0, np.int64)] * 3
    for sizes in steps:
        slots = np.array([slot for slot in rng.permutation(3) if sizes[slot]], np.int64)
        if not len(slots):
            continue
        counts = np.array([sizes[slot] for slot in slots])
        pieces = [rng.integers(0, 260, count) for count in counts]
        got = history.windows(np.concatenate(pieces), Rows(counts, slots=slots)).numpy()
        expected = []
        for slot, piece in zip(slots.tolist(), pieces, strict=True):
            read[slot] = np.concatenate((read[slot], piece))
            whole = ngram_windows(torch.from_numpy(read[slot])[None], width).numpy()
            expected.append(whole[-len(piece) :])
        np.testing.assert_array_equal(got, np.concatenate(expected))
        slot = int(rng.integers(3))
        if back := min(5, len(read[slot]), int(rng.integers(6))):
            history.rewind(slot, back)
            read[slot] = read[slot][: len(read[slot]) - back]
        # Once taken back, a history is as short as a window: read on before the next time.
        more = rng.integers(0, 260, (3, width + 5))
        got = history.windows(more.ravel(), Rows(np.full(3, width + 5), slots=np.arange(3)))
        read = [np.concatenate(pair) for pair in zip(read, more, strict=True)]
        whole = [ngram_windows(torch.from_numpy(ids)[None], width) for ids in read]
        assert got.equal(torch.cat([windows[-width - 5 :] for windows in whole]))


def test_rows_of_histories_are_copied_put_aside_and_cleared() -> None:
    history, slots = IdHistory(2, width=3, spare=2), np.arange(2)
    history.windows(np.array([5, 6, 7, 8]), Rows(np.array([3, 1]), slots=slots))
    saved = history.save(0)
    history.select([1, 0, 1])
    assert history.step(np.array([9, 9, 9]), np.arange(3)).tolist() == [
        [0, 8, 9],
        [6, 7, 9],
        [0, 8, 9],
    ]
    history.restore(2, saved)
    history.clear(0)
    assert history.step(np.array([1, 1]), np.array([2, 0])).tolist() == [[6, 7, 1], [0, 0, 1]]


def test_gradients_are_sparse_rows() -> None:
    tables = HashNgrams(3, ngram_sizes=(2, 3), num_buckets=50)
    torch.nn.init.zeros_(tables.weight)
    tables(ngram_windows(torch.randint(0, 260, (1, 4)), 3)).sum().backward()
    assert tables.weight.grad is not None
    assert tables.weight.grad.is_sparse
    assert tables.weight.grad._nnz() == 4 * 2


def test_dropout_leaves_rows_out_and_counts_the_others_more() -> None:
    """Oracle: tables of ones, whose sum is the number of rows that were left, times 1 / 0.6."""
    torch.manual_seed(0)
    tables = HashNgrams(2, ngram_sizes=(1, 2, 3), num_buckets=5_000)
    torch.nn.init.ones_(tables.weight)
    windows = ngram_windows(torch.arange(4, 260)[None], 3)
    found = tables(windows, dropout=0.4)
    kept = found.detach()[:, 0] * 0.6
    torch.testing.assert_close(kept, kept.round())
    assert set(kept.round().int().tolist()) == {0, 1, 2, 3}
    assert kept.mean() == pytest.approx(3 * 0.6, abs=0.15)
    found.sum().backward()
    assert tables.weight.grad is not None
    assert tables.weight.grad._nnz() == round(float(kept.sum()))
    assert (tables(windows) == 3).all()
