"""Causal attention in tiles of queries: no matrix of all scores, forward or backward.

The softmax of a tile stays in the processor's cache; the backward pass computes it again from
queries and keys, which are all that is kept (the idea of FlashAttention, Dao et al. 2022,
arXiv:2205.14135). On a CPU this is faster than torch's fused kernel, which has no window either
(`benchmarks/kernels.py`).
Shape key: G rows times heads, T new positions, S positions seen, K head width.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 64
"""Queries in a tile (measured: 32 to 128 are much the same, 256 is slower)."""


def tiled_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B H S K"],
    v: Float[Tensor, "B H S K"],
    *,
    window: int | None,
) -> Float[Tensor, "B H T K"]:
    """Attend from the last T of S positions, each to itself and the `window - 1` before it."""
    scaled = (q * q.shape[-1] ** -0.5).flatten(0, 1)
    return _Tiled.apply(scaled, k.flatten(0, 1), v.flatten(0, 1), window).view(q.shape)


@dataclass(frozen=True)
class _Tile:
    """Queries [begin, end), the keys [first, last) that any of them sees, and who does not see."""

    begin: int
    end: int
    first: int
    last: int
    past: int
    """So many of the first keys lie before the window of some query."""

    def scores(self, q: Tensor, k: Tensor) -> Tensor:
        """Scores `[G, queries, keys]`, minus infinity where a query may not look."""
        scores = torch.bmm(q[:, self.begin : self.end], k[:, self.first : self.last].mT)
        size = self.end - self.begin
        future, past = _corners(scores.dtype, scores.device)
        scores[:, :, scores.shape[2] - size :] += future[:size, :size]
        if self.past:
            scores[:, :, : self.past] += past[:size, size - self.past : size]
        return scores


def _tiles(queries: int, keys: int, window: int | None) -> Iterator[_Tile]:
    before = keys - queries
    for begin in range(0, queries, TILE):
        end = min(begin + TILE, queries)
        start = 0 if window is None else before + begin - window + 1
        past = 0 if window is None else max(0, end - begin + min(start, 0))
        yield _Tile(begin, end, max(start, 0), before + end, past)


@functools.lru_cache(maxsize=8)
def _corners(dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    """What to add to the scores of a tile's last keys, and of its first."""
    with torch.inference_mode(False):
        hidden = torch.full((TILE, TILE), -torch.inf, dtype=dtype, device=device)
        return hidden.triu(1), hidden.tril(-1)


class _Tiled(torch.autograd.Function):
    """Attention of `[G, T, K]` queries, which are scaled already."""

    @staticmethod
    def forward(ctx, q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
        ctx.save_for_backward(q, k, v)
        ctx.window = window
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for tile in _tiles(q.shape[1], k.shape[1], window):
            weights = tile.scores(q, k).softmax(-1)
            out[:, tile.begin : tile.end] = torch.bmm(weights, v[:, tile.first : tile.last])
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        q, k, v = ctx.saved_tensors
        exact = torch.promote_types(q.dtype, torch.float32)
        grad_q, grad_k, grad_v = (torch.zeros(x.shape, dtype=exact) for x in (q, k, v))
        for tile in _tiles(q.shape[1], k.shape[1], ctx.window):
            queries, keys = slice(tile.begin, tile.end), slice(tile.first, tile.last)
            weights, own = tile.scores(q, k).softmax(-1), grad[:, queries]
            grad_v[:, keys] += torch.bmm(weights.mT, own)
            grad_weights = torch.bmm(own, v[:, keys].mT)
            grad_scores = torch.ops.aten._softmax_backward_data(grad_weights, weights, -1, q.dtype)
            grad_q[:, queries] = torch.bmm(grad_scores, k[:, keys])
            grad_k[:, keys] += torch.bmm(grad_scores.mT, q[:, queries])
        return grad_q.to(q.dtype), grad_k.to(q.dtype), grad_v.to(q.dtype), None
