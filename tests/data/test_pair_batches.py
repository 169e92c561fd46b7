"""Oracles: batches written out by hand, and counting."""

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.data.pair_batches import PairBatch, PairBatches, Source
from bytelm.errors import DataError
from bytelm.vocab import BOE, BOS, EOS, IGNORE, OFFSET

PAIRS = st.lists(
    st.tuples(st.binary(min_size=1, max_size=9), st.binary(max_size=9)), min_size=1, max_size=120
)


def numbered(count: int) -> list[bytes]:
    """Different texts of 1 to 8 bytes, in no order of lengths."""
    return [str(index).encode() * (1 + index % 2) for index in range(count)]


def batches_of(inputs: list[bytes], **changes) -> PairBatches:
    options = {"rows": 3, "seed": 0, **changes}
    return PairBatches(inputs, [one[::-1] for one in inputs], **options)


def pairs_of(batch: PairBatch) -> list[tuple[bytes, bytes]]:
    """Read a batch back."""
    ids, lengths = batch.source.ids.tolist(), batch.source.lengths.tolist()
    inputs = [bytes(i - OFFSET for i in row[:n]) for row, n in zip(ids, lengths, strict=True)]
    targets = [bytes(i - OFFSET for i in row if i >= OFFSET) for row in batch.targets.tolist()]
    return list(zip(inputs, targets, strict=True))


def assert_equal(one: PairBatch, other: PairBatch) -> None:
    assert torch.equal(one.source.ids, other.source.ids)
    assert torch.equal(one.source.lengths, other.source.lengths)
    assert (one.source.starts is None) == (other.source.starts is None)
    if one.source.starts is not None and other.source.starts is not None:
        assert torch.equal(one.source.starts, other.source.starts)
    assert torch.equal(one.written, other.written)
    assert torch.equal(one.targets, other.targets)


def test_a_batch_by_hand() -> None:
    starts = [np.array([True, False, True]), np.array([True])]
    source = Source.of([b"abc", b"\x00"], starts)
    batch = PairBatch.of(source, [b"", b"zy"])
    a, z = OFFSET + ord("a"), OFFSET + ord("z")
    assert source.ids.tolist() == [[a, a + 1, a + 2], [OFFSET, BOE, BOE]]
    assert source.lengths.tolist() == [3, 1]
    assert source.starts is not None
    assert source.starts.tolist() == [[True, False, True], [True, False, False]]
    assert batch.written.tolist() == [[BOS, BOE, BOE], [BOS, z, z - 1]]
    assert batch.targets.tolist() == [[EOS, IGNORE, IGNORE], [z, z - 1, EOS]]
    assert batch.scored == 4
    integers = (source.ids, source.lengths, batch.written, batch.targets)
    assert {tensor.dtype for tensor in integers} == {torch.int64}


def test_without_patch_starts_there_are_none() -> None:
    assert Source.of([b"ab"]).starts is None
    assert batches_of([b"ab", b"c"]).batch(0).rows(slice(0, 1)).source.starts is None


@given(pairs=PAIRS, data=st.data())
def test_some_rows_are_the_batch_of_these_rows(pairs, data) -> None:
    """As wide as all of them, and nothing else changed."""
    inputs, targets = zip(*pairs, strict=True)
    starts = [np.arange(len(one)) % 3 == 0 for one in inputs]
    whole = PairBatch.of(Source.of(inputs, starts), targets)
    begin = data.draw(st.integers(0, len(pairs) - 1))
    chosen = slice(begin, data.draw(st.integers(begin + 1, len(pairs) + 2)))
    some = whole.rows(chosen)
    assert pairs_of(some) == list(pairs[chosen])
    assert some.source.ids.shape[1] == whole.source.ids.shape[1]
    assert some.targets.shape == (len(pairs[chosen]), whole.targets.shape[1])
    assert_equal(some.to("cpu"), some)
    assert_equal(whole.rows(slice(0, len(pairs))), whole)


