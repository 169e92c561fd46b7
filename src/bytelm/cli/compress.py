"""`bytelm compress`: files to `.blm` containers."""

import argparse
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, byte_size, lane_count, print_json
from bytelm.cli.containers import (
    STATUSES,
    SUFFIX,
    UsageError,
    add_files,
    add_output,
    add_run,
    add_workers,
    byte_progress,
    each,
    inputs,
    load_run,
)
from bytelm.cli.streams import (
    STREAM,
    is_terminal,
    plain,
    reading,
    refuse_existing,
    shown_name,
    writing,
)
from bytelm.errors import DataError

if TYPE_CHECKING:
    from bytelm.compression import CodecModel, Options, Summary

MODES = ("auto", "model", "mixed", "mixer", "zstd", "stored")

_LEAST_FRAME, _LARGEST_FRAME = 64 << 10, 64 << 20


def _frame_size(text: str) -> int:
    """Read --frame, as an argparse type."""
    size = byte_size(text)
    if not _LEAST_FRAME <= size <= _LARGEST_FRAME:
        raise argparse.ArgumentTypeError(f"expected a size from 64K to 64M, got '{text}'")
    return size


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_files(parser, "what to compress; the input is kept")
    add_output(parser, f"default: FILE{SUFFIX} beside each FILE")
    add_run(parser, "its model predicts beside the mixer")
    parser.add_argument(
        "--no-verify",
        action="store_true",
        help="write each frame without decoding it again before",
    )
    add_workers(parser)
    add_json(parser)
    group = parser.add_argument_group("how it is coded, kept in the container")
    group.add_argument(
        "--mode",
        choices=MODES,
        default="auto",
        help="of every frame (default: auto, for each frame the shortest)",
    )
    group.add_argument(
        "--lanes",
        type=lane_count,
        metavar="N",
        help="places of a frame that are coded in turn (default: as the model likes; 1 without)",
    )
    group.add_argument(
        "--frame",
        type=_frame_size,
        default=16 << 20,
        metavar="SIZE",
        help="raw bytes that stand on their own, 64K to 64M (default: 16M)",
    )
    parser.epilog = (
        "Without --run, an adaptive mixer of contexts learns from the file itself: nothing else\n"
        "is needed to decompress it. With --run the same model is needed again.\n\n"
        f"{STATUSES}\n"
        "examples:\n"
        "  bytelm compress notes.txt\n"
        "  bytelm compress notes.txt --run runs/codec-small -o small.blm\n"
        "  tar c folder | bytelm compress > folder.tar.blm"
    )


def run(args: argparse.Namespace) -> int:
    """Compress each file."""
    files = inputs(args)
    if len(files) > 1 and args.output == STREAM:
        raise UsageError("two containers in one stream cannot be read back: compress a tar of them")
    if args.json and STREAM in (_output(path, args) for path in files):
        raise UsageError("--json prints on standard output, where the container would go")
    options = _options(args)
    model = load_run(args)
    done: list[dict[str, Any]] = []

    def work(path: str) -> None:
        output = _output(path, args)
        summary = _compress(
            path, output, model, options, force=args.force, named=args.output is not None
        )
        if args.json:
            done.append(_as_json(path, output, summary))
        elif output != STREAM:
            print(_line(output, summary), flush=True)

    status = each(files, work)
    if args.json:
        print_json({"files": done})
    return status


def _options(args: argparse.Namespace) -> "Options":
    from bytelm.compression import Options

    if args.run is None and args.mode in ("model", "mixed"):
        raise UsageError(f"--mode {args.mode} needs a model: add --run RUN")
    return Options(
        mode=args.mode,
        lanes=args.lanes,
        frame_bytes=args.frame,
        verify=not args.no_verify,
        workers=args.workers,
    )


def _output(path: str, args: argparse.Namespace) -> str:
    if args.output is not None:
        return args.output
    return STREAM if path == STREAM else path + SUFFIX


def _compress(
    path: str,
    output: str,
    model: "CodecModel | None",
    options: "Options",
    *,
    force: bool,
    named: bool,
) -> "Summary":
    from bytelm.compression import compress_stream

    if not named and path.endswith(SUFFIX):
        raise DataError(f"{path} is compressed already: to do it again, name the --output")
    if output == STREAM and is_terminal(sys.stdout):
        raise UsageError("a container is no text for a terminal: send it to a file or a pipe")
    refuse_existing(output, source=path, force=force)
    with (
        reading(path) as (source, size),
        writing(output, source=path, force=force) as target,
        byte_progress(shown_name(path), size, output=output) as advance,
    ):
        return compress_stream(
            source, target, model=model, options=options, size=size, on_progress=advance
        )


def _line(output: str, summary: "Summary") -> str:
    raw, compressed = summary.raw_bytes, summary.compressed_bytes
    share = f", {compressed / raw:.2%} of {raw:,}" if raw else ""
    name, bits = plain(output), summary.bits_per_byte
    return f"{name}: {compressed:,} bytes{share} ({bits:.3f} bits per byte)"


def _as_json(path: str, output: str, summary: "Summary") -> dict[str, Any]:
    return {
        "input": path,
        "output": output,
        "raw_bytes": summary.raw_bytes,
        "compressed_bytes": summary.compressed_bytes,
        "bits_per_byte": summary.bits_per_byte,
        "model_bytes": summary.model_bytes,
        "seconds": summary.seconds,
        "frames": [asdict(frame) for frame in summary.frames],
    }
