"""`bytelm salvage`: write what is whole in a damaged container."""

import argparse
from dataclasses import asdict
from typing import TYPE_CHECKING

from bytelm.cli.arguments import add_json, print_json
from bytelm.cli.containers import (
    STATUSES,
    UsageError,
    add_limits,
    add_run,
    byte_progress,
    each,
    limits,
    load_run,
)
from bytelm.cli.streams import (
    STREAM,
    plain,
    reading,
    refuse_existing,
    writing,
)
from bytelm.errors import DamagedError

if TYPE_CHECKING:
    from bytelm.compression import CodecModel, SalvageReport


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", metavar="FILE", help="a container")
    parser.add_argument("-o", "--output", metavar="FILE", required=True, help="where to")
    parser.add_argument(
        "-f", "--force", action="store_true", help="replace an output that exists already"
    )
    add_run(parser, "the model that the container was made with")
    add_limits(parser)
    add_json(parser)
    parser.epilog = (
        "Each whole frame is written to its place; what is missing before it is zeros. The gaps\n"
        "are listed on standard output, in raw bytes; the status is 7 if there are any.\n\n"
        f"{STATUSES}\n"
        "examples:\n"
        "  bytelm salvage broken.txt.blm -o what-is-left.txt\n"
        "  bytelm salvage broken.txt.blm -o what-is-left.txt --run runs/codec-small --json"
    )


def run(args: argparse.Namespace) -> int:
    """Write what is there and list what is not."""
    if STREAM in (args.file, args.output):
        raise UsageError("salvage goes back and forth in both files: a pipe will not do")
    model = load_run(args)
    found: list[SalvageReport] = []
    status = each([args.file], lambda path: found.append(_salvage(path, args, model)))
    for report in found:
        if args.json:
            print_json({"input": args.file, "output": args.output, **asdict(report)})
        else:
            _print(args.output, report)
        if report.gaps or report.header_error:
            status = DamagedError.exit_status
    return status


def _salvage(path: str, args: argparse.Namespace, model: "CodecModel | None") -> "SalvageReport":
    from bytelm.compression import salvage

    refuse_existing(args.output, source=path, force=args.force)
    with (
        reading(path) as (source, _),
        writing(args.output, source=path, force=args.force) as target,
        byte_progress(path, None) as advance,
    ):
        for name, stream in ((path, source), (args.output, target)):
            if not stream.seekable():
                raise UsageError(f"{name} is no regular file: salvage goes back and forth in it")
        return salvage(source, target, model=model, limits=limits(args), on_progress=advance)


def _print(output: str, report: "SalvageReport") -> None:
    print(f"{plain(output)}: {report.raw_bytes:,} bytes of {len(report.frames):,} frames")
    if report.header_error is not None:
        print(f"  header: {plain(report.header_error)}")
    for gap in report.gaps:
        end = "the end" if gap.end is None else f"{gap.end:,}"
        print(f"  lost: raw bytes {gap.begin:,} to {end}: {plain(gap.reason)}")
    if not report.gaps:
        print("  nothing is lost")
