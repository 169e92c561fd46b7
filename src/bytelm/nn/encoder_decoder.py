"""Layers that see a whole sequence, and layers that write one while they look at another.

Pre-norm, RMSNorm, SwiGLU, no biases, as in `transformer.py`; the order of a decoder layer is that
of Vaswani et al. 2017 (arXiv:1706.03762), section 3.1: itself, the memory, feed-forward.
Shape key: B rows, T positions of a row, M positions of the memory, D width, H heads, C head width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor, nn

from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rope import rotate
from bytelm.nn.transformer import SwiGLU

Turns = Sequence[Complex[Tensor, "N F"]]
"""Rotary positions: each of as many equal groups of heads is turned by its own; none: no turn."""


@dataclass(frozen=True)
class KeysValues:
    """What positions show to those that attend to them."""

    keys: Float[Tensor, "B H M C"]
    values: Float[Tensor, "B H M C"]


@dataclass(frozen=True)
class DecoderTurns:
    """Rotary positions of what a decoder layer asks."""

    own: Turns = ()
    """Of the positions that are written, for queries and keys."""
    cross: Turns = ()
    """Of the queries to the memory, whose keys were turned when it was made."""


@dataclass(frozen=True)
class Groups:
    """Rows that share what they look at: where each stands in a rectangle of groups."""

    cells: Int[Tensor, " Q"]
    """int64; group times `widest`, plus the place in the group; different for each row."""
    widest: int
    """Rows of the largest group."""


class HeadAttention(nn.Module):
    """Multi-head attention whose mask is the caller's."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_proj, self.k_proj = Linear(dim, dim), Linear(dim, dim)
        self.v_proj, self.o_proj = Linear(dim, dim), Linear(dim, dim)

    def keys_values(self, x: Float[Tensor, "B M D"], turns: Turns = ()) -> KeysValues:
        """What `x` shows."""
        return KeysValues(self._heads(self.k_proj(x), turns), self._heads(self.v_proj(x)))

    def queries(self, x: Float[Tensor, "B T D"], turns: Turns = ()) -> Float[Tensor, "B H T C"]:
        """What `x` asks."""
        return self._heads(self.q_proj(x), turns)

    def mix(
        self,
        queries: Float[Tensor, "B H T C"],
        seen: KeysValues,
        *,
        mask: Bool[Tensor, "B 1 1 M"] | None = None,
        is_causal: bool = False,
    ) -> Float[Tensor, "B T D"]:
        """Attend; a false `mask` hides a position, `is_causal` those after one's own."""
        mixed = F.scaled_dot_product_attention(
            queries, seen.keys, seen.values, attn_mask=mask, is_causal=is_causal
        )
        return self.o_proj(mixed.transpose(1, 2).flatten(2))

    def mix_by_group(
        self,
        queries: Float[Tensor, "Q H 1 C"],
        seen: KeysValues,
        *,
        mask: Bool[Tensor, "B 1 1 M"],
        groups: Groups,
    ) -> Float[Tensor, "Q 1 D"]:
        """The same for rows of which several look at the same positions, which are held once."""
        rows, heads, _, width = queries.shape
        cells = queries.new_zeros(len(seen.keys) * groups.widest, heads, width)
        cells = cells.index_copy(0, groups.cells, queries[:, :, 0])
        asked = cells.view(len(seen.keys), groups.widest, heads, width).transpose(1, 2)
        mixed = F.scaled_dot_product_attention(asked, seen.keys, seen.values, attn_mask=mask)
        own = mixed.transpose(1, 2).flatten(0, 1).index_select(0, groups.cells)
        return self.o_proj(own.reshape(rows, 1, -1))

    def _heads(self, x: Float[Tensor, "B T D"], turns: Turns = ()) -> Float[Tensor, "B H T C"]:
        heads = x.unflatten(2, (self.n_heads, -1))
        if turns:
            groups = heads.flatten(0, 1).chunk(len(turns), dim=1)
            turned = [rotate(group, turn) for group, turn in zip(groups, turns, strict=True)]
            heads = torch.cat(turned, dim=1).view(heads.shape)
        return heads.transpose(1, 2)


class EncoderLayer(nn.Module):
    """`x + attention(norm x)` over the whole row, then `x + feed-forward(norm x)`."""

    def __init__(self, dim: int, *, n_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(dim), HeadAttention(dim, n_heads)
        self.ffn_norm, self.ffn = RMSNorm(dim), SwiGLU(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x: Float[Tensor, "B T D"], mask: Bool[Tensor, "B 1 1 T"], turns: Turns = ()
    ) -> Float[Tensor, "B T D"]:
        """Both residual branches; a false `mask` hides padding."""
        normed = self.attention_norm(x)
        seen = self.attention.keys_values(normed, turns)
        mixed = self.attention.mix(self.attention.queries(normed, turns), seen, mask=mask)
        x = x + self.dropout(mixed)
        return x + self.dropout(_positionwise(self.ffn, self.ffn_norm(x)))


class DecoderLayer(nn.Module):
    """Attend to what is written, then to the memory, then feed-forward; each a residual branch."""

    def __init__(self, dim: int, *, n_heads: int, ffn_dim: int, dropout: float) -> None:
        super().__init__()
        self.attention_norm, self.attention = RMSNorm(dim), HeadAttention(dim, n_heads)
        self.cross_norm, self.cross = RMSNorm(dim), HeadAttention(dim, n_heads)
        self.ffn_norm, self.ffn = RMSNorm(dim), SwiGLU(dim, ffn_dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        memory: KeysValues,
        mask: Bool[Tensor, "B 1 1 M"],
        turns: DecoderTurns,
    ) -> Float[Tensor, "B T D"]:
        """All positions of a row at once, each from those up to itself."""
        normed = self.attention_norm(x)
        seen = self.attention.keys_values(normed, turns.own)
        queries = self.attention.queries(normed, turns.own)
        mixed = self.attention.mix(queries, seen, is_causal=True)
        x = x + self.dropout(mixed)
        queries = self.cross.queries(self.cross_norm(x), turns.cross)
        x = x + self.dropout(self.cross.mix(queries, memory, mask=mask))
        return x + self.dropout(_positionwise(self.ffn, self.ffn_norm(x)))

    def step(
        self,
        x: Float[Tensor, "Q 1 D"],
        cache: KeysValues,
        memory: KeysValues,
        mask: Bool[Tensor, "B 1 1 M"],
        groups: Groups,
        turns: DecoderTurns,
    ) -> Float[Tensor, "Q 1 D"]:
        """One position more; its keys and values become the last of `cache`, which has room."""
        normed = self.attention_norm(x)
        new = self.attention.keys_values(normed, turns.own)
        cache.keys[:, :, -1:], cache.values[:, :, -1:] = new.keys, new.values
        mixed = self.attention.mix(self.attention.queries(normed, turns.own), cache)
        x = x + mixed
        queries = self.cross.queries(self.cross_norm(x), turns.cross)
        x = x + self.cross.mix_by_group(queries, memory, mask=mask, groups=groups)
        return x + _positionwise(self.ffn, self.ffn_norm(x))


def _positionwise(ffn: SwiGLU, x: Float[Tensor, "B T D"]) -> Float[Tensor, "B T D"]:
    return torch.unflatten(ffn(x.flatten(0, 1)), 0, x.shape[:2])
