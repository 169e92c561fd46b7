"""Static patching: every patch has the same number of bytes."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bytelm.patching.stream import Reads, StartRule


@dataclass(frozen=True, kw_only=True)
class Static(StartRule):
    """Start a patch at every `patch_size`-th byte of a document."""

    kind: ClassVar[str] = "static"
    needs_entropies: ClassVar[bool] = False

    patch_size: int = 4
    """Bytes in every patch but a document's last, which may be shorter."""

    def __post_init__(self) -> None:
        if self.patch_size < 1:
            raise ValueError(f"patch_size must be at least 1, got {self.patch_size}")

    @property
    def look_back(self) -> int:
        """Nothing but the length of the open patch counts."""
        return 0

    @property
    def limits(self) -> tuple[int, int | None]:
        """No patch is longer than `patch_size`, and nothing else ends one."""
        return 1, self.patch_size

    def candidates(self, reads: Reads) -> np.ndarray:
        """None: every start comes from the limit."""
        return np.zeros(len(reads.values), bool)
