"""Embeddings of hashed n-grams: what the last g ids were, looked up in a table of buckets.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), section 3.2.1 and appendix C. The polynomial,
its prime and its order (the oldest id has exponent 0; int64 wraps around) are those of the
released weights.
Shape key: B rows, T positions, D width, G n-gram sizes.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

HASH_PRIME = 1_000_000_007
"""Base of the polynomial; the first of the released models' primes."""


def hash_ids(
    ids: Int[Tensor, "B T"], ngram_sizes: tuple[int, ...], num_buckets: int
) -> Int[Tensor, "B T G"]:
    """Bucket of the n-gram that ends at each position, for each size; left of a row is id 0.

    h_g(i) = sum over j < g of id[i-g+1+j] * prime^j, in wrapping int64, modulo `num_buckets`.
    It is built by h_g(i) = id[i-g+1] + prime * h_(g-1)(i).
    """
    hashes = torch.zeros_like(ids)
    wanted = {}
    for size in range(1, max(ngram_sizes) + 1):
        hashes = F.pad(ids, (size - 1, 0))[:, : ids.shape[1]] + HASH_PRIME * hashes
        wanted[size] = torch.remainder(hashes, num_buckets)
    return torch.stack([wanted[size] for size in ngram_sizes], dim=-1)


@dataclass
class IdHistory:
    """The last ids of a stream, as far back as n-grams reach."""

    ids: Tensor | None = None

    def append(self, ids: Int[Tensor, "B T"], *, keep: int) -> Int[Tensor, "B S"]:
        """What is kept with `ids` behind it; keeps the last `keep` ids of that."""
        known = ids if self.ids is None else torch.cat((self.ids, ids), dim=1)
        self.ids = known[:, max(0, known.shape[1] - keep) :]
        return known


class HashNgrams(nn.Module):
    """Sum of one table row for each n-gram size; gradients touch only the rows that were used."""

    def __init__(self, dim: int, *, ngram_sizes: tuple[int, ...], num_buckets: int) -> None:
        super().__init__()
        self.ngram_sizes, self.num_buckets = ngram_sizes, num_buckets
        self.weight = nn.Parameter(torch.empty(len(ngram_sizes) * num_buckets, dim))
        self.weight.is_hash_table = True  # pyright: ignore[reportAttributeAccessIssue]

    def forward(
        self, ids: Int[Tensor, "B T"], *, history: IdHistory | None = None
    ) -> Float[Tensor, "B T D"]:
        """Sum of the rows of all sizes, at every position; a history continues a stream."""
        known = ids if history is None else history.append(ids, keep=max(self.ngram_sizes) - 1)
        buckets = hash_ids(known, self.ngram_sizes, self.num_buckets)[:, -ids.shape[1] :]
        buckets = buckets + self.num_buckets * torch.arange(
            len(self.ngram_sizes), device=ids.device
        )
        bags = buckets.view(-1, len(self.ngram_sizes))
        total = F.embedding_bag(bags, self.weight, mode="sum", sparse=True)
        return total.view(*ids.shape, -1)
