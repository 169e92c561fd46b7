"""`bytelm demo`: raw files in, a trained and measured BLT and a report out."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from bytelm.cli.arguments import add_hardware, add_json, positive_int
from bytelm.cli.progress import progress_bars

if TYPE_CHECKING:
    from bytelm.apps.demo import DemoResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "paths",
        nargs="*",
        metavar="PATH",
        help="files and folders to learn from; none: the source of this Python's own library",
    )
    parser.add_argument(
        "--out", type=Path, default=Path("demo"), metavar="DIR", help="default: demo"
    )
    parser.add_argument(
        "--steps", type=positive_int, metavar="N", help="of the BLT; fewer: a preview"
    )
    add_hardware(parser)
    add_json(parser)
    parser.epilog = "examples:\n  bytelm demo\n  bytelm demo ~/notes --out notes-demo"


def run(args: argparse.Namespace) -> int:
    """Train, measure, write the report; the same command again goes on where it stopped."""
    from bytelm.apps.demo import run_demo

    begun = time.monotonic()

    def say(line: str) -> None:
        print(f"[{time.monotonic() - begun:4.0f} s] {line}", file=sys.stderr)

    settings = {
        "training.steps": args.steps,
        "training.seed": args.seed,
        "hardware.device": args.device,
        "hardware.threads": args.threads,
    }
    result = run_demo(
        args.paths,
        out=args.out,
        settings={key: value for key, value in settings.items() if value is not None},
        say=say,
        scoring=_scoring,
    )
    say("done")
    if args.json:
        print((args.out / "results.json").read_text(encoding="utf-8"), end="")
    else:
        _print(result)
    return 0


@contextmanager
def _scoring(name: str, num_bytes: int) -> Iterator[Callable[[int], None]]:
    with progress_bars() as progress:
        task = progress.add_task(f"scoring: {name}", total=num_bytes)
        yield lambda count: progress.advance(task, count)


def _print(result: "DemoResult") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Bits per byte of the held-out files", title_justify="left")
    table.add_column("")
    table.add_column("bits/byte", justify="right")
    table.add_column("")
    rows = [
        (
            name,
            found.bits_per_byte,
            f"{result.parameters[name] / 1e6:.1f} M parameters, "
            f"{found.mean_patch_bytes:.2f} bytes per patch",
        )
        for name, found in result.models.items()
    ]
    rows += [(row.name, row.bits_per_byte, row.note) for row in result.compressors]
    for name, value, note in sorted(rows, key=lambda row: row[1] or 9.0):
        table.add_row(name, "-" if value is None else f"{value:.3f}", note)
    console = Console()
    console.print(table)
    console.print(f"\nReport: {result.report}", soft_wrap=True)
