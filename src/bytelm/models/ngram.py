"""An n-gram count model in integers: the cheap source of entropies, and a model in its own right.

One pass counts the bytes that follow each context of up to six bytes (`ngram_counts`); then the
model is frozen. Every step from the counts to probabilities and entropies is integer arithmetic
(`fixed_point`), so that they are the same on any machine.

What is stored is a back-off table. A context holds the probabilities of the bytes seen in it; any
other byte has `backoff` times its probability in the context without its oldest byte. The longest
stored context of a position decides, and every suffix of a stored context is stored.

Shape key: B rows, T ids, V ids of the vocabulary; n bytes, C contexts, E pairs of context and byte.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.errors import CheckpointError
from bytelm.models.fixed_point import ENTROPY_BITS, LOG_BITS, ONE, ONE_BITS
from bytelm.models.ngram_counts import UNIFORM, Smoothed, context_codes, count, smooth
from bytelm.vocab import BOS, NUM_BYTES, OFFSET, VOCAB_SIZE

MAX_ORDER = 6
"""Six bytes of context, one byte after them and the order fit a signed 64-bit key."""

_ORDER_SHIFT = 8 * MAX_ORDER
"""A stored key is (order << 48) + context; the newest byte of a context is its highest."""

_CHUNK_ROWS = 1 << 16
"""Positions looked up at a time: the arrays of a chunk stay in the cache."""

_DENSE_ROWS = 1 << 14
"""The same for whole distributions, which are 256 times wider."""

_HASH_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
"""2**64 over the golden ratio, odd (Knuth, volume 3, section 6.4)."""

_SLOTS_PER_CONTEXT = 4
_NATS = math.log(2) / (1 << LOG_BITS)
_DTYPES = {
    "keys": torch.int64,
    "offsets": torch.int64,
    "symbols": torch.uint8,
    "probs": torch.int32,
    "backoffs": torch.int32,
    "entropy_table": torch.int32,
}


@dataclass(frozen=True, kw_only=True)
class NgramConfig:
    """How long contexts are, and which are kept."""

    kind: ClassVar[str] = "ngram"

    order: int = 5
    """Bytes in the longest context, 0 to 6."""

    max_contexts: int = 1 << 20
    """Contexts kept of each length: those seen most often."""

    min_count: int = 2
    """A context seen fewer times is not kept."""

    def __post_init__(self) -> None:
        if not 0 <= self.order <= MAX_ORDER:
            raise ValueError(f"order must be 0 to {MAX_ORDER} bytes, got {self.order}")
        for name in ("max_contexts", "min_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


class Ngram(nn.Module):
    """Predicts a byte from the longest stored context before it; integer buffers only.

    A new one knows nothing and predicts all bytes equally; `fit` or a state dict fills it.
    """

    def __init__(self, config: NgramConfig) -> None:
        super().__init__()
        self.config = config
        self._adopt(_buffers([]))

    @classmethod
    def fit(cls, config: NgramConfig, documents: Iterable[np.ndarray]) -> "Ngram":
        """Count `documents` (uint8 each) in one pass; no context reaches across two of them."""
        levels = count(documents, order=config.order, min_count=config.min_count)
        smoothed = smooth(levels, max_contexts=config.max_contexts)
        return cls.from_buffers(config, _buffers(smoothed))

    @classmethod
    def from_buffers(cls, config: NgramConfig, buffers: Mapping[str, Tensor]) -> "Ngram":
        """The model whose `state_dict` these are.

        Raises:
            CheckpointError: A buffer is missing, or they do not make a model of this order.

        """
        model = cls(config)
        model._adopt(buffers)
        return model

    def predict(self, data: np.ndarray, history: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Predictions before each byte of `data` and after the last.

        Args:
            data: uint8 `[n]`.
            history: uint8, the bytes before `data` in its document, at least the last `order` of
                them; empty at a document's start.

        Returns:
            Natural log-probabilities float32 `[n + 1, 256]` and their entropies float32
            `[n + 1]` in nats; row i is the prediction after `history` and `data[:i]`.

        """
        states = self._document_states(data, history)
        return self.log_probs(states), self.state_entropies(states)

    def log_probs(self, states: np.ndarray) -> np.ndarray:
        """Natural log-probabilities float32 `[n, 256]` in the contexts of `row_states`."""
        log_probs = np.empty((len(states), NUM_BYTES), np.float32)
        for at in range(0, len(states), _DENSE_ROWS):
            contexts, place = np.unique(states[at : at + _DENSE_ROWS], return_inverse=True)
            weights = self._weights(contexts)
            shares = weights / weights.sum(axis=1, keepdims=True)
            log_probs[at : at + _DENSE_ROWS] = np.log(shares.astype(np.float32))[place]
        return log_probs

    def state_entropies(self, states: np.ndarray) -> np.ndarray:
        """Entropies float32 `[n]`, nats, of the predictions in the contexts of `row_states`."""
        return self._entropy_nats[states]

    def row_states(self, recent: np.ndarray, ages: np.ndarray) -> np.ndarray:
        """int32 `[R]`: the context in which the next byte of each of several documents comes.

        Args:
            recent: uint8 `[R, order]`, the last bytes of each, the newest last.
            ages: int64 `[R]`, bytes of each document so far.

        """
        known = np.maximum(ages[:, None] + np.arange(1 - recent.shape[1], 1), 0)
        states = self._states(recent.ravel(), known.ravel())
        return states.reshape(recent.shape)[:, -1]

    def weights(self, data: np.ndarray, history: np.ndarray) -> np.ndarray:
        """The predictions of `predict` as integers, int64 `[n + 1, 256]`, for a coder.

        At least 1 each; a row's sum is close to 2**30 and not exactly it. The same on any machine.
        """
        return self.state_weights(self._document_states(data, history))

    def state_weights(self, states: np.ndarray) -> np.ndarray:
        """The integers of `weights`, int64 `[n, 256]`, in the contexts of `row_states`."""
        contexts, place = np.unique(states, return_inverse=True)
        return self._weights(contexts)[place]

    def document_entropies(self, data: np.ndarray, history: np.ndarray) -> np.ndarray:
        """The entropies of `predict`, float32 `[n + 1]` nats, without the distributions.

        They come from a table made in fixed point: within 1e-5 nats of -sum p log p.
        """
        return self.state_entropies(self._document_states(data, history))

    def entropies(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entropy in nats of the prediction made after each id; a BOS opens a document."""
        return torch.from_numpy(self.state_entropies(self._row_states(ids))).to(ids.device)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Log-probabilities after each id; minus infinity for the specials."""
        contexts, place = np.unique(self._row_states(ids), return_inverse=True)
        weights = torch.from_numpy(self._weights(contexts))
        log_probs = (weights / weights.sum(1, keepdim=True)).float().log()
        logits = torch.full((*ids.shape, VOCAB_SIZE), -math.inf)
        logits[..., OFFSET:] = log_probs[torch.from_numpy(place.reshape(ids.shape))]
        return logits.to(ids.device)

    def _document_states(self, data: np.ndarray, history: np.ndarray) -> np.ndarray:
        """int32 `[n + 1]`: the longest stored context before each byte, and after the last."""
        known = history[max(0, len(history) - max(1, self.config.order)) :]
        values = np.concatenate((np.zeros(1, np.uint8), known, data))
        return self._states(values, np.arange(len(values)))[len(known) :]

    def _row_states(self, ids: Tensor) -> np.ndarray:
        """int32 `[B, T]`: the longest stored context after each id."""
        rows, length = ids.shape
        is_bos = (ids == BOS).cpu().numpy()
        column = np.broadcast_to(np.arange(length), (rows, length))
        opened = np.maximum.accumulate(np.where(is_bos, column, -1), axis=1)
        values = (ids - OFFSET).clamp(min=0).to(torch.uint8).cpu().numpy()
        return self._states(values.ravel(), (column - opened).ravel()).reshape(rows, length)

    def _states(self, values: np.ndarray, ages: np.ndarray) -> np.ndarray:
        """The context after each of `values`; `ages` says how many bytes of it are a document's."""
        order, states = self.config.order, np.zeros(len(values), np.int32)
        for begin in range(0, len(values), _CHUNK_ROWS):
            first = max(0, begin - order)
            part = slice(begin, begin + _CHUNK_ROWS)
            codes = context_codes(values[first : part.stop], order)[begin - first :]
            states[part] = self._longest(codes, ages[part])
        return states

    def _longest(self, codes: np.ndarray, ages: np.ndarray) -> np.ndarray:
        order = self.config.order
        states = np.zeros(len(codes), np.int32)
        todo = np.arange(len(codes))
        for length in range(order, 0, -1):
            able = todo[ages[todo] >= length]
            found = self._index.find((codes[able] >> (8 * (order - length))) | _tag(length))
            hit = found >= 0
            states[able[hit]] = found[hit]
            todo = np.setdiff1d(todo, able[hit], assume_unique=True) if length > 1 else todo
        return states

    def _weights(self, contexts: np.ndarray) -> np.ndarray:
        """int64 `[m, 256]` of sorted distinct contexts: those of their suffixes, with what is seen.

        Neighbors in a text share most of their short contexts, so each is computed once.
        """
        if not contexts.any():
            weights = np.full((len(contexts), NUM_BYTES), UNIFORM, np.int64)
        else:
            suffixes, place = np.unique(self._suffixes[contexts], return_inverse=True)
            weights = self._weights(suffixes)[place]
            weights[contexts == 0] = UNIFORM
        weights *= self._backoffs[contexts, None]
        weights >>= ONE_BITS
        begins = self._offsets[contexts]
        sizes = self._offsets[contexts + 1] - begins
        entries = np.arange(sizes.sum()) + np.repeat(begins - (np.cumsum(sizes) - sizes), sizes)
        rows = np.repeat(np.arange(len(contexts)), sizes)
        weights[rows, self._symbols[entries]] = self._probs[entries]
        return np.maximum(weights, 1)

    def _adopt(self, buffers: Mapping[str, Tensor]) -> None:
        """Take checked buffers over, and derive what makes look-ups fast."""
        _check_buffers(buffers, self.config.order)
        for name in _DTYPES:
            self.register_buffer(name, buffers[name].detach().cpu().clone())
        arrays = {name: getattr(self, name).numpy() for name in _DTYPES}
        self._offsets, self._symbols = arrays["offsets"], arrays["symbols"]
        self._probs = arrays["probs"].astype(np.int64)
        self._backoffs = arrays["backoffs"].astype(np.int64)
        self._entropy_nats = (arrays["entropy_table"] * _NATS).astype(np.float32)
        keys = arrays["keys"]
        self._index = _Index(keys)
        self._suffixes = np.zeros(len(keys), np.int32)
        self._suffixes[1:] = self._index.find(_suffix_keys(keys[1:]))
        if (self._suffixes < 0).any():
            raise CheckpointError("n-gram buffers are corrupt: a context without its suffix")

    def _load_from_state_dict(
        self,
        state_dict: Mapping[str, Any],
        prefix: str,
        local_metadata: Mapping[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take tables of any size, which torch's own loading would refuse."""
        del local_metadata, strict, error_msgs
        found = {
            name.removeprefix(prefix): buffer
            for name, buffer in state_dict.items()
            if name.startswith(prefix)
        }
        unexpected_keys += [prefix + name for name in found if name not in _DTYPES]
        missing = [prefix + name for name in _DTYPES if name not in found]
        missing_keys += missing
        if not missing:
            self._adopt(found)


class _Index:
    """Where each key is: an open-addressed hash table with linear probing, built and read in bulk.

    No key is dropped. Round r of a look-up reads the r-th slot after each home slot, for the keys
    that have met only others so far; most need one round.
    """

    def __init__(self, keys: np.ndarray) -> None:
        bits = max(1, (_SLOTS_PER_CONTEXT * len(keys) - 1).bit_length())
        self._keys, self._shift = keys, np.uint64(64 - bits)
        self._mask = (1 << bits) - 1
        self._slots = np.full(1 << bits, -1, np.int32)
        todo, slots = np.arange(len(keys), dtype=np.int32), self._home(keys)
        while len(todo):
            free = self._slots[slots] < 0
            self._slots[slots[free]] = todo[free]
            left = self._slots[slots] != todo
            todo, slots = todo[left], (slots[left] + 1) & self._mask

    def _home(self, keys: np.ndarray) -> np.ndarray:
        return ((keys.view(np.uint64) * _HASH_MULTIPLIER) >> self._shift).view(np.int64)

    def find(self, keys: np.ndarray) -> np.ndarray:
        """int32: the position of each key, -1 where it is absent."""
        slots = self._home(keys)
        found = self._slots[slots]
        # An empty slot (-1) reads the last key, which would not be absent from its own slots.
        other = np.flatnonzero((self._keys[found] != keys) & (found >= 0))
        slots = slots[other]
        while len(other):
            slots = (slots + 1) & self._mask
            met = self._slots[slots]
            found[other] = met
            left = (self._keys[met] != keys[other]) & (met >= 0)
            other, slots = other[left], slots[left]
        return found


def _tag(order: int) -> int:
    return order << _ORDER_SHIFT


def _suffix_keys(keys: np.ndarray) -> np.ndarray:
    """Keys of the contexts without their oldest byte."""
    order = keys >> _ORDER_SHIFT
    return ((keys - (order << _ORDER_SHIFT)) >> 8) | ((order - 1) << _ORDER_SHIFT)


def _buffers(levels: Sequence[Smoothed]) -> dict[str, Tensor]:
    """One table of all orders, shortest first; without any, the empty context alone."""
    if not levels:
        levels = [Smoothed.uniform()]
    keys = [level.contexts | _tag(order) for order, level in enumerate(levels)]
    sizes = np.concatenate([level.sizes for level in levels])
    arrays = {
        "keys": np.concatenate(keys),
        "offsets": np.concatenate(([0], np.cumsum(sizes))),
        "symbols": np.concatenate([level.keys & 0xFF for level in levels]),
        "probs": np.concatenate([level.probs for level in levels]),
        "backoffs": np.concatenate([level.backoffs for level in levels]),
        "entropy_table": np.concatenate([level.entropies for level in levels])
        >> (ENTROPY_BITS - LOG_BITS),
    }
    return {name: torch.from_numpy(arrays[name]).to(dtype) for name, dtype in _DTYPES.items()}


def _check_buffers(buffers: Mapping[str, Tensor], order: int) -> None:
    """Refuse tables that no `fit` writes and that a look-up could leave.

    Raises:
        CheckpointError: Naming what is wrong.

    """

    def require(condition: object, what: str) -> None:
        if not condition:
            raise CheckpointError(
                f"n-gram buffers are corrupt or of another model: {what}; fit the model again"
            )

    for name, dtype in _DTYPES.items():
        require(name in buffers, f"{name!r} is missing")
        found = buffers[name]
        require(
            found.ndim == 1 and found.dtype == dtype,
            f"{name!r} is {found.dtype} {list(found.shape)}, expected one axis of {dtype}",
        )
    keys, offsets, symbols, probs, backoffs, entropies = (
        buffers[name].detach().cpu().numpy() for name in _DTYPES
    )
    num_contexts, num_entries = len(keys), len(symbols)
    require(num_contexts and keys[0] == 0, "the empty context is missing")
    require((np.diff(keys) > 0).all(), "contexts are not in order")
    orders = keys >> _ORDER_SHIFT
    require(orders[-1] <= order, f"a context is longer than the {order} bytes of the config")
    inside = (keys - (orders << _ORDER_SHIFT)) >> (8 * orders)
    require((inside == 0).all(), "a context has more bytes than its order")
    require(
        len(offsets) == num_contexts + 1 == len(backoffs) + 1 == len(entropies) + 1
        and len(probs) == num_entries,
        "sizes disagree",
    )
    sizes = np.diff(offsets)
    require(
        offsets[0] == 0 and offsets[-1] == num_entries and (sizes >= 0).all(),
        "offsets do not cut the entries",
    )
    require((sizes <= NUM_BYTES).all() and (sizes[1:] > 0).all(), "a context has no or > 256 bytes")
    owner = np.repeat(np.arange(num_contexts), sizes)
    require((np.diff((owner << 8) | symbols) > 0).all(), "the bytes of a context are not in order")
    require((probs > 0).all() and (backoffs > 0).all(), "a probability is not positive")
    sums = np.bincount(owner, weights=probs, minlength=num_contexts)
    require((backoffs <= ONE).all() and (sums <= ONE + NUM_BYTES).all(), "probabilities above 1")
    largest = (NUM_BYTES.bit_length() - 1) << LOG_BITS
    require((entropies >= 0).all() and (entropies <= largest).all(), "an impossible entropy")
