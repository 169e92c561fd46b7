"""One checked value for patches: where they start, how long they are, whose each byte is.

Shape key: B rows, T bytes, P patches of the row that has most.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Patches:
    """Rows of bytes cut into patches; every byte is in exactly one."""

    starts: Bool[Tensor, "B T"]
    """True where a patch begins; column 0 always."""

    def __post_init__(self) -> None:
        if self.starts.dtype != torch.bool or self.starts.ndim != 2:
            raise ValueError(
                f"expected patch starts as bool [rows, bytes], got {self.starts.dtype} "
                f"{list(self.starts.shape)}"
            )
        if self.starts.shape[1] and not self.starts[:, 0].all():
            raise ValueError("the first byte of every row must start a patch")

    @classmethod
    def from_starts(cls, starts: Bool[Tensor, "B T"]) -> "Patches":
        """Patches that begin where `starts` is true.

        Raises:
            ValueError: A row does not begin with a start.

        """
        return cls(starts)

    @classmethod
    def from_lengths(cls, lengths: Int[Tensor, "B P"]) -> "Patches":
        """Patches of the given lengths, one after the other; zeros at the end of a row are padding.

        Raises:
            ValueError: A length is negative, a zero precedes a length, or rows differ in bytes.

        """
        if lengths.ndim != 2:
            raise ValueError(f"expected patch lengths [rows, patches], got {list(lengths.shape)}")
        if (lengths < 0).any():
            raise ValueError(f"patch lengths must be positive, got {int(lengths.min())}")
        used = lengths > 0
        if (used[:, 1:] & ~used[:, :-1]).any():
            raise ValueError("a patch of length 0 is padding: it cannot come before another patch")
        ends = lengths.long().cumsum(1)
        totals = ends[:, -1] if ends.shape[1] else ends.sum(1)
        if (totals != totals[:1]).any():
            raise ValueError(
                f"every row must have the same number of bytes, got {totals.unique().tolist()}"
            )
        num_bytes = int(totals[0]) if len(totals) else 0
        begins = (ends - lengths)[used]
        rows = torch.arange(len(lengths), device=lengths.device)[:, None].expand_as(lengths)[used]
        starts = torch.zeros(len(lengths), num_bytes, dtype=torch.bool, device=lengths.device)
        starts[rows, begins] = True
        return cls(starts)

    @property
    def num_patches(self) -> Int[Tensor, " B"]:
        """Patches of each row."""
        return self.starts.sum(1)

    @property
    def ids(self) -> Int[Tensor, "B T"]:
        """Which patch of its row each byte is in, from 0."""
        return self.starts.long().cumsum(1) - 1

    @property
    def lengths(self) -> Int[Tensor, "B P"]:
        """Bytes of each patch; 0 is padding after a row's last patch."""
        ids = self.ids
        width = int(ids[:, -1].max()) + 1 if ids.numel() else 0
        lengths = torch.zeros(len(ids), width, dtype=torch.int64, device=ids.device)
        return lengths.scatter_add_(1, ids, torch.ones_like(ids))

    @property
    def mean_patch_bytes(self) -> float:
        """Bytes per start over all rows; 0.0 without bytes."""
        return self.starts.numel() / max(1, int(self.starts.sum()))
