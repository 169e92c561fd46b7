"""The neural models again, for few new bytes, in NumPy on a CPU.

What `read` computes of one id of each of some rows, or of a short piece of one row, computed by
`nn/steps.py` on the same weights and the same state: 2.5 times faster for one byte of one row
(docs/LOG.md). A stepper is made for a model and a state; reading with torch and stepping may
alternate.
Shape key: B rows, n bytes of one row, D width, P patches that close, K vectors of a patch,
H heads, G key/value heads, C head width, V vocabulary.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bytelm.models.blt import BLT, BLTState, CrossAttention
from bytelm.models.byte_gpt import ByteGPT, ByteGPTLayer, SquaredReLU
from bytelm.models.entropy_lm import EntropyLM
from bytelm.models.state import StackState
from bytelm.nn.hash_ngrams import HashNgrams, IdHistory
from bytelm.nn.kv_cache import SLACK, Cache
from bytelm.nn.steps import (
    MAX_ROWS,
    Array,
    LayerStep,
    PerPosition,
    array,
    can_step,
    head,
    product,
    rms_norm,
    softmax,
    swiglu,
)
from bytelm.nn.transformer import SwiGLU, TransformerLayer

MAX_PIECE = SLACK
"""Longest piece of one row, bytes."""


def squared_relu(module: SquaredReLU) -> PerPosition:
    """`SquaredReLU` in NumPy."""
    up, down = array(module.up_proj.weight), array(module.down_proj.weight)
    return lambda x: product(np.square(np.maximum(product(x, up), 0)), down)


def _layer_step(layer: TransformerLayer | ByteGPTLayer) -> LayerStep:
    ffn = layer.ffn
    feed_forward = swiglu(ffn) if isinstance(ffn, SwiGLU) else squared_relu(ffn)
    return LayerStep(layer.attention_norm, layer.attention, layer.ffn_norm, feed_forward)


class _Stack:
    """Layers of one kind over one cache."""

    def __init__(self, layers: Sequence[LayerStep], cache: Cache) -> None:
        self._layers, self._cache = layers, cache
        self._attend = cache.attend_step

    def begin(self, slots: Array) -> Array:
        """Make room for one position of each row; their rotations."""
        positions = self._cache.positions[slots]
        self._cache.begin_step(slots)
        self._attend = self._cache.attend_step
        return self._layers[0].attention.turns(positions)

    def begin_piece(self, slot: int, count: int) -> Array:
        """Make room for some positions of one row; their rotations."""
        first = int(self._cache.positions[slot])
        self._cache.begin_piece(slot, count)
        self._attend = self._cache.attend_piece
        return self._layers[0].attention.turns(np.arange(first, first + count))

    def layer(self, index: int, x: Array, turned: Array) -> Array:
        """One layer, `[B, D]` to `[B, D]`, or `[n, D]`, as was begun."""
        return self._layers[index](x, turned, functools.partial(self._attend, index))

    def __call__(self, x: Array, turned: Array) -> Array:
        """All layers, for what was begun."""
        for index in range(len(self._layers)):
            x = self.layer(index, x, turned)
        return x


class _Embedding:
    """Bytes and hashed n-grams."""

    def __init__(self, embed: nn.Embedding, hash_ngrams: HashNgrams | None) -> None:
        self._embed, self._table = array(embed.weight), None
        if hash_ngrams is not None:
            self._table = array(hash_ngrams.weight)
            self._powers = array(hash_ngrams.powers)
            self._first = array(hash_ngrams.first_buckets)
            self._buckets, self._width = hash_ngrams.num_buckets, hash_ngrams.width

    def __call__(self, ids: Array, slots: Array, history: IdHistory | None) -> Array:
        """`[B, D]` of ids, int64 `[B]`, which the history remembers; or `[n, D]` of one slot's."""
        x = self._embed[ids]
        if self._table is None or history is None:
            return x
        known = (
            history.step(ids, slots)
            if len(ids) == len(slots)
            else history.piece(ids, int(slots[0]))
        )
        windows = known[:, None]
        buckets = np.add.reduce(windows * self._powers, axis=-1) % self._buckets + self._first
        return x + np.add.reduce(self._table[buckets], axis=1)


class StackStepper:
    """One byte of each row for a model that is one stack: byte GPT, entropy LM."""

    def __init__(self, model: ByteGPT | EntropyLM, state: StackState) -> None:
        self._state = state
        layers = [_layer_step(layer) for layer in model.layers]
        self._stack, self._head = _Stack(layers, state.cache), head(model.norm, model.head)
        tables = model.hash_ngrams if isinstance(model, ByteGPT) else None
        self._embedding = _Embedding(model.embed, tables)
        self._norm = array(model.embed_norm.weight) if isinstance(model, ByteGPT) else None

    def __call__(self, ids: Array, slots: Array) -> Array:
        """Logits after each of ids: one, int64 `[B]`, of each slot, or some, `[n]`, of one slot."""
        x = self._embedding(ids, slots, self._state.ids)
        if self._norm is not None:
            x = rms_norm(x, self._norm)
        return self._head(self._stack(x, _begin(self._stack, ids, slots)))


