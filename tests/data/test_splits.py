"""Oracles: set arithmetic over documents and byte ranges."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import from_documents, split

FRACTIONS = st.sampled_from([0.0, 0.01, 0.1, 0.3, 0.45])


def ranges(corpus) -> list[tuple[int, int]]:
    ends = corpus.starts + corpus.lengths
    pairs = zip(corpus.starts.tolist(), ends.tolist(), strict=True)
    return [(start, end) for start, end in pairs if end > start]


@given(
    lengths=st.lists(st.integers(0, 40), min_size=0, max_size=12),
    valid=FRACTIONS,
    test=FRACTIONS,
    seed=st.integers(0, 1000),
)
def test_every_byte_is_in_exactly_one_split(lengths, valid, test, seed):
    corpus = from_documents([bytes(length) for length in lengths])
    splits = split(corpus, valid_fraction=valid, test_fraction=test, seed=seed)
    parts = sorted(ranges(splits.train) + ranges(splits.valid) + ranges(splits.test))
    covered = [position for start, end in parts for position in range(start, end)]
    assert covered == list(range(sum(lengths)))


@given(
    lengths=st.lists(st.integers(0, 1000), min_size=3, max_size=12),
    valid=FRACTIONS.filter(bool),
    test=FRACTIONS.filter(bool),
    seed=st.integers(0, 1000),
)
def test_three_documents_with_bytes_fill_three_splits_whole(lengths, valid, test, seed):
    lengths = [*lengths, 1, 2, 3]
    corpus = from_documents([bytes(length) for length in lengths])
    splits = split(corpus, valid_fraction=valid, test_fraction=test, seed=seed)
    parts = (splits.train, splits.valid, splits.test)
    assert all(part.num_bytes > 0 for part in parts)
    assert sorted(name for part in parts for name in part.names) == sorted(corpus.names)


def test_fractions_are_of_bytes_and_the_seed_chooses():
    rng = np.random.default_rng(0)
    corpus = from_documents([bytes(rng.integers(1, 2000)) for _ in range(500)])
    names = set()
    for seed in range(3):
        splits = split(corpus, valid_fraction=0.1, test_fraction=0.05, seed=seed)
        assert splits.valid.num_bytes / corpus.num_bytes == pytest.approx(0.1, abs=0.002)
        assert splits.test.num_bytes / corpus.num_bytes == pytest.approx(0.05, abs=0.002)
        names.add(splits.test.names)
    assert len(names) == 3
    again = split(corpus, valid_fraction=0.1, test_fraction=0.05, seed=2)
    assert again.test.names in names


def test_documents_keep_their_order():
    corpus = from_documents([bytes(10)] * 100)
    train = split(corpus, valid_fraction=0.2, test_fraction=0.2, seed=0).train
    assert (np.diff(train.starts) > 0).all()


@pytest.mark.parametrize("seed", range(10))
def test_one_huge_document_is_trained_on(seed):
    corpus = from_documents([bytes(100_000), b"a", b"bb", b"ccc"])
    splits = split(corpus, valid_fraction=0.1, test_fraction=0.1, seed=seed)
    assert "document-0" in splits.train.names


def test_one_document_is_cut_by_range_with_the_test_at_the_end():
    data = bytes(range(200))
    splits = split(from_documents([data], ["book"]), valid_fraction=0.1, test_fraction=0.2, seed=7)
    assert splits.train.document(0).tobytes() == data[:140]
    assert splits.valid.document(0).tobytes() == data[140:160]
    assert splits.test.document(0).tobytes() == data[160:]
    assert splits.test.names == ("book[160:200]",)


def test_two_documents_for_three_splits_are_each_cut():
    corpus = from_documents([b"a" * 100, b"b" * 10, b""])
    splits = split(corpus, valid_fraction=0.1, test_fraction=0.1, seed=0)
    assert [document.tobytes() for document in splits.test] == [b"a" * 10, b"b"]
    assert [document.tobytes() for document in splits.train] == [b"a" * 80, b"b" * 8]


@pytest.mark.parametrize(
    ("valid", "test"), [(-0.1, 0.0), (0.5, 0.5), (0.0, 1.0), (float("nan"), 0.0)]
)
def test_wrong_fractions_are_refused(valid, test):
    with pytest.raises(ValueError, match="sum below 1, got"):
        split(from_documents([b"abc"]), valid_fraction=valid, test_fraction=test, seed=0)


def test_overlap_reports_shared_bytes_and_copies():
    rng = np.random.default_rng(0)
    copied = rng.bytes(640)
    # Forty unlike documents and one that occurs in all three splits.
    corpus = from_documents([rng.bytes(640) for _ in range(40)] + [copied] * 40)
    splits = split(corpus, valid_fraction=0.2, test_fraction=0.2, seed=0)
    for part, share in ((splits.valid, splits.overlap.valid), (splits.test, splits.overlap.test)):
        num_copies = sum(document.tobytes() == copied for document in part)
        assert num_copies > 0
        assert share == pytest.approx(num_copies / part.num_documents)
        assert num_copies == sum(pair.held_out in part.names for pair in splits.overlap.duplicates)
