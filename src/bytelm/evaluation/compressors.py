"""Reference compressors on the same bytes: what a model's bits per byte is to be read beside.

Each is run twice: over the held-out files as one stream, concatenated in order (the fair figure
beside a model that was trained before), and over each file apart (what compressing them one by
one would cost). Sizes are those of the compressor's own container: a few dozen bytes of header
and checksum, as the command line tools write them, but for these: `zstd` without the 4-byte
checksum that the tool appends, `ppmd` as the bare stream without the 7z header around it.

Compressors learn their statistics from the stream itself, a model brings what it was trained on;
a model's figure does not count its weights.
"""

import bz2
import importlib
import logging
import lzma
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

_LOGGER = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
"""Bytes handed over at a time, so that a memory-mapped document is never copied whole."""

SLOW_STREAM_BYTES = 64 << 20
"""Above this a warning is logged: brotli -11 reads about 0.5 MB/s, zstd -19 about 2 MB/s."""

_PPMD_ORDER = 6
_PPMD_MEMORY_BYTES = 64 << 20


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


def _pieces(documents: Iterable[np.ndarray]) -> Iterator[bytes]:
    for document in documents:
        for first in range(0, len(document), _PIECE_BYTES):
            yield document[first : first + _PIECE_BYTES].tobytes()


def _xz(pieces: Iterator[bytes], _: int) -> int:
    encoder = lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME)
    return sum(len(encoder.compress(piece)) for piece in pieces) + len(encoder.flush())


def _bzip2(pieces: Iterator[bytes], _: int) -> int:
    encoder = bz2.BZ2Compressor(9)
    return sum(len(encoder.compress(piece)) for piece in pieces) + len(encoder.flush())


def _zstd(pieces: Iterator[bytes], size: int) -> int:
    encoder = importlib.import_module("zstandard").ZstdCompressor(level=19).compressobj(size=size)
    return sum(len(encoder.compress(piece)) for piece in pieces) + len(encoder.flush())


def _brotli(pieces: Iterator[bytes], _: int) -> int:
    encoder = importlib.import_module("brotli").Compressor(quality=11, lgwin=24)
    return sum(len(encoder.process(piece)) for piece in pieces) + len(encoder.finish())


def _ppmd(pieces: Iterator[bytes], _: int) -> int:
    encoder = importlib.import_module("pyppmd").Ppmd7Encoder(_PPMD_ORDER, _PPMD_MEMORY_BYTES)
    return sum(len(encoder.encode(piece)) for piece in pieces) + len(encoder.flush())


@dataclass(frozen=True, kw_only=True)
class _Compressor:
    name: str
    module: str
    package: str
    parameters: str
    size: Callable[[Iterator[bytes], int], int]


_COMPRESSORS = (
    _Compressor(
        name="xz -9e",
        module="lzma",
        package="",
        parameters="preset 9 extreme, 64 MiB dictionary, CRC64",
        size=_xz,
    ),
    _Compressor(name="bzip2 -9", module="bz2", package="", parameters="900 kB blocks", size=_bzip2),
    _Compressor(
        name="zstd -19",
        module="zstandard",
        package="zstandard",
        parameters="level 19, one frame, one thread, no checksum",
        size=_zstd,
    ),
    _Compressor(
        name="brotli -11",
        module="brotli",
        package="brotli",
        parameters="quality 11, lgwin 24 (16 MiB window)",
        size=_brotli,
    ),
    _Compressor(
        name="ppmd",
        module="pyppmd",
        package="pyppmd",
        parameters="variant H (7z), order 6, 64 MiB memory, bare stream",
        size=_ppmd,
    ),
)

COMPRESSOR_NAMES = tuple(compressor.name for compressor in _COMPRESSORS)
"""Names of the rows that `reference_compressors` returns, in order."""


def _bits_per_byte(compressed: int, raw: int) -> float:
    return 8 * compressed / raw if raw else 0.0


def _run(compressor: _Compressor, documents: Sequence[np.ndarray]) -> CompressorResult:
    try:
        importlib.import_module(compressor.module)
    except ModuleNotFoundError:
        return CompressorResult(
            name=compressor.name,
            bytes=None,
            bits_per_byte=None,
            per_file_bits_per_byte=None,
            parameters=compressor.parameters,
            missing=f"pip install 'bytelm[compressors]' (or {compressor.package})",
        )
    raw = sum(len(document) for document in documents)
    stream = compressor.size(_pieces(documents), raw)
    # One document is its own stream: the slow compressors need not read it twice.
    apart = (
        stream
        if len(documents) == 1
        else sum(compressor.size(_pieces([document]), len(document)) for document in documents)
    )
    return CompressorResult(
        name=compressor.name,
        bytes=stream,
        bits_per_byte=_bits_per_byte(stream, raw),
        per_file_bits_per_byte=_bits_per_byte(apart, raw),
        parameters=compressor.parameters,
    )


def reference_compressors(
    documents: Sequence[np.ndarray], *, on_progress: Callable[[str], None] | None = None
) -> list[CompressorResult]:
    """Compress the documents with xz, bzip2, zstd, brotli and ppmd.

    Args:
        documents: Held-out documents, uint8 `[n]` each, in the order they form one stream.
        on_progress: Called with a compressor's name before it runs.

    Returns:
        One row per compressor, always all of them: one whose binding is not installed has
        `missing` set and no figures.

    """
    raw = sum(len(document) for document in documents)
    if raw > SLOW_STREAM_BYTES:
        _LOGGER.warning(
            "%.0f MB is a lot for the reference compressors: expect several minutes "
            "(leave them out with --no-compressors)",
            raw / 1e6,
        )
    results = []
    for compressor in _COMPRESSORS:
        if on_progress is not None:
            on_progress(compressor.name)
        results.append(_run(compressor, documents))
    return results


def best_compressor(results: Sequence[CompressorResult]) -> CompressorResult | None:
    """Return the row with the fewest bits per byte as one stream; None where none ran."""
    ran = [result for result in results if result.bytes]
    return min(ran, key=lambda result: result.bytes or 0, default=None)