@given(pairs=PAIRS, rows=st.integers(1, 7))
def test_batches_for_training_have_few_widths(pairs, rows) -> None:
    inputs, targets = map(list, zip(*pairs, strict=True))
    batches = PairBatches(inputs, targets, rows=rows, seed=0)
    for step in range(batches.steps_per_epoch):
        batch = batches.batch(step)
        lengths = batch.source.lengths
        assert batch.source.ids.shape[1] % 8 == batch.targets.shape[1] % 8 == 0
        assert 0 <= batch.source.ids.shape[1] - int(lengths.max()) < 8


@given(pairs=PAIRS, rows=st.integers(1, 7), seed=st.integers(0, 2**64 - 1))
def test_every_pair_comes_once_an_epoch(pairs, rows, seed) -> None:
    inputs, targets = map(list, zip(*pairs, strict=True))
    batches = PairBatches(inputs, targets, rows=rows, seed=seed)
    steps = batches.steps_per_epoch
    for epoch in range(2):
        found = Counter()
        for step in range(epoch * steps, (epoch + 1) * steps):
            assert batches.epoch(step) == epoch
            batch = batches.batch(step)
            assert 1 <= len(batch.targets) <= rows
            found.update(pairs_of(batch))
        assert found == Counter(pairs)


@pytest.mark.parametrize(
    ("count", "rows", "steps"),
    [(1, 3, 1), (3, 3, 1), (4, 3, 2), (60, 3, 20), (61, 3, 21), (119, 3, 40), (123, 3, 41)],
)
def test_steps_of_an_epoch_by_hand(count: int, rows: int, steps: int) -> None:
    assert batches_of([b"x"] * count, rows=rows).steps_per_epoch == steps


def test_a_batch_depends_on_its_number_alone() -> None:
    inputs = numbered(100)
    expected = [batches_of(inputs).batch(step) for step in range(80)]
    batches = batches_of(inputs)
    for step in (79, 0, 40, 40, 33, 34, 1):
        assert_equal(batches.batch(step), expected[step])


def test_patch_starts_go_with_their_input() -> None:
    inputs = numbered(50)
    starts = [np.array([True] + [byte == one[0] for byte in one[1:]]) for one in inputs]
    batches = batches_of(inputs, starts=starts)
    for step in range(batches.steps_per_epoch):
        source = batches.batch(step).source
        assert source.starts is not None
        expected = source.ids == source.ids[:, :1]
        assert torch.equal(source.starts, expected)


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    inputs = numbered(100)
    orders = set()
    for seed in (0, 1):
        batches = batches_of(inputs, seed=seed)
        steps = batches.steps_per_epoch
        for epoch in range(3):
            epoch_steps = range(epoch * steps, (epoch + 1) * steps)
            orders.add(tuple(tuple(pairs_of(batches.batch(step))) for step in epoch_steps))
    assert len(orders) == 6


def test_batches_are_of_about_one_length_and_the_lengths_in_no_order() -> None:
    generator = np.random.default_rng(0)
    inputs = [b"x" * int(n) for n in generator.integers(1, 101, 2000)]
    batches = batches_of(inputs, rows=20)
    lengths = [batches.batch(step).source.lengths for step in range(batches.steps_per_epoch)]
    # Of any 20 of these lengths the longest is 20 times 0.95 of all bytes on average.
    padded = sum(len(one) * int(one.max()) for one in lengths)
    assert padded < 1.05 * sum(map(len, inputs))
    means = [float(one.double().mean()) for one in lengths]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_the_longest_batch_is_as_wide_as_any_there_can_be() -> None:
    """Also where the longest inputs have the shortest targets."""
    inputs = [b"a" * n for n in range(1, 11)]
    batches = PairBatches(inputs, [b"b" * (11 - n) for n in range(1, 11)], rows=4, seed=0)
    longest = batches.longest()
    assert longest.source.lengths.tolist() == [7, 8, 9, 10]
    assert (longest.targets == EOS).nonzero()[:, 1].tolist() == [7, 8, 9, 10]
    assert len(batches_of(inputs[:2]).longest().targets) == 2


def test_batches_of_nothing_are_refused() -> None:
    with pytest.raises(DataError, match="no pairs to learn from"):
        PairBatches([], [], rows=1, seed=0)
