"""What a container costs: its bytes, and the time and memory of both directions.

Measured as classical compressors are (`evaluation.compressors`): one process encodes, another one
decodes, each tells its own figures, on one worker, without the verification that nobody else does.
What is compiled at its first use is compiled before the clock starts.

    python -P -m bytelm.compression.measurement SETTINGS encode FILE    bytes on stdin
    python -P -m bytelm.compression.measurement SETTINGS decode FILE
"""

import hashlib
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np

from bytelm.compression.codec import (
    Options,
    compress,
    compress_stream,
    decompress,
    decompress_stream,
)
from bytelm.compression.frames import CodecModel
from bytelm.evaluation.compressor_process import Stopwatch, figures, read_lengths
from bytelm.evaluation.compressors import CompressorResult, measure

Wanted = Literal["auto", "exact", "float"]

_WARM_UP = b"What is compiled is compiled here. " * 9


def measure_container(
    name: str,
    documents: Sequence[np.ndarray],
    *,
    run: str | Path | None = None,
    profile: Wanted = "auto",
    options: Options | None = None,
) -> CompressorResult:
    """Compress documents as one stream into a container, and back, in processes of their own.

    Args:
        name: Of the row, and in errors.
        documents: uint8 `[n]` each, in order.
        run: A run or checkpoint directory whose model takes part.
        profile: Of that model.
        options: How; `verify` and `workers` are set here.

    Returns:
        The row, as if the documents were one.

    Raises:
        DataError: It could not be compressed; the message says why.

    """
    options = replace(options or Options(), verify=False, workers=1)
    settings = {
        "run": None if run is None else str(run),
        "profile": profile,
        "options": asdict(options),
    }
    command = [sys.executable, "-P", "-m", __spec__.name, json.dumps(settings)]
    parts = [f"mode {options.mode}"]
    parts += [] if options.lanes is None else [f"{options.lanes} lanes"]
    parts += ["no model"] if run is None else [f"profile {profile} of {run}"]
    return measure(name, command, documents, parameters=", ".join(parts))


class _Source:
    """A stream of known length whose reading takes no time of the clock's."""

    def __init__(self, stream: BinaryIO, size: int, watch: Stopwatch) -> None:
        self._stream, self._left, self._watch = stream, size, watch
        self.digest = hashlib.blake2b()

    def read(self, size: int = -1, /) -> bytes:
        with self._watch.counting(-1):
            data = self._stream.read(min(size, self._left) if size >= 0 else self._left)
            self._left -= len(data)
            self.digest.update(data)
        return data


class _Target:
    """Takes the digest of what is written to it, off the clock."""

    def __init__(self, watch: Stopwatch) -> None:
        self._watch = watch
        self.digest, self.size = hashlib.blake2b(), 0

    def write(self, data: memoryview, /) -> int:
        with self._watch.counting(-1):
            self.digest.update(data)
            self.size += len(data)
        return len(data)


def _model(run: str | None, profile: Wanted) -> CodecModel | None:
    if run is None:
        return None
    # Here, because torch would be most of the memory of a codec that needs no model.
    import torch

    from bytelm.compression.models import load_codec_model

    # Of the profile float, one thread: the others' figures are of one as well.
    torch.set_num_threads(1)
    return load_codec_model(Path(run), profile=profile)


def main(settings: str, verb: str, path: str) -> str:
    """Do what the module's docstring says, and return the figures."""
    stored = json.loads(settings)
    options = Options(**stored["options"])
    model = _model(stored["run"], stored["profile"])
    decompress(compress(_WARM_UP, model=model, options=options), model=model)
    watch = Stopwatch()
    (size,) = read_lengths(sys.stdin.buffer)
    if verb == "encode":
        source = _Source(sys.stdin.buffer, size, watch)
        with Path(path).open("wb") as target, watch.counting():
            summary = compress_stream(source, target, model=model, options=options, size=size)
        return figures(
            watch, source.digest, [summary.compressed_bytes], model_bytes=summary.model_bytes
        )
    target = _Target(watch)
    with Path(path).open("rb") as stream, watch.counting():
        decompress_stream(stream, target, model=model, workers=1)
    return figures(watch, target.digest, [target.size])


if __name__ == "__main__":
    sys.stdout.write(main(*sys.argv[1:]) + "\n")
