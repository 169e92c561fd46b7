"""Shuffled batches of pairs of texts: any batch of any epoch, computed from its number alone.

An epoch has every pair once. Pairs of about one length share a batch, so that there is little
padding: the shuffled pairs are taken in pools, each pool is ordered by length and cut into batches,
and the batches of all pools are shuffled again.

Shape key: R rows, S bytes of the longest input, T positions of the longest target and its end.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.data.shuffle import Purpose, keyed_permutation
from bytelm.errors import DataError
from bytelm.vocab import BOE, BOS, EOS, IGNORE, OFFSET

_POOL_BATCHES = 20
"""Batches of a pool: more leave less padding, fewer leave the order more random."""

_WIDTH_STEP = 8
"""Batches for training are padded to a multiple of this: an allocator that is asked for every size
there is keeps pieces of all of them (1.6 GB instead of 1.0 after 60 updates of a study's
baseline)."""


@dataclass(frozen=True, eq=False)
class Source:
    """A batch of inputs, padded on the right."""

    ids: Int[Tensor, "R S"]
    """int64; padding is BOE."""

    lengths: Int[Tensor, " R"]
    """int64, bytes of each, at least 1."""

    starts: Bool[Tensor, "R S"] | None = None
    """Which bytes start a patch; None where nobody asked. Padding starts none."""

    @classmethod
    def of(
        cls,
        inputs: Sequence[bytes],
        starts: Sequence[np.ndarray] | None = None,
        *,
        multiple: int = 1,
    ) -> "Source":
        """Pad inputs to one length, the longest, rounded up.

        Args:
            inputs: Each at least a byte.
            starts: Which bytes start a patch, bool `[n]` each.
            multiple: S is one of this.

        """
        lengths = np.array([len(one) for one in inputs], np.int64)
        ids = np.full((len(inputs), _up(int(lengths.max()), multiple)), BOE, np.int64)
        for row, one in enumerate(inputs):
            ids[row, : len(one)] = _ids(one)
        if starts is None:
            return cls(torch.from_numpy(ids), torch.from_numpy(lengths))
        flags = np.zeros(ids.shape, bool)
        for row, one in enumerate(starts):
            flags[row, : len(one)] = one
        return cls(torch.from_numpy(ids), torch.from_numpy(lengths), torch.from_numpy(flags))

    def rows(self, chosen: slice) -> "Source":
        """Some of the rows, as wide as all."""
        starts = None if self.starts is None else self.starts[chosen]
        return Source(self.ids[chosen], self.lengths[chosen], starts)

    def to(self, device: torch.device | str) -> "Source":
        """Copy to a device; the same tensors when they are there already."""
        starts = None if self.starts is None else self.starts.to(device)
        return Source(self.ids.to(device), self.lengths.to(device), starts)


@dataclass(frozen=True, eq=False)
class PairBatch:
    """Rows for one update, or a part of them."""

    source: Source
    """The inputs."""

    written: Int[Tensor, "R T"]
    """int64; BOS, then the target; padding is BOE."""

    targets: Int[Tensor, "R T"]
    """int64; the target, then EOS; IGNORE at padding."""

    @classmethod
    def of(cls, source: Source, targets: Sequence[bytes], *, multiple: int = 1) -> "PairBatch":
        """Pad targets, one for each input; T is a multiple of `multiple`."""
        shape = (len(targets), _up(max(map(len, targets)) + 1, multiple))
        written = np.full(shape, BOE, np.int64)
        wanted = np.full(shape, IGNORE, np.int64)
        for row, one in enumerate(targets):
            ids = _ids(one)
            written[row, 0], written[row, 1 : len(one) + 1] = BOS, ids
            wanted[row, : len(one)], wanted[row, len(one)] = ids, EOS
        return cls(source, torch.from_numpy(written), torch.from_numpy(wanted))

    @property
    def scored(self) -> int:
        """Target bytes, and one end for each row."""
        return int((self.targets != IGNORE).sum())

    def rows(self, chosen: slice) -> "PairBatch":
        """Some of the rows, as wide as all."""
        return PairBatch(self.source.rows(chosen), self.written[chosen], self.targets[chosen])

    def to(self, device: torch.device | str) -> "PairBatch":
        """Copy to a device; the same tensors when they are there already."""
        return PairBatch(self.source.to(device), self.written.to(device), self.targets.to(device))

    def logits(self, model: torch.nn.Module) -> Float[Tensor, "R T V"]:
        """What a model predicts."""
        return model(self.source, self.written)


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def _ids(text: bytes) -> np.ndarray:
    return np.frombuffer(text, np.uint8).astype(np.int64) + OFFSET


class PairBatches:
    """Endless epochs of pairs in batches; `batch(step)` depends on nothing that came before."""

    def __init__(
        self,
        inputs: Sequence[bytes],
        targets: Sequence[bytes],
        *,
        rows: int,
        seed: int,
        starts: Sequence[np.ndarray] | None = None,
    ) -> None:
        """Plan the epochs.

        Args:
            inputs: At least one, each at least a byte.
            targets: As many.
            rows: Most rows of a batch; the last of a pool has fewer where they do not divide.
            seed: Integer >= 0; decides the order.
            starts: Patch starts of each input, bool `[n]`, for a model with patches.

        Raises:
            DataError: There are no pairs.

        """
        if not inputs:
            raise DataError("there are no pairs to learn from; give at least one row")
        self._inputs, self._targets, self._starts = inputs, targets, starts
        self._rows, self._seed = rows, seed
        self._lengths = np.array(
            [len(one) + len(other) for one, other in zip(inputs, targets, strict=True)]
        )
        self._order: tuple[int, list[np.ndarray]] | None = None

    @property
    def steps_per_epoch(self) -> int:
        """Batches of an epoch."""
        whole, rest = divmod(len(self._inputs), self._rows * _POOL_BATCHES)
        return whole * _POOL_BATCHES + -(-rest // self._rows)

    def epoch(self, step: int) -> int:
        """Tell in which epoch, counted from 0, a step lies."""
        return step // self.steps_per_epoch

    def batch(self, step: int) -> PairBatch:
        """Make the batch of an update, counted from 0."""
        epoch, place = divmod(step, self.steps_per_epoch)
        return self.of(self._epoch(epoch)[place])

    def longest(self) -> PairBatch:
        """Make a batch of the longest inputs and the longest targets: none needs more memory."""
        inputs, targets = (
            np.argsort([len(one) for one in column], kind="stable")[-self._rows :].tolist()
            for column in (self._inputs, self._targets)
        )
        texts = [self._targets[one] for one in targets]
        return PairBatch.of(self._source(inputs), texts, multiple=_WIDTH_STEP)

    def of(self, chosen: np.ndarray) -> PairBatch:
        """Make a batch of some pairs, integers `[R]`."""
        picked = chosen.tolist()
        targets = [self._targets[one] for one in picked]
        return PairBatch.of(self._source(picked), targets, multiple=_WIDTH_STEP)

    def _source(self, picked: list[int]) -> Source:
        starts = None if self._starts is None else [self._starts[one] for one in picked]
        inputs = [self._inputs[one] for one in picked]
        return Source.of(inputs, starts, multiple=_WIDTH_STEP)

    def _epoch(self, epoch: int) -> list[np.ndarray]:
        """The pairs of each batch of an epoch; kept until another epoch is asked for."""
        if self._order is None or self._order[0] != epoch:
            shuffled = keyed_permutation(
                len(self._inputs), seed=self._seed, purpose=Purpose.PAIRS, stream=epoch
            )
            batches = []
            for begin in range(0, len(shuffled), self._rows * _POOL_BATCHES):
                pool = shuffled[begin : begin + self._rows * _POOL_BATCHES]
                pool = pool[np.argsort(self._lengths[pool], kind="stable")]
                batches += np.split(pool, range(self._rows, len(pool), self._rows))
            places = keyed_permutation(
                len(batches), seed=self._seed, purpose=Purpose.PAIR_BATCHES, stream=epoch
            )
            self._order = epoch, [batches[place] for place in places.tolist()]
        return self._order[1]
