"""One classical compressor in a process of its own, so that its memory and time are its own.

    python -P compressor_process.py NAME encode FILE    bytes on stdin are encoded to FILE
    python -P compressor_process.py NAME sizes          bytes on stdin are encoded, nothing is kept
    python -P compressor_process.py NAME decode FILE    FILE is decoded, nothing is kept

Stdin begins with a line of JSON, `{"lengths": [...]}`: the bytes that follow are documents of these
lengths, each compressed apart (`encode` takes one). A line of JSON with the figures goes to stdout.
Nothing of this package is imported here: NumPy alone would triple the memory that is measured.
"""

import bz2
import hashlib
import json
import lzma
import os
import sys
import time
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

PIECE_BYTES = 1 << 20
"""Bytes that are read, and decoded, at a time."""

_COMPRESSED_PIECE_BYTES = 1 << 16

_GZIP_WINDOW_BITS = 31
"""zlib's number for its largest window in gzip's own format (zlib.h, deflateInit2)."""


class Compressor(NamedTuple):
    """A classical compressor with its settings."""

    module: str
    """The binding."""
    package: str
    """What to install where the binding is missing; empty where Python brings it."""
    parameters: str
    """Settings in words."""
    encode: Callable[[Iterator[bytes], int], Iterator[bytes]]
    """From raw pieces and their total length to compressed pieces."""
    decode: Callable[[BinaryIO, int], Iterator[bytes]]
    """From a compressed stream and the raw length to raw pieces."""


