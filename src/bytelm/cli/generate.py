"""`bytelm generate`: write bytes after a prompt."""

import argparse
import codecs
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bytelm.cli.arguments import (
    byte_count,
    fraction,
    non_negative_float,
    non_negative_int,
    seed,
    some_text,
)
from bytelm.errors import DataError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", metavar="RUN", help="a run or checkpoint directory")
    prompt = parser.add_mutually_exclusive_group()
    prompt.add_argument("--prompt", metavar="TEXT", help="the text to go on from")
    prompt.add_argument("--prompt-file", metavar="FILE", help="the bytes to go on from; - is stdin")
    parser.add_argument(
        "--max-new-bytes", type=non_negative_int, default=200, metavar="N", help="default: 200"
    )
    parser.add_argument(
        "--temperature",
        type=non_negative_float,
        default=0.8,
        metavar="X",
        help="0 always takes the likeliest byte, 1 samples as the model learned (default: 0.8)",
    )
    parser.add_argument(
        "--top-k", type=byte_count, metavar="N", help="sample among the N likeliest bytes"
    )
    parser.add_argument(
        "--top-p",
        type=fraction,
        metavar="P",
        help="sample among the likeliest bytes that together have probability P",
    )
    parser.add_argument("--seed", type=seed, metavar="N", help="repeat a sample")
    parser.add_argument(
        "--stop",
        type=some_text,
        action="append",
        default=[],
        metavar="TEXT",
        help="end after this text; may be given several times",
    )
    parser.add_argument(
        "--raw",
        action="store_true",
        help="write the bytes as they are; without it, what is not UTF-8 is shown as U+FFFD",
    )
    parser.epilog = (
        "Without a prompt, on a terminal, it asks for one prompt a line until Ctrl-D.\n\n"
        "examples:\n"
        "  bytelm generate runs/blt-tiny --prompt 'def main(' --temperature 0.5\n"
        "  bytelm generate runs/blt-tiny --prompt-file start.bin --raw > more.bin"
    )


def run(args: argparse.Namespace) -> int:
    """Stream the continuation, or hold a dialog."""
    import bytelm

    prompt = _prompt(args)
    model = bytelm.load(args.run)
    options: dict[str, Any] = {
        "max_new_bytes": args.max_new_bytes,
        "temperature": args.temperature,
        "top_k": args.top_k,
        "top_p": args.top_p,
        "seed": args.seed,
        "stop": [os.fsencode(stop) for stop in args.stop],
    }
    if prompt is not None:
        write(model.generate(prompt, **options), raw=args.raw)
        return 0
    while True:
        print("> ", end="", file=sys.stderr, flush=True)
        line = sys.stdin.buffer.readline()
        if not line:
            print(file=sys.stderr)
            return 0
        write(model.generate(line.rstrip(b"\r\n"), **options), raw=args.raw)


def _prompt(args: argparse.Namespace) -> bytes | None:
    """Return the prompt, or None where a dialog is wanted."""
    if args.prompt is not None:
        return os.fsencode(args.prompt)
    if args.prompt_file == "-" or (args.prompt_file is None and not sys.stdin.isatty()):
        return sys.stdin.buffer.read()
    if args.prompt_file is None:
        return None
    try:
        return Path(args.prompt_file).read_bytes()
    except OSError as error:
        raise DataError(
            f"cannot read --prompt-file {args.prompt_file}: {error.strerror}"
        ) from error


def write(pieces: Iterable[bytes], *, raw: bool) -> None:
    """Stream bytes to stdout: as they are, or as text that never splits a character."""
    if raw:
        for piece in pieces:
            sys.stdout.buffer.write(piece)
            sys.stdout.buffer.flush()
        return
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    for piece in pieces:
        print(decoder.decode(piece), end="", flush=True)
    print(decoder.decode(b"", final=True))
