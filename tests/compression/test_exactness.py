"""The same bytes everywhere. Oracles: the files themselves, and another process's containers."""

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import codec_process
import numpy as np
import pytest
import zstandard
from corpus_files import FRAME, LARGEST_BYTES, corpus

from bytelm.compression import Options, compress, compress_stream, decompress_stream, kernels

HERE = Path(__file__).parent
LANES = (1, 2, 3, 16, 255, 256)


def another_process(job: dict, *, backend: str = "", threads: str = "1") -> dict:
    environment = {**os.environ, "BYTELM_KERNELS": backend, "NUMBA_NUM_THREADS": threads}
    done = subprocess.run(
        [sys.executable, str(HERE / "codec_process.py")],
        input=json.dumps({"files": {}, "options": [], "read": {}, **job}),
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def written(folder: Path, files: dict[str, bytes]) -> dict[str, str]:
    """Name -> path."""
    folder.mkdir()
    for number, data in enumerate(files.values()):
        (folder / str(number)).write_bytes(data)
    return {name: str(folder / str(number)) for number, name in enumerate(files)}


def small(num_bytes: int, every: int) -> dict[str, bytes]:
    """The beginning of each file of some size, beside all the tiny ones."""
    tiny = {name: data for name, data in corpus().items() if len(data) <= 20}
    rest = [(name, data[:num_bytes]) for name, data in corpus().items() if len(data) > 20]
    return tiny | dict(rest[::every])


def test_the_corpus_has_files_of_every_sort():
    files = corpus()
    assert len(files) >= 200
    assert len(set(files.values())) >= 195
    assert {0, 1, 2, 255, 256, 257, FRAME - 1, FRAME, FRAME + 1, LARGEST_BYTES} <= {
        len(data) for data in files.values()
    }
    assert sum(name.startswith(("library", "program", "compiled")) for name in files) >= 10


def test_another_process_writes_and_reads_the_same(tmp_path):
    """With one worker there and two here, in small frames, verified here and not there."""
    files = small(4000, every=8)
    here = {"lanes": 3, "frame_bytes": 2048, "workers": 2}
    blobs = {name: compress(data, options=Options(**here)) for name, data in files.items()}
    found = another_process(
        {
            "files": written(tmp_path / "files", files),
            "options": [{**here, "workers": 1, "verify": False}],
            "read": written(tmp_path / "blobs", blobs),
        },
        backend=kernels.BACKEND,
    )
    for name, data in files.items():
        assert found["written"][name] == [codec_process.digest(blobs[name])], name
        assert found["read"][name] == codec_process.digest(data), name


def test_interpreter_and_compiler_write_and_read_the_same(tmp_path):
    pytest.importorskip("numba")
    files = dict(list(small(90, every=24).items())[::2])
    assert_interpreter_equals_compiler(tmp_path, files, {"lanes": 3, "mode": "mixer"})
    text = {"text": corpus()["table.json"][:300]}
    assert_interpreter_equals_compiler(tmp_path / "text", text, {})


def assert_interpreter_equals_compiler(folder, files, options):
    options = {**options, "verify": False}
    folder.mkdir(exist_ok=True)
    found = another_process(
        {"files": written(folder / "files", files), "options": [options]}, backend="python"
    )
    assert found["backend"] == "python"
    for name, data in files.items():
        blob = compress(data, options=Options(**options))
        assert found["written"][name] == [codec_process.digest(blob)], name


def through_pipes(data: bytes, options: Options) -> tuple[bytes, bytes]:
    """A container made of a source without a size, and what comes back; neither can seek."""

    class Pipe(io.RawIOBase):
        def __init__(self, data: bytes) -> None:
            self._left = io.BytesIO(data)

        def readable(self):
            return True

        def readinto(self, buffer, /):
            return self._left.readinto(memoryview(buffer)[:4096])

    packed, found = io.BytesIO(), io.BytesIO()
    compress_stream(Pipe(data), packed, options=options)
    decompress_stream(Pipe(packed.getvalue()), found)
    return packed.getvalue(), found.getvalue()


def test_files_come_back_through_pipes():
    options = Options(frame_bytes=1024, lanes=2, mode="mixer", verify=False)
    for name, data in small(3000, every=6).items():
        blob, found = through_pipes(data, options)
        assert found == data, name
        assert blob[32:] == compress(data, options=options)[32:], name


def test_verification_changes_no_byte():
    for name, data in small(4000, every=20).items():
        blobs = {compress(data, options=Options(verify=verify)) for verify in (True, False)}
        assert len(blobs) == 1, name


def assert_never_larger(files: dict[str, bytes]) -> None:
    """At most a thousandth, and eight bytes, above the best of zstd -19 and stored; then 108."""
    for name, data in files.items():
        best = min(len(data), len(zstandard.ZstdCompressor(level=19).compress(data)))
        size = len(compress(data, options=Options(verify=False)))
        assert size <= 1.001 * best + 8 + 108, name


def test_no_file_becomes_larger_than_by_zstd():
    assert_never_larger(small(6000, every=9))


@pytest.mark.slow
def test_no_whole_file_becomes_larger_than_by_zstd():
    rng = np.random.default_rng(0)
    noise = rng.bytes(1 << 20)
    # Too little of it is of use for a sample to show it.
    islands = {
        f"island-{size}": noise[:99_000] + bytes(size) + noise[99_000:] for size in (5000, 20_000)
    }
    far_copy = {"far-copy": noise + noise[200_000:210_000]}
    assert_never_larger(corpus() | islands | far_copy)


@pytest.mark.parametrize("lanes", [4, 37, 128, 256])
def test_many_lanes(lanes):
    rng = np.random.default_rng(lanes)
    for name in ("source-argparse.py", "script-han", "table.json", "int64-walk"):
        data = corpus().get(name, corpus()["table.csv"])[: 6000 + int(rng.integers(lanes))]
        for workers in (1, 2):
            options = Options(lanes=lanes, frame_bytes=4096, workers=workers, verify=False)
            assert through_pipes(data, options)[1] == data


@pytest.mark.slow
@pytest.mark.parametrize("lanes", LANES)
def test_the_whole_corpus_at_full_size(tmp_path, lanes):
    """`benchmarks/exactness.py` does the same for more lanes, workers and back ends."""
    chosen = list(corpus().items())[LANES.index(lanes) :: len(LANES)]
    files = dict(chosen)
    here = {"lanes": lanes, "frame_bytes": 1 << 16, "workers": 2, "verify": False}
    blobs = {name: compress(data, options=Options(**here)) for name, data in files.items()}
    found = another_process(
        {
            "files": written(tmp_path / "files", files),
            "options": [{**here, "workers": 1}],
            "read": written(tmp_path / "blobs", blobs),
        },
        backend=kernels.BACKEND,
    )
    for name, data in files.items():
        assert found["written"][name] == [codec_process.digest(blobs[name])], name
        assert found["read"][name] == codec_process.digest(data), name


@pytest.mark.slow
def test_the_interpreter_on_a_part_of_every_file(tmp_path):
    pytest.importorskip("numba")
    assert_interpreter_equals_compiler(tmp_path, small(60, every=1), {"lanes": 2, "mode": "mixer"})
