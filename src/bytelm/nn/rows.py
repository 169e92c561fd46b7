"""Rows of different lengths, packed one after the other.

Layers compute on the positions of all rows at once, `[N, D]`, and no position for nothing. Only
attention and rotary positions ask which row a position belongs to and where in it it stands.
Shape key: B rows, N positions of all rows, T positions of the longest.
"""

import functools
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Complex, Shaped
from torch import Tensor

from bytelm.nn.rope import rotations


@dataclass(eq=False)
class Rows:
    """How many new positions each row has, and how many it had before."""

    counts: np.ndarray
    """int64 `[B]`, new positions of each row, at least 1."""

    begins: np.ndarray | None = None
    """int64 `[B]`, positions of each row that were read before. None: the rows begin here."""

    slots: np.ndarray | None = None
    """int64 `[B]`, which row of a cache each one continues. None: no cache."""

    _turns: dict[tuple[int, float], Tensor] = field(default_factory=dict)

    @classmethod
    def full(cls, rows: int, length: int) -> "Rows":
        """Rows of one length that begin here."""
        return cls(np.full(rows, length, np.int64))

    @property
    def length(self) -> int | None:
        """The length that all rows have, or None."""
        first = int(self.counts[0])
        return first if len(self.counts) == 1 or bool((self.counts == first).all()) else None

    @functools.cached_property
    def is_step(self) -> bool:
        """Whether every row has one new position."""
        return self.length == 1

    @functools.cached_property
    def ends(self) -> np.ndarray:
        """int64 `[B]`: where each row ends among the packed positions."""
        return self.counts.cumsum()

    @functools.cached_property
    def positions(self) -> np.ndarray:
        """int64 `[N]`: where in its row each position stands."""
        if self.is_step:
            return np.zeros(len(self.counts), np.int64) if self.begins is None else self.begins
        first = self.ends - self.counts
        shift = -first if self.begins is None else self.begins - first
        return np.arange(self.ends[-1]) + np.repeat(shift, self.counts)

    def turns(self, head_dim: int, theta: float, like: Tensor) -> Complex[Tensor, "N F"]:
        """Rotations of all positions; computed once for all layers that share the rows."""
        key = (head_dim, theta)
        if key not in self._turns:
            if self.begins is None:
                table = _rotation_table(
                    int(self.counts.max()), head_dim, theta, like.dtype, like.device
                )
                if self.length is not None:
                    self._turns[key] = table.repeat(len(self.counts), 1)
                else:
                    self._turns[key] = table[torch.from_numpy(self.positions).to(like.device)]
            else:
                self._turns[key] = rotations(self.positions, head_dim, theta, like)
        return self._turns[key]

    def padded(self, x: Shaped[Tensor, "N *D"]) -> Shaped[Tensor, "B T *D"]:
        """One row after the other in a rectangle; zeros after the end of a row."""
        if self.length is not None:
            return x.view(len(self.counts), self.length, *x.shape[1:])
        width = int(self.counts.max())
        flat = x.new_zeros(len(self.counts) * width, *x.shape[1:])
        flat = flat.index_copy(0, self._cells(x.device), x)
        return flat.view(len(self.counts), width, *x.shape[1:])

    def packed(self, x: Shaped[Tensor, "B T *D"]) -> Shaped[Tensor, "N *D"]:
        """The inverse of `padded`."""
        flat = x.reshape(-1, *x.shape[2:])
        return flat if self.length is not None else flat.index_select(0, self._cells(x.device))

    def _cells(self, device: torch.device) -> Tensor:
        """int64 `[N]`: where in the flattened rectangle each position stands."""
        if self._index is None or self._index.device != device:
            width = int(self.counts.max())
            first = np.arange(len(self.counts)) * width - (self.ends - self.counts)
            cells = np.arange(self.ends[-1]) + np.repeat(first, self.counts)
            self._index = torch.from_numpy(cells).to(device)
        return self._index

    _index: Tensor | None = None


@functools.lru_cache(maxsize=16)
def _rotation_table(
    length: int, head_dim: int, theta: float, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """Rotations of the positions 0 to `length - 1`: the same in every training step."""
    like = torch.empty(0, dtype=dtype, device=device)
    with torch.inference_mode(mode=False):
        return rotations(np.arange(length), head_dim, theta, like)
