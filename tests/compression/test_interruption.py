"""Killed in the middle, or out of room: nothing stands under the final name. Oracle: the folder."""

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from corpus_files import stream

COMMAND = [sys.executable, "-m", "bytelm"]


@pytest.fixture(scope="module")
def data() -> bytes:
    return stream(400_000)


def written_aside(folder: Path, known: set[str]) -> int:
    """How many bytes of what is not finished are in the folder."""
    return sum(path.stat().st_size for path in folder.iterdir() if path.name not in known)


def kill_when(process: subprocess.Popen, folder: Path, known: set[str], num_bytes: int) -> bool:
    """Kill it as soon as so much is written; whether it was still running then."""
    while process.poll() is None:
        if written_aside(folder, known) >= num_bytes:
            process.send_signal(signal.SIGKILL)
            return process.wait() == -signal.SIGKILL
        time.sleep(0.002)
    return False


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["compress", "decompress"])
def test_killed_at_any_moment_leaves_no_file_under_the_final_name(tmp_path, data, verb):
    rng = random.Random(1)
    source, packed = tmp_path / "source", tmp_path / "packed.blm"
    source.write_bytes(data)
    plain = ["--frame", "64K", "--workers", "1"]
    subprocess.run([*COMMAND, "compress", *plain, str(source), "-o", str(packed)], check=True)
    size = {"compress": packed, "decompress": source}[verb].stat().st_size
    known = {source.name, packed.name}
    final = tmp_path / "final"
    killed = 0
    for _ in range(10):
        if verb == "compress":
            arguments = [verb, *plain, str(source), "-o", str(final)]
        else:
            arguments = [verb, "--workers", "1", str(packed), "-o", str(final)]
        with subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.DEVNULL) as process:
            killed += kill_when(process, tmp_path, known, rng.randrange(size * 3 // 4))
        assert not final.exists() or process.returncode == 0
        for path in tmp_path.iterdir():
            if path.name not in known:
                path.unlink()
    assert killed >= 5, "most must have been in the middle"
    subprocess.run([*COMMAND, "test", str(packed)], check=True)


def little_room() -> None:
    """Files may have fifty thousand bytes, and then writing fails as on a full disk."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))


@pytest.mark.slow
@pytest.mark.parametrize("verb", ["compress", "decompress"])
def test_no_room_for_the_output(tmp_path, data, verb):
    source, packed = tmp_path / "source", tmp_path / "packed.blm"
    source.write_bytes(data)
    subprocess.run([*COMMAND, "compress", str(source), "-o", str(packed)], check=True)
    folder = tmp_path / "folder"
    folder.mkdir()
    given = source if verb == "compress" else packed
    done = subprocess.run(
        [*COMMAND, verb, str(given), "-o", str(folder / "final")],
        capture_output=True,
        text=True,
        preexec_fn=little_room,
        check=False,
    )
    assert done.returncode == 1
    assert "File too large" in done.stderr
    assert "Traceback" not in done.stderr
    assert list(folder.iterdir()) == []


def can_mount(folder: Path) -> bool:
    if shutil.which("unshare") is None or shutil.which("mount") is None:
        return False
    return subprocess.run(on_small_disk(folder, "true"), capture_output=True).returncode == 0


def on_small_disk(folder: Path, command: str) -> list[str]:
    """The command where `folder` is a disk of 64 kB that nobody else sees."""
    mount = f"mount -t tmpfs -o size=64k none '{folder}' && {command}"
    return ["unshare", "--mount", "--map-root-user", "sh", "-c", mount]


@pytest.mark.slow
def test_a_full_disk(tmp_path, data):
    if not can_mount(tmp_path):
        pytest.skip("this process may mount nothing")
    source = tmp_path.parent / f"{tmp_path.name}-source"
    source.write_bytes(data)
    run = " ".join([*COMMAND, "compress", str(source), "-o", f"{tmp_path}/final"])
    command = f"{run}; status=$?; ls -A {tmp_path} | wc -l; exit $status"
    done = subprocess.run(
        on_small_disk(tmp_path, command), capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert done.stdout.strip() == "0", "nothing is left on the disk"
    assert "No space left on device" in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_standard_output(tmp_path):
    source = tmp_path / "source"
    source.write_bytes(os.urandom(1000))
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, "compress", str(source), "-o", "-"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 1
    assert "No space left on device" in done.stderr
    assert "Traceback" not in done.stderr
