"""How fast patching is on one core: every rule, and the n-gram source of entropies.

    python benchmarks/patching.py [PATH] [--megabytes 10]

Without PATH the bytes are synthetic words. The best of three is shown, MB/s (1 MB = 10**6 bytes).
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from bytelm.models.ngram import Ngram, NgramConfig
from bytelm.patching import Entropy, Patcher, ShannonWindow, Space, Static, patch_starts

HELD_OUT_BYTES = 400_000
PATCHERS: tuple[Patcher, ...] = (
    Static(patch_size=4),
    Space(),
    Space(max_patch_bytes=16),
    Entropy(threshold=1.3),
    Entropy(relative_threshold=0.5),
    Entropy(threshold=1.3, max_patch_bytes=16),
    Entropy(threshold=1.3, min_patch_bytes=2),
    Entropy(threshold=1.3, min_patch_bytes=2, max_patch_bytes=16),
    Entropy(threshold=1.3, min_patch_bytes=4, max_patch_bytes=16),
    ShannonWindow(),
)


def synthetic(num_bytes: int) -> np.ndarray:
    """Words of random letters, the same on every machine."""
    rng = np.random.default_rng(0)
    words = [bytes(rng.integers(97, 123, rng.integers(2, 9), np.uint8)) for _ in range(2000)]
    text = b" ".join(words[i] for i in rng.zipf(1.3, num_bytes // 4) % len(words))
    return np.frombuffer(text, np.uint8)[:num_bytes]


def megabytes_per_second(run: Callable[[], object], num_bytes: int, repeats: int = 3) -> float:
    best = math.inf
    for _ in range(repeats):
        began = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - began)
    return num_bytes / best / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", nargs="?", type=Path)
    parser.add_argument("--megabytes", type=float, default=10.0)
    args = parser.parse_args()
    torch.set_num_threads(1)
    limit = int(args.megabytes * 1e6)
    data = synthetic(limit) if args.path is None else np.fromfile(args.path, np.uint8)[:limit]

    entropies = np.random.default_rng(0).exponential(0.9, len(data)).astype(np.float32)
    for patcher in PATCHERS:
        speed = megabytes_per_second(
            lambda rule=patcher: patch_starts(
                rule, data, entropies if rule.needs_entropies else None
            ),
            len(data),
        )
        print(f"{speed:8.1f} MB/s  {patcher!r}")

    train, test = data[:-HELD_OUT_BYTES], data[-HELD_OUT_BYTES:]
    began = time.perf_counter()
    model = Ngram.fit(NgramConfig(), [train])
    print(
        f"{time.perf_counter() - began:8.1f} s     fit of {len(train) / 1e6:.1f} MB, {model.config}"
    )
    nothing = np.zeros(0, np.uint8)
    speed = megabytes_per_second(lambda: model.document_entropies(test, nothing), len(test))
    print(f"{speed:8.1f} MB/s  n-gram entropies")
    speed = megabytes_per_second(lambda: model.predict(test, nothing), len(test), repeats=1)
    print(f"{speed:8.1f} MB/s  n-gram log-probabilities")
    log_probs, _ = model.predict(test, nothing)
    bits = -log_probs[np.arange(len(test)), test].astype(np.float64).sum() / math.log(2)
    print(f"{bits / len(test):8.4f} bits per byte on the last {len(test)} bytes")


if __name__ == "__main__":
    main()
