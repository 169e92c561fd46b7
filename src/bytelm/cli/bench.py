"""`bytelm bench`: this codec beside classical compressors on your files."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, lane_count, print_json
from bytelm.cli.containers import (
    UsageError,
)
from bytelm.cli.progress import progress_bars
from bytelm.cli.streams import (
    plain,
    reading,
)

if TYPE_CHECKING:
    import numpy as np

    from bytelm.evaluation.compressors import CompressorResult, Effort

_OURS = "bytelm"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("what", choices=["compress"], help="what is measured")
    parser.add_argument("files", nargs="+", metavar="FILE", help="each is measured by itself")
    parser.add_argument(
        "--run", metavar="RUN", help="a run or checkpoint directory: a row with its model as well"
    )
    parser.add_argument("--lanes", type=lane_count, metavar="N", help="of our rows")
    parser.add_argument(
        "--no-compressors",
        action="store_true",
        help="leave out gzip, bzip2, xz, zstd, brotli and ppmd",
    )
    add_json(parser)
    parser.epilog = (
        "Every compressor runs in a process of its own on one thread, and another process decodes\n"
        "what it wrote and compares: speed is by the clock, start of the process and compilation\n"
        "left out, memory is the most that the process had. Use files the model was not trained\n"
        "on; `with model` counts the model's own bytes as part of the output.\n\n"
        "examples:\n"
        "  bytelm bench compress notes.txt\n"
        "  bytelm bench compress held_out/*.txt --run runs/codec-small --json > bench.json"
    )


def run(args: argparse.Namespace) -> int:
    """Print a table for each file, and one of their sums."""
    if len(set(args.files)) < len(args.files):
        raise UsageError("a file is named twice")
    sizes: dict[str, int] = {}
    tables: dict[str, list[CompressorResult]] = {}
    for path in args.files:
        data = _read(path)
        sizes[path] = len(data)
        tables[path] = _measure(data, args)
        if not args.json:
            _print(path, len(data), tables[path])
    raw = sum(sizes.values())
    total = [_total(rows, raw) for rows in zip(*tables.values(), strict=True)]
    if args.json:
        files = {path: _as_json(sizes[path], rows) for path, rows in tables.items()}
        print_json({"files": files, "total": _as_json(raw, total)})
    elif len(tables) > 1:
        _print(f"all {len(tables)} files", raw, total)
    return 0


def _read(path: str) -> "np.ndarray":
    import numpy as np

    with reading(path) as (stream, _):
        return np.frombuffer(stream.read(), np.uint8)


def _measure(data: "np.ndarray", args: argparse.Namespace) -> "list[CompressorResult]":
    from bytelm.compression import Options
    from bytelm.compression.measurement import measure_container
    from bytelm.evaluation import reference_compressors

    options = Options(lanes=args.lanes)
    with progress_bars() as progress:
        task = progress.add_task(_OURS, total=None)
        rows = [measure_container(_OURS, [data], options=options)]
        if args.run is not None:
            name = f"{_OURS} --run"
            progress.update(task, description=name)
            rows.append(measure_container(name, [data], run=args.run, options=options))
        if not args.no_compressors:
            rows += reference_compressors(
                [data], on_progress=lambda name: progress.update(task, description=name)
            )
    return rows


def _total(rows: "Sequence[CompressorResult]", raw: int) -> "CompressorResult":
    """Add up one compressor's rows: bytes and seconds are sums, memory is the most of any."""
    first = rows[0]
    if first.bytes is None:
        return first
    size = sum(row.bytes or 0 for row in rows)
    bits = 8 * size / raw if raw else 0.0
    return replace(
        first,
        bytes=size,
        bits_per_byte=bits,
        per_file_bits_per_byte=bits,
        encode=_sum([row.encode for row in rows]),
        decode=_sum([row.decode for row in rows]),
        failure=next((row.failure for row in rows if row.failure), None),
    )


def _sum(efforts: "Sequence[Effort | None]") -> "Effort | None":
    """Add up what it cost; None where any is missing."""
    from bytelm.evaluation.compressors import Effort

    known = [effort for effort in efforts if effort is not None]
    if len(known) < len(efforts):
        return None
    peaks = [effort.peak_bytes for effort in known if effort.peak_bytes is not None]
    return Effort(
        seconds=sum(effort.seconds for effort in known),
        cpu_seconds=sum(effort.cpu_seconds for effort in known),
        peak_bytes=max(peaks, default=None),
    )


def _with_model(row: "CompressorResult", raw: int) -> float | None:
    """Return bits per byte with the model's own bytes counted as output."""
    if row.bytes is None:
        return None
    return 8 * (row.bytes + row.model_bytes) / raw if raw else 0.0


def _as_json(raw: int, rows: "Sequence[CompressorResult]") -> dict[str, Any]:
    return {
        "raw_bytes": raw,
        "compressors": [
            {**asdict(row), "bits_per_byte_with_model": _with_model(row, raw)} for row in rows
        ],
    }


def _print(title: str, raw: int, rows: "Sequence[CompressorResult]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    # A pipe has no width of its own: tables are not cut to 80 columns there.
    if not console.is_terminal:
        console.width = 160
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("bytes", "bits/byte", "with model", "MB/s in", "out", "MB in", "out"):
        table.add_column(heading, justify="right", no_wrap=True)
    table.add_column("")
    for row in sorted(rows, key=lambda row: (row.bytes is None, row.bytes or 0)):
        style = "bold" if row.name.startswith(_OURS) else "dim"
        table.add_row(Text(row.name), *_figures(row, raw), Text(row.note), style=style)
    console.print(Text(f"{plain(title)}: {raw:,} bytes"))
    console.print(table)
    console.print()


def _figures(row: "CompressorResult", raw: int) -> list[str]:
    """Return the cells of one row; nothing where nothing is known."""
    efforts = (row.encode, row.decode)
    if row.bytes is None:
        return [""] * 7
    counted = f"{_with_model(row, raw):.3f}" if row.model_bytes else ""
    speeds = ["" if effort is None else _speed(raw, effort.seconds) for effort in efforts]
    peaks = [
        "" if effort is None or effort.peak_bytes is None else f"{effort.peak_bytes / 1e6:,.0f}"
        for effort in efforts
    ]
    return [f"{row.bytes:,}", f"{row.bits_per_byte:.3f}", counted, *speeds, *peaks]


def _speed(raw: int, seconds: float) -> str:
    """Return MB/s with as many digits as mean something."""
    speed = raw / 1e6 / seconds if seconds > 0 else 0.0
    return f"{speed:,.2f}" if speed < 10 else f"{speed:,.0f}"
