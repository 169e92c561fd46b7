"""`bytelm decompress`: `.blm` containers back to the files they were made of."""

import argparse
import re
import sys
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, print_json
from bytelm.cli.containers import (
    STATUSES,
    SUFFIX,
    UsageError,
    add_files,
    add_limits,
    add_output,
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
    STREAM,
    Input,
    is_terminal,
    plain,
    reading,
    refuse_existing,
    shown_name,
    writing,
)
from bytelm.errors import DataError

if TYPE_CHECKING:
    from bytelm.compression import CodecModel, Summary

_RANGE = re.compile(r"(-?\d{1,19})?:(-?\d{1,19})?", re.ASCII)

_NO_END = 2**63 - 1

_Span = tuple[int | None, int | None]


def _span(text: str) -> _Span:
    """Read START:END as an argparse type."""
    found = _RANGE.fullmatch(text)
    if found is None:
        raise argparse.ArgumentTypeError(f"expected START:END in bytes, got '{text}'")
    start, end = (None if number is None else int(number) for number in found.groups())
    return start, end


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_files(parser, "containers; they are kept")
    add_output(parser, f"default: each FILE without its {SUFFIX}")
    add_run(parser, "the model that the container was made with")
    add_workers(parser)
    parser.add_argument(
        "--range",
        type=_span,
        metavar="START:END",
        help="only these raw bytes, counted as Python counts; only their frames are decoded. "
        "From the end: --range=-100:",
    )
    add_limits(parser)
    add_json(parser)
    parser.epilog = (
        "Every frame is checked before it is decoded and after; the output takes its name when\n"
        "all of it was right. `bytelm salvage` reads what is left of a damaged container.\n\n"
        f"{STATUSES}\n"
        "examples:\n"
        "  bytelm decompress notes.txt.blm\n"
        "  bytelm decompress notes.txt.blm --range 0:1000 -o - | less\n"
        "  bytelm decompress < folder.tar.blm | tar x"
    )


def run(args: argparse.Namespace) -> int:
    """Decompress each container."""
    files = inputs(args)
    if args.json and STREAM in (_output(path, args) for path in files):
        raise UsageError("--json prints on standard output, where the bytes would go")
    model = load_run(args)
    done: list[dict[str, Any]] = []

    def work(path: str) -> None:
        output = _output(path, args)
        summary = _decompress(path, output, args, model)
        if args.json:
            done.append(_as_json(path, output, summary))
        elif output != STREAM:
            print(f"{plain(output)}: {summary.raw_bytes:,} bytes", flush=True)

    status = each(files, work)
    if args.json:
        print_json({"files": done})
    return status


def _output(path: str, args: argparse.Namespace) -> str:
    if args.output is not None:
        return args.output
    # A part has no name of its own.
    if path == STREAM or args.range is not None:
        return STREAM
    if path.endswith(SUFFIX) and len(path) > len(SUFFIX):
        return path.removesuffix(SUFFIX)
    raise DataError(f"{path} does not end in {SUFFIX}: name the --output")


def _decompress(
    path: str,
    output: str,
    args: argparse.Namespace,
    model: "CodecModel | None",
) -> "Summary":
    from bytelm.compression import decompress_stream

    if output == STREAM and args.output is None and is_terminal(sys.stdout):
        raise UsageError("bytes for a terminal? Name the --output, or ask for it with -o -")
    refuse_existing(output, source=path, force=args.force)
    with reading(path) as (source, _):
        total = claimed_bytes(source)
        span = None
        if args.range is not None:
            span = _absolute(args.range, source, total)
            total = None
        with (
            writing(output, source=path, force=args.force) as target,
            byte_progress(shown_name(path), total, output=output) as advance,
        ):
            return decompress_stream(
                source,
                target,
                model=model,
                limits=limits(args),
                span=span,
                workers=args.workers,
                on_progress=advance,
            )


def _absolute(span: _Span, source: Input, total: int | None) -> tuple[int, int]:
    """Count a span from the beginning, as a slice of Python's: never past the end."""
    start, end = span
    if total is None and source.seekable():
        from bytelm.compression.container import find_trailer

        begin = source.tell()
        total = find_trailer(source, begin).raw_bytes
        source.seek(begin)
    if total is not None:
        start, end, _ = slice(start, end).indices(total)
        return start, max(start, end)
    if (start or 0) < 0 or (end or 0) < 0:
        raise UsageError(
            "a range that counts from the end needs a file: a pipe does not tell how long it is"
        )
    return start or 0, _NO_END if end is None else max(start or 0, end)


def _as_json(path: str, output: str, summary: "Summary") -> dict[str, Any]:
    return {
        "input": path,
        "output": output,
        "raw_bytes": summary.raw_bytes,
        "compressed_bytes": summary.compressed_bytes,
        "seconds": summary.seconds,
    }
