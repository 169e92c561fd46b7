"""Measure how fast files become a corpus and a corpus becomes batches, on one core.

python benchmarks/reading.py PATH [--rows 32] [--context-bytes 512] [--seconds 5]
"""

import argparse
import tempfile
import time
from pathlib import Path

import torch

from bytelm.data import Batches, Corpus, build_corpus, split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("path", type=Path, help="a file or a folder")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--context-bytes", type=int, default=512)
    parser.add_argument("--seconds", type=float, default=5.0, help="how long to draw batches")
    arguments = parser.parse_args()
    torch.set_num_threads(1)

    with tempfile.TemporaryDirectory() as folder:
        for label in ("build_corpus, first time", "build_corpus, again"):
            started = time.perf_counter()
            corpus = build_corpus([arguments.path], cache_dir=Path(folder))
            _report(label, corpus.num_bytes, time.perf_counter() - started)
        print(f"{'':28}{corpus.num_documents:,} documents, {corpus.num_bytes:,} bytes")
        _measure_fingerprint(corpus)
        _measure_overlap(corpus)
        _measure_batches(corpus, arguments)


def _measure_fingerprint(corpus: Corpus) -> None:
    started = time.perf_counter()
    fingerprint = corpus.fingerprint
    _report(f"fingerprint {fingerprint[:12]}", corpus.num_bytes, time.perf_counter() - started)


def _measure_overlap(corpus: Corpus) -> None:
    started = time.perf_counter()
    splits = split(corpus, valid_fraction=0.05, test_fraction=0.05, seed=0)
    found = splits.overlap
    elapsed = time.perf_counter() - started
    # The training data is read once for each of the two held-out splits.
    _report("split and overlap", 2 * splits.train.num_bytes, elapsed)
    print(f"{'':28}valid {found.valid:.2%}, test {found.test:.2%}, {len(found.duplicates)} copies")


def _measure_batches(corpus: Corpus, arguments: argparse.Namespace) -> None:
    batches = Batches(corpus, context_bytes=arguments.context_bytes, rows=arguments.rows, seed=0)
    started = time.perf_counter()
    step, scored = 0, 0
    while time.perf_counter() - started < arguments.seconds:
        batch = batches.batch(step)
        scored += batch.targets.numel()
        step += 1
    elapsed = time.perf_counter() - started
    _report(f"batches {arguments.rows} x {arguments.context_bytes}", scored, elapsed)


def _report(label: str, num_bytes: int, seconds: float) -> None:
    print(f"{label:28}{num_bytes / 1e6 / seconds:10,.1f} MB/s  ({seconds:.3f} s)")


if __name__ == "__main__":
    main()