def _encode_with(encoder: Any, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield encoder.compress(piece)
    yield encoder.flush()


def _compressed_pieces(stream: BinaryIO) -> Iterator[bytes]:
    while piece := stream.read(_COMPRESSED_PIECE_BYTES):
        yield piece


def _gzip_encode(pieces: Iterator[bytes], _: int) -> Iterator[bytes]:
    return _encode_with(zlib.compressobj(9, zlib.DEFLATED, _GZIP_WINDOW_BITS), pieces)


def _gzip_decode(stream: BinaryIO, _: int) -> Iterator[bytes]:
    decoder = zlib.decompressobj(_GZIP_WINDOW_BITS)
    for piece in _compressed_pieces(stream):
        rest = piece
        while rest:
            yield decoder.decompress(rest, PIECE_BYTES)
            rest = decoder.unconsumed_tail
    yield decoder.flush()


def _decode_with(decoder: Any, stream: BinaryIO) -> Iterator[bytes]:
    """Decode with `bz2` or `lzma`, whose decoders hold back what exceeds a piece."""
    while not decoder.eof:
        piece = stream.read(_COMPRESSED_PIECE_BYTES) if decoder.needs_input else b""
        if decoder.needs_input and not piece:
            raise EOFError("the compressed stream ends early")
        yield decoder.decompress(piece, PIECE_BYTES)


def _bzip2_encode(pieces: Iterator[bytes], _: int) -> Iterator[bytes]:
    return _encode_with(bz2.BZ2Compressor(9), pieces)


def _bzip2_decode(stream: BinaryIO, _: int) -> Iterator[bytes]:
    return _decode_with(bz2.BZ2Decompressor(), stream)


def _xz_encode(pieces: Iterator[bytes], _: int) -> Iterator[bytes]:
    return _encode_with(lzma.LZMACompressor(preset=9 | lzma.PRESET_EXTREME), pieces)


def _xz_decode(stream: BinaryIO, _: int) -> Iterator[bytes]:
    return _decode_with(lzma.LZMADecompressor(), stream)


def _zstd_encode(pieces: Iterator[bytes], size: int) -> Iterator[bytes]:
    encoder = import_module("zstandard").ZstdCompressor(level=19).compressobj(size=size)
    return _encode_with(encoder, pieces)


def _zstd_decode(stream: BinaryIO, _: int) -> Iterator[bytes]:
    reader = import_module("zstandard").ZstdDecompressor().stream_reader(stream)
    while piece := reader.read(PIECE_BYTES):
        yield piece


def _brotli_encode(pieces: Iterator[bytes], _: int) -> Iterator[bytes]:
    encoder = import_module("brotli").Compressor(quality=11, lgwin=24)
    for piece in pieces:
        yield encoder.process(piece)
    yield encoder.finish()


def _brotli_decode(stream: BinaryIO, _: int) -> Iterator[bytes]:
    decoder = import_module("brotli").Decompressor()
    for piece in _compressed_pieces(stream):
        yield decoder.process(piece, output_buffer_limit=PIECE_BYTES)
        while not decoder.can_accept_more_data():
            yield decoder.process(b"", output_buffer_limit=PIECE_BYTES)
    # It may accept more data, and still have some of its own.
    while not decoder.is_finished() and (
        rest := decoder.process(b"", output_buffer_limit=PIECE_BYTES)
    ):
        yield rest


def _ppmd(order: int, memory_bytes: int) -> Compressor:
    def encode(pieces: Iterator[bytes], _: int) -> Iterator[bytes]:
        encoder = import_module("pyppmd").Ppmd7Encoder(order, memory_bytes)
        for piece in pieces:
            yield encoder.encode(piece)
        yield encoder.flush()

    def decode(stream: BinaryIO, raw: int) -> Iterator[bytes]:
        # The whole stream at once: fed in pieces, this decoder loses its place.
        decoder = import_module("pyppmd").Ppmd7Decoder(order, memory_bytes)
        rest = stream.read()
        while raw > 0 and (piece := decoder.decode(rest, min(raw, PIECE_BYTES))):
            yield piece
            rest, raw = b"", raw - len(piece)

    return Compressor(
        module="pyppmd",
        package="pyppmd",
        parameters=f"variant H (7z), order {order}, {memory_bytes >> 20} MiB memory, bare stream",
        encode=encode,
        decode=decode,
    )


COMPRESSORS = {
    "gzip -9": Compressor("zlib", "", "level 9, 32 KiB window", _gzip_encode, _gzip_decode),
    "bzip2 -9": Compressor("bz2", "", "900 kB blocks", _bzip2_encode, _bzip2_decode),
    "xz -9e": Compressor(
        "lzma", "", "preset 9 extreme, 64 MiB dictionary, CRC64", _xz_encode, _xz_decode
    ),
    "zstd -19": Compressor(
        "zstandard",
        "zstandard",
        "level 19, one frame, one thread, no checksum",
        _zstd_encode,
        _zstd_decode,
    ),
    "brotli -11": Compressor(
        "brotli", "brotli", "quality 11, lgwin 24 (16 MiB window)", _brotli_encode, _brotli_decode
    ),
    "ppmd -o6": _ppmd(6, 64 << 20),
    "ppmd -o16": _ppmd(16, 256 << 20),
}
"""Name to compressor, in the order of the tables."""


class Stopwatch:
    """Counts the time spent in some code and not in other, on the wall's and the CPU's clock."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.cpu_seconds = 0.0

    @contextmanager
    def counting(self, sign: int = 1) -> Iterator[None]:
        """Add the time of the block, or with -1 take it off."""
        seconds, cpu_seconds = time.perf_counter(), time.process_time()
        yield
        self.seconds += sign * (time.perf_counter() - seconds)
        self.cpu_seconds += sign * (time.process_time() - cpu_seconds)

    def each(self, items: Iterable[bytes], sign: int = 1) -> Iterator[bytes]:
        """Pass items on; the time until each is there counts, or with -1 is taken off."""
        iterator = iter(items)
        while True:
            with self.counting(sign):
                item = next(iterator, None)
            if item is None:
                return
            yield item


def peak_memory_bytes() -> int | None:
    """The most memory that this process had at once; None where the system does not tell.

    Not `ru_maxrss`: Linux carries that of the parent over into a process that it starts.
    """
    status = Path("/proc/self/status")
    if not status.exists():
        return None
    for line in status.read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    return None


def read_lengths(stream: BinaryIO) -> list[int]:
    """Read the line that says how long the documents on stdin are."""
    return json.loads(stream.readline())["lengths"]


def read_pieces(stream: BinaryIO, size: int, digest: "hashlib.blake2b") -> Iterator[bytes]:
    """Read `size` bytes in pieces, and take their digest."""
    while size:
        piece = stream.read(min(size, PIECE_BYTES))
        if not piece:
            raise EOFError(f"stdin ended {size} bytes early")
        digest.update(piece)
        size -= len(piece)
        yield piece


def figures(
    watch: Stopwatch, digest: "hashlib.blake2b", sizes: list[int], *, model_bytes: int = 0
) -> str:
    """The line of JSON that a process of this kind ends with."""
    return json.dumps(
        {
            "sizes": sizes,
            "model_bytes": model_bytes,
            "digest": digest.hexdigest(),
            "seconds": watch.seconds,
            "cpu_seconds": watch.cpu_seconds,
            "peak_bytes": peak_memory_bytes(),
        }
    )


def main(name: str, verb: str, path: str = os.devnull) -> str:
    """Do what the module's docstring says, and return the figures."""
    compressor, watch, digest = COMPRESSORS[name], Stopwatch(), hashlib.blake2b()
    import_module(compressor.module)
    if verb == "decode":
        return _decode(compressor, Path(path), watch, digest)
    sizes = []
    with Path(path).open("wb") as out:
        for length in read_lengths(sys.stdin.buffer):
            pieces = read_pieces(sys.stdin.buffer, length, digest)
            encoded = compressor.encode(watch.each(pieces, sign=-1), length)
            sizes.append(sum(out.write(piece) for piece in watch.each(encoded)))
    return figures(watch, digest, sizes)


def _decode(compressor: Compressor, path: Path, watch: Stopwatch, digest: "hashlib.blake2b") -> str:
    size = 0
    raw = read_lengths(sys.stdin.buffer)[0]
    with path.open("rb") as stream:
        for piece in watch.each(compressor.decode(stream, raw)):
            digest.update(piece)
            size += len(piece)
    return figures(watch, digest, [size])


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
