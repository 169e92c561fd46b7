"""A training step of `BltForCausalLM` of transformers and of ours, with the same weights and batch.

    python benchmarks/training_step.py [--threads 1 2] [--rounds 15] [--sizes small wide]
                                       [--memory-bytes 8192]

Needs `pip install bytelm[hub]`. The peer runs forward (its patcher included: it has no other way)
and backward in float32; ours runs forward from stored patch starts (as `bytelm train` does) and
backward, in float32 and under bfloat16 autocast, and once with the patches found in the step. The
four take turns; medians and ratios of medians are printed. Weights are random, the threshold is
calibrated to 4.5 bytes a patch, and the losses and gradients are compared first.

Memory is measured in a process of its own for each (Linux): the highest resident set during one
step with a single row, less the resident set before it, when the model was built and a step of 64
bytes was made. It holds activations, gradients and what the allocator rounds up, not the weights.
"""

import argparse
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.data import standard_library_files
from bytelm.interop.huggingface import export_model
from bytelm.interop.names import blt_names
from bytelm.interop.parity import load_theirs
from bytelm.models import BLT, BLTConfig, EntropyLM, EntropyLMConfig
from bytelm.patching import Entropy
from bytelm.vocab import BOS, OFFSET

PATCH_BYTES = 4.5
ROWS, ROW_BYTES = 4, 512
WARM_UP_BYTES = 64


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """One configuration, in our words."""

    model: BLTConfig
    entropy: EntropyLMConfig


