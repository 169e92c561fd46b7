"""Kill a training process at random moments, resume it, compare with one that was never killed.

`python kill_and_resume.py MODEL FOLDER KILLS SEED`, where MODEL is blt or pairs; exits non-zero
with the first difference.
Processes are forked from one that has torch loaded and has not computed anything.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tiny_pairs import PATCHED, splits
from tiny_run import blt_config, write_files

from bytelm.training.pair_run import train_pairs
from bytelm.training.run import train

Training = Callable[[Path], object]
"""Trains, or goes on training, in a run directory."""

TIMES = ("seconds", "bytes_per_second")


def start(training: Training, out: Path) -> int:
    """Train in a new process; its id."""
    if child := os.fork():
        return child
    training(out)
    os._exit(0)


def finish(child: int) -> int:
    """Wait for a process; its exit status, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def count_rows(out: Path) -> int:
    """Lines of metrics.jsonl."""
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def content(out: Path) -> dict[str, object]:
    """Everything in a run directory that must not depend on interruptions."""
    files = {str(p.relative_to(out)): p.read_bytes() for p in out.rglob("*.safetensors")}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    pointers = {name: (out / name).read_text() for name in ("best", "last")}
    rows = [{key: value for key, value in row.items() if key not in TIMES} for row in rows]
    return {**files, **pointers, "metrics": rows}


def compare(training: Training, folder: Path, *, steps: int, kills: int, seed: int) -> None:
    """Run the comparison."""
    straight, killed = folder / "straight", folder / "killed"
    # what is cached is cached here, so that both spend their time on the same
    assert finish(start(training, folder / "first")) == 0
    assert finish(start(training, straight)) == 0

    generator = random.Random(seed)
    for step in sorted(generator.choices(range(steps), k=kills)):
        child = start(training, killed)
        while count_rows(killed) < step:
            time.sleep(0.001)
        # a step, its evaluation and its checkpoint take about this long
        time.sleep(generator.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        finish(child)
    assert finish(start(training, killed)) == 0

    expected, got = content(straight), content(killed)
    assert got.keys() == expected.keys(), (sorted(got), sorted(expected))
    for name in expected:
        assert got[name] == expected[name], f"{name} differs"
    starts = len(json.loads((killed / "environment.json").read_text())["starts"])
    sys.stdout.write(f"identical after {kills} kills, {starts} of which had begun to train\n")


def main(model: str, folder: Path, kills: int, seed: int) -> None:
    """Choose what is trained."""
    if model == "blt":
        config = blt_config(write_files(folder / "data"), steps=24)
        training, steps = partial(train, config, progress=False), config.training.steps
    else:
        training, steps = partial(train_pairs, PATCHED, splits(), progress=False), 15
    compare(training, folder, steps=steps, kills=kills, seed=seed)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
