"""Oracles: each row alone, the training forward, plain loops over bytes and patches."""

import dataclasses
import functools
import itertools
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from bytelm import models
from bytelm.data.pair_batches import PairBatch, Source
from bytelm.errors import BytelmError, CheckpointError
from bytelm.models import Ngram, NgramConfig, PatchEncoderConfig, Seq2Seq, Seq2SeqConfig
from bytelm.models.seq2seq import Layout, Memory, PatchEncoder, Positions, possible
from bytelm.nn.hash_ngrams import HASH_PRIMES
from bytelm.patching import Entropy, Patcher, Space, Static
from bytelm.training import checkpoints
from bytelm.training.loading import load_model, load_seq2seq
from bytelm.vocab import BOE, BOS, BPE, EOS, OFFSET, VOCAB_SIZE
from conftest import as_array, byte_gpt, randomize_

EXACT = 1e-9
"""How far float64 may be off."""

LONGEST = 24

PATCHES = PatchEncoderConfig(dim=8, n_heads=2, ffn_dim=12, num_buckets=32, max_patch_bytes=5)

CONFIG = Seq2SeqConfig(
    max_bytes=LONGEST,
    dim=16,
    n_heads=2,
    n_layers_encoder=2,
    n_layers_decoder=2,
    ffn_dim_encoder=24,
    ffn_dim=20,
    positions="learned",
)

SPACE = Space(max_patch_bytes=5)

KINDS = {
    "baseline, learned": CONFIG,
    "baseline, rotary": dataclasses.replace(CONFIG, positions="rotary"),
    "patched, learned": dataclasses.replace(CONFIG, patches=PATCHES),
    "patched, rotary": dataclasses.replace(CONFIG, positions="rotary", patches=PATCHES),
    "two vectors, rotary": dataclasses.replace(
        CONFIG, positions="rotary", patches=dataclasses.replace(PATCHES, cross_attn_k=2)
    ),
    "three vectors, learned": dataclasses.replace(
        CONFIG,
        patches=dataclasses.replace(PATCHES, cross_attn_k=3, n_layers=2, ngram_sizes=(3, 1)),
    ),
    "plain patches, rotary, three heads": dataclasses.replace(
        CONFIG,
        dim=18,
        n_heads=3,
        positions="rotary",
        n_layers_encoder=0,
        patches=dataclasses.replace(PATCHES, n_layers=0, ngram_sizes=()),
    ),
}
each_kind = pytest.mark.parametrize("kind", KINDS)

INPUTS = [
    b"the cat sat",
    b"x",
    "caf\u00e9, 12.5% of it!".encode(),
    b"aaaaaaaaaaaaaaaaaaaaaaaa",
    bytes([0, 255, 10, 13, 0]),
]
"""Of one byte, of all bytes that fit, and between."""

TARGETS = [b"tas", b"yyyyyyyyyyyyyyyyyyyyyyyy", b"?", "\u00e9f".encode(), bytes([0, 255, 0, 10])]


def fresh(config: Seq2SeqConfig, patcher: Patcher | None = None) -> Seq2Seq:
    if config.patches is not None and patcher is None:
        patcher = SPACE
    torch.manual_seed(0)
    return Seq2Seq(config, patcher)


def random_model(config: Seq2SeqConfig, patcher: Patcher | None = None) -> Seq2Seq:
    """Random weights in float64."""
    model = fresh(config, patcher)
    randomize_(model)
    return model.double().eval()


@functools.cache
def model_of(kind: str) -> Seq2Seq:
    """Shared between tests: do not change it."""
    return random_model(KINDS[kind])


def source_of(model: Seq2Seq, inputs: Sequence[bytes]) -> Source:
    starts = None if model.patcher is None else model.patch_starts(inputs)
    return Source.of(inputs, starts)


def batch_of(model: Seq2Seq, rows: Sequence[int]) -> PairBatch:
    source = source_of(model, [INPUTS[row] for row in rows])
    return PairBatch.of(source, [TARGETS[row] for row in rows])


def logits_of(model: Seq2Seq, batch: PairBatch) -> Tensor:
    with torch.no_grad():
        return batch.logits(model)


