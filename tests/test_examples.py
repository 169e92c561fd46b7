"""Every example runs. Oracle: its exit code, and that it prints what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_train_and_use_and_trace(tmp_path: Path) -> None:
    folder = tmp_path / "files"
    folder.mkdir()
    for index in range(20):
        (folder / f"{index}.txt").write_text("The cat sat on the mat, again and again.\n" * 60)
    done = subprocess.run(
        [
            sys.executable,
            EXAMPLES / "train_and_use.py",
            folder,
            "--steps",
            "3",
            "--out",
            tmp_path / "run",
        ],
        env={**os.environ, "BYTELM_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "bits per byte" in done.stdout
    assert "patches: [b'T" in done.stdout
    traced = subprocess.run(
        [sys.executable, EXAMPLES / "trace_a_text.py", tmp_path / "run", "The cat"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert traced.returncode == 0, traced.stderr
    lines = traced.stdout.splitlines()
    # A header of two lines, BOS, and the bytes; what closes after BOS is BOS.
    assert len(lines) == 2 + 1 + len("The cat")
    assert lines[2].startswith("| `BOS` |")
    assert "BOS alone | on patch 0 | patch 0 | `T`" in lines[2]
    assert [line.split("`")[1] for line in lines[3:]] == list("The␣cat")


def test_every_example_has_a_test() -> None:
    assert [path.name for path in sorted(EXAMPLES.glob("*.py"))] == [
        "trace_a_text.py",
        "train_and_use.py",
    ]
