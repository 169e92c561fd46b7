"""Reference compressors on the same bytes: what a model's bits per byte is to be read beside.

Each is run twice: over the held-out files as one stream, concatenated in order (the fair figure
beside a model that was trained before), and over each file apart (what compressing them one by
one would cost). Sizes are those of the compressor's own container: a few dozen bytes of header
and checksum, as the command line tools write them, but for these: `zstd` without the 4-byte
checksum that the tool appends, `ppmd` as the bare stream without the 7z header around it.

Each stream is encoded by one process and decoded by another, which count their own time and memory.
A stream that does not decode to the bytes it was made of says so in its row: pyppmd 1.3.1 writes
such streams for some binaries.

Compressors learn their statistics from the stream itself, a model brings what it was trained on;
a model's figure does not count its weights.
"""

import importlib.util
import json
import logging
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bytelm.errors import DataError
from bytelm.evaluation import compressor_process
from bytelm.evaluation.compressor_process import COMPRESSORS, PIECE_BYTES

_LOGGER = logging.getLogger(__name__)

SLOW_STREAM_BYTES = 64 << 20
"""Above this a warning is logged: brotli -11 reads about 0.5 MB/s, zstd -19 about 1 MB/s."""

COMPRESSOR_NAMES = tuple(COMPRESSORS)
"""Names of the rows that `reference_compressors` returns, in order."""


@dataclass(frozen=True, kw_only=True)
class Effort:
    """What one direction costs, in a process of its own."""

    seconds: float
    """By the clock on the wall, the start of the process and reading the raw bytes left out."""
    cpu_seconds: float
    """Of all threads of the process."""
    peak_bytes: int | None
    """The most memory the process had at once; None where the system does not tell."""


@dataclass(frozen=True, kw_only=True)
class CompressorResult:
    """One row: the size a compressor gives, or how to install it."""

    name: str
    """The command it stands for, for example `xz -9e`."""
    bytes: int | None
    """Compressed size of the documents as one stream, headers included; None where missing."""
    bits_per_byte: float | None
    """8 x `bytes` / raw bytes; 0.0 for no bytes at all."""
    per_file_bits_per_byte: float | None
    """The same from the sum of the sizes of the documents compressed apart."""
    parameters: str
    """Settings in words."""
    missing: str | None = None
    """What to do where the binding is not installed; None where it ran."""
    encode: Effort | None = None
    """Cost of compressing the one stream."""
    decode: Effort | None = None
    """Cost of decompressing it; None where that crashed."""
    failure: str | None = None
    """What went wrong in decoding; None where it gave the same bytes back."""
    model_bytes: int = 0
    """Of a trained model that decoding needs besides, in no other figure; 0 without one."""

    @property
    def note(self) -> str:
        """One line: the settings, and what a reader of the figures must know."""
        if self.missing:
            return f"not installed: {self.missing}"
        return f"FAILED: {self.failure}; {self.parameters}" if self.failure else self.parameters


class _ChildError(Exception):
    """A measuring process ended before it gave its figures."""


def _pieces(documents: Iterable[np.ndarray]) -> Iterator[bytes]:
    """Pieces of the documents, so that a memory-mapped one is never copied whole."""
    for document in documents:
        for first in range(0, len(document), PIECE_BYTES):
            yield document[first : first + PIECE_BYTES].tobytes()


def _bits_per_byte(compressed: int, raw: int) -> float:
    return 8 * compressed / raw if raw else 0.0


def _figures(
    command: Sequence[str], lengths: Sequence[int], pieces: Iterable[bytes] = ()
) -> dict[str, Any]:
    """Run a measuring process over documents, and return what it tells."""
    with (
        # A file: a pipe that nobody reads would stop a process that complains at length.
        tempfile.TemporaryFile() as complaints,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
        ) as process,
    ):
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with process.stdin:
                process.stdin.write(json.dumps({"lengths": list(lengths)}).encode() + b"\n")
                for piece in pieces:
                    process.stdin.write(piece)
            told = process.stdout.read()
        except BrokenPipeError:
            # It ended early; its status says why.
            told = b""
        except BaseException:
            process.kill()
            raise
        status = process.wait()
        if status == 0 and told:
            return json.loads(told)
        complaints.seek(0)
        lines = complaints.read().decode(errors="replace").strip().splitlines()
    if status < 0:
        raise _ChildError(f"crashed ({signal.Signals(-status).name})")
    raise _ChildError(lines[-1] if lines else f"ended with status {status}")