def forward_log_probs(model: Seq2Seq, inputs: Sequence[bytes], ids: np.ndarray) -> np.ndarray:
    """Log-probabilities after the last of `ids`, int64 `[R, T]`, by the training forward."""
    with torch.no_grad():
        logits = model(source_of(model, inputs), torch.from_numpy(ids))
    return possible(logits[:, -1]).log_softmax(-1).numpy()


# Law 3: a row is alone.


@each_kind
def test_a_row_does_not_depend_on_its_mates_their_order_or_padding(kind: str) -> None:
    model = model_of(kind)
    alone = [logits_of(model, batch_of(model, [row]))[0] for row in range(len(INPUTS))]
    for order in ([0, 1, 2, 3, 4], [3, 0, 4, 2, 1], [1, 2], [4, 4, 0]):
        together = logits_of(model, batch_of(model, order))
        for row, own in zip(order, together, strict=True):
            length = len(TARGETS[row]) + 1
            torch.testing.assert_close(own[:length], alone[row], atol=EXACT, rtol=0)


@each_kind
def test_what_is_in_the_padding_changes_nothing(kind: str) -> None:
    model = model_of(kind)
    batch = batch_of(model, [0, 1, 2, 3, 4])
    source, expected = batch.source, logits_of(model, batch)
    padding = torch.arange(source.ids.shape[1]) >= source.lengths[:, None]
    other = Source(source.ids.masked_fill(padding, OFFSET + 7), source.lengths, source.starts)
    written = torch.where(batch.written == BOE, OFFSET + 9, batch.written)
    with torch.no_grad():
        got = model(other, written)
    scored = batch.targets >= 0
    torch.testing.assert_close(got[scored], expected[scored], atol=EXACT, rtol=0)


@each_kind
def test_patches_are_those_of_the_input_alone(kind: str) -> None:
    model = model_of(kind)
    together = model.patch_starts(INPUTS)
    for one, own in zip(INPUTS, together, strict=True):
        np.testing.assert_array_equal(own, model.patch_starts([one])[0])
        assert own.shape == (len(one),)
        assert own[0]
        assert own.all() or model.patcher is not None


def test_entropy_patches_are_cut_where_the_next_byte_is_hard_to_predict() -> None:
    """Oracle: the n-gram model's distributions, as sums over all bytes."""
    source = Ngram.fit(NgramConfig(order=2), [as_array(b"the cat sat on the mat; " * 4)])
    patcher = Entropy(threshold=1.0, max_patch_bytes=5)
    model = Seq2Seq(KINDS["patched, learned"], patcher, source)
    text = b"the mat sat on a"
    log_probs = source.predict(as_array(text), as_array(b""))[0].astype(np.float64)
    entropies = -(np.exp(log_probs) * log_probs).sum(1)
    expected, length = [True], 1
    for entropy in entropies[1 : len(text)]:
        expected.append(bool(entropy > 1.0) or length == 5)
        length = 1 if expected[-1] else length + 1
    assert 1 < sum(expected) < len(text)
    assert model.patch_starts([text])[0].tolist() == expected


# Law 4: step == forward.


@each_kind
def test_steps_with_caches_equal_the_forward_at_every_position(kind: str) -> None:
    model = model_of(kind)
    batch = batch_of(model, [0, 1, 2, 3, 4])
    with torch.no_grad():
        expected = possible(batch.logits(model)).log_softmax(-1).numpy()
    state = model.begin(model.read(INPUTS))
    # As many positions as there can be: the caches grow more than once.
    assert batch.written.shape[1] == LONGEST + 1
    for position, ids in enumerate(batch.written.T.numpy()):
        got = model.step(np.ascontiguousarray(ids), state)
        scored = batch.targets[:, position].numpy() >= 0
        np.testing.assert_allclose(got[scored], expected[scored, position], atol=EXACT, rtol=0)
        assert state.length == position + 1


