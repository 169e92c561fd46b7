"""Oracles: the command line tools where this machine has them, decompression, known bytes.

What processes cost is compared with each other: a dictionary of 64 MiB is more than none.
"""

import argparse
import bz2
import gzip
import importlib
import importlib.util
import lzma
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from bytelm.errors import DataError
from bytelm.evaluation import compressor_process
from bytelm.evaluation.compressors import (
    COMPRESSOR_NAMES,
    CompressorResult,
    best_compressor,
    measure,
    reference_compressors,
)

TEXT = Path(argparse.__file__).read_bytes()


def _array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, dtype=np.uint8)


@pytest.fixture(scope="module")
def results():
    halves = [_array(TEXT[:30_000]), _array(TEXT[30_000:])]
    return {result.name: result for result in reference_compressors(halves)}


def test_every_compressor_has_a_row_and_beats_8_bits(results):
    assert tuple(results) == COMPRESSOR_NAMES
    for result in results.values():
        assert result.missing is result.failure is None
        assert result.bits_per_byte == pytest.approx(8 * result.bytes / len(TEXT))
        # Two files apart pay two headers and learn twice.
        assert 0 < result.bits_per_byte < result.per_file_bits_per_byte < 8


def test_stream_is_the_concatenation_of_the_documents(results):
    one = {result.name: result for result in reference_compressors([_array(TEXT)])}
    for name, result in one.items():
        assert result.bytes == results[name].bytes
        assert result.per_file_bits_per_byte == result.bits_per_byte


def test_sizes_are_those_of_the_whole_stdlib_call(results):
    assert results["xz -9e"].bytes == len(lzma.compress(TEXT, preset=9 | lzma.PRESET_EXTREME))
    assert results["gzip -9"].bytes == len(gzip.compress(TEXT, 9))
    assert results["bzip2 -9"].bytes == len(bz2.compress(TEXT, 9))
    brotli = importlib.import_module("brotli")
    assert results["brotli -11"].bytes == pytest.approx(
        len(brotli.compress(TEXT, quality=11, lgwin=24)), rel=0.005
    )


def test_ppmd_size_is_of_a_stream_that_decodes(results):
    pyppmd = importlib.import_module("pyppmd")
    encoder = pyppmd.Ppmd7Encoder(6, 64 << 20)
    blob = encoder.encode(TEXT) + encoder.flush()
    assert results["ppmd -o6"].bytes == len(blob)
    assert pyppmd.Ppmd7Decoder(6, 64 << 20).decode(blob, len(TEXT)) == TEXT


@pytest.mark.parametrize(
    ("name", "command", "appended"),
    [
        ("xz -9e", ["xz", "-9e", "-T1", "-c"], 0),
        ("bzip2 -9", ["bzip2", "-9", "-c"], 0),
        # The tool appends a 4-byte checksum.
        ("zstd -19", ["zstd", "-19", "-q", "-c"], 4),
    ],
)
def test_sizes_are_those_of_the_command_line_tools(results, tmp_path, name, command, appended):
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not on this machine")
    path = tmp_path / "text"
    path.write_bytes(TEXT)
    size = len(subprocess.run([*command, str(path)], check=True, capture_output=True).stdout)
    # Versions of one library may choose other matches.
    assert results[name].bytes + appended == pytest.approx(size, rel=0.005)


def test_random_bytes_do_not_shrink():
    noise = np.random.default_rng(0).integers(0, 256, size=50_000, dtype=np.uint8)
    assert all(result.bits_per_byte > 8 for result in reference_compressors([noise]))


def test_no_bytes_are_zero_bits_per_byte():
    for documents in ([], [_array(b"")]):
        for result in reference_compressors(documents):
            assert result.missing is None
            assert result.bits_per_byte == result.per_file_bits_per_byte == 0.0


def test_a_missing_binding_is_a_row_that_says_how_to_install(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "pyppmd" else real(name)
    )
    rows = {result.name: result for result in reference_compressors([_array(TEXT)])}
    assert tuple(rows) == COMPRESSOR_NAMES
    assert "bytelm[compressors]" in rows["ppmd -o6"].missing
    assert "not installed" in rows["ppmd -o16"].note
    assert rows["ppmd -o6"].bytes is rows["ppmd -o6"].bits_per_byte is None
    assert best_compressor(list(rows.values())).missing is None


