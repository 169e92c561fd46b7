"""Where patches start: pure values over bytes and entropies.

A patcher decides, after each byte, whether the next one starts a patch, from what was read alone
and once. Who computes the entropies is another layer (`bytelm.models`).

    stream.py     the one implementation of deciding: whole documents, chunks, batches of rows
    static.py space.py entropy.py shannon.py    the rules
    lengths.py    shortest and longest patch
    patches.py    starts, lengths and ids as one checked value
    calibrate.py  the threshold that gives a wanted mean patch size
"""

from bytelm.patching.calibrate import Calibration, calibrate_threshold
from bytelm.patching.entropy import Entropy
from bytelm.patching.patches import Patches
from bytelm.patching.shannon import ShannonWindow, window_entropies
from bytelm.patching.space import Space
from bytelm.patching.static import Static
from bytelm.patching.stream import (
    PatchState,
    RowStates,
    StartRule,
    batch_starts,
    patch_starts,
)

Patcher = Static | Space | Entropy | ShannonWindow
"""Every patcher; `kind` tells them apart in a recipe."""

__all__ = [
    "Calibration",
    "Entropy",
    "PatchState",
    "Patcher",
    "Patches",
    "RowStates",
    "ShannonWindow",
    "Space",
    "StartRule",
    "Static",
    "batch_starts",
    "calibrate_threshold",
    "patch_starts",
    "window_entropies",
]
