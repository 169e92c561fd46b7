"""A recurrent model in floats and in integers: bits per byte of a file, and time for a byte.

    python benchmarks/integer_model.py RUN FILE [--start 5000000] [--bytes 200000]

Reads the file's bytes from `start` on as one document, without the mixer and without a coder: the
cost of a byte is that of its frequency. Time is one thread's processor time, of the kernels alone.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch

from bytelm import load
from bytelm.compression.integer_kernels import Arrays, LaneState, predict, push
from bytelm.compression.integer_model import IntegerModel, known_answers
from bytelm.compression.kernels import BACKEND, kernel
from bytelm.compression.quantize import quantize
from bytelm.models import Recurrent
from bytelm.vocab import BOS, OFFSET

PIECE = 2048
WARM_UP = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--start", type=int, default=5_000_000)
    parser.add_argument("--bytes", type=int, default=200_000)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load(str(options.run)).model
    if not isinstance(model, Recurrent):
        raise SystemExit(f"{options.run} holds a {model.config.kind}, expected a recurrent model")
    with options.file.open("rb") as file:
        file.seek(options.start)
        data = np.frombuffer(file.read(options.bytes), np.uint8).copy()
    began = time.thread_time()
    integers = quantize(model.eval())
    print(f"quantized in {time.thread_time() - began:.2f} s, {integers.num_bytes:,} bytes")
    print(f"known answers {known_answers(integers).hex()}, back end {BACKEND}")
    products = sum(
        p.numel()
        for n, p in model.named_parameters()
        if n.endswith("weight") and p.ndim == 2 and not n.startswith(("embed", "hash"))
    )
    floats = float_bits(model, data)
    cost, microseconds = integer_bits(integers, data)
    print(f"floats   {floats:.5f} bits per byte of {len(data):,} bytes")
    print(f"integers {cost:.5f} bits per byte, {cost - floats:+.5f}")
    print(f"{microseconds:.2f} microseconds a byte, {products:,} products")


def float_bits(model: Recurrent, data: np.ndarray) -> float:
    ids = np.concatenate(([BOS], data[:-1].astype(np.int64) + OFFSET))
    state, total = model.begin(), 0.0
    with torch.inference_mode():
        for piece, values in zip(cut(ids), cut(data), strict=True):
            logits = model.read(piece, np.array([len(piece)]), np.array([0]), state)
            log_probs = logits[:, OFFSET:].double().log_softmax(-1).numpy()
            total -= log_probs[np.arange(len(values)), values].sum()
    return total / len(data) / np.log(2)


def cut(values: np.ndarray) -> list[np.ndarray]:
    return np.split(values, range(PIECE, len(values), PIECE))


def integer_bits(model: IntegerModel, data: np.ndarray) -> tuple[float, float]:
    row, found = np.zeros(256, np.int32), np.zeros(len(data), np.int32)
    run(model.arrays, model.new_state(1), data[:WARM_UP], row, found)
    state, began = model.new_state(1), time.thread_time()
    run(model.arrays, state, data, row, found)
    seconds = time.thread_time() - began
    return float((24 - np.log2(found)).mean()), seconds / len(data) * 1e6


@kernel
def run(
    model: Arrays, state: LaneState, data: np.ndarray, row: np.ndarray, found: np.ndarray
) -> None:
    for step in range(data.shape[0]):
        predict(model, state, 0, row)
        found[step] = row[data[step]]
        push(model, state, 0, np.int64(data[step]))


if __name__ == "__main__":
    main()
