"""`bytelm evaluate`: bits per byte beside xz, zstd and ppmd on the same bytes."""

import argparse
import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, print_json
from bytelm.cli.progress import progress_bars

if TYPE_CHECKING:
    from rich.table import Table

    from bytelm.evaluation import CompressorResult, Evaluation

_SHOWN_DOCUMENTS = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run or a checkpoint directory")
    parser.add_argument(
        "paths", nargs="+", metavar="PATH", help="held-out files and folders; - is stdin"
    )
    parser.add_argument(
        "--no-compressors",
        action="store_true",
        help="leave out gzip, bzip2, xz, zstd, brotli and ppmd on the same bytes",
    )
    add_json(parser)
    parser.epilog = (
        "Use files that the model was not trained on. Every byte of them is scored once.\n\n"
        "examples:\n"
        "  bytelm evaluate runs/blt-small held_out/\n"
        "  bytelm evaluate runs/blt-small held_out/ --json > evaluation.json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table, or one JSON object."""
    import bytelm
    from bytelm.data import build_corpus
    from bytelm.evaluation import evaluate, reference_compressors
    from bytelm.models.cost import total_flops_per_byte

    model = bytelm.load(args.run)
    corpus = build_corpus(args.paths)
    documents = list(corpus)
    compressors: list[CompressorResult] = []
    with progress_bars() as progress:
        if not args.no_compressors:
            task = progress.add_task("", total=None)
            compressors = reference_compressors(
                documents,
                on_progress=lambda name: progress.update(task, description=name),
            )
            progress.remove_task(task)
        scoring = progress.add_task("scoring", total=corpus.num_bytes)

        def advance(count: int) -> None:
            # A mapped file that shrinks ends the process when it is read: look in between.
            corpus.check()
            progress.advance(scoring, count)

        evaluation = evaluate(
            model,
            list(zip(corpus.names, documents, strict=True)),
            compressors=compressors,
            on_progress=advance,
        )
    mean_patch_bytes = evaluation.mean_patch_bytes
    if mean_patch_bytes >= 1:
        flops = total_flops_per_byte(model.model, mean_patch_bytes=mean_patch_bytes)
        evaluation = replace(evaluation, flops_per_byte=flops)
    for warning in evaluation.warnings:
        print(f"bytelm: warning: {warning}", file=sys.stderr)
    if args.json:
        print_json(_as_json(evaluation, compressors))
    else:
        _print(args.run, evaluation, compressors)
    return 0


def _as_json(evaluation: "Evaluation", compressors: "list[CompressorResult]") -> dict[str, Any]:
    return {
        "bits_per_byte": evaluation.bits_per_byte,
        "interval": evaluation.interval,
        "interval_method": evaluation.interval_method,
        "bytes_scored": evaluation.bytes_scored,
        "mean_patch_bytes": evaluation.mean_patch_bytes,
        "patches_per_byte": evaluation.patches_per_byte,
        "flops_per_byte": evaluation.flops_per_byte,
        "compressors": {
            result.name: {key: value for key, value in asdict(result).items() if key != "name"}
            for result in compressors
        },
        "per_document": [
            {**asdict(row), "bits_per_byte": row.bits_per_byte} for row in evaluation.per_document
        ],
        "warnings": list(evaluation.warnings),
    }


def _print(
    name: str,
    evaluation: "Evaluation",
    compressors: "list[CompressorResult]",
) -> None:
    from rich.console import Console
    from rich.text import Text

    console = Console(highlight=False, markup=False, emoji=False)
    # A pipe has no width of its own: tables are not cut to 80 columns there.
    if not console.is_terminal:
        console.width = 120
    console.print(_comparison(name, evaluation, compressors))
    lines = [
        f"bytes scored       {evaluation.bytes_scored:,} in {len(evaluation.per_document)} files",
        f"bytes per patch    {evaluation.mean_patch_bytes:.3f}",
        f"patches per byte   {evaluation.patches_per_byte:.3f}",
        f"interval           {evaluation.interval_method}",
    ]
    if evaluation.flops_per_byte:
        lines.insert(3, f"MFLOP per byte     {evaluation.flops_per_byte / 1e6:.3f} (one forward)")
    console.print(Text("\n".join(lines)))
    if 1 < len(evaluation.per_document) <= _SHOWN_DOCUMENTS:
        console.print(_documents(evaluation))
    elif len(evaluation.per_document) > _SHOWN_DOCUMENTS:
        console.print(f"{len(evaluation.per_document)} files: --json lists each of them")


def _comparison(
    name: str, evaluation: "Evaluation", compressors: "list[CompressorResult]"
) -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(title=None, box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("")
    for heading in ("bits/byte", "95 % interval", "files apart"):
        table.add_column(heading, justify="right")
    table.add_column("")
    interval = evaluation.interval
    spread = f"{interval[0]:.3f} to {interval[1]:.3f}" if interval else ""
    table.add_row(Text(name), f"{evaluation.bits_per_byte:.3f}", spread, style="bold")
    for result in sorted(compressors, key=lambda result: result.bits_per_byte or 0.0):
        if result.missing:
            table.add_row(result.name, "missing", "", "", Text(result.note))
        else:
            table.add_row(
                result.name,
                f"{result.bits_per_byte:.3f}",
                "",
                f"{result.per_file_bits_per_byte:.3f}",
                result.note,
                style="dim",
            )
    return table


def _documents(evaluation: "Evaluation") -> "Table":
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column("bits/byte", justify="right")
    table.add_column("bytes", justify="right")
    table.add_column("file", overflow="fold")
    for row in evaluation.per_document:
        table.add_row(f"{row.bits_per_byte:.3f}", f"{row.num_bytes:,}", Text(row.name))
    return table