def _begin(stack: _Stack, ids: Array, slots: Array) -> Array:
    """Make room for one id of each of `slots`, or for some of one; their rotations."""
    if len(ids) == len(slots):
        return stack.begin(slots)
    return stack.begin_piece(int(slots[0]), len(ids))


def _over_last(x: Array, weight: Array) -> Array:
    """`product` over the last axis of `[..., D]`."""
    return product(x.reshape(-1, x.shape[-1]), weight).reshape(*x.shape[:-1], -1)


class _Cross:
    """`CrossAttention` in NumPy."""

    def __init__(self, cross: CrossAttention) -> None:
        self._heads, self._groups, self._width = cross.n_heads, cross.n_kv_heads, cross.head_dim
        parts = cross.q_proj, cross.k_proj, cross.v_proj, cross.o_proj
        self._q, self._k, self._v, self._o = (array(part.weight) for part in parts)
        self._q_norm, self._kv_norm = array(cross.q_norm.weight), array(cross.kv_norm.weight)

    def queries(self, x: Array) -> Array:
        """`[..., D]` to `[..., G, H / G, C]`, scaled."""
        q = _over_last(rms_norm(x, self._q_norm), self._q) * self._width**-0.5
        return q.reshape(*x.shape[:-1], self._groups, self._heads // self._groups, self._width)

    def keys_values(self, x: Array) -> tuple[Array, Array]:
        """`[..., D]` to `[..., G, C]` twice."""
        x = rms_norm(x, self._kv_norm)
        shape = (*x.shape[:-1], self._groups, self._width)
        return _over_last(x, self._k).reshape(shape), _over_last(x, self._v).reshape(shape)

    def residual(self, x: Array, mixed: Array) -> Array:
        """`2 x + Wo mixed`."""
        return 2 * x + _over_last(mixed.reshape(x.shape), self._o)

    def __call__(self, x: Array, keys: Array, values: Array) -> Array:
        """Let `[B, D]` attend to the vectors of one patch each, `[B, K, G, C]`."""
        # [B, K, G, H / G]: how much each vector of the patch counts for each head.
        scores = np.vecdot(self.queries(x)[:, None], keys[..., None, :])
        softmax(scores.transpose(0, 2, 3, 1))
        return self.residual(x, np.add.reduce(scores[..., None] * values[..., None, :], axis=1))


@dataclass(frozen=True, eq=False)
class PieceClosing:
    """The patches that a piece of one row closes, and which patch each of its bytes is of."""

    counts: Array
    """int64 `[n]`, patches that were closed up to and with each byte."""

    tables: list[Array]
    """Keys and values of each cross-attention in turn, `[1 + P, K, G, C]`: the patch that was
    closed last before, then those that the piece closes."""


class BLTStepper:
    """One byte of each row for a BLT: the four steps of `BLT.read`."""

    def __init__(self, model: BLT, state: BLTState) -> None:
        self._state, self._k = state, model.config.cross_attn_k
        self._embedding = _Embedding(model.embed, model.hash_ngrams)
        local = [_layer_step(layer) for layer in model.encoder]
        self._encoder = _Stack(local, state.encoder)
        self._pool, self._pool_cross = array(model.pool_proj.weight), _Cross(model.encoder_cross)
        own = model.global_in
        self._global_in = array(own.weight) if isinstance(own, nn.Linear) else None
        layers = [_layer_step(layer) for layer in model.global_layers]
        self._global = _Stack(layers, state.patches)
        self._global_out = array(model.global_out.weight)
        local = [_layer_step(layer.local) for layer in model.decoder]
        self._decoder = _Stack(local, state.decoder)
        self._crosses = [_Cross(x.cross) if x.cross is not None else None for x in model.decoder]
        self._head = head(model.norm, model.head)

    def __call__(self, ids: Array, next_starts: Array, slots: Array) -> Array:
        """Logits after each of ids: one, int64 `[B]`, of each of `slots`; or some, `[n]`, of one.

        `next_starts`, bool, says for each whether the id after it starts a patch.
        """
        x = self.encode(ids, slots)
        if len(ids) == len(slots):
            self.close(x, next_starts, slots)
            return self.decode(x, slots)
        slot = int(slots[0])
        closing = self.close_piece(x, next_starts, slot)
        logits = self.decode_piece(x, closing, slot)
        self.keep_piece(x, closing, slot)
        return logits

    def encode(self, ids: Array, slots: Array) -> Array:
        """Encoder states `[B, D]` of the new bytes, or `[n, D]`."""
        x = self._embedding(ids, slots, self._state.ids)
        return self._encoder(x, _begin(self._encoder, ids, slots))

    def close(self, x: Array, next_starts: Array, slots: Array) -> None:
        """Remember the new bytes; transform the patches that they close."""
        pieces, patches = self._state.open.pieces, []
        for row, (slot, closes) in enumerate(
            zip(slots.tolist(), next_starts.tolist(), strict=True)
        ):
            pieces[slot].append(x[row : row + 1])
            if closes:
                own = [np.asarray(piece) for piece in pieces[slot]]
                patches.append(self._summary(np.concatenate(own)))
                pieces[slot] = []
        if not patches:
            return
        closing = slots[next_starts]
        new = self._transform(np.concatenate(patches), self._global.begin(closing))
        for tensor, part in zip(self._state.last.tensors, new, strict=True):
            tensor.numpy()[closing] = part

    def decode(self, x: Array, slots: Array) -> Array:
        """Logits `[B, V]` of the id after each new byte."""
        last = [tensor.numpy()[slots] for tensor in self._state.last.tensors]
        return self._decode(x, self._decoder.begin(slots), last)

    def close_piece(self, x: Array, next_starts: Array, slot: int) -> PieceClosing:
        """Transform the patches that the new bytes `[n, D]` of one row close."""
        counts = next_starts.cumsum()
        last = [tensor.numpy()[slot : slot + 1] for tensor in self._state.last.tensors]
        ends = np.flatnonzero(next_starts) + 1
        if not len(ends):
            return PieceClosing(counts, last)
        before = [np.asarray(piece) for piece in self._state.open.pieces[slot]]
        patches = np.split(x[: ends[-1]], ends[:-1])
        patches[0] = np.concatenate((*before, patches[0]))
        turned = self._global.begin_piece(slot, len(patches))
        new = self._transform(np.concatenate([self._summary(patch) for patch in patches]), turned)
        return PieceClosing(counts, [np.concatenate(p) for p in zip(last, new, strict=True)])

    def decode_piece(self, x: Array, closing: PieceClosing, slot: int, *, begin: int = 0) -> Array:
        """Logits `[n, V]` of the id after each new byte, from the byte `begin` on."""
        turned = self._decoder.begin_piece(slot, len(x) - begin)
        chosen = closing.counts[begin:]
        return self._decode(x[begin:], turned, [table[chosen] for table in closing.tables])

    def keep_piece(self, x: Array, closing: PieceClosing, slot: int) -> None:
        """Remember the open patch and the last closed one after the bytes `[n, D]`.

        These may be fewer than were closed: so many are kept.
        """
        closed = int(closing.counts[len(x) - 1])
        pieces = self._state.open.pieces[slot]
        if closed:
            pieces.clear()
            x = x[int(np.searchsorted(closing.counts, closed)) + 1 :]
            for tensor, table in zip(self._state.last.tensors, closing.tables, strict=True):
                tensor.numpy()[slot] = table[closed]
        if len(x):
            pieces.append(x)

    def _transform(self, patches: Array, turned: Array) -> list[Array]:
        """Keys and values `[P, K, G, C]` of each cross-attention, of patches `[P, K * D]`."""
        z = patches if self._global_in is None else product(patches, self._global_in)
        z = product(self._global(z, turned), self._global_out)
        vectors = z.reshape(len(z), self._k, -1)
        crosses = [cross for cross in self._crosses if cross is not None]
        return [part for cross in crosses for part in cross.keys_values(vectors)]

    def _decode(self, x: Array, turned: Array, vectors: list[Array]) -> Array:
        pairs = iter(zip(vectors[0::2], vectors[1::2], strict=True))
        for index, cross in enumerate(self._crosses):
            if cross is not None:
                x = cross(x, *next(pairs))
            x = self._decoder.layer(index, x, turned)
        return self._head(x)

    def _summary(self, x: Array) -> Array:
        """Sum up one patch, `[1, K * D]`, from the states `[n, D]` of its bytes."""
        cross = self._pool_cross
        pooled = product(np.maximum.reduce(x, axis=0, keepdims=True), self._pool).reshape(
            self._k, -1
        )
        q, (keys, values) = cross.queries(pooled), cross.keys_values(x)
        # [G, K, H / G, n] and back.
        scores = np.matmul(q.swapaxes(0, 1), keys.transpose(1, 2, 0)[:, None])
        mixed = np.matmul(softmax(scores), values.swapaxes(0, 1)[:, None]).swapaxes(0, 1)
        return cross.residual(pooled, np.ascontiguousarray(mixed)).reshape(1, -1)


def is_short(ids: Array, slots: Array) -> bool:
    """Whether a stepper takes these ids: one of each row, or a few of one row."""
    return len(ids) == len(slots) <= MAX_ROWS or (len(slots) == 1 and len(ids) <= MAX_PIECE)


def stack_stepper(model: ByteGPT | EntropyLM, state: StackState) -> StackStepper | None:
    """The model's stepper; None where NumPy cannot compute with its weights."""
    return StackStepper(model, state) if can_step(model) else None


def blt_stepper(model: BLT, state: BLTState) -> BLTStepper | None:
    """The model's stepper; None where NumPy cannot compute with its weights."""
    return BLTStepper(model, state) if can_step(model) else None
