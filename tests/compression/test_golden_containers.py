"""Version 1 of the format. Oracle: `tests/golden/*.blm`, which no release may read otherwise.

`make golden` writes them again; then the version must change (docs/format.md), unless none of them
was ever released.
"""

import io
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from codec_process import digest
from test_exactness import another_process

from bytelm.compression import CodecModel, Options, compress, compress_stream, decompress, describe
from bytelm.compression.models import codec_model
from bytelm.models import Ngram, NgramConfig, Recurrent, RecurrentConfig

GOLDEN = Path(__file__).parent.parent / "golden"
WRITE = bool(os.environ.get("BYTELM_WRITE_GOLDEN"))

ENGLISH = (
    b"The mill stood where the two rivers met, and the miller's daughter counted the boats. "
    b"Some days there were nine, some days none; on those days she counted the herons instead, "
    b"and the miller, who could not count at all, wrote both numbers into the same column.\n"
)
CODE = b"".join(
    b"def area_%d(width: float, height: float) -> float:\n    return width * height * %d\n\n"
    % (n, n * n)
    for n in range(12)
)
TABLE = b"".join(b"%d;%d;%s\r\n" % (n, n * n % 97, b"yes" if n % 3 else b"no") for n in range(80))
BINARY = bytes((n * n * 7 + n // 9) % 256 for n in range(700)) + bytes(300) + b"\xff\xfe" * 40


def hard_bytes(num_bytes: int) -> bytes:
    """No pattern that a compressor finds: the high byte of a linear congruence modulo 2**32."""
    found, state = bytearray(), 12345
    for _ in range(num_bytes):
        state = (state * 1664525 + 1013904223) % 2**32
        found.append(state >> 24)
    return bytes(found)


RAW = ENGLISH + CODE + TABLE + BINARY + hard_bytes(100) + ENGLISH


def counts() -> CodecModel:
    data = np.frombuffer(ENGLISH + CODE, np.uint8)
    return codec_model(Ngram.fit(NgramConfig(order=3, min_count=1), [data]))


def recurrent() -> CodecModel:
    """Its weights are multiples of 2**-6 by a rule, so that they are the same everywhere."""
    model = Recurrent(
        RecurrentConfig(
            context_bytes=64, dim=16, n_layers=2, ffn_dim=24, ngram_sizes=(2, 3), num_buckets=64
        )
    )
    state = 1
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            values = []
            for _ in range(parameter.numel()):
                state = state * 48271 % (2**31 - 1)
                values.append((state % 65 - 32) / 64)
            parameter.copy_(torch.tensor(values).reshape(parameter.shape))
            if parameter.ndim == 1:
                parameter += 1
    return codec_model(model)


CASES = {
    "empty": (b"", Options(), None),
    "stored": (hard_bytes(300), Options(), None),
    "mixer": (RAW, Options(mode="mixer"), None),
    "mixer-lanes": (RAW, Options(mode="mixer", lanes=7), None),
    "mixer-zeros": (bytes(100_000), Options(mode="mixer"), None),
    "frames": (RAW, Options(frame_bytes=1024, lanes=2, mode="mixer"), None),
    "counts": (RAW[:1200], Options(mode="model", lanes=3), counts),
    "counts-mixed": (RAW[:1200], Options(mode="mixed", lanes=4), counts),
    "recurrent": (RAW[:1500], Options(mode="model"), recurrent),
    "recurrent-mixed": (RAW, Options(mode="mixed", lanes=3, frame_bytes=2048), recurrent),
}
"""Name -> content, how it is compressed, and with which model."""


@pytest.mark.parametrize("name", CASES)
def test_golden_containers_are_written_and_read(name):
    raw, options, make = CASES[name]
    model = None if make is None else make()
    blob = compress(raw, model=model, options=options)
    path = GOLDEN / f"{name}.blm"
    if WRITE:
        path.write_bytes(blob)
    assert blob == path.read_bytes()
    assert decompress(path.read_bytes(), model=model) == raw


def test_golden_container_of_a_pipe_and_of_zstd():
    """What zstd writes depends on its version; what it reads must not."""
    path, target = GOLDEN / "zstd-pipe.blm", io.BytesIO()
    compress_stream(io.BytesIO(RAW), target, options=Options(mode="zstd", frame_bytes=4096))
    if WRITE:
        path.write_bytes(target.getvalue())
    found = describe(io.BytesIO(path.read_bytes()))
    assert found.header.raw_bytes is None
    assert {frame.mode for frame in found.frames} == {"zstd"}
    assert decompress(path.read_bytes()) == RAW


@pytest.mark.slow
def test_golden_containers_are_read_by_the_interpreter():
    names = [name for name, (raw, _, make) in CASES.items() if make is None and len(raw) < 9999]
    files = {name: str(GOLDEN / f"{name}.blm") for name in names}
    found = another_process({"read": files}, backend="python")
    assert found["backend"] == "python"
    assert found["read"] == {name: digest(CASES[name][0]) for name in names}


def test_golden_containers_are_all_tried():
    assert {path.stem for path in GOLDEN.glob("*.blm")} == {*CASES, "zstd-pipe"}
