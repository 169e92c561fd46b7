"""`bytelm patch`: show where a file is cut into patches, and why."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bytelm.cli.arguments import add_json, non_negative_float, positive_int, print_json
from bytelm.errors import BytelmError, DataError

if TYPE_CHECKING:
    import numpy as np

    from bytelm.apps.render import PatchView
    from bytelm.language_model import LanguageModel
    from bytelm.patching import Patcher

_DEFAULT_MAX_BYTES = 64 << 10


class _UsageError(BytelmError):
    """Flags that do not go together."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("paths", nargs="+", metavar="FILE", help="files to show; - is stdin")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--run", metavar="RUN", help="a trained model: its patches and entropies")
    source.add_argument(
        "--patcher",
        choices=["static", "space", "shannon-window"],
        help="a rule that needs no model",
    )
    parser.add_argument(
        "--patch-size", type=positive_int, metavar="N", help="bytes, of the static patcher (4)"
    )
    parser.add_argument(
        "--window", type=positive_int, metavar="N", help="bytes, of the shannon-window patcher"
    )
    parser.add_argument(
        "--threshold", type=non_negative_float, metavar="X", help="nats, of shannon-window"
    )
    parser.add_argument("--html", metavar="PAGE", help="write a self-contained page (one FILE)")
    parser.add_argument(
        "--max-bytes",
        type=positive_int,
        default=_DEFAULT_MAX_BYTES,
        metavar="N",
        help=f"bytes of each file that are shown (default: {_DEFAULT_MAX_BYTES})",
    )
    add_json(parser)
    parser.epilog = (
        "`--json` counts the whole of each file; the terminal and the page show its beginning.\n\n"
        "examples:\n"
        "  bytelm patch README.md --run runs/blt-small --html patches.html\n"
        "  bytelm patch notes.txt --patcher space\n"
        "  git diff | bytelm patch - --patcher static --patch-size 4 --json"
    )


def run(args: argparse.Namespace) -> int:
    """Show each file, or write its page, or print its numbers."""
    if args.html is not None and (len(args.paths) > 1 or args.json):
        raise _UsageError(
            "--html writes one page about one file: give one FILE, and leave out --json"
        )
    if args.run is None and args.patcher is None:
        raise _UsageError(
            "whose patches? Give --run RUN, a trained model, or a rule that needs none: "
            "--patcher static, space or shannon-window"
        )
    patcher = _patcher(args)
    model = None
    if args.run is not None:
        import bytelm

        model = bytelm.load(args.run)
    if args.json:
        files = [_numbers(path, _read(path), model, patcher) for path in args.paths]
        print_json(_total(files))
        return 0
    for path in args.paths:
        view = _view(path, _read(path), model, patcher, max_bytes=args.max_bytes)
        if args.html is not None:
            _write_page(view, Path(args.html))
        else:
            _print(view)
        if view.cut_message:
            print(f"bytelm: {path}: {view.cut_message} (--max-bytes N)", file=sys.stderr)
    return 0


def _patcher(args: argparse.Namespace) -> "Patcher | None":
    given = {
        name: value
        for name in ("patch_size", "window", "threshold")
        if (value := getattr(args, name)) is not None
    }
    known = {"static": {"patch_size"}, "space": set(), "shannon-window": {"window", "threshold"}}
    for name in given:
        if name not in known.get(args.patcher, set()):
            chosen = f"--patcher {args.patcher}" if args.patcher else "--run"
            raise _UsageError(f"--{name.replace('_', '-')} is no setting of {chosen}")
    if args.patcher is None:
        return None
    from bytelm.patching import ShannonWindow, Space, Static

    try:
        match args.patcher:
            case "static":
                return Static(patch_size=given.get("patch_size", 4))
            case "space":
                return Space()
        return ShannonWindow(**given)
    except ValueError as error:
        raise _UsageError(str(error)) from error


def _read(path: str) -> bytes:
    if path == "-":
        return sys.stdin.buffer.read()
    try:
        return Path(path).read_bytes()
    except IsADirectoryError as error:
        raise DataError(f"{path} is a folder: `bytelm patch` takes files") from error
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error


def _starts(data: bytes, model: "LanguageModel | None", patcher: "Patcher | None") -> "np.ndarray":
    import numpy as np

    from bytelm.patching import patch_starts

    if model is not None:
        return model.patch_starts(data)
    assert patcher is not None
    return patch_starts(patcher, np.frombuffer(data, dtype=np.uint8))


def _numbers(
    path: str, data: bytes, model: "LanguageModel | None", patcher: "Patcher | None"
) -> dict:
    """Count the whole file."""
    import numpy as np

    starts = np.flatnonzero(_starts(data, model, patcher))
    lengths = np.diff(np.append(starts, len(data)))
    values, counts = np.unique(lengths, return_counts=True)
    return {
        "name": path,
        "bytes": len(data),
        "patches": len(lengths),
        "mean_patch_bytes": len(data) / len(lengths) if len(lengths) else 0.0,
        "lengths": dict(zip(map(str, values.tolist()), counts.tolist(), strict=True)),
    }


def _total(files: list[dict]) -> dict:
    """Return the sums over files, and the files themselves where there are several."""
    num_bytes = sum(file["bytes"] for file in files)
    num_patches = sum(file["patches"] for file in files)
    lengths: dict[str, int] = {}
    for file in files:
        for length, count in file["lengths"].items():
            lengths[length] = lengths.get(length, 0) + count
    return {
        "bytes": num_bytes,
        "patches": num_patches,
        "mean_patch_bytes": num_bytes / num_patches if num_patches else 0.0,
        "lengths": dict(sorted(lengths.items(), key=lambda item: int(item[0]))),
        "files": files,
    }


def _view(
    path: str,
    data: bytes,
    model: "LanguageModel | None",
    patcher: "Patcher | None",
    *,
    max_bytes: int,
) -> "PatchView":
    from bytelm.apps.render import TOP_MAX_BYTES, PatchView, patch_view

    name = "standard input" if path == "-" else path
    if model is None:
        shown = data[:max_bytes]
        starts = _starts(shown, None, patcher)
        return PatchView(name=name, data=shown, starts=starts, total_bytes=len(data))
    if max_bytes > TOP_MAX_BYTES:
        raise _UsageError(
            f"--max-bytes {max_bytes} is too much to show with predictions: at most {TOP_MAX_BYTES}"
        )
    return patch_view(model, data, name=name, max_bytes=max_bytes)


def _write_page(view: "PatchView", path: Path) -> None:
    from bytelm.apps.render import html_page

    path.write_text(html_page(view), encoding="utf-8")
    print(path)


def _print(view: "PatchView") -> None:
    from rich.console import Console

    from bytelm.apps.render import terminal_legend, terminal_text

    console = Console(highlight=False, markup=False, emoji=False)
    color = console.color_system is not None and not console.no_color
    legend, text = terminal_legend(view, color=color), terminal_text(view, color=color)
    # A pipe has no width: lines are left as they are in the file.
    soft_wrap = not console.is_terminal
    console.print(legend, soft_wrap=soft_wrap)
    console.print(text, soft_wrap=soft_wrap)
