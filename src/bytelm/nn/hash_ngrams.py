"""Embeddings of hashed n-grams: what the last g ids were, looked up in a table of buckets.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), section 3.2.1 and appendix C. The polynomial,
its prime and its order (the oldest id has exponent 0; int64 wraps around) are those of the
released weights.
Shape key: B rows, T positions of a full row, N packed positions, W longest n-gram, D width,
G n-grams: functions times sizes.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.nn.rows import Rows

HASH_PRIMES = (
    1000000007,
    5915587277,
    1500450271,
    3267000013,
    5754853343,
    4093082899,
    9576890767,
    3628273133,
    2860486313,
    5463458053,
    3367900313,
)
"""Bases of the polynomials: function f has prime f, and beyond the last they begin again."""


def ngram_windows(ids: Int[Tensor, "B T"], width: int) -> Int[Tensor, "N W"]:
    """The last `width` ids at each position of full rows; left of a row is id 0."""
    return F.pad(ids, (width - 1, 0)).unfold(1, width, 1).reshape(-1, width)


def ngram_powers(ngram_sizes: tuple[int, ...], num_functions: int = 1) -> Int[Tensor, "G W"]:
    """Factor of each id of a window, the newest last: 0 left of the n-gram, then prime^0, ...

    In wrapping int64. The order is that of the released weights: by function, then by size.
    """
    width, rows = max(ngram_sizes), []
    for function in range(num_functions):
        prime = HASH_PRIMES[function % len(HASH_PRIMES)]
        for size in ngram_sizes:
            powers = [pow(prime, exponent, 2**64) for exponent in range(size)]
            signed = [power - 2**64 if power >= 2**63 else power for power in powers]
            rows.append([0] * (width - size) + signed)
    return torch.tensor(rows, dtype=torch.int64)


def hash_windows(
    windows: Int[Tensor, "N W"], powers: Int[Tensor, "G W"], num_buckets: int
) -> Int[Tensor, "N G"]:
    """Bucket of the n-gram that ends at each position, for each function and size.

    h_g(i) = sum over j < g of id[i-g+1+j] * prime^j, in wrapping int64, modulo `num_buckets`.
    """
    return (windows[:, None] * powers).sum(-1).remainder(num_buckets)


class HashNgrams(nn.Module):
    """Sum of one table row for each n-gram; gradients touch only the rows that were used."""

    def __init__(
        self,
        dim: int,
        *,
        ngram_sizes: tuple[int, ...],
        num_buckets: int,
        num_functions: int = 1,
    ) -> None:
        super().__init__()
        self.num_buckets, self.width = num_buckets, max(ngram_sizes)
        self.powers: Tensor
        self.first_buckets: Tensor
        num_tables = num_functions * len(ngram_sizes)
        self.register_buffer("powers", ngram_powers(ngram_sizes, num_functions), persistent=False)
        first_buckets = num_buckets * torch.arange(num_tables)
        self.register_buffer("first_buckets", first_buckets, persistent=False)
        self.weight = nn.Parameter(torch.empty(num_tables * num_buckets, dim))
        self.weight.is_hash_table = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(self, windows: Int[Tensor, "N W"], *, dropout: float = 0.0) -> Float[Tensor, "N D"]:
        """Sum of the rows of all n-grams that end at each position.

        Args:
            windows: Of `ngram_windows` or an `IdHistory`.
            dropout: Probability that a row is left out, and learns nothing; the others count more.

        """
        buckets = hash_windows(windows, self.powers, self.num_buckets) + self.first_buckets
        if not dropout:
            return F.embedding_bag(buckets, self.weight, mode="sum", sparse=True)
        kept = torch.rand(buckets.shape, device=buckets.device) >= dropout
        counts = kept.sum(1)
        begins = counts.cumsum(0) - counts
        rows = F.embedding_bag(buckets[kept], self.weight, begins, mode="sum", sparse=True)
        return rows / (1 - dropout)


class IdHistory:
    """The last ids of rows that are read piece by piece, as far back as n-grams reach.

    It keeps `spare` ids more, so that so many can be forgotten again.
    """

    def __init__(self, rows: int, *, width: int, spare: int) -> None:
        self._width = width
        self._ids = np.zeros((rows, width - 1 + spare), np.int64)

    def windows(self, ids: np.ndarray, rows: Rows) -> Int[Tensor, "N W"]:
        """The windows that end at each of `ids`, int64 `[n]`, which are remembered."""
        slots = rows.slots
        assert slots is not None, "rows without slots have no history"
        if rows.is_step:
            return torch.from_numpy(self.step(ids, slots))
        pieces = zip(slots.tolist(), np.split(ids, rows.ends[:-1]), strict=True)
        return torch.from_numpy(np.concatenate([self.piece(own, slot) for slot, own in pieces]))

    def piece(self, ids: np.ndarray, slot: int) -> np.ndarray:
        """The windows `[n, W]` that end at each of more ids, int64 `[n]`, of one row."""
        known = np.concatenate((self._ids[slot], ids))
        self._ids[slot] = known[len(ids) :]
        recent = known[len(known) - len(ids) - self._width + 1 :]
        return np.lib.stride_tricks.sliding_window_view(recent, self._width)

    def step(self, ids: np.ndarray, slots: np.ndarray) -> np.ndarray:
        """The windows `[B, W]` that end at one more id, int64 `[B]`, of each of `slots`."""
        known = np.concatenate((self._ids[slots], ids[:, None]), axis=1)
        self._ids[slots] = known[:, 1:]
        return known[:, known.shape[1] - self._width :]

    def rewind(self, slot: int, count: int) -> None:
        """Forget the last `count` ids of a row."""
        kept = self._ids[slot, : self._ids.shape[1] - count].copy()
        self._ids[slot, count:] = kept

    def clear(self, slot: int) -> None:
        """Forget all of a row: left of it is id 0."""
        self._ids[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        self._ids = self._ids[list(sources)]

    def save(self, slot: int) -> np.ndarray:
        """A copy of one row."""
        return self._ids[slot].copy()

    def restore(self, slot: int, saved: np.ndarray) -> None:
        """Make a row what was saved."""
        self._ids[slot] = saved
