"""Measure the codec beside classical compressors: size, speed, memory, and how random bytes grow.

python benchmarks/compression.py PATH [--run RUN] [--only NAME ...] [--json FILE]

PATH is a folder with `dickens`, `xml` and `ooffice` of the Silesia corpus. RUN is a model trained
on the first 5 MB of `dickens`; its test data are the last 5 MB. The fourth kind of data is the
Python source of this interpreter's own library. Every compressor runs in a process of its own, and
what it wrote is decoded in another; ours on one thread, without verification, as the others.
Speeds are judged by the CPU's clock: other processes on the machine count in the wall's.
"""

import argparse
import json
import os
import sysconfig
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from bytelm.compression import Options, compress
from bytelm.compression.measurement import measure_container
from bytelm.evaluation import CompressorResult, reference_compressors

ENGLISH_BYTES = 5_000_000
PYTHON_BYTES = 10_000_000
KINDS = ("english", "xml", "python", "binary", "random")

MIXER, MODEL = "bytelm", "bytelm --run"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("path", type=Path, help="folder with dickens, xml and ooffice")
    parser.add_argument("--run", type=Path, help="a model trained on dickens' first 5 MB")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to FILE")
    arguments = parser.parse_args()
    found: dict[str, object] = {}
    missed = []
    for kind in arguments.only:
        if kind == "random":
            missed += random_growth()
            continue
        data = test_data(kind, arguments.path)
        # The model has seen English; elsewhere it shows what a foreign model costs.
        rows = measure(data, arguments.run)
        print_table(f"{kind}, {len(data):,} bytes", len(data), rows)
        found[kind] = {"raw_bytes": len(data), "rows": [asdict(row) for row in rows]}
        missed += [f"{kind}: {line}" for line in verdicts(kind, len(data), rows)]
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=2))
    print("missed: " + ("; ".join(missed) or "nothing"))


def test_data(kind: str, folder: Path) -> np.ndarray:
    match kind:
        case "english":
            return np.fromfile(folder / "dickens", np.uint8)[-ENGLISH_BYTES:]
        case "xml":
            return np.fromfile(folder / "xml", np.uint8)
        case "binary":
            return np.fromfile(folder / "ooffice", np.uint8)
    return python_source()


def python_source() -> np.ndarray:
    """Every second file of the library, in order of their paths: the others may be trained on."""
    paths = sorted(Path(sysconfig.get_paths()["stdlib"]).rglob("*.py"))[1::2]
    data = b""
    for path in paths:
        data += path.read_bytes()
        if len(data) > PYTHON_BYTES:
            break
    return np.frombuffer(data[:PYTHON_BYTES], np.uint8)


def measure(data: np.ndarray, run: Path | None) -> list[CompressorResult]:
    rows = [measure_container(MIXER, [data])]
    if run is not None:
        rows.append(measure_container(MODEL, [data], run=run))
    return rows + reference_compressors([data])


def print_table(title: str, raw: int, rows: Sequence[CompressorResult]) -> None:
    print(title)
    headings = ("KB/s in", "CPU", "out", "CPU", "MB in", "out")
    print(f"{'':14}{'bytes':>11}{'bpb':>8}" + "".join(f"{name:>8}" for name in headings))
    for row in sorted(rows, key=lambda row: row.bytes or 0):
        speeds, peaks = "", ""
        for effort in (row.encode, row.decode):
            if effort is None:
                speeds, peaks = speeds + 16 * " ", peaks + 8 * " "
                continue
            for seconds in (effort.seconds, effort.cpu_seconds):
                speeds += f"{raw / 1e3 / max(seconds, 1e-9):8,.0f}"
            peaks += f"{(effort.peak_bytes or 0) / 1e6:8,.0f}"
        cells = speeds + peaks
        print(f"{row.name:14}{row.bytes or 0:11,}{row.bits_per_byte or 0:8.3f}{cells}  {row.note}")
    print()


def verdicts(kind: str, raw: int, rows: Sequence[CompressorResult]) -> list[str]:
    """Print by how much each thing that was promised of this kind of data was kept, or missed."""
    ours = [row for row in rows if row.name in (MIXER, MODEL)]
    margins = size_margins(kind, raw, rows)
    for row in ours:
        wanted = 300 if row.name == MIXER else 100
        for way, effort in (("in", row.encode), ("out", row.decode)):
            if effort is None:
                continue
            speed = raw / 1e3 / effort.cpu_seconds
            if kind == "english":
                margins[f"{row.name} {way} at {wanted} KB/s"] = speed / wanted - 1
            margins[f"{row.name} {way} under 1 GB"] = 1 - (effort.peak_bytes or 0) / 1e9
        if row.failure is not None:
            margins[f"{row.name} decodes"] = -1.0
    for what, margin in margins.items():
        print(f"{what}: {'kept' if margin >= 0 else 'MISSED'} by {abs(margin):.2%}")
    print()
    return [what for what, margin in margins.items() if margin < 0]


def size_margins(kind: str, raw: int, rows: Sequence[CompressorResult]) -> dict[str, float]:
    """What is promised of sizes, each with how far below the promised size we are."""
    size = {row.name: row.bytes or 0 for row in rows}
    ours = min(size.get(MODEL, size[MIXER]), size[MIXER])
    classical = min(value for name, value in size.items() if name not in (MIXER, MODEL))
    if kind == "binary":
        return {"0.1 % above zstd -19 or stored": 1 - ours / (1.001 * min(size["zstd -19"], raw))}
    if kind != "english":
        return {"below every classical compressor": 1 - ours / classical}
    margins = {"mixer below ppmd -o6": 1 - size[MIXER] / size["ppmd -o6"]}
    if MODEL in size:
        margins["5 % below ppmd -o16"] = 1 - size[MODEL] / (0.95 * size["ppmd -o16"])
        margins["15 % below xz -9e"] = 1 - size[MODEL] / (0.85 * size["xz -9e"])
    return margins


def random_growth() -> list[str]:
    """Random bytes may grow by 28 bytes a MiB and 110 bytes."""
    missed = []
    for size in (0, 1, 1000, 1 << 20, (40 << 20) + 1):
        grown = len(compress(os.urandom(size), options=Options(workers=1))) - size
        allowed = 110 + 28 * size / (1 << 20)
        print(f"random, {size:,} bytes: grown by {grown}, allowed {allowed:,.1f}")
        if grown > allowed:
            missed.append(f"random bytes grow by {grown} of {allowed}")
    print()
    return missed


if __name__ == "__main__":
    main()
