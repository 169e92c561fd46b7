"""Damaged and hostile containers. Oracles: what was put in, the error family, limits of memory.

`benchmarks/exactness.py` tries 100,000 of them; these are the first.
"""

import json
import subprocess
import sys
from pathlib import Path

import mutations
import pytest

from bytelm.compression import decompress
from bytelm.errors import CompressionError


@pytest.mark.parametrize("kind", range(len(mutations._MAKERS)))
def test_hostile_containers_get_an_error_with_a_name(kind):
    """Each kind a hundred times, and other readers with some of them."""
    kinds = len(mutations._MAKERS)
    seeds = range(1_000_000 * kinds + kind, 1_000_100 * kinds + kind, kinds)
    for seed in seeds:
        case = mutations.hostile(seed)
        mutations.outcome(case)
        if seed % 16 == 0:
            mutations.try_other_readers(case, seed)


def test_every_kind_of_refusal_is_met():
    outcomes = {mutations.outcome(mutations.hostile(seed)) for seed in range(400)}
    assert {"DamagedError", "NotAContainerError", "LimitError", "VersionError", "right"} <= outcomes


def test_every_bit_of_a_container_counts():
    """Each single flipped bit of a small container is noticed, or changes nothing that is read."""
    base = next(base for base in mutations.bases() if 600 < len(base.raw) < 900)
    refused = 0
    for bit in range(0, 8 * len(base.blob), 1 if len(base.blob) < 300 else 7):
        blob = bytearray(base.blob)
        blob[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CompressionError):
            decompress(bytes(blob), limits=mutations.LIMITS)
        refused += 1
    assert refused > 500


def test_every_cut_is_noticed():
    base = next(base for base in mutations.bases() if 600 < len(base.raw) < 900)
    for size in range(len(base.blob)):
        with pytest.raises(CompressionError):
            decompress(base.blob[:size], limits=mutations.LIMITS)


def tried(first: int, count: int) -> dict:
    done = subprocess.run(
        [sys.executable, str(Path(mutations.__file__)), str(first), str(count)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_memory_is_bounded():
    """In a process that may take 256 MiB more than a good container does, and no byte beyond."""
    found = tried(5_000_000, 1500)
    assert sum(found["outcomes"].values()) == 1500


@pytest.mark.slow
def test_twenty_thousand():
    found = tried(7_000_000, 20_000)
    assert sum(found["outcomes"].values()) == 20_000