@each_kind
@pytest.mark.parametrize("seed", range(2))
def test_rows_that_are_forked_dropped_and_reordered_go_on_as_themselves(
    kind: str, seed: int
) -> None:
    model, generator = model_of(kind), np.random.default_rng(seed)
    state = model.begin(model.read(INPUTS))
    inputs, ids = list(INPUTS), np.full((len(INPUTS), 1), BOS)
    for _ in range(LONGEST):
        got = model.step(np.ascontiguousarray(ids[:, -1]), state)
        np.testing.assert_allclose(got, forward_log_probs(model, inputs, ids), atol=EXACT, rtol=0)
        if generator.random() < 0.7:
            index = generator.integers(0, len(ids), generator.integers(1, 7))
            state.select(index)
            inputs, ids = [inputs[row] for row in index], ids[index]
        new = generator.integers(OFFSET, VOCAB_SIZE, (len(ids), 1))
        ids = np.concatenate((ids, new), axis=1)


@each_kind
def test_rows_may_be_forked_before_anything_is_written(kind: str) -> None:
    model, index = model_of(kind), np.array([4, 0, 0])
    state = model.begin(model.read(INPUTS))
    state.select(index)
    inputs, ids = [INPUTS[row] for row in index], np.full((3, 1), BOS)
    expected = forward_log_probs(model, inputs, ids)
    np.testing.assert_allclose(model.step(ids[:, 0], state), expected, atol=EXACT, rtol=0)


def test_two_outputs_of_one_memory_do_not_meet() -> None:
    model = model_of("patched, learned")
    memory = model.read(INPUTS[:2])
    first, second = model.begin(memory), model.begin(memory)
    bos = np.full(2, BOS)
    model.step(bos, first)
    first.select(np.array([1, 1, 0]))
    model.step(np.array([OFFSET, OFFSET + 1, OFFSET + 2]), first)
    expected = forward_log_probs(model, INPUTS[:2], bos[:, None])
    np.testing.assert_allclose(model.step(bos, second), expected, atol=EXACT, rtol=0)


# The decoder is causal; the encoder is not.


@each_kind
@pytest.mark.parametrize("position", [0, 1, 7, LONGEST - 1])
def test_later_target_bytes_change_no_earlier_logit(kind: str, position: int) -> None:
    model = model_of(kind)
    source = source_of(model, [INPUTS[0]])
    written = torch.tensor([[BOS, *range(OFFSET, OFFSET + LONGEST)]])
    other = written.clone()
    other[:, position + 1 :] += 100
    with torch.no_grad():
        before, after = model(source, written), model(source, other)
    end = position + 1
    torch.testing.assert_close(before[:, :end], after[:, :end], atol=EXACT, rtol=0)
    assert (before[:, end:] - after[:, end:]).abs().amin(0).amax(1).min() > EXACT


