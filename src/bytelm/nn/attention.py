"""Causal self-attention with an optional sliding window, in blocks.

A window of W means that a query sees itself and the W - 1 positions before it. Windows are
computed tile by tile or block by block, so time and memory are linear in the number of positions.
Shape key: N packed positions, B rows, T new positions, S positions seen, H heads, G key/value
heads, K head width.
"""

from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn.linear import Linear, cast_for_products
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rope import rotate
from bytelm.nn.rows import Rows
from bytelm.nn.tiled_attention import TILE, tiled_attention


@runtime_checkable
class LayerMemory(Protocol):
    """Where a layer stores keys and values between pieces of its rows (`kv_cache.LayerCache`)."""

    def attend(self, rows: Rows, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the new keys and values; attend from the new positions."""
        ...


class Attention(nn.Module):
    """Multi-head causal self-attention without biases."""

    def __init__(
        self,
        dim: int,
        *,
        n_heads: int,
        n_kv_heads: int,
        head_dim: int,
        window: int | None,
        rope_theta: float,
        qk_norm: bool = False,
    ) -> None:
        super().__init__()
        self.n_heads, self.n_kv_heads, self.head_dim = n_heads, n_kv_heads, head_dim
        self.window, self.rope_theta = window, rope_theta
        self.q_norm = RMSNorm(head_dim) if qk_norm else None
        self.k_norm = RMSNorm(head_dim) if qk_norm else None
        self.q_proj = Linear(dim, n_heads * head_dim)
        self.k_proj = Linear(dim, n_kv_heads * head_dim)
        self.v_proj = Linear(dim, n_kv_heads * head_dim)
        self.o_proj = Linear(n_heads * head_dim, dim)

    def forward(
        self, x: Float[Tensor, "N D"], rows: Rows, memory: LayerMemory | None = None
    ) -> Float[Tensor, "N D"]:
        """Attend within each row and, with a memory, to what the row had before."""
        x = cast_for_products(x)
        q = self.q_proj(x).view(-1, self.n_heads, self.head_dim)
        k = self.k_proj(x).view(-1, self.n_kv_heads, self.head_dim)
        v = self.v_proj(x).view(-1, self.n_kv_heads, self.head_dim)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        turns = rows.turns(self.head_dim, self.rope_theta, q)
        q, k = rotate(q, turns), rotate(k, turns)
        if memory is not None:
            mixed = memory.attend(rows, q, k, v)
        else:
            q, k, v = (rows.padded(part).transpose(1, 2) for part in (q, k, v))
            mixed = rows.packed(causal_attention(q, k, v, window=self.window).transpose(1, 2))
        return self.o_proj(mixed.reshape(len(x), -1))


def causal_attention(
    q: Float[Tensor, "B H T K"],
    k: Float[Tensor, "B G S K"],
    v: Float[Tensor, "B G S K"],
    *,
    window: int | None,
) -> Float[Tensor, "B H T K"]:
    """Attend from the last T of S positions, each to itself and the `window - 1` before it."""
    queries, total = q.shape[2], k.shape[2]
    grouped = q.shape[1] != k.shape[1]
    if queries == 1 and (window is None or total <= window):
        # The heads of a group ask the same keys: they stand where several queries would.
        return F.scaled_dot_product_attention(q.reshape(*k.shape[:2], -1, k.shape[3]), k, v).view(
            q.shape
        )
    if grouped:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    if window is not None and queries > window and (window <= TILE or not q.is_cpu):
        return _blocked_attention(q, k, v, window)
    if q.is_cpu and (window is not None or queries < total or q.dtype == torch.bfloat16):
        return tiled_attention(q, k, v, window=window)
    if queries == total and (window is None or total <= window):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    return _masked_attention(q, k, v, _band(queries, total, window, q.device))


def _masked_attention(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Attention under a mask; on a CPU as matrix products, faster than SDPA for small blocks."""
    if not q.is_cpu:
        return F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    bias = torch.zeros(mask.shape, dtype=q.dtype).masked_fill(~mask, -torch.inf)
    scores = (q * q.shape[-1] ** -0.5) @ k.mT
    return (scores + bias).softmax(-1) @ v


def _band(queries: int, keys: int, window: int | None, device: torch.device) -> Tensor:
    """Mask `[queries, keys]`: the last query is at the last key, true where a query may look."""
    distance = (
        torch.arange(keys - queries, keys, device=device)[:, None]
        - torch.arange(keys, device=device)[None, :]
    )
    band = distance >= 0
    return band if window is None else band & (distance < window)


def _blocked_attention(q: Tensor, k: Tensor, v: Tensor, window: int) -> Tensor:
    """Windowed attention as blocks of `window` queries over two blocks of keys."""
    rows, heads, queries, width = q.shape
    blocks = -(-queries // window)
    history = k.shape[2] - queries
    tail = blocks * window - queries
    # The first block sees one block of keys before it: cached ones where there are any.
    head = window - history
    k = F.pad(k, (0, 0, max(head, 0), tail))[:, :, max(-head, 0) :]
    v = F.pad(v, (0, 0, max(head, 0), tail))[:, :, max(-head, 0) :]
    q = F.pad(q, (0, 0, 0, tail))
    fold = (rows, heads, blocks, window, width)

    def pairs(x: Tensor) -> Tensor:
        older, newer = x[:, :, :-window].reshape(fold), x[:, :, window:].reshape(fold)
        return torch.cat((older, newer), dim=3)

    mask = _band(window, 2 * window, window, q.device).repeat(blocks, 1, 1)
    if head > 0:
        mask[0, :, :head] = False
    out = _masked_attention(q.reshape(fold), pairs(k), pairs(v), mask)
    return out.reshape(rows, heads, blocks * window, width)[:, :, :queries]