# --- what it costs -----------------------------------------------------------------------------


def test_each_direction_tells_its_time_and_its_own_memory(results):
    for result in results.values():
        for effort in (result.encode, result.decode):
            assert effort.seconds > 0
            assert effort.cpu_seconds > 0
    if not sys.platform.startswith("linux"):
        pytest.skip("only Linux tells the most memory a process had")
    # xz -9 allocates match tables for 64 MiB before it reads a byte; zlib keeps 32 KiB.
    assert results["xz -9e"].encode.peak_bytes > results["gzip -9"].encode.peak_bytes + (32 << 20)
    # Not that of this process, which has torch and NumPy.
    assert results["gzip -9"].decode.peak_bytes < 40 << 20


@pytest.mark.parametrize("name", COMPRESSOR_NAMES)
def test_every_decoder_gives_back_more_than_one_piece(name, tmp_path):
    # Decoders must stop at a piece and go on: mebibytes of zeros from few compressed bytes, and
    # more compressed bytes than are read at once.
    noise = np.random.default_rng(0).integers(0, 16, 150_000, dtype=np.uint8)
    documents = [_array(TEXT), _array(bytes(3 << 20)), noise]
    command = [sys.executable, "-P", compressor_process.__file__, name]
    assert measure(name, command, documents, parameters="").failure is None


def fake(tmp_path: Path, decode: str) -> list[str]:
    """A process that encodes as gzip does, and decodes as it is told."""
    script = tmp_path / "fake.py"
    script.write_text(
        "import os, runpy, sys\n"
        f"if sys.argv[2] == 'decode':\n    {decode}\n"
        f"runpy.run_path({compressor_process.__file__!r}, run_name='__main__')\n"
    )
    return [sys.executable, "-P", str(script), "gzip -9"]


@pytest.mark.parametrize(
    ("decode", "said"),
    [
        ("pass", None),
        # Another stream than the one that was made.
        (
            "import gzip; open(sys.argv[3], 'wb').write(gzip.compress(b'other'))",
            "decodes to other bytes",
        ),
        ("os.kill(os.getpid(), 11)", "the decoder crashed (SIGSEGV)"),
        ("sys.exit('no such luck')", "the decoder no such luck"),
        ("open(sys.argv[3], 'wb').write(b'garbage')", "zlib.error"),
    ],
)
def test_a_decoder_that_fails_is_a_result(tmp_path, decode, said):
    found = measure("fake", fake(tmp_path, decode), [_array(TEXT[:2000])], parameters="")
    if said is None:
        assert found.failure is None
    else:
        assert said in found.failure
    assert found.bytes == len(gzip.compress(TEXT[:2000], 9))


def test_an_encoder_that_fails_is_an_error_that_says_why(tmp_path):
    command = [sys.executable, "-c", "import sys; sys.exit('the disk is full')"]
    with pytest.raises(DataError, match="the disk is full"):
        measure("fake", command, [np.zeros(1 << 22, np.uint8)], parameters="")


def test_a_stream_that_does_not_decode_is_never_the_best():
    def row(name: str, size: int, failure: str | None) -> CompressorResult:
        return CompressorResult(
            name=name,
            bytes=size,
            bits_per_byte=1.0,
            per_file_bits_per_byte=1.0,
            parameters="order 3",
            failure=failure,
        )

    rows = [row("a", 10, "decodes to other bytes"), row("b", 20, None)]
    assert best_compressor(rows).name == "b"
    assert rows[0].note == "FAILED: decodes to other bytes; order 3"


def test_a_large_stream_warns(monkeypatch, caplog):
    monkeypatch.setattr("bytelm.evaluation.compressors.SLOW_STREAM_BYTES", 10)
    reference_compressors([_array(b"a" * 11)])
    assert "--no-compressors" in caplog.text


def test_progress_names_each_compressor():
    names: list[str] = []
    reference_compressors([_array(b"abc")], on_progress=names.append)
    assert tuple(names) == COMPRESSOR_NAMES
