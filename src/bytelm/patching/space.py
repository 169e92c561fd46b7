"""Space patching: a patch ends with the first byte of each run of space-like bytes.

Source: SpaceByte (Slagle 2024, arXiv:2404.14408) as the released BLT does it: the boundary comes
after the space, so that a word's first byte is predicted by a new patch.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bytelm.patching.lengths import check_limits
from bytelm.patching.stream import Reads, StartRule


def _space_like() -> np.ndarray:
    """Bool `[256]`: all but digits, ASCII letters and UTF-8 continuation bytes."""
    byte = np.arange(256)
    inside_character = (byte >= 0x80) & (byte <= 0xBF)
    return np.array([not chr(b).isalnum() or b >= 0x80 for b in byte]) & ~inside_character


SPACE_LIKE = _space_like()
SPACE_LIKE.flags.writeable = False


@dataclass(frozen=True, kw_only=True)
class Space(StartRule):
    """Start a patch after the first byte of each run of space-like bytes."""

    kind: ClassVar[str] = "space"
    needs_entropies: ClassVar[bool] = False

    min_patch_bytes: int = 1
    """A patch that would be shorter goes on to the next place where one may end."""

    max_patch_bytes: int | None = None
    """A patch this long ends. None: no limit."""

    def __post_init__(self) -> None:
        check_limits(self.min_patch_bytes, self.max_patch_bytes)

    @property
    def look_back(self) -> int:
        """The byte before the last one says whether a run began before it."""
        return 1

    @property
    def limits(self) -> tuple[int, int | None]:
        """The shortest and longest patch, bytes."""
        return self.min_patch_bytes, self.max_patch_bytes

    def candidates(self, reads: Reads) -> np.ndarray:
        """Where a space-like byte is read that does not follow another one."""
        spaces = SPACE_LIKE[reads.values]
        spaces[reads.ages == 0] = False
        starts = spaces.copy()
        starts[1:] &= ~spaces[:-1]
        return starts