SIZES = {
    "small": Sizes(  # 9.25 M parameters
        model=BLTConfig(
            context_bytes=8192,
            dim=128,
            n_heads=4,
            n_layers_encoder=2,
            n_layers_decoder=2,
            window=512,
            ffn_dim=512,
            dim_global=256,
            n_heads_global=4,
            n_layers_global=4,
            ffn_dim_global=768,
            num_buckets=5000,
        ),
        entropy=EntropyLMConfig(dim=128, n_layers=2, n_heads=4, window=512, ffn_dim=512),
    ),
    "wide": Sizes(
        model=BLTConfig(
            context_bytes=8192,
            dim=384,
            n_heads=6,
            n_layers_encoder=2,
            n_layers_decoder=2,
            window=512,
            ffn_dim=1024,
            dim_global=768,
            n_heads_global=12,
            n_layers_global=4,
            ffn_dim_global=2048,
            num_buckets=5000,
        ),
        entropy=EntropyLMConfig(dim=128, n_layers=2, n_heads=4, window=512, ffn_dim=512),
    ),
}


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same model twice."""

    peer: Any
    ours: BLT


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--memory-bytes", type=int, default=8192, help="0: leave it out")
    parser.add_argument("--measure-memory", choices=["peer", "ours"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure_memory:
        growth = memory_of_a_step(arguments.measure_memory, arguments.memory_bytes)
        print(json.dumps(growth))
        return
    for size in arguments.sizes:
        ids, targets = batch(ROWS, ROW_BYTES)
        pair = build_pair(SIZES[size], ids)
        print(f"{size}: {sum(p.numel() for p in pair.ours.parameters()):,} parameters", end=", ")
        print(f"{ROWS} x {ROW_BYTES} bytes, {mean_patch_bytes(pair.ours, ids):.2f} bytes a patch")
        print("  differences: " + describe(difference(pair, ids, targets)))
        for threads in arguments.threads:
            torch.set_num_threads(threads)
            report(threads, compare(pair, ids, targets, rounds=arguments.rounds))
    if arguments.memory_bytes:
        peaks = {who: measured_apart(who, arguments.memory_bytes) for who in ("peer", "ours")}
        print(
            f"small, a step of 1 x {arguments.memory_bytes} bytes: peak memory of the peer "
            f"{peaks['peer'] / 1e6:.0f} MB, ours {peaks['ours'] / 1e6:.0f} MB: "
            f"1 / {peaks['peer'] / peaks['ours']:.1f}"
        )


def build_pair(sizes: Sizes, ids: Tensor) -> Pair:
    """A random model with 4.5 bytes a patch on `ids`, and the peer loaded from our export of it."""
    torch.manual_seed(0)
    ours = BLT(sizes.model, Entropy(threshold=1.0), EntropyLM(sizes.entropy))
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    ours.patcher = Entropy(threshold=threshold_for(ours, ids))
    with tempfile.TemporaryDirectory() as folder:
        export_model(ours, Path(folder) / "export")
        peer = load_theirs(Path(folder) / "export").train()
    # As its constructor does and its loading undoes: the patcher needs no graph.
    peer.model.patcher.requires_grad_(False)
    return Pair(peer=peer, ours=ours)


def batch(rows: int, row_bytes: int) -> tuple[Tensor, Tensor]:
    """Rows of Python source: ids that begin with BOS, and the ids that follow."""
    text = b"".join(path.read_bytes() for path in standard_library_files()[:20])
    text = text[: rows * row_bytes]
    values = torch.frombuffer(bytearray(text), dtype=torch.uint8).long().view(rows, row_bytes)
    targets = values + OFFSET
    return F.pad(targets, (1, 0), value=BOS)[:, :-1].contiguous(), targets


def threshold_for(model: BLT, ids: Tensor) -> float:
    """The threshold, nats, at which the rows have 4.5 bytes a patch."""
    entropies = model.entropy_model.entropies(ids)[:, 1:-1].flatten().sort().values
    wanted = round(ids.numel() / PATCH_BYTES) - 2 * len(ids)
    # In the middle of the widest gap near the wanted number: rounding flips no boundary.
    near = entropies[-wanted - 20 : -wanted + 20]
    widest = int(near.diff().argmax())
    return float(near[widest : widest + 2].mean())


def mean_patch_bytes(model: BLT, ids: Tensor) -> float:
    return ids.numel() / int(model.patch(ids)[:, :-1].sum())


def peer_step(pair: Pair, ids: Tensor, targets: Tensor) -> Tensor:
    """Forward with its patcher, and backward; the loss."""
    loss = mean_nats(pair.peer(ids).logits, targets)
    loss.backward()
    return loss


def our_step(
    pair: Pair, ids: Tensor, targets: Tensor, starts: Tensor | None, dtype: torch.dtype | None
) -> Tensor:
    """Forward from patch starts (None: found here), and backward; the loss."""
    with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
        logits = pair.ours(ids) if starts is None else pair.ours(ids, starts)
    loss = mean_nats(logits, targets)
    loss.backward()
    return loss


def mean_nats(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten())


def difference(pair: Pair, ids: Tensor, targets: Tensor) -> dict[str, float]:
    """How far the two are apart: loss in nats, gradients relative to the largest of a tensor."""
    forget_gradients(pair)
    peer = peer_step(pair, ids, targets).item()
    ours = our_step(pair, ids, targets, pair.ours.patch(ids), None).item()
    names = blt_names(pair.ours.config, pair.ours.entropy_model.config)
    theirs, worst = dict(pair.peer.named_parameters()), 0.0
    for name, parameter in pair.ours.named_parameters():
        if parameter.grad is not None:
            expected = theirs[names[name]].grad
            gap = (parameter.grad.to_dense() - expected).abs().max()
            worst = max(worst, float(gap / expected.abs().max().clamp_min(1e-12)))
    forget_gradients(pair)
    return {"loss": abs(peer - ours), "gradient": worst}


def describe(gaps: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.1e}" for name, value in gaps.items())


def forget_gradients(pair: Pair) -> None:
    pair.peer.zero_grad(set_to_none=True)
    pair.ours.zero_grad(set_to_none=True)


def compare(pair: Pair, ids: Tensor, targets: Tensor, *, rounds: int) -> dict[str, float]:
    """Median seconds of a step of each, in turn."""
    starts = pair.ours.patch(ids)
    return medians(
        {
            "peer, fp32": lambda: peer_step(pair, ids, targets),
            "ours, fp32": lambda: our_step(pair, ids, targets, starts, None),
            "ours, bf16": lambda: our_step(pair, ids, targets, starts, torch.bfloat16),
            "ours, fp32, patches in the step": lambda: our_step(pair, ids, targets, None, None),
        },
        lambda: forget_gradients(pair),
        rounds=rounds,
    )


def medians(
    steps: dict[str, Callable[[], object]], between: Callable[[], object], *, rounds: int
) -> dict[str, float]:
    """Median seconds of each function, run in turn after one round that does not count."""
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            begun = time.perf_counter()
            step()
            if turn:
                seconds[name].append(time.perf_counter() - begun)
            between()
    return {name: statistics.median(values) for name, values in seconds.items()}


def report(threads: int, found: dict[str, float]) -> None:
    peer = next(iter(found.values()))
    for name, seconds in found.items():
        print(
            f"  {threads} threads  {name:32} {1000 * seconds:7.1f} ms  "
            f"{ROWS * ROW_BYTES / seconds:7.0f} bytes/s  {peer / seconds:5.2f} times",
            flush=True,
        )


def memory_of_a_step(who: str, row_bytes: int) -> int:
    """Growth of this process's resident set in one step of a single row, bytes."""
    torch.set_num_threads(1)
    ids, targets = batch(1, row_bytes)
    pair = build_pair(SIZES["small"], ids)
    keep = pair.peer if who == "peer" else pair.ours
    pair = Pair(peer=keep, ours=keep)  # pyright: ignore[reportArgumentType]
    starts = None if who == "peer" else keep.patch(ids)

    def step(length: int) -> None:
        if who == "peer":
            peer_step(pair, ids[:, :length], targets[:, :length])
        else:
            assert starts is not None
            our_step(pair, ids[:, :length], targets[:, :length], starts[:, : length + 1], None)
        forget_gradients(pair)

    step(WARM_UP_BYTES)
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the highest resident set is the present one
    before = resident_bytes("VmRSS")
    step(row_bytes)
    return resident_bytes("VmHWM") - before


def resident_bytes(field: str) -> int:
    """The present (VmRSS) or highest (VmHWM) resident set of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    (value,) = (line.split()[1] for line in lines if line.startswith(field))
    return 1024 * int(value)


def measured_apart(who: str, row_bytes: int) -> int:
    """`memory_of_a_step` in a fresh process."""
    command: Sequence[str] = [
        sys.executable,
        __file__,
        "--measure-memory",
        who,
        "--memory-bytes",
        str(row_bytes),
    ]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return int(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    main()
