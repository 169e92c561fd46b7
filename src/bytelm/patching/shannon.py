"""Shannon-window patching: the cheap baseline, from the histogram of the last few bytes.

It measures how varied the bytes just read were, not how hard the next one is, needs no model, and
looks back only. Counts are integers, so a document cut into chunks gives the same entropies.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from bytelm.patching.entropy import check_threshold
from bytelm.patching.lengths import check_limits
from bytelm.patching.stream import Reads, StartRule
from bytelm.vocab import NUM_BYTES

_FIXED_POINT = 1 << 32
"""Resolution of n ln n inside a sum; an integer sum does not depend on its order."""

_MAX_WINDOW = 4096
"""Every distance inside the window is compared: a longer one would be slow, not wrong."""


@dataclass(frozen=True, kw_only=True)
class ShannonWindow(StartRule):
    """Start a patch where the bytes just read were varied."""

    kind: ClassVar[str] = "shannon-window"
    needs_entropies: ClassVar[bool] = False

    window: int = 10
    """How many of the last bytes are counted; fewer at a document's start."""

    threshold: float = 2 * math.log(2)
    """Nats; the entropy of their histogram must be above it. The default is 2 bits."""

    min_patch_bytes: int = 1
    """A start that would leave a shorter patch behind it is ignored."""

    max_patch_bytes: int | None = None
    """A patch this long ends. None: no limit."""

    def __post_init__(self) -> None:
        check_limits(self.min_patch_bytes, self.max_patch_bytes)
        if not 2 <= self.window <= _MAX_WINDOW:
            raise ValueError(f"window must be 2 to {_MAX_WINDOW} bytes, got {self.window}")
        check_threshold("threshold", self.threshold, math.log(min(self.window, NUM_BYTES)))

    @property
    def look_back(self) -> int:
        """The other bytes of the window, and the one that leaves it."""
        return self.window

    @property
    def limits(self) -> tuple[int, int | None]:
        """The shortest and longest patch, bytes."""
        return self.min_patch_bytes, self.max_patch_bytes

    def candidates(self, reads: Reads) -> np.ndarray:
        """Where the entropy of the window is above the threshold."""
        return _histogram_entropies(reads, self.window) > np.float32(self.threshold)

    def row_candidates(self, reads: Reads) -> np.ndarray:
        """As `StartRule.row_candidates`; sums run along a document, so each is taken alone."""
        rows = [
            Reads(values=values, ages=ages, entropies=None)
            for values, ages in zip(reads.values, reads.ages, strict=True)
        ]
        return np.array([self.candidates(row)[-1] for row in rows])


def window_entropies(data: np.ndarray, *, window: int) -> np.ndarray:
    """float32 `[n]`, nats: entropy of the histogram of up to `window` bytes *before* each byte.

    What `ShannonWindow` compares with its threshold; `calibrate_threshold` takes it.
    """
    values = np.concatenate((np.zeros(1, np.uint8), data[:-1]))[: len(data)]
    reads = Reads(values=values, ages=np.arange(len(data)), entropies=None)
    return _histogram_entropies(reads, window)


def _histogram_entropies(reads: Reads, window: int) -> np.ndarray:
    """Entropy of the bytes in the window that ends with each read, float32 nats.

    With counts c of m bytes it is (m ln m - sum of c ln c) / m. The sum is carried along: a byte
    that enters the window, or leaves it, changes one count.
    """
    values, ages = reads.values, reads.ages
    entering, leaving = _equal_neighbors(values, ages, window)
    grid = np.arange(window + 1)
    c_log_c = np.rint(grid * np.log(np.maximum(grid, 1)) * _FIXED_POINT).astype(np.int64)
    gain = np.diff(c_log_c)
    change = gain[entering]
    change[window:] -= np.where(ages[window:] > window, gain[leaving[:-window]], 0)
    change[ages == 0] = 0
    total = np.cumsum(change)
    # A document's sum starts at its BOS: take off what was carried in.
    opening = np.maximum.accumulate(np.where(ages == 0, np.arange(len(ages)), 0))
    total -= np.where(opening > 0, total[opening], 0)
    filled = np.minimum(ages, window)
    scale = np.maximum(filled, 1) * float(_FIXED_POINT)
    return ((c_log_c[filled] - total) / scale).astype(np.float32)


def _equal_neighbors(
    values: np.ndarray, ages: np.ndarray, window: int
) -> tuple[np.ndarray, np.ndarray]:
    """How many of the `window - 1` bytes before, and after, each byte equal it.

    Only bytes of the same document count; a BOS (age 0) is not a byte.
    """
    reach = np.minimum(ages, window)
    dtype = np.uint8 if window <= 256 else np.uint16
    before, after = np.zeros(len(values), dtype), np.zeros(len(values), dtype)
    for distance in range(1, window):
        equal = (values[distance:] == values[:-distance]) & (reach[distance:] > distance)
        before[distance:] += equal
        after[:-distance] += equal
    return before, after
