"""Oracles: the one-page forward of the released model written out densely, and counts by hand."""

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.models import BLT, BLTConfig
from bytelm.models.blt import CrossAttention
from bytelm.nn.attention import Attention
from bytelm.nn.hash_ngrams import HASH_PRIMES
from bytelm.nn.transformer import TransformerLayer
from bytelm.patching import Entropy, Space, Static
from conftest import TEXT, as_ids, blt, entropy_lm, entropy_patcher, randomize_


def rms(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight


def turned(x: Tensor, theta: float) -> Tensor:
    """Rotary positions pair by pair, x [T, K]."""
    out = torch.empty_like(x)
    for position in range(x.shape[0]):
        for pair in range(x.shape[1] // 2):
            angle = torch.tensor(position * theta ** (-2 * pair / x.shape[1]), dtype=x.dtype)
            a, b = x[position, 2 * pair], x[position, 2 * pair + 1]
            out[position, 2 * pair] = a * angle.cos() - b * angle.sin()
            out[position, 2 * pair + 1] = a * angle.sin() + b * angle.cos()
    return out


def split_heads(
    module: Attention | CrossAttention, asking: Tensor, asked: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Queries, keys and values [n, C] of each head; those of a group ask the same keys."""
    width = module.q_proj.weight.shape[0] // module.n_heads
    for head in range(module.n_heads):
        group = head * module.n_kv_heads // module.n_heads
        own, shared = (slice(n * width, (n + 1) * width) for n in (head, group))
        yield (
            asking @ module.q_proj.weight[own].T,
            asked @ module.k_proj.weight[shared].T,
            asked @ module.v_proj.weight[shared].T,
        )


def dense_layer(layer: TransformerLayer, x: Tensor, window: int | None, theta: float) -> Tensor:
    attention, ffn = layer.attention, layer.ffn
    h = rms(x, layer.attention_norm.weight)
    heads = []
    for q, k, v in split_heads(attention, h, h):
        scores = turned(q, theta) @ turned(k, theta).T / q.shape[1] ** 0.5
        for i in range(len(x)):
            for j in range(len(x)):
                if j > i or (window is not None and j <= i - window):
                    scores[i, j] = -torch.inf
        heads.append(scores.softmax(-1) @ v)
    x = x + torch.cat(heads, -1) @ attention.o_proj.weight.T
    h = rms(x, layer.ffn_norm.weight)
    gated = F.silu(h @ ffn.gate_proj.weight.T) * (h @ ffn.up_proj.weight.T)
    return x + gated @ ffn.down_proj.weight.T


def dense_cross(cross: CrossAttention, x: Tensor, kv: Tensor, mask: Tensor) -> Tensor:
    heads = []
    for qh, kh, vh in split_heads(
        cross, rms(x, cross.q_norm.weight), rms(kv, cross.kv_norm.weight)
    ):
        scores = (qh @ kh.T / qh.shape[1] ** 0.5).masked_fill(~mask, -torch.inf)
        heads.append(scores.softmax(-1) @ vh)
    return 2 * x + torch.cat(heads, -1) @ cross.o_proj.weight.T


def plain_hash(ids: Tensor, size: int, prime: int, buckets: int) -> Tensor:
    """Of the n-gram that ends at each id [T]; torch's int64 wraps around."""
    padded, total = F.pad(ids, (size - 1, 0)), torch.zeros_like(ids)
    for offset in reversed(range(size)):
        total = total * prime + padded[offset : offset + len(ids)]
    return total.remainder(buckets)


def dense_forward(model: BLT, ids: Tensor, starts: Tensor) -> Tensor:
    """Appendix A of the notes on the released model: masks and loops, one row, no caches."""
    config = model.config
    enc = starts[:-1].long().cumsum(0) - 1
    dec = starts.long().cumsum(0)[1:] - 2
    k, count = config.cross_attn_k, int(enc.max()) + 1
    x = model.embed.weight[ids]
    if model.hash_ngrams is not None:
        pairs = itertools.product(HASH_PRIMES[: config.num_hash_functions], config.ngram_sizes)
        for table, (prime, size) in enumerate(pairs):
            buckets = plain_hash(ids, size, prime, config.num_buckets)
            x = x + model.hash_ngrams.weight[table * config.num_buckets + buckets]
    for layer in model.encoder:
        x = dense_layer(layer, x, config.window, config.rope_theta)
    pooled = torch.stack([x[enc == patch].amax(0) for patch in range(count)])
    queries = (pooled @ model.pool_proj.weight.T).view(count * k, config.dim)
    patch_of_query = torch.arange(count).repeat_interleave(k)
    z = dense_cross(model.encoder_cross, queries, x, patch_of_query[:, None] == enc)
    z = model.global_in(z.view(count, k * config.dim))
    for layer in model.global_layers:
        z = dense_layer(layer, z, None, config.rope_theta)
    y = model.global_out(z).view(count * k, config.dim)
    for layer in model.decoder:
        if layer.cross is not None:
            x = dense_cross(layer.cross, x, y, dec[:, None] == patch_of_query)
        x = dense_layer(layer.local, x, config.window, config.rope_theta)
    return rms(x, model.norm.weight) @ model.head.weight.T


VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "grouped": {"n_heads": 4, "n_kv_heads": 2, "n_heads_global": 6, "n_kv_heads_global": 2},
    "own-decoder": {"n_heads_decoder": 8, "n_kv_heads_decoder": 2, "ffn_dim_decoder": 20},
    "first-layer-crosses": {"cross_attention_every_layer": False, "num_hash_functions": 2},
    "no-global-in": {"dim_global": 16, "n_heads_global": 4, "cross_attn_k": 1, "ngram_sizes": ()},
    "four-vectors": {"cross_attn_k": 4, "n_heads": 8, "n_kv_heads": 1},
}


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("patch_size", [1, 3, 50])
def test_equals_the_dense_forward(patch_size: int, variant: str) -> None:
    like = blt(False, Static(patch_size=patch_size), None)
    model = BLT(dataclasses.replace(like.config, **VARIANTS[variant]), like.patcher).double()
    randomize_(model)
    ids = as_ids(TEXT[60:90])
    starts = model.patch(ids)
    with torch.no_grad():
        got = model(ids, starts)
        expected = dense_forward(model, ids[0], starts[0])
    torch.testing.assert_close(got[0], expected, atol=1e-12, rtol=1e-12)


def test_released_boundary_rule() -> None:
    """Ids 0 and 1 start patches, then id i + 1 where the entropy after id i is above theta."""
    source = entropy_lm(True)
    patcher = entropy_patcher(source)
    ids = as_ids(TEXT)
    above = source.entropies(ids)[:, 1:] > patcher.threshold
    expected = torch.cat((torch.ones(1, 2, dtype=torch.bool), above), dim=1)
    assert blt(False, patcher, source).patch(ids).equal(expected)
    assert 0 < above.sum() < above.numel()


def test_every_parameter_learns() -> None:
    model = blt(False, Space(), None).train()
    model(as_ids(TEXT[:60])).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        grad = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
        assert grad.abs().sum() > 0, name


def test_a_fresh_model_predicts_uniformly() -> None:
    model = BLT(BLTConfig(num_buckets=64), Space())
    assert (model(as_ids(b"abc")) == 0).all()


def test_patcher_and_entropy_model_belong_together() -> None:
    with pytest.raises(ValueError, match="'entropy' patcher needs an entropy model"):
        BLT(BLTConfig(num_buckets=64), Entropy(threshold=1.0))
    with pytest.raises(ValueError, match="multiple of 2 \\* n_heads"):
        BLTConfig(dim=30, n_heads=4)