def _effort(told: dict[str, Any]) -> Effort:
    return Effort(
        seconds=told["seconds"], cpu_seconds=told["cpu_seconds"], peak_bytes=told["peak_bytes"]
    )


def measure(
    name: str, command: Sequence[str], documents: Sequence[np.ndarray], *, parameters: str
) -> CompressorResult:
    """Encode documents as one stream in one process, and decode it in another.

    Args:
        name: Of the row, and in errors.
        command: A process as `compressor_process` describes it, without verb and file.
        documents: uint8 `[n]` each, in order.
        parameters: Settings in words.

    Returns:
        The row, as if the documents were one.

    Raises:
        DataError: The encoder failed; a decoder that fails is a result.

    """
    raw = sum(len(document) for document in documents)
    back: dict[str, Any] | None = None
    failure = None
    with tempfile.TemporaryDirectory(prefix="bytelm-") as folder:
        path = str(Path(folder) / "compressed")
        try:
            told = _figures([*command, "encode", path], [raw], _pieces(documents))
        except _ChildError as error:
            raise DataError(f"{name}: the encoder {error}") from error
        try:
            back = _figures([*command, "decode", path], [raw])
        except _ChildError as error:
            failure = f"the decoder {error}"
    if back is not None and back["digest"] != told["digest"]:
        failure = "decodes to other bytes"
    (size,) = told["sizes"]
    return CompressorResult(
        name=name,
        bytes=size,
        bits_per_byte=_bits_per_byte(size, raw),
        per_file_bits_per_byte=_bits_per_byte(size, raw),
        parameters=parameters,
        encode=_effort(told),
        decode=None if back is None else _effort(back),
        failure=failure,
        model_bytes=told["model_bytes"],
    )


def _run(name: str, documents: Sequence[np.ndarray]) -> CompressorResult:
    compressor = COMPRESSORS[name]
    if importlib.util.find_spec(compressor.module) is None:
        return CompressorResult(
            name=name,
            bytes=None,
            bits_per_byte=None,
            per_file_bits_per_byte=None,
            parameters=compressor.parameters,
            missing=f"pip install 'bytelm[compressors]' (or {compressor.package})",
        )
    # Without -P the script's folder, where a `statistics` lies, would hide Python's own modules.
    command = [sys.executable, "-P", compressor_process.__file__, name]
    found = measure(name, command, documents, parameters=compressor.parameters)
    # One document is its own stream: the slow compressors need not read it twice.
    if len(documents) == 1:
        return found
    lengths = [len(document) for document in documents]
    try:
        apart = sum(_figures([*command, "sizes"], lengths, _pieces(documents))["sizes"])
    except _ChildError as error:
        raise DataError(f"{name}: the encoder {error}") from error
    return replace(found, per_file_bits_per_byte=_bits_per_byte(apart, sum(lengths)))


def reference_compressors(
    documents: Sequence[np.ndarray], *, on_progress: Callable[[str], None] | None = None
) -> list[CompressorResult]:
    """Compress the documents with gzip, bzip2, xz, zstd, brotli and ppmd, and back.

    Args:
        documents: Held-out documents, uint8 `[n]` each, in the order they form one stream.
        on_progress: Called with a compressor's name before it runs.

    Returns:
        One row per compressor, always all of them: one whose binding is not installed has
        `missing` set and no figures.

    Raises:
        DataError: A compressor failed, a full disk included.

    """
    raw = sum(len(document) for document in documents)
    if raw > SLOW_STREAM_BYTES:
        _LOGGER.warning(
            "%.0f MB is a lot for the reference compressors: expect several minutes "
            "(leave them out with --no-compressors)",
            raw / 1e6,
        )
    results = []
    for name in COMPRESSOR_NAMES:
        if on_progress is not None:
            on_progress(name)
        results.append(_run(name, documents))
    return results


def best_compressor(results: Sequence[CompressorResult]) -> CompressorResult | None:
    """Return the row with the fewest bits per byte as one stream; None where none ran.

    A stream that does not decode is no compressor's.
    """
    ran = [result for result in results if result.bytes and not result.failure]
    return min(ran, key=lambda result: result.bytes or 0, default=None)
