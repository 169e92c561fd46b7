"""`bytelm task`: training and test pairs of a made-up task with exact answers, as CSV files."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm.cli.arguments import add_json, positive_int, print_json, seed
from bytelm.errors import ConfigError, DataError

if TYPE_CHECKING:
    from bytelm.data.pairs import Pair


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("task", nargs="?", metavar="TASK", help="its name; --list shows them all")
    parser.add_argument("--list", action="store_true", help="say what each task is, and stop")
    parser.add_argument(
        "--n-train",
        type=positive_int,
        default=10_000,
        metavar="N",
        help="training pairs (default: 10000)",
    )
    parser.add_argument(
        "--n-test",
        type=positive_int,
        default=2_000,
        metavar="N",
        help="test pairs; no input of theirs is a training input (default: 2000)",
    )
    parser.add_argument(
        "--seed", type=seed, default=0, metavar="N", help="of every draw (default: 0)"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where train.csv and test.csv go (default: tasks/TASK)",
    )
    parser.add_argument("--force", action="store_true", help="replace files that are there")
    add_json(parser)
    parser.epilog = (
        "The same command writes the same bytes everywhere.\n\n"
        "examples:\n"
        "  bytelm task --list\n"
        "  bytelm task reversal --n-train 10000 --n-test 2000 --seed 0\n"
        "  bytelm task spelling --n-train 500 --n-test 100 --out data/spelling"
    )


def run(args: argparse.Namespace) -> int:
    """Write both files and say what is in them."""
    from bytelm.data.pairs import write_pairs
    from bytelm.data.tasks import find_task, generate

    if args.list:
        _list(as_json=args.json)
        return 0
    if args.task is None:
        raise ConfigError("expected the name of a task: `bytelm task --list` shows them all")
    task = find_task(args.task).name
    folder = args.out or Path("tasks", task)
    files = {part: folder / f"{part}.csv" for part in ("train", "test")}
    if not args.force:
        _refuse_existing(files)
    train = generate(task, args.n_train, seed=args.seed)
    known = {pair.input for pair in train}
    test = generate(task, args.n_test, seed=args.seed, part="test", exclude=known)
    described = []
    for path, pairs in zip(files.values(), (train, test), strict=True):
        write_pairs(path, pairs)
        described.append(_describe(path, pairs))
    if args.json:
        print_json({"task": task, "seed": args.seed, "files": described})
        return 0
    for file in described:
        print(
            f"{file['rows']:8,} pairs, {file['mean_input_bytes']:.1f} bytes of input on average, "
            f"at most {file['longest_bytes']} of input or target  {file['path']}"
        )
    return 0


def _list(*, as_json: bool) -> None:
    from bytelm.data.tasks import TASKS

    if as_json:
        names = ("name", "summary", "why")
        tasks = [{name: getattr(task, name) for name in names} for task in TASKS.values()]
        print_json({"tasks": tasks})
        return
    for task in TASKS.values():
        print(f"{task.name:<14} {task.summary}\n{'':<14} {task.why}")


def _refuse_existing(files: dict[str, Path]) -> None:
    """Refuse before any work is done."""
    if existing := [str(path) for path in files.values() if path.exists()]:
        raise DataError(
            f"there already: {', '.join(existing)}; --force replaces, --out names another folder"
        )


def _describe(path: Path, pairs: "list[Pair]") -> dict[str, Any]:
    from bytelm.data.pairs import fingerprint

    sizes = [len(pair.input.encode()) for pair in pairs]
    return {
        "path": str(path),
        "rows": len(pairs),
        "mean_input_bytes": sum(sizes) / len(sizes),
        "longest_bytes": max(*sizes, *(len(pair.target.encode()) for pair in pairs)),
        "fingerprint": fingerprint(pairs),
    }
