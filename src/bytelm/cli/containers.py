"""What the verbs about `.blm` containers share: their flags, their statuses, their progress."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import byte_size, thread_count, worker_count
from bytelm.cli.streams import STREAM, Input, is_terminal, plain, shown_name
from bytelm.errors import BytelmError

if TYPE_CHECKING:
    from rich.progress import Progress

    from bytelm.compression import CodecModel, Limits

SUFFIX = ".blm"

STATUSES = (
    "exit status:\n"
    "  0  done\n"
    "  1  a file cannot be read or written, exists already, or is of the wrong kind\n"
    "  2  the command line cannot be read\n"
    "  3  no .blm container        6  a float container from another environment\n"
    "  4  of a later version       7  damaged: cut off, changed, or bytes after its end\n"
    "  5  of another model         8  it claims more than the limits allow\n"
    "130  interrupted (Ctrl-C)   141  the reader of the pipe went away\n"
    "Of several files, each is tried; the status is that of the first failure.\n"
)
"""Part of the help of each of these verbs."""

_QUIET_SECONDS = 2.0
"""Less than this shows no progress."""


class UsageError(BytelmError):
    """Flags and files that do not go together."""

    exit_status = 2


def add_files(parser: argparse.ArgumentParser, what: str) -> None:
    """Add the input files; none is stdin."""
    parser.add_argument(
        "files", nargs="*", metavar="FILE", help=f"{what}; none, or -, is standard input"
    )


def add_run(parser: argparse.ArgumentParser, what: str) -> None:
    """Add `--run` and what decides how its model computes."""
    group = parser.add_argument_group("a model")
    group.add_argument("--run", metavar="RUN", help=f"a run or checkpoint directory: {what}")
    group.add_argument(
        "--profile",
        choices=["auto", "exact", "float"],
        default="auto",
        help="exact: integers, the same on every machine; float: read only where it was written "
        "(default: auto, exact where the model can)",
    )
    group.add_argument(
        "--threads",
        type=thread_count,
        default=1,
        metavar="N",
        help="of the profile float, part of what must be the same again (default: 1)",
    )


def add_output(parser: argparse.ArgumentParser, default: str) -> None:
    """Add `--output` and `--force`."""
    parser.add_argument(
        "-o", "--output", metavar="FILE", help=f"of one input; - is standard output ({default})"
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="replace an output that exists already"
    )


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Add what a hostile container is held to."""
    group = parser.add_argument_group("limits, for containers from strangers")
    group.add_argument(
        "--max-output",
        type=byte_size,
        metavar="SIZE",
        help="refuse a container of more raw bytes, for example 500M (default: 1024G)",
    )
    group.add_argument(
        "--max-frame",
        type=byte_size,
        metavar="SIZE",
        help="refuse larger frames, which need more memory (default: 64M)",
    )


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add `--workers`."""
    parser.add_argument(
        "--workers",
        type=worker_count,
        metavar="N",
        help="frames in work at once (default: what the cores carry, 4 at most)",
    )


def limits(args: argparse.Namespace) -> "Limits":
    """Return the limits that the flags ask for."""
    from bytelm.compression import Limits

    given = {"max_output_bytes": args.max_output, "max_frame_bytes": args.max_frame}
    return Limits(**{name: value for name, value in given.items() if value is not None})


def load_run(args: argparse.Namespace) -> "CodecModel | None":
    """Load the model of `--run`, if there is one."""
    if args.run is None:
        return None
    import torch

    from bytelm.compression.models import load_codec_model

    # Not as many as there are cores: another machine could not read a float container.
    torch.set_num_threads(args.threads)
    return load_codec_model(Path(args.run), profile=args.profile)


def inputs(args: argparse.Namespace) -> list[str]:
    """Return the files to read, `-` for stdin; a terminal is asked for files instead."""
    files = args.files or [STREAM]
    if files.count(STREAM) > 1:
        raise UsageError("- is standard input, which can be read only once")
    if STREAM in files and is_terminal(sys.stdin):
        raise UsageError("which files? Name some, or send bytes through a pipe")
    if "" in files or getattr(args, "output", None) == "":
        raise UsageError("a file without a name: an argument is empty")
    if len(files) > 1 and getattr(args, "output", None) not in (None, STREAM):
        raise UsageError(f"--output names one file and there are {len(files)} inputs")
    return files


def claimed_bytes(source: Input) -> int | None:
    """Read how many raw bytes a container claims, and go back to where it begins.

    Returns:
        None where it cannot be told before it is decoded.

    """
    if not source.seekable():
        return None
    from bytelm.compression.container import read_header

    begin = source.tell()
    claimed = read_header(source).raw_bytes
    source.seek(begin)
    return claimed


def each(files: Sequence[str], work: Callable[[str], Any]) -> int:
    """Do the work for each file, explain what fails, and return the exit status of the first."""
    status = 0
    for path in files:
        try:
            work(path)
        except BrokenPipeError:
            raise
        except BytelmError as error:
            status = status or error.exit_status
            _explain(files, path, str(error))
        except (OSError, MemoryError) as error:
            status = status or 1
            reason = "not enough memory" if isinstance(error, MemoryError) else error.strerror
            _explain(files, path, f"{shown_name(path)}: {reason or error}")
    return status


def _explain(files: Sequence[str], path: str, message: str) -> None:
    named = len(files) == 1 or shown_name(path) in message
    message = message if named else f"{shown_name(path)}: {message}"
    print(f"bytelm: error: {plain(message)}", file=sys.stderr, flush=True)


@contextmanager
def byte_progress(
    description: str, total: int | None, *, output: str = ""
) -> Iterator[Callable[[int], None]]:
    """Show bytes, speed and time left on stderr, once it takes longer than a moment.

    Args:
        description: What is worked on.
        total: Bytes in all, if known.
        output: Where the bytes go: nothing is shown where they go to the terminal as well.

    Yields:
        A function to call with the bytes that are done since the last call.

    """
    bars = _byte_bars(disable=output == STREAM and is_terminal(sys.stdout))
    task = bars.add_task(description, total=total)
    begun = time.monotonic()

    def advance(count: int) -> None:
        bars.advance(task, count)
        if (
            not bars.disable
            and not bars.live.is_started
            and time.monotonic() - begun > _QUIET_SECONDS
        ):
            bars.start()

    try:
        yield advance
    finally:
        bars.stop()


def _byte_bars(*, disable: bool) -> "Progress":
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
        disable=disable or not console.is_terminal,
    )
