"""`bytelm test`: decode containers and check every byte, without writing any."""

import argparse
from typing import Any

from bytelm.cli.arguments import add_json, print_json
from bytelm.cli.containers import (
    STATUSES,
    add_files,
    add_limits,
    add_run,
    add_workers,
    byte_progress,
    claimed_bytes,
    each,
    inputs,
    limits,
    load_run,
)
from bytelm.cli.streams import (
    plain,
    reading,
    shown_name,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_files(parser, "containers")
    add_run(parser, "the model that the container was made with")
    add_workers(parser)
    add_limits(parser)
    add_json(parser)
    parser.epilog = (
        f"{STATUSES}\n"
        "examples:\n"
        "  bytelm test notes.txt.blm\n"
        "  bytelm test archive/*.blm --run runs/codec-small --json"
    )


def run(args: argparse.Namespace) -> int:
    """Check each container."""
    from bytelm.compression import decompress_stream

    files = inputs(args)
    model = load_run(args)
    whole: list[dict[str, Any]] = []

    def work(path: str) -> None:
        with (
            reading(path) as (source, _),
            byte_progress(shown_name(path), claimed_bytes(source)) as advance,
        ):
            summary = decompress_stream(
                source,
                None,
                model=model,
                limits=limits(args),
                workers=args.workers,
                on_progress=advance,
            )
        figures = {
            "input": path,
            "raw_bytes": summary.raw_bytes,
            "compressed_bytes": summary.compressed_bytes,
            "seconds": summary.seconds,
        }
        whole.append(figures)
        if not args.json:
            print(f"{plain(shown_name(path))}: whole, {summary.raw_bytes:,} bytes", flush=True)

    status = each(files, work)
    if args.json:
        print_json({"files": whole})
    return status
