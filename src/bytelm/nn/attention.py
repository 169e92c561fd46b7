"""Causal self-attention with an optional sliding window, in blocks, with a cache.

A window of W means that a query sees itself and the W - 1 positions before it. Windows are
computed block by block (each block of W queries sees two blocks of keys), so time and memory are
linear in the number of positions.
Shape key: B rows, T new positions, S cached positions, H heads, G key/value heads, K head width.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from bytelm.nn.norm import RMSNorm
from bytelm.nn.rope import rotate, rotations

SHORT = 256
"""Up to this many positions, bfloat16 on a CPU is 1.5 times faster without SDPA."""


@dataclass
class KVCache:
    """Keys and values of the positions already read, and how many were read in all."""

    position: int = 0
    keys: Tensor | None = None
    values: Tensor | None = None

    def append(self, keys: Tensor, values: Tensor, window: int | None) -> tuple[Tensor, Tensor]:
        """All keys and values the new queries may see; keeps what later queries may still see."""
        if self.keys is not None and self.values is not None:
            keys = torch.cat((self.keys, keys), dim=2)
            values = torch.cat((self.values, values), dim=2)
        keep = 0 if window is None else max(0, keys.shape[2] - (window - 1))
        self.keys, self.values = keys[:, :, keep:], values[:, :, keep:]
        return keys, values


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
        self.q_proj = nn.Linear(dim, n_heads * head_dim, bias=False)
        self.k_proj = nn.Linear(dim, n_kv_heads * head_dim, bias=False)
        self.v_proj = nn.Linear(dim, n_kv_heads * head_dim, bias=False)
        self.o_proj = nn.Linear(n_heads * head_dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "B T D"], *, cache: KVCache | None = None
    ) -> Float[Tensor, "B T D"]:
        """Attend to the positions of `x` and, with a cache, to those read before them."""
        rows, length, _ = x.shape
        start = 0 if cache is None else cache.position
        q = self.q_proj(x).view(rows, length, self.n_heads, self.head_dim).transpose(1, 2)
        k = self.k_proj(x).view(rows, length, self.n_kv_heads, self.head_dim).transpose(1, 2)
        v = self.v_proj(x).view(rows, length, self.n_kv_heads, self.head_dim).transpose(1, 2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype)
        turns = rotations(start, length, self.head_dim, self.rope_theta, q)
        q, k = rotate(q, turns), rotate(k, turns)
        if cache is not None:
            k, v = cache.append(k, v, self.window)
            cache.position += length
        out = causal_attention(q, k, v, window=self.window)
        return self.o_proj(out.transpose(1, 2).reshape(rows, length, -1))


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
    if queries == total and (window is None or total <= window):
        if q.is_cpu and q.dtype == torch.bfloat16 and not grouped and total <= SHORT:
            return _masked_attention(q, k, v, _band(queries, total, None, q.device))
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=grouped)
    if grouped:
        k = k.repeat_interleave(q.shape[1] // k.shape[1], dim=1)
        v = v.repeat_interleave(q.shape[1] // v.shape[1], dim=1)
    if window is None or queries <= window:
        return _masked_attention(q, k, v, _band(queries, total, window, q.device))
    return _blocked_attention(q, k, v, window)


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
