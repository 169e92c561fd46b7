"""Entropy patching: a new patch starts where the next byte is hard to predict.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), section 2.3.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bytelm.patching.lengths import check_limits
from bytelm.patching.stream import Reads, StartRule
from bytelm.vocab import VOCAB_SIZE


@dataclass(frozen=True, kw_only=True)
class Entropy(StartRule):
    """Start a patch where the entropy of the next byte is high, has risen, or both."""

    kind: ClassVar[str] = "entropy"
    needs_entropies: ClassVar[bool] = True

    threshold: float | None = None
    """Nats; the entropy must be above it (the global rule). The released BLT's is 1.335442."""

    relative_threshold: float | None = None
    """Nats; the rise since the byte before must be above it (the approximate monotonic rule)."""

    min_patch_bytes: int = 1
    """A start that would leave a shorter patch behind it is ignored."""

    max_patch_bytes: int | None = None
    """A patch this long ends. None: no limit."""

    def __post_init__(self) -> None:
        check_limits(self.min_patch_bytes, self.max_patch_bytes)
        if self.threshold is None and self.relative_threshold is None:
            raise ValueError(
                "an entropy patcher needs threshold, relative_threshold or both, in nats; "
                "`bytelm calibrate` finds one"
            )
        largest = math.log(VOCAB_SIZE)
        if self.threshold is not None:
            check_threshold("threshold", self.threshold, largest)
        if self.relative_threshold is not None:
            check_threshold("relative_threshold", self.relative_threshold, largest)

    @property
    def look_back(self) -> int:
        """A rise is measured from the entropy before."""
        return 1

    @property
    def limits(self) -> tuple[int, int | None]:
        """The shortest and longest patch, bytes."""
        return self.min_patch_bytes, self.max_patch_bytes

    def candidates(self, reads: Reads) -> np.ndarray:
        """Where every threshold that is set is exceeded."""
        entropies = reads.entropies
        assert entropies is not None, "checked by the caller"
        starts = np.ones(len(entropies), bool)
        if self.threshold is not None:
            starts &= entropies > np.float32(self.threshold)
        if self.relative_threshold is not None:
            starts[1:] &= np.diff(entropies) > np.float32(self.relative_threshold)
        return starts


def check_threshold(name: str, threshold: float, largest: float) -> None:
    """Refuse a threshold that is not a number of nats, or that no entropy exceeds.

    Args:
        name: What the message calls it.
        threshold: Nats.
        largest: The largest entropy there can be, nats.

    Raises:
        ValueError: Not finite, negative, or at least `largest`.

    """
    if not math.isfinite(threshold) or threshold < 0:
        raise ValueError(f"{name} must be a finite number of nats >= 0, got {threshold}")
    if threshold >= largest:
        raise ValueError(
            f"{name} is {threshold} nats, but no entropy exceeds {largest:.2f} nats here: no patch "
            f"would ever start; use a smaller one (1 bit is {math.log(2):.4f} nats)"
        )
