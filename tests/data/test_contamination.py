"""Oracle: `bytes in bytes`, one block at a time."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import Duplicate, find_duplicates, from_documents, overlap

SMALL = st.lists(st.text(alphabet="ab", max_size=30).map(str.encode), max_size=6)


def by_search(train: list[bytes], held_out: list[bytes], width: int) -> float:
    blocks = [
        document[first : first + width]
        for document in held_out
        for first in range(0, len(document) - width + 1, width)
    ]
    found = [any(block in document for document in train) for block in blocks]
    return sum(found) / len(found) if found else 0.0


@given(train=SMALL, held_out=SMALL, width=st.integers(1, 9))
def test_overlap_is_what_a_search_finds(train, held_out, width):
    found = overlap(from_documents(train), from_documents(held_out), shingle_bytes=width)
    assert found == pytest.approx(by_search(train, held_out, width))


def test_windows_across_the_chunks_of_a_long_document_are_found():
    data = np.random.default_rng(0).bytes(300_000)
    held_out = [data[first : first + 64] for first in range(1, 300_000 - 64, 4099)]
    held_out += [data[65_536 - cut : 65_536 - cut + 64] for cut in (0, 1, 32, 63, 64)]
    assert overlap(from_documents([data]), from_documents(held_out)) == 1.0
    assert overlap(from_documents([data[::-1]]), from_documents(held_out)) == 0.0


def test_many_blocks_are_sampled_evenly(monkeypatch):
    monkeypatch.setattr("bytelm.data.contamination._MAX_BLOCKS", 100)
    rng = np.random.default_rng(0)
    shared, own = rng.bytes(64 * 300), rng.bytes(64 * 700)
    found = overlap(from_documents([shared]), from_documents([shared + own]))
    assert found == pytest.approx(0.3, abs=0.02)


def test_duplicates_are_whole_documents_and_not_empty_ones():
    train = from_documents([b"same", b"", b"other", b"same"], names=["a", "b", "c", "d"])
    held_out = from_documents([b"", b"same", b"othe", b"SAME", b"same"], names="vwxyz")
    assert find_duplicates(train, held_out) == (Duplicate("w", "a"), Duplicate("z", "a"))


def test_a_block_has_at_least_one_byte():
    with pytest.raises(ValueError, match="got 0"):
        overlap(from_documents([b"a"]), from_documents([b"a"]), shingle_bytes=0)
