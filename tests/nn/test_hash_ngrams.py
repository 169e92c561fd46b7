"""Oracle: Python integers, wrapped to 64 bits by hand."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.nn.hash_ngrams import HASH_PRIME, HashNgrams, IdHistory, hash_ids


def plain_hash(ids: list[int], at: int, size: int, buckets: int) -> int:
    gram = [ids[i] if i >= 0 else 0 for i in range(at - size + 1, at + 1)]
    total = sum(value * HASH_PRIME**exponent for exponent, value in enumerate(gram))
    wrapped = (total + 2**63) % 2**64 - 2**63
    return wrapped % buckets


@given(
    ids=st.lists(st.integers(0, 259), min_size=1, max_size=12),
    buckets=st.sampled_from([64, 5000, 500_002]),
)
def test_equals_wrapped_integers(ids: list[int], buckets: int) -> None:
    sizes = (2, 3, 8)
    got = hash_ids(torch.tensor([ids]), sizes, buckets)[0]
    for at in range(len(ids)):
        assert got[at].tolist() == [plain_hash(ids, at, size, buckets) for size in sizes]


def test_golden() -> None:
    """Tables outlive this code: the buckets of "hello" must never change."""
    ids = torch.tensor([[1, *(byte + 4 for byte in b"hello")]])
    assert hash_ids(ids, (3, 8), 32_768)[0].tolist() == [
        [plain_hash(ids[0].tolist(), at, size, 32_768) for size in (3, 8)] for at in range(6)
    ]
    assert hash_ids(ids, (3,), 1000)[0, -1].item() == 835


def test_sum_of_rows_and_streaming() -> None:
    torch.manual_seed(0)
    tables = HashNgrams(5, ngram_sizes=(2, 4), num_buckets=11)
    torch.nn.init.normal_(tables.weight)
    ids = torch.randint(0, 260, (2, 9))
    buckets = hash_ids(ids, (2, 4), 11)
    expected = tables.weight[buckets[..., 0]] + tables.weight[11 + buckets[..., 1]]
    torch.testing.assert_close(tables(ids), expected)
    history = IdHistory()
    parts = [tables(part, history=history) for part in ids.split([1, 5, 3], dim=1)]
    torch.testing.assert_close(torch.cat(parts, 1), expected)


def test_gradients_are_sparse_rows() -> None:
    tables = HashNgrams(3, ngram_sizes=(2, 3), num_buckets=50)
    torch.nn.init.zeros_(tables.weight)
    tables(torch.randint(0, 260, (1, 4))).sum().backward()
    assert tables.weight.grad is not None
    assert tables.weight.grad.is_sparse
    assert tables.weight.grad._nnz() == 4 * 2