@each_kind
@pytest.mark.parametrize("position", [0, 3, 9])
def test_gradient_to_later_embeddings_is_zero(kind: str, position: int) -> None:
    model, embedded = random_model(KINDS[kind]), []

    def keep(_module: torch.nn.Module, _args: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    model.embed.register_forward_hook(keep)
    written = torch.tensor([[BOS, *range(OFFSET, OFFSET + 12)]])
    model(source_of(model, [INPUTS[0]]), written)[0, position].square().sum().backward()
    (grad,) = (output.grad[0] for output in embedded)
    assert (grad[position + 1 :] == 0).all()
    assert (grad[: position + 1] != 0).any(1).all()


def keys_of(memory: Memory) -> Tensor:
    """Keys of the first decoder layer, `[R, H, M, C]`."""
    return memory.layers[0].keys


@pytest.mark.parametrize("kind", [kind for kind in KINDS if "plain" not in kind])
def test_every_byte_of_the_input_reaches_all_of_the_memory(kind: str) -> None:
    """The patches stay where they are, so that only their content changes."""
    model, text = random_model(KINDS[kind]), INPUTS[0]
    starts = model.patch_starts([text])
    with torch.no_grad():
        before = keys_of(model._read(Source.of([text], starts)))
        for at in range(len(text)):
            other = text[:at] + b"#" + text[at + 1 :]
            after = keys_of(model._read(Source.of([other], starts)))
            assert (before - after).abs().amax((0, 1, 3)).min() > EXACT


# Patches.


@pytest.mark.parametrize("kind", [kind for kind in KINDS if KINDS[kind].patches])
def test_the_order_of_the_bytes_in_a_patch_is_kept(kind: str) -> None:
    """Also where neither positions nor n-grams nor layers could tell it."""
    model = random_model(KINDS[kind], Static(patch_size=4))
    text = b"abcdefghijk"
    before = keys_of(model.read([text]))
    for one, other in [(0, 1), (1, 2), (2, 3), (0, 3), (4, 6), (8, 10)]:
        swapped = bytearray(text)
        swapped[one], swapped[other] = swapped[other], swapped[one]
        after = keys_of(model.read([bytes(swapped)]))
        assert after.shape == before.shape
        patch = slice(one // 4 * model.config.patches.cross_attn_k, None)
        assert (before - after)[:, :, patch].abs().amax((0, 1, 3))[0] > 1e-3


patch_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=6)


def source_with(rows: Sequence[Sequence[int]], seed: int = 0) -> Source:
    """Random bytes in patches of these lengths."""
    generator = np.random.default_rng(seed)
    inputs = [generator.integers(0, 256, sum(row), np.uint8).tobytes() for row in rows]
    starts = [np.concatenate([np.arange(n) == 0 for n in row]) for row in rows]
    return Source.of(inputs, starts)


def positions_of(source: Source) -> Positions:
    at = torch.arange(source.ids.shape[1])
    mask = at < source.lengths[:, None]
    return Positions(at.expand(mask.shape), source.lengths, mask)


@given(rows=st.lists(patch_lengths, min_size=1, max_size=4), vectors=st.integers(1, 4))
def test_bytes_lie_where_a_plain_loop_puts_them(rows: list[list[int]], vectors: int) -> None:
    source = source_with(rows)
    layout = Layout.of(source, positions_of(source), max_patch_bytes=5)
    spread, most = layout.spread(vectors), max(map(len, rows))
    places = []
    assert layout.at.mask.shape == (len(rows), most)
    for row, lengths in enumerate(rows):
        begin = 0
        assert layout.at.mask[row].tolist() == [n < len(lengths) for n in range(most)]
        assert spread.mask[row].tolist() == [
            n < len(lengths) for n in range(most) for _ in range(vectors)
        ]
        for patch, length in enumerate(lengths):
            places += [(row * most + patch) * 5 + place for place in range(length)]
            last = begin + length - 1
            assert layout.first[row, patch] == begin
            assert layout.at.from_start[row, patch] == last
            assert layout.at.from_end[row, patch] == sum(lengths) - 1 - last
            own = spread.from_start[row, patch * vectors : (patch + 1) * vectors].tolist()
            if vectors == 1:
                assert own == [last]
            else:
                steps = range(vectors)
                assert own == [begin + (length - 1) * step // (vectors - 1) for step in steps]
            begin += length
    assert layout.places.tolist() == places


@pytest.mark.parametrize("positions", ["learned", "rotary"])
@settings(max_examples=15)
@given(rows=st.lists(patch_lengths, min_size=1, max_size=3), seed=st.integers(0, 99))
def test_patches_are_those_of_a_plain_loop(
    positions: str, rows: list[list[int]], seed: int
) -> None:
    """Embeddings and n-grams, left of a row id 0; then a projection of its own for each place."""
    own = dataclasses.replace(PATCHES, n_layers=0, ngram_sizes=(1, 3), num_buckets=32)
    config = dataclasses.replace(CONFIG, max_bytes=30, positions=positions, patches=own)
    encoder = random_model(config).encoder
    assert isinstance(encoder, PatchEncoder)
    source = source_with(rows, seed)
    with torch.no_grad():
        found = encoder(source, positions_of(source))
        for row, lengths in enumerate(rows):
            states, end = _local_states(encoder, source.ids[row, : sum(lengths)].tolist()), 0
            for patch, length in enumerate(lengths):
                padding = torch.zeros(5 - length, 8, dtype=torch.float64)
                joined = torch.cat((states[end : end + length], padding)).flatten()
                end += length
                expected = encoder.pool_proj.weight @ joined
                if positions == "learned":
                    from_start, from_end = (one.weight for one in encoder.patch_positions.embed)
                    expected = expected + from_start[end - 1] + from_end[sum(lengths) - end]
                torch.testing.assert_close(found.x[row, patch], expected, atol=EXACT, rtol=0)


def _local_states(encoder: PatchEncoder, ids: list[int]) -> Tensor:
    states, table = [], encoder.hash_ngrams.weight
    for at, byte in enumerate(ids):
        x = encoder.embed.weight[byte]
        for index, size in enumerate((1, 3)):
            gram = ([0] * size + ids[: at + 1])[-size:]
            bucket = sum(one * HASH_PRIMES[0] ** power for power, one in enumerate(gram))
            signed = (bucket + 2**63) % 2**64 - 2**63
            x = x + table[32 * index + signed % 32]
        if encoder.positions.embed:
            from_start, from_end = (one.weight for one in encoder.positions.embed)
            x = x + from_start[at] + from_end[len(ids) - 1 - at]
        states.append(x / (x.square().mean() + 1e-5).sqrt() * encoder.norm.weight)
    return torch.stack(states)


@pytest.mark.parametrize("longest", [1, 2, 5])
def test_no_patch_is_longer_than_it_may_be(longest: int) -> None:
    own = dataclasses.replace(PATCHES, max_patch_bytes=longest)
    model = fresh(dataclasses.replace(CONFIG, patches=own), Space(max_patch_bytes=longest))
    for one, starts in zip(INPUTS, model.patch_starts(INPUTS), strict=True):
        lengths = np.diff(np.append(np.flatnonzero(starts), len(one)))
        assert lengths.max() <= longest
    assert keys_of(model.read(INPUTS)).isfinite().all()


# Positions of the input.


def test_learned_positions_are_counted_from_both_ends() -> None:
    """Oracle: three table rows a byte."""
    model = random_model(dataclasses.replace(CONFIG, n_layers_encoder=0))
    tables = [model.encoder.embed, *model.encoder.positions.embed]
    byte, from_start, from_end = (table.weight for table in tables)
    text = b"abca"
    x = torch.stack(
        [byte[OFFSET + one] + from_start[at] + from_end[3 - at] for at, one in enumerate(text)]
    )
    memory, layer = model.read([text]), next(iter(model.decoder))
    expected = layer.cross.keys_values(model.memory_norm(x[None]))
    torch.testing.assert_close(keys_of(memory), expected.keys, atol=EXACT, rtol=0)


def test_rotary_heads_count_the_input_from_its_start_or_from_its_end() -> None:
    """What is put before moves no byte for one half of the heads, what is put behind for the
    other."""
    config = dataclasses.replace(CONFIG, n_heads=4, n_layers_encoder=0, positions="rotary")
    model = random_model(config)
    alone, behind, before = (keys_of(model.read([one]))[0] for one in (b"abc", b"xyabc", b"abcxy"))
    from_start, from_end = slice(0, 2), slice(2, 4)
    torch.testing.assert_close(before[from_start, :3], alone[from_start], atol=EXACT, rtol=0)
    torch.testing.assert_close(behind[from_end, 2:], alone[from_end], atol=EXACT, rtol=0)
    assert (before[from_end, :3] - alone[from_end]).abs().amax(2).min() > 1e-3
    assert (behind[from_start, 2:] - alone[from_start]).abs().amax(2).min() > 1e-3


@each_kind
def test_the_same_byte_is_another_one_elsewhere(kind: str) -> None:
    model = model_of(kind)
    ids = np.array([[BOS]])
    inputs = (b"ab", b"ba", b"aab", b"bba")
    log_probs = [forward_log_probs(model, [one], ids)[0, OFFSET:] for one in inputs]
    for one, other in itertools.combinations(log_probs, 2):
        assert np.abs(one - other).max() > 1e-4


# Limits and mistakes.


@pytest.mark.parametrize("text", [b"", b"a" * (LONGEST + 1)])
def test_an_input_that_is_empty_or_too_long_is_refused(text: bytes) -> None:
    model = model_of("patched, learned")
    message = (
        rf"expected inputs of 1 to {LONGEST} bytes \(model.max_bytes\), got one of {len(text)}"
    )
    with pytest.raises(ValueError, match=message):
        model.read([b"fine", text])


@pytest.mark.parametrize(
    ("config", "patcher", "message"),
    [
        (KINDS["patched, learned"], None, "with a table `patches` needs a patcher"),
        (CONFIG, SPACE, "without a table `patches` takes no patcher"),
        (KINDS["patched, learned"], Space(), r"not limited, expected at most .* \(5\): set"),
        (KINDS["patched, learned"], Static(patch_size=6), r"is 6, expected at most"),
        (KINDS["patched, learned"], Entropy(threshold=1.0), "'entropy' patcher needs an entropy"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    config: Seq2SeqConfig, patcher: Patcher | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Seq2Seq(config, patcher)


@pytest.mark.parametrize("config", [CONFIG, KINDS["patched, learned"]])
def test_an_entropy_model_that_nobody_asks_is_refused(config: Seq2SeqConfig) -> None:
    patcher = SPACE if config.patches else None
    with pytest.raises(ValueError, match="takes no entropy model"):
        Seq2Seq(config, patcher, Ngram(NgramConfig(order=1)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"max_bytes": 0}, "max_bytes"),
        ({"max_bytes": (1 << 16) + 1}, "max_bytes"),
        ({"dim": 0}, "dim"),
        ({"n_heads": 3}, "multiple of 2"),
        ({"n_layers_encoder": -1}, "n_layers_encoder"),
        ({"n_layers_decoder": 0}, "n_layers_decoder"),
        ({"n_layers_decoder": 1001}, "n_layers_decoder"),
        ({"rope_theta": math.inf}, "rope_theta"),
        ({"dropout": 1.0}, "dropout must be at least 0 and below 1, got 1.0"),
        ({"dropout": math.nan}, "dropout"),
        ({"positions": "rotary", "n_heads": 1}, "n_heads must be at least 2 with rotary"),
    ],
)
def test_sizes_out_of_range_are_refused_by_name(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dim": 6}, "multiple of 2"),
        ({"n_layers": -1}, "n_layers"),
        ({"ngram_sizes": (0,)}, "ngram_sizes"),
        ({"ngram_sizes": (65,)}, "ngram_sizes"),
        ({"num_buckets": 0}, "num_buckets"),
        ({"max_patch_bytes": 65}, "max_patch_bytes"),
        ({"cross_attn_k": 65}, "cross_attn_k"),
    ],
)
def test_patch_sizes_out_of_range_are_refused_by_name(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PATCHES, **changes)


# Output and training.


def test_only_bytes_and_the_end_are_possible() -> None:
    logits = torch.randn(3, 2, VOCAB_SIZE)
    before, got = logits.clone(), possible(logits)
    assert torch.equal(logits, before)
    assert torch.isinf(got).sum() == 3 * 2 * 3
    assert (got[..., [BOE, BOS, BPE]] == -torch.inf).all()
    kept = [EOS, *range(OFFSET, VOCAB_SIZE)]
    assert torch.equal(got[..., kept], logits[..., kept])


@each_kind
def test_a_fresh_model_finds_every_byte_and_the_end_as_likely(kind: str) -> None:
    model = fresh(KINDS[kind]).eval()
    state = model.begin(model.read(INPUTS))
    for ids in (np.full(5, BOS), np.arange(OFFSET, OFFSET + 5)):
        log_probs = model.step(ids, state)
        assert log_probs.shape == (5, VOCAB_SIZE)
        assert log_probs.dtype == np.float32
        assert np.isneginf(log_probs[:, [BOE, BOS, BPE]]).all()
        kept = [EOS, *range(OFFSET, VOCAB_SIZE)]
        np.testing.assert_allclose(log_probs[:, kept], -math.log(257), rtol=1e-6)


def test_steps_are_normalized() -> None:
    model = model_of("baseline, learned")
    log_probs = model.step(np.full(5, BOS), model.begin(model.read(INPUTS)))
    np.testing.assert_allclose(np.exp(log_probs).sum(1), 1, atol=EXACT)


@each_kind
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = random_model(KINDS[kind]).train()
    batch = batch_of(model, [0, 2, 3])
    loss = torch.nn.functional.cross_entropy(
        batch.logits(model).flatten(0, 1), batch.targets.flatten(), ignore_index=-100
    )
    loss.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad.to_dense()
        assert grad.isfinite().all(), name
        # A table has rows that nobody looked up; a matrix has no such rows.
        is_table = "embed" in name or "hash" in name
        seen = grad.abs().sum() > 0 if is_table else (grad.abs() > 0).float().mean() > 0.9
        assert seen, name


def test_dropout_is_of_training_alone() -> None:
    config = dataclasses.replace(KINDS["patched, learned"], dropout=0.5)
    model = random_model(config)
    batch = batch_of(model, [0, 2])
    expected = logits_of(random_model(KINDS["patched, learned"]), batch)
    assert torch.equal(logits_of(model, batch), expected)
    model.train()
    torch.manual_seed(1)
    first, second = logits_of(model, batch), logits_of(model, batch)
    assert (first - second).abs().max() > 1e-3


# Law 8: stored and loaded.


def stored_kinds() -> list[Seq2Seq]:
    source = Ngram.fit(NgramConfig(order=2), [as_array(b" ".join(INPUTS))])
    entropy = Seq2Seq(KINDS["patched, rotary"], Entropy(threshold=2.5, max_patch_bytes=4), source)
    found = [fresh(config) for config in KINDS.values()]
    for model in (*found, entropy):
        randomize_(model)
    return [*found, entropy]


@pytest.mark.parametrize("index", range(len(KINDS) + 1))
def test_a_model_comes_back_from_json_and_from_a_checkpoint(tmp_path: Path, index: int) -> None:
    model = stored_kinds()[index].eval()
    definition = models.definition(model)
    rebuilt = models.from_definition(json.loads(json.dumps(definition)))
    assert isinstance(rebuilt, Seq2Seq)
    assert (rebuilt.config, rebuilt.patcher) == (model.config, model.patcher)
    loaded = load_seq2seq(saved(tmp_path, model, definition))
    assert not loaded.training
    ids = np.full(len(INPUTS), BOS)
    for one, other in zip(model.patch_starts(INPUTS), loaded.patch_starts(INPUTS), strict=True):
        np.testing.assert_array_equal(one, other)
    expected = model.step(ids, model.begin(model.read(INPUTS)))
    np.testing.assert_array_equal(loaded.step(ids, loaded.begin(loaded.read(INPUTS))), expected)


def saved(folder: Path, model: torch.nn.Module, definition: dict[str, Any]) -> Path:
    return checkpoints.save(
        folder,
        step=1,
        definition=definition,
        model=model.state_dict(),
        optimizer={},
        state={},
    )


def test_a_model_of_the_other_kind_is_refused_with_the_verb_that_asks_it(tmp_path: Path) -> None:
    model, other = fresh(CONFIG), byte_gpt(False, window=16)
    ours = saved(tmp_path / "ours", model, models.definition(model))
    theirs = saved(tmp_path / "theirs", other, models.definition(other))
    with pytest.raises(CheckpointError, match=f"'seq2seq', which maps .*bytelm chat {ours}"):
        load_model(ours)
    with pytest.raises(CheckpointError, match=f"'byte-gpt', expected .*bytelm generate {theirs}"):
        load_seq2seq(theirs)


@pytest.mark.parametrize(
    ("table", "changes", "message"),
    [
        ("model", {"dim": 1 << 20}, "defines a model of"),
        ("model", {"dim": 2**31 - 4}, "does not define a model|defines a model of"),
        ("model", {"max_bytes": 1 << 16}, "defines a model of"),
        ("model", {"n_layers_encoder": 100}, "defines a model of"),
        ("model", {"n_layers_encoder": 10**9}, "n_layers_encoder"),
        ("model", {"positions": "none"}, "positions"),
        ("model", {"surprise": 1}, "surprise"),
        ("patches", {"num_buckets": 2**31 - 1}, "does not define a model|defines a model of"),
        ("patches", {"max_patch_bytes": 10**6}, "max_patch_bytes"),
        ("patches", {"max_patch_bytes": 3}, "longest patch"),
        ("patcher", {"max_patch_bytes": None}, "not limited"),
        ("patcher", {"kind": "entropy", "threshold": 1.0}, "needs an entropy model"),
    ],
)
def test_a_hostile_definition_is_refused_before_memory_is_asked_for(
    tmp_path: Path, table: str, changes: dict[str, Any], message: str
) -> None:
    model = fresh(KINDS["patched, learned"])
    definition = models.definition(model)
    tables = {**definition, "patches": definition["model"]["patches"]}
    tables[table] |= changes
    folder = saved(tmp_path, model, definition)
    with pytest.raises(BytelmError, match=message):
        load_seq2seq(folder)
