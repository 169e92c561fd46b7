"""Random order as a pure function of a seed: no generator state to save, no process to depend on.

The mixing function is the finalizer of SplitMix64 (Steele, Lea and Flood, "Fast splittable
pseudorandom number generators", OOPSLA 2014). It is a bijection of 64-bit words, and it is integer
arithmetic only, so the order is the same on every platform and with every version of NumPy.
"""

from enum import IntEnum

import numpy as np

_WORD = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_FIRST = 0xBF58476D1CE4E5B9
_SECOND = 0x94D049BB133111EB


class Purpose(IntEnum):
    """What a random order is for; one seed gives independent orders for each."""

    SPLIT = 1
    PHASE = 2
    ROWS = 3
    SHINGLES = 4
    PAIRS = 5
    PAIR_BATCHES = 6


def keyed_hash(indices: np.ndarray, *, seed: int, purpose: Purpose, stream: int = 0) -> np.ndarray:
    """Map each index to a random-looking uint64; different indices give different values.

    Args:
        indices: Integers >= 0, any shape.
        seed: Integer >= 0; its lowest 64 bits count.
        purpose: What the values are for.
        stream: Integer >= 0, for example the epoch.

    Raises:
        ValueError: `seed` or `stream` is negative.

    """
    if seed < 0 or stream < 0:
        raise ValueError(f"seed and stream must be integers >= 0, got {seed} and {stream}")
    key = 0
    for part in (seed, purpose, stream):
        key = _mix_integer((key + part + _GAMMA) & _WORD)
    return _mix(np.uint64(key) + np.asarray(indices, dtype=np.uint64) * np.uint64(_GAMMA))


def keyed_permutation(size: int, *, seed: int, purpose: Purpose, stream: int = 0) -> np.ndarray:
    """Order the integers below `size` at random, int64 [size]."""
    # Distinct hashes leave no ties, so the result does not depend on the sorting algorithm.
    hashes = keyed_hash(np.arange(size), seed=seed, purpose=purpose, stream=stream)
    return np.argsort(hashes)


def _mix(words: np.ndarray) -> np.ndarray:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(_FIRST)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(_SECOND)
    return words ^ (words >> np.uint64(31))


def _mix_integer(word: int) -> int:
    return int(_mix(np.array([word], dtype=np.uint64))[0])
