"""bytelm beside the BLT of `transformers`: the same weights, the same bytes, one process.

    python benchmarks/against_transformers.py [--parts parity decoding context rows training]
        [--threads 1 2] [--sizes small wide] [--rounds 3] [--seeds 24]

Needs `pip install bytelm[hub]`. The peer is `BltForCausalLM` as released, loaded from our export,
with `use_cache=False`: its cache gives wrong text, so this is its only correct way. Both compute in
float32 on a CPU and take turns; medians and ratios are printed. Weights are random, with the
threshold calibrated to 4.5 bytes a patch on the text, which is this Python's own library.

    parity     tests T1 to T9 of `bytelm.interop.parity` over random configurations
    decoding   512 new bytes after a prompt of 64. The peer's time for a byte is that of a forward
               over all bytes before it; it is measured at 17 lengths and summed by trapezoids
    context    one more byte after 2,048 bytes; and ours after 512 to 8,192
    rows       16 texts of different lengths at once, and one after the other
    training   a step and its memory (benchmarks/training_step.py)

Each number of threads has a process of its own, because NumPy's threads are chosen at its start.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from training_step import SIZES, Sizes

from bytelm.data import standard_library_files
from bytelm.decoding.session import Session
from bytelm.interop import parity
from bytelm.interop.huggingface import export_model
from bytelm.models import BLT, EntropyLM
from bytelm.patching import Entropy, calibrate_threshold
from bytelm.vocab import BOS, OFFSET

PARTS = ("parity", "decoding", "context", "rows", "training")
PROMPT, NEW = 64, 512
LONG = 2048
CONTEXTS = (512, 1024, 2048, 4096, 8192)
END = CONTEXTS[-1]
ROWS, ROW_NEW = 16, 128
PATCH_BYTES = 4.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--sizes", nargs="+", choices=["small", "wide"], default=["small", "wide"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=24, help="random configurations for parity")
    arguments = parser.parse_args()
    if len(arguments.threads) > 1:
        for threads in arguments.threads:
            _again(threads, arguments)
        return
    (threads,) = arguments.threads
    if "OMP_NUM_THREADS" not in os.environ:
        _again(threads, arguments)
        return
    torch.set_num_threads(threads)
    if "parity" in arguments.parts and threads == 1:
        report_parity(arguments.seeds)
    for size in arguments.sizes:
        if {"decoding", "context", "rows"} & set(arguments.parts):
            report_size(size, threads, arguments)
    if "training" in arguments.parts:
        script = str(Path(__file__).with_name("training_step.py"))
        memory = "8192" if threads == 1 else "0"
        command = [sys.executable, script, "--threads", str(threads), "--rounds", "7"]
        subprocess.run([*command, "--memory-bytes", memory], check=True)


def _again(threads: int, arguments: argparse.Namespace) -> None:
    """Run this script in a process with so many threads."""
    command = [sys.executable, __file__, "--threads", str(threads)]
    command += ["--rounds", str(arguments.rounds), "--seeds", str(arguments.seeds)]
    command += ["--parts", *arguments.parts, "--sizes", *arguments.sizes]
    subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": str(threads)})


def report_parity(seeds: int) -> None:
    """The largest difference of each test over all configurations."""
    worst: dict[tuple[str, str], parity.Measured] = {}
    failed = 0
    for seed in range(seeds):
        for measured in parity.measure(seed):
            what = measured.what.split(", window")[0]
            failed += not measured.passed
            known = worst.setdefault((measured.test, what), measured)
            if not measured.difference <= known.difference:
                worst[measured.test, what] = measured
        print(f"\rparity: {seed + 1} of {seeds} configurations", end="", file=sys.stderr)
    print(file=sys.stderr)
    print(f"parity over {seeds} random configurations: {failed} comparisons failed")
    for (test, what), measured in sorted(worst.items()):
        found = "equal" if measured.difference == 0 else f"{measured.difference:.1e}"
        print(f"  {test}  {what:45} {found:>9}  of {measured.tolerance:.0e}")


@dataclass(frozen=True, kw_only=True)
class Pair:
    """The same model twice, and the text that it reads."""

    ours: BLT
    peer: Any
    text: bytes


def report_size(size: str, threads: int, arguments: argparse.Namespace) -> None:
    """Decoding of one configuration."""
    with tempfile.TemporaryDirectory() as folder:
        pair = build_pair(decoding_sizes(size), Path(folder) / "export")
    millions = sum(p.numel() for p in pair.ours.parameters()) / 1e6
    name = f"{size}, {millions:.1f} M parameters, {threads} threads"
    if "decoding" in arguments.parts:
        report_decoding(name, pair, arguments.rounds)
    if "context" in arguments.parts:
        report_context(name, pair, arguments.rounds)
    if "rows" in arguments.parts:
        report_rows(name, pair, arguments.rounds)


def decoding_sizes(size: str) -> Sizes:
    """The small configuration, or one four times as wide in every part; a context that lasts."""
    small = SIZES["small"]
    model = replace(small.model, context_bytes=32_768)
    if size == "small":
        return Sizes(model=model, entropy=small.entropy)
    assert model.ffn_dim
    assert model.ffn_dim_global
    assert small.entropy.ffn_dim
    return Sizes(
        model=replace(
            model,
            dim=4 * model.dim,
            n_heads=4 * model.n_heads,
            ffn_dim=4 * model.ffn_dim,
            dim_global=4 * model.dim_global,
            n_heads_global=4 * model.n_heads_global,
            ffn_dim_global=4 * model.ffn_dim_global,
        ),
        entropy=replace(
            small.entropy,
            dim=4 * small.entropy.dim,
            n_heads=4 * small.entropy.n_heads,
            ffn_dim=4 * small.entropy.ffn_dim,
        ),
    )


def build_pair(sizes: Sizes, folder: Path) -> Pair:
    """A random model whose patches have 4.5 bytes where it is timed; the peer loaded from it."""
    files = standard_library_files()[:60]
    text = b"".join(path.read_bytes() for path in files)[: 4 * CONTEXTS[-1]]
    torch.manual_seed(0)
    source = EntropyLM(sizes.entropy)
    ours = BLT(sizes.model, Entropy(threshold=1.0), source)
    with torch.no_grad():
        for parameter in ours.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[1] ** -0.5)
    ids = torch.tensor([[BOS, *(byte + OFFSET for byte in text[END - LONG : END + LONG])]])
    known = source.entropies(ids)[0, LONG : LONG + 1024].numpy()
    found = calibrate_threshold([known], mean_patch_bytes=PATCH_BYTES, patcher=ours.patcher)
    ours.patcher = found.patcher
    export_model(ours.eval(), folder)
    return Pair(ours=ours, peer=parity.load_theirs(folder), text=text)


def report_decoding(name: str, pair: Pair, rounds: int) -> None:
    """512 new bytes, one row."""
    lengths = [PROMPT + NEW * index // 16 for index in range(17)]
    ours: list[float] = []
    peer: dict[int, list[float]] = {length: [] for length in lengths}
    for _ in range(rounds):
        session = Session(pair.ours)
        session.push([pair.text[END - PROMPT : END]])
        ours.append(seconds(lambda session=session: write(session, pair.text, END, NEW)))
        for length in lengths:
            peer[length].append(seconds(lambda n=length: forward(pair, END - PROMPT, n)))
    points = [statistics.median(values) for values in peer.values()]
    step = NEW / 16
    theirs = step * sum((a + b) / 2 for a, b in pairwise(points))
    own = statistics.median(ours)
    print(
        f"{name}: {NEW} new bytes after {PROMPT}: peer {theirs:.2f} s, "
        f"{NEW / theirs:.0f} bytes/s; ours {own:.3f} s, {NEW / own:.0f} bytes/s: "
        f"{theirs / own:.0f} times",
        flush=True,
    )


def report_context(name: str, pair: Pair, rounds: int) -> None:
    """The bytes of one passage, whose patches decide the cost, after more or less before it."""
    per_byte: dict[int, list[float]] = {context: [] for context in CONTEXTS}
    theirs: list[float] = []
    patches = dict.fromkeys(CONTEXTS, 0)
    sessions = {}
    for context in CONTEXTS:
        sessions[context] = Session(pair.ours)
        sessions[context].push([pair.text[END - context : END]])
    count = 128
    for turn in range(rounds):
        for context, session in sessions.items():
            begin, starts = END + turn * count, []
            elapsed = seconds(
                lambda s=session, b=begin, n=starts: n.extend(write(s, pair.text, b, count))
            )
            per_byte[context].append(elapsed / count)
            patches[context] += sum(starts)
        theirs.append(seconds(lambda: forward(pair, END - LONG, LONG)))
    found = {context: 1000 * statistics.median(values) for context, values in per_byte.items()}
    peer = 1000 * statistics.median(theirs)
    print(
        f"{name}: one byte after {LONG}: peer {peer:.0f} ms, ours {found[LONG]:.2f} ms: "
        f"{peer / found[LONG]:.0f} times"
    )
    listed = ", ".join(
        f"{context} {value:.3f} ({rounds * count / patches[context]:.1f} bytes a patch)"
        for context, value in found.items()
    )
    ratio = found[CONTEXTS[-1]] / found[CONTEXTS[0]]
    print(f"{name}: ours, ms a byte after: {listed}: {ratio:.2f} times from first to last")


def report_rows(name: str, pair: Pair, rounds: int) -> None:
    """16 ragged rows at once, and each alone."""
    ends = [END + 64 * row for row in range(ROWS)]
    prompts = [pair.text[end - 16 - 15 * row : end] for row, end in enumerate(ends)]
    together, alone = [], []
    texts: list[bytes] = []
    for _ in range(rounds):
        session = Session(pair.ours, rows=ROWS)
        session.push(prompts)
        out: list[bytes] = []
        together.append(seconds(lambda s=session, o=out: o.extend(greedy(s, ROW_NEW))))
        single: list[bytes] = []
        total = 0.0
        for prompt in prompts:
            session = Session(pair.ours)
            session.push([prompt])
            total += seconds(lambda s=session, o=single: o.extend(greedy(s, ROW_NEW)))
        alone.append(total)
        texts = [a for a, b in zip(out, single, strict=True) if a == b]
    bytes_written = ROWS * ROW_NEW
    fast, slow = (bytes_written / statistics.median(values) for values in (together, alone))
    print(
        f"{name}: {ROWS} rows after prompts of {len(prompts[0])} to {len(prompts[-1])} bytes: "
        f"{fast:.0f} bytes/s, one row {slow:.0f}: {fast / slow:.1f} times; {len(texts)} of {ROWS} "
        "texts equal those of single rows",
        flush=True,
    )


def write(session: Session, text: bytes, begin: int, count: int) -> list[bool]:
    """Ask for the likeliest byte and append the text's, `count` times; which start a patch."""
    starts = []
    for at in range(begin, begin + count):
        session.log_probs()[0].argmax()
        starts.append(bool(session.starts()[0]))
        session.push([text[at : at + 1]])
    return starts


def greedy(session: Session, count: int) -> list[bytes]:
    """The likeliest bytes of each row."""
    texts = [bytearray() for _ in range(session.rows)]
    for _ in range(count):
        chosen = session.log_probs().argmax(1).tolist()
        for text, byte in zip(texts, chosen, strict=True):
            text.append(byte)
        session.push([bytes([byte]) for byte in chosen])
    return [bytes(text) for text in texts]


@torch.no_grad()
def forward(pair: Pair, begin: int, length: int) -> None:
    """What the peer computes for the byte after `length` bytes of the text."""
    ids = torch.tensor([[BOS, *(byte + OFFSET for byte in pair.text[begin : begin + length])]])
    pair.peer(ids).logits[0, -1].argmax()


def seconds(call: Callable[[], object]) -> float:
    """How long a call takes."""
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()
