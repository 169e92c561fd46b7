"""Every example runs. Oracle: its exit code, and that it prints what it says."""

import os
import subprocess
import sys
from pathlib import Path

EXAMPLES = Path(__file__).parents[1] / "examples"


def test_train_and_use(tmp_path: Path) -> None:
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


def test_every_example_has_a_test() -> None:
    assert [path.name for path in sorted(EXAMPLES.glob("*.py"))] == ["train_and_use.py"]
