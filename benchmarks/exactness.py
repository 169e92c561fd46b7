"""Prove the codec exact: a corpus in every way, a large file, hostile containers; three lines.

python benchmarks/exactness.py [--part grid large hostile] [--megabytes 100] [--hostile 100000]

grid      each file of the corpus of tests/compression, at every number of lanes, written here with
          two workers and in another process with one: the same bytes, and back; some through
          pipes; and the beginning of each by the interpreter.
large     text, tables, code, noise and zeros by the default codec, from a file to a file and back.
hostile   damaged and hostile containers, in a process of limited memory.
"""

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

TESTS = Path(__file__).resolve().parent.parent / "tests" / "compression"
sys.path.insert(0, str(TESTS))

import codec_process  # noqa: E402
from corpus_files import corpus, stream  # noqa: E402
from test_exactness import another_process, through_pipes, written  # noqa: E402
from test_hostile import tried  # noqa: E402

from bytelm.compression import (  # noqa: E402
    Options,
    compress,
    compress_stream,
    decompress_stream,
    kernels,
)

LANES = (1, 2, 7, 64, 255, 256)
FRAME = 1 << 16
INTERPRETED_BYTES = 100
PIPED_EVERY = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--part", nargs="*", default=["grid", "large", "hostile"])
    parser.add_argument("--megabytes", type=int, default=100)
    parser.add_argument("--hostile", type=int, default=100_000, metavar="COUNT")
    arguments = parser.parse_args()
    if "grid" in arguments.part:
        grid()
    if "large" in arguments.part:
        large(arguments.megabytes * 1_000_000)
    if "hostile" in arguments.part:
        hostile(arguments.hostile)


def grid() -> None:
    started = time.perf_counter()
    files = corpus()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        paths = written(folder / "files", files)
        for lanes in LANES:
            _check_lanes(files, paths, lanes)
        beginnings = {name: data[:INTERPRETED_BYTES] for name, data in files.items()}
        short = written(folder / "beginnings", beginnings)
        options = [{"lanes": lanes, "mode": "mixer", "verify": False} for lanes in (1, 5)]
        found = another_process({"files": short, "options": options}, backend="python")
    for name, data in beginnings.items():
        blobs = [compress(data, options=Options(**each)) for each in options]
        assert found["written"][name] == [codec_process.digest(blob) for blob in blobs], name
    print(
        f"grid: {len(files)} files, {sum(map(len, files.values())):,} bytes, lanes "
        f"{', '.join(map(str, LANES))}, 1 and 2 workers, another process, some through pipes: all "
        f"the same bytes, all back; {kernels.BACKEND} and the interpreter agree on the first "
        f"{INTERPRETED_BYTES} bytes of each; {time.perf_counter() - started:.0f} s",
        flush=True,
    )


def _check_lanes(files: dict[str, bytes], paths: dict[str, str], lanes: int) -> None:
    options = {"lanes": lanes, "frame_bytes": FRAME, "verify": False}
    here = Options(**options, workers=2)
    # The other process decompresses what it wrote: by its digest that is what is written here.
    job = {"files": paths, "options": [{**options, "workers": 1}]}
    found = another_process(job, backend=kernels.BACKEND)
    for number, (name, data) in enumerate(files.items()):
        blob = compress(data, options=here)
        assert found["written"][name] == [codec_process.digest(blob)], name
        if number % PIPED_EVERY == lanes % PIPED_EVERY:
            piped, back = through_pipes(data, here)
            assert back == data, name
            # But for the size in the header, which a pipe does not tell.
            assert piped[32:] == blob[32:], name


def large(num_bytes: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        raw, packed, back = (Path(name) / each for each in ("raw", "packed", "back"))
        raw.write_bytes(stream(num_bytes))
        expected = _digest(raw)
        started = time.perf_counter()
        with raw.open("rb") as source, packed.open("wb") as target:
            summary = compress_stream(source, target, size=num_bytes)
        there = time.perf_counter()
        with packed.open("rb") as source, back.open("wb") as target:
            decompress_stream(source, target)
        ended = time.perf_counter()
        assert _digest(back) == expected
        assert summary.compressed_bytes == packed.stat().st_size
    modes = sorted({frame.mode for frame in summary.frames})
    print(
        f"large: {num_bytes:,} bytes by the default codec, verified, {len(summary.frames)} frames "
        f"({', '.join(modes)}), {summary.bits_per_byte:.3f} bpb, {there - started:.0f} s there and "
        f"{ended - there:.0f} s back on {len(os.sched_getaffinity(0))} cores: the same bytes",
        flush=True,
    )


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "blake2b").digest()


def hostile(count: int) -> None:
    started = time.perf_counter()
    found = tried(0, count)
    outcomes = ", ".join(f"{name} {number:,}" for name, number in sorted(found["outcomes"].items()))
    print(
        f"hostile: {count:,} containers: {outcomes}; nothing else was raised, no wrong byte came "
        f"out; slowest {found['slowest_seconds']:.2f} s of CPU, {found['peak_memory_bytes'] >> 20} "
        f"MiB at most; {time.perf_counter() - started:.0f} s",
        flush=True,
    )


if __name__ == "__main__":
    main()
