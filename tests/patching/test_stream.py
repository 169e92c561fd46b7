"""Laws of every patcher: one decision a byte, from the bytes before it, however they arrive."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bytelm.patching import (
    Entropy,
    ShannonWindow,
    Space,
    Static,
    batch_starts,
    patch_starts,
    stream,
)
from bytelm.vocab import BOE, BOS, OFFSET

PATCHERS = [
    Static(patch_size=1),
    Static(patch_size=5),
    Space(),
    Space(min_patch_bytes=3, max_patch_bytes=7),
    Entropy(threshold=1.3),
    Entropy(relative_threshold=0.2),
    Entropy(threshold=1.0, relative_threshold=0.1, max_patch_bytes=4),
    Entropy(threshold=1.3, min_patch_bytes=2),
    Entropy(threshold=2.5, min_patch_bytes=3, max_patch_bytes=6),
    ShannonWindow(),
    ShannonWindow(window=4, threshold=0.9, min_patch_bytes=2, max_patch_bytes=9),
]
few_examples = settings(max_examples=40, deadline=None)
every_patcher = pytest.mark.parametrize("patcher", PATCHERS, ids=repr)


@st.composite
def documents(draw, min_size=0):
    letters = draw(st.sampled_from([b"ab ", b"the cat.\n\xc3\xa4", bytes(range(256))]))
    values = draw(st.lists(st.sampled_from(list(letters)), min_size=min_size, max_size=60))
    seed = draw(st.integers(0, 2**32 - 1))
    entropies = np.random.default_rng(seed).uniform(0, 3, len(values)).astype(np.float32)
    return np.array(values, np.uint8), entropies


@every_patcher
@few_examples
@given(document=documents(), cut=st.integers(0, 60))
def test_prefix_stable(patcher, document, cut):
    data, entropies = document
    whole = patch_starts(patcher, data, entropies)
    prefix = patch_starts(patcher, data[:cut], entropies[:cut])
    assert prefix.tolist() == whole[:cut].tolist()


@every_patcher
@few_examples
@given(document=documents(min_size=1), sizes=st.lists(st.integers(0, 12), max_size=12))
def test_any_chunks_decide_as_the_whole(patcher, document, sizes):
    data, entropies = document
    state = patcher.initial(float(entropies[0]))
    decided = [np.ones(1, bool)]
    bounds = np.minimum(np.cumsum([0, *sizes, len(data)]), len(data) - 1)
    for begin, end in itertools.pairwise(bounds):
        of_next = entropies[begin + 1 : end + 1] if patcher.needs_entropies else None
        starts, state = patcher.decide(data[begin:end], of_next, state)
        decided.append(starts)
    whole = patch_starts(patcher, data, entropies)
    assert np.concatenate(decided).tolist() == whole.tolist()


@every_patcher
@few_examples
@given(document=documents(min_size=1))
def test_partition_is_lossless_and_keeps_the_limits(patcher, document):
    data, entropies = document
    starts = patch_starts(patcher, data, entropies)
    pieces = np.split(data, np.flatnonzero(starts)[1:])
    assert np.concatenate(pieces).tobytes() == data.tobytes()
    shortest, longest = patcher.limits
    assert all(len(piece) >= shortest for piece in pieces[:-1])
    assert longest is None or all(len(piece) <= longest for piece in pieces)


@every_patcher
@few_examples
@given(rows=st.lists(st.lists(documents(), min_size=1, max_size=4), min_size=1, max_size=4))
def test_a_batch_decides_as_its_documents_alone(patcher, rows):
    """Oracle: `patch_starts` of each document; padding and batch mates change nothing."""
    lengths = [sum(1 + len(data) for data, _ in row) for row in rows]
    ids = torch.full((len(rows), max(lengths)), BOE)
    entropies = torch.full(ids.shape, 1.5)
    expected = []
    for i, row in enumerate(rows):
        at, flags = 0, []
        for data, after in row:
            ids[i, at] = BOS
            ids[i, at + 1 : at + 1 + len(data)] = torch.from_numpy(data.astype(np.int64)) + OFFSET
            entropies[i, at : at + len(data)] = torch.from_numpy(after)
            flags += [True, *patch_starts(patcher, data, after).tolist()]
            at += 1 + len(data)
        expected.append(flags)
    starts = batch_starts(patcher, ids, entropies if patcher.needs_entropies else None)
    assert starts.shape == (len(rows), ids.shape[1] + 1)
    assert [starts[i, :n].tolist() for i, n in enumerate(lengths)] == expected


@every_patcher
@few_examples
@given(document=documents(min_size=2), future=documents(min_size=2), cut=st.integers(1, 59))
def test_later_bytes_change_no_earlier_decision_of_a_row(patcher, document, future, cut):
    def row(data, entropies):
        ids = torch.from_numpy(data.astype(np.int64))[None] + OFFSET
        ids = torch.cat((torch.tensor([[BOS]]), ids), dim=1)
        after = torch.cat((torch.from_numpy(entropies)[None], torch.tensor([[1.5]])), dim=1)
        return batch_starts(patcher, ids, after if patcher.needs_entropies else None)[0]

    (data, entropies), (other, other_entropies) = document, future
    cut = min(cut, len(data))
    changed = (
        np.concatenate((data[:cut], other)),
        np.concatenate((entropies[:cut], other_entropies)),
    )
    assert row(data, entropies)[: cut + 1].tolist() == row(*changed)[: cut + 1].tolist()


@every_patcher
def test_pieces_of_a_long_document_join(patcher, monkeypatch):
    rng = np.random.default_rng(0)
    data = rng.choice(np.frombuffer(b"abcdef  \n", np.uint8), 1000)
    entropies = rng.uniform(0, 3, 1000).astype(np.float32)
    whole = patch_starts(patcher, data, entropies)
    monkeypatch.setattr(stream, "CHUNK_BYTES", 7)
    assert patch_starts(patcher, data, entropies).tolist() == whole.tolist()


@every_patcher
def test_empty_document_has_no_starts(patcher):
    assert patch_starts(patcher, np.zeros(0, np.uint8), np.zeros(0, np.float32)).tolist() == []


def test_entropies_that_cannot_be_used_are_refused():
    rule, data = Entropy(threshold=1.0), np.zeros(3, np.uint8)
    with pytest.raises(ValueError, match="needs entropies, got None"):
        patch_starts(rule, data)
    with pytest.raises(ValueError, match="each of 3 bytes, got 2"):
        patch_starts(rule, data, np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="not a number"):
        patch_starts(rule, data, np.array([1, np.nan, 1], np.float32))
    with pytest.raises(ValueError, match="first byte"):
        rule.initial()


def test_a_row_without_bos_is_refused():
    with pytest.raises(ValueError, match="begin with BOS"):
        batch_starts(Space(), torch.tensor([[BOS, 70], [70, 71]]))
