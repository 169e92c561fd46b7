"""Kill a training process at random moments, resume it, compare with one that was never killed.

`python kill_and_resume.py FOLDER KILLS SEED`; exits non-zero with the first difference.
Processes are forked from one that has torch loaded and has not computed anything.
"""

import json
import os
import random
import signal
import sys
import time
from pathlib import Path

from tiny_run import blt_config, write_files

from bytelm.training.run import train

TIMES = ("seconds", "bytes_per_second")


def start(config, out: Path) -> int:
    """Train in a new process; its id."""
    if child := os.fork():
        return child
    train(config, out, progress=False)
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


def main(folder: Path, kills: int, seed: int) -> None:
    """Run the comparison."""
    config = blt_config(write_files(folder / "data"), steps=24)
    straight, killed = folder / "straight", folder / "killed"
    # the entropy model is cached here, so that both spend their time on the BLT
    assert finish(start(config, folder / "first")) == 0
    assert finish(start(config, straight)) == 0

    generator = random.Random(seed)
    for step in sorted(generator.choices(range(config.training.steps), k=kills)):
        child = start(config, killed)
        while count_rows(killed) < step:
            time.sleep(0.001)
        # a step, its evaluation and its checkpoint take about this long
        time.sleep(generator.uniform(0, 0.1))
        os.kill(child, signal.SIGKILL)
        finish(child)
    assert finish(start(config, killed)) == 0

    expected, got = content(straight), content(killed)
    assert got.keys() == expected.keys(), (sorted(got), sorted(expected))
    for name in expected:
        assert got[name] == expected[name], f"{name} differs"
    starts = len(json.loads((killed / "environment.json").read_text())["starts"])
    sys.stdout.write(f"identical after {kills} kills, {starts} of which had begun to train\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
