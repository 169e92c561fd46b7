"""Oracles: the stream written out as a list, and counting."""

import os
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data import Batch, Batches, build_corpus, from_documents
from bytelm.errors import DataError
from bytelm.vocab import BOE, BOS, IGNORE, OFFSET

DOCUMENTS = st.lists(st.binary(max_size=25), min_size=1, max_size=8)


def stream_of(documents: list[bytes]) -> list[int]:
    """Write the stream out: the documents' ids with BOS between."""
    ids: list[int] = []
    for document in filter(None, documents):
        ids += [BOS] * bool(ids) + [byte + OFFSET for byte in document]
    return ids


def rows_of(stream: list[int], context_bytes: int, stride: int, phase: int):
    """Cut an epoch's windows, as (ids, targets), one at a time."""
    windows = [stream[:phase]] if phase else []
    begin = phase
    while True:
        windows.append(stream[begin : begin + context_bytes])
        if begin + context_bytes >= len(stream):
            break
        begin += stride
    for window in windows:
        padding = context_bytes - len(window)
        targets = [IGNORE if value == BOS else value for value in window]
        yield (
            tuple([BOS, *window[:-1]] + [BOE] * padding),
            tuple(targets + [IGNORE] * padding),
        )


def epoch_rows(batches: Batches, epoch: int) -> Counter:
    """Collect the rows of one epoch from the batches, in any order."""
    first, last = batches._first_rows[epoch : epoch + 2]
    rows = []
    for step in range(first // batches.rows, -(-last // batches.rows)):
        batch = batches.batch(step)
        for offset, (ids, targets) in enumerate(zip(batch.ids, batch.targets, strict=True)):
            if first <= step * batches.rows + offset < last:
                rows.append((tuple(ids.tolist()), tuple(targets.tolist())))
    return Counter(rows)


@given(
    documents=DOCUMENTS,
    context_bytes=st.integers(2, 12),
    rows=st.integers(1, 7),
    seed=st.integers(0, 2**64),
    data=st.data(),
)
def test_an_epoch_is_the_stream_cut_at_its_phase(documents, context_bytes, rows, seed, data):
    documents = [*documents, bytes(12)]
    stride = data.draw(st.integers(1, context_bytes))
    batches = Batches(
        from_documents(documents),
        context_bytes=context_bytes,
        rows=rows,
        seed=seed,
        stride=stride,
    )
    batches.batch(5)
    for epoch in (0, 1, 2):
        phase = int(batches._phases(np.array([epoch]))[0])
        expected = Counter(rows_of(stream_of(documents), context_bytes, stride, phase))
        assert epoch_rows(batches, epoch) == expected


@given(
    documents=DOCUMENTS,
    context_bytes=st.integers(2, 12),
    rows=st.integers(1, 7),
    seed=st.integers(0, 1000),
)
def test_every_byte_is_a_target_once_in_an_epoch(documents, context_bytes, rows, seed):
    documents = [*documents, bytes(range(12))]
    batches = Batches(from_documents(documents), context_bytes=context_bytes, rows=rows, seed=seed)
    batches.batch(0)
    for epoch in (0, 1):
        targets = Counter()
        for (_, row), count in epoch_rows(batches, epoch).items():
            targets.update({value: row.count(value) * count for value in set(row) - {IGNORE}})
        assert targets == Counter(byte + OFFSET for byte in b"".join(documents))


@given(documents=DOCUMENTS, rows=st.integers(1, 5), seed=st.integers(0, 1000))
def test_every_row_scores_something(documents, rows, seed):
    batches = Batches(from_documents([*documents, b"ab"]), context_bytes=2, rows=rows, seed=seed)
    for step in range(20):
        assert (batches.batch(step).targets != IGNORE).any(dim=1).all()


def test_nul_bytes_are_data():
    batch = Batches(from_documents([bytes(10)]), context_bytes=10, rows=1, seed=0).batch(0)
    assert set(batch.targets.flatten().tolist()) <= {OFFSET, IGNORE}
    assert batch.ids.dtype == batch.targets.dtype == torch.int64


def test_steps_can_be_asked_for_in_any_order():
    corpus = from_documents([bytes(range(100)), b"", b"x" * 31])
    in_order = Batches(corpus, context_bytes=8, rows=3, seed=1)
    batches = [in_order.batch(step) for step in range(40)]
    for step in (39, 0, 17, 17, 3):
        fresh = Batches(corpus, context_bytes=8, rows=3, seed=1).batch(step)
        for batch in (fresh, in_order.batch(step)):
            assert torch.equal(batch.ids, batches[step].ids)
            assert torch.equal(batch.targets, batches[step].targets)


def test_the_rows_do_not_depend_on_how_many_are_in_a_batch():
    corpus = from_documents([bytes(range(100))])
    wide = Batches(corpus, context_bytes=8, rows=6, seed=1)
    narrow = Batches(corpus, context_bytes=8, rows=2, seed=1)
    for step in range(10):
        parts = [narrow.batch(3 * step + part) for part in range(3)]
        assert torch.equal(wide.batch(step).ids, torch.cat([part.ids for part in parts]))


def test_seeds_and_epochs_differ():
    corpus = from_documents([bytes(range(256)) * 4])
    order = set()
    for seed in (0, 1):
        batches = Batches(corpus, context_bytes=16, rows=64, seed=seed)
        order |= {tuple(batches.batch(step).ids.flatten().tolist()) for step in range(2)}
    assert len(order) == 4


def test_epochs_count_up_and_hold_the_promised_rows():
    batches = Batches(from_documents([bytes(100)]), context_bytes=10, rows=4, seed=0)
    assert batches.rows_per_epoch == 10
    epochs = [batches.epoch(step) for step in range(100)]
    assert epochs[0] == 0
    assert set(np.diff(epochs)) == {0, 1}
    assert set(np.diff(batches._first_rows)) <= {10, 11}
    assert batches.epoch(10**6) == Batches(batches.corpus, context_bytes=10, rows=4, seed=0).epoch(
        10**6
    )


def test_a_batch_may_be_longer_than_many_epochs():
    batches = Batches(from_documents([b"abc"]), context_bytes=3, rows=50, seed=0)
    batch = batches.batch(0)
    assert batch.ids.shape == (50, 3)
    assert batch.scored >= 50


def test_a_smaller_stride_gives_more_rows():
    corpus = from_documents([bytes(100)])
    counts = [
        Batches(corpus, context_bytes=10, rows=1, seed=0, stride=stride).rows_per_epoch
        for stride in (10, 5, 3, 1)
    ]
    assert counts == [10, 19, 31, 91]


def test_a_short_corpus_is_an_error_with_both_sizes():
    with pytest.raises(DataError, match=r"has 9 bytes.*row of 1,000 .*reduce.*or give more data"):
        Batches(from_documents([b"ninebytes"]), context_bytes=1000, rows=1, seed=0)
    with pytest.raises(DataError, match="has 0 bytes"):
        Batches(from_documents([b"", b""]), context_bytes=2, rows=1, seed=0)


@pytest.mark.parametrize(
    "wrong", [{"context_bytes": 1}, {"rows": 0}, {"seed": -1}, {"stride": 0}, {"stride": 5}]
)
def test_wrong_arguments_are_refused(wrong):
    arguments = {"context_bytes": 4, "rows": 1, "seed": 0} | wrong
    with pytest.raises(ValueError, match="expected context_bytes >= 2"):
        Batches(from_documents([b"123456789"]), **arguments)
    with pytest.raises(ValueError, match="step must be >= 0"):
        Batches(from_documents([b"123456789"]), context_bytes=4, rows=1, seed=0).batch(-1)


def test_only_the_cache_can_shrink_during_training_and_that_is_an_error(tmp_path):
    path = tmp_path / "log"
    path.write_bytes(bytes(100_000))
    corpus = build_corpus([path], cache_dir=tmp_path / "cache")
    batches = Batches(corpus, context_bytes=100, rows=4, seed=0)
    first = batches.batch(0)
    os.truncate(path, 50)
    assert torch.equal(batches.batch(0).ids, first.ids)
    (copy,) = (tmp_path / "cache").glob("*.bin")
    os.truncate(copy, 50)
    with pytest.raises(DataError, match=r"shrank to 50 bytes .* start the same command again"):
        batches.batch(1)


def test_a_selection_of_documents_reads_only_these():
    corpus = from_documents([b"aaaa", b"bbbb", b"cccc"]).select([2, 0])
    batches = Batches(corpus, context_bytes=8, rows=3, seed=3)
    targets = {
        value for step in range(4) for value in batches.batch(step).targets.flatten().tolist()
    }
    assert targets == {ord("a") + OFFSET, ord("c") + OFFSET, IGNORE}


def test_rows_cut_a_batch_into_micro_batches():
    batch = Batches(from_documents([bytes(range(100))]), context_bytes=10, rows=6, seed=0).batch(0)
    parts = [batch.rows(slice(first, first + 2)) for first in (0, 2, 4)]
    assert torch.equal(torch.cat([part.targets for part in parts]), batch.targets)
    assert sum(part.scored for part in parts) == batch.scored
    assert isinstance(batch.to("cpu"), Batch)
    assert batch.to("cpu").ids.data_ptr() == batch.ids.data_ptr()


PRINT_DIGEST = """
import hashlib
from bytelm.data import Batches, from_documents
corpus = from_documents([bytes(range(200)), b"abc", b"", bytes(77)])
batches = Batches(corpus, context_bytes=16, rows=5, seed=42)
digest = hashlib.sha256()
for step in range(20):
    batch = batches.batch(step)
    digest.update(batch.ids.numpy().tobytes() + batch.targets.numpy().tobytes())
print(digest.hexdigest())
"""


def test_processes_agree(capsys):
    """Oracle: another process, with another hash seed."""
    command = [sys.executable, "-c", PRINT_DIGEST]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    exec(PRINT_DIGEST, {})
    assert capsys.readouterr().out == done.stdout
