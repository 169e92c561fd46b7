"""Oracles: the command line tools where this machine has them, decompression, known bytes."""

import argparse
import bz2
import importlib
import lzma
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from bytelm.evaluation import compressors
from bytelm.evaluation.compressors import (
    COMPRESSOR_NAMES,
    best_compressor,
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
        assert result.missing is None
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
    assert results["bzip2 -9"].bytes == len(bz2.compress(TEXT, 9))
    brotli = importlib.import_module("brotli")
    assert results["brotli -11"].bytes == pytest.approx(
        len(brotli.compress(TEXT, quality=11, lgwin=24)), rel=0.005
    )


def test_ppmd_size_is_of_a_stream_that_decodes(results):
    pyppmd = importlib.import_module("pyppmd")
    encoder = pyppmd.Ppmd7Encoder(6, 64 << 20)
    blob = encoder.encode(TEXT) + encoder.flush()
    assert results["ppmd"].bytes == len(blob)
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
    real = importlib.import_module

    def without_ppmd(name: str):
        if name == "pyppmd":
            raise ModuleNotFoundError(name)
        return real(name)

    monkeypatch.setattr(compressors.importlib, "import_module", without_ppmd)
    rows = {result.name: result for result in reference_compressors([_array(TEXT)])}
    assert tuple(rows) == COMPRESSOR_NAMES
    assert "bytelm[compressors]" in rows["ppmd"].missing
    assert rows["ppmd"].bytes is rows["ppmd"].bits_per_byte is None
    assert best_compressor(list(rows.values())).missing is None


def test_a_large_stream_warns(monkeypatch, caplog):
    monkeypatch.setattr(compressors, "SLOW_STREAM_BYTES", 10)
    reference_compressors([_array(b"a" * 11)])
    assert "--no-compressors" in caplog.text


def test_progress_names_each_compressor():
    names: list[str] = []
    reference_compressors([_array(b"abc")], on_progress=names.append)
    assert tuple(names) == COMPRESSOR_NAMES
