"""`bytelm study`: run the whole study of a plan, unattended."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from bytelm.cli.arguments import (
    add_device,
    add_json,
    load_config,
    positive_int,
    print_json,
)

if TYPE_CHECKING:
    from bytelm.experiments import Record


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "plan", help="a TOML file, the name of a shipped plan, or a study's plan.json"
    )
    scales = parser.add_mutually_exclusive_group()
    scales.add_argument(
        "--quick",
        dest="scale",
        action="store_const",
        const="quick",
        help="in minutes: shows that everything works, settles nothing",
    )
    scales.add_argument(
        "--full", dest="scale", action="store_const", const="full", help="the plan as it is"
    )
    parser.set_defaults(scale="full", settings=[])
    parser.add_argument("--data", nargs="+", metavar="PATH", help="files and folders to study")
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the study's folder (default: studies/PLAN)"
    )
    parser.add_argument("--seeds", type=positive_int, metavar="N", help="trainings of each kind")
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "The same command with the same --out goes on where it stopped, and tries again what\n"
        "failed. Every key in a table of the plan is a flag: --patches.lanes 16. Exit status 1 if\n"
        "a stage has no result; the report says which, and why.\n\n"
        "examples:\n"
        "  bytelm study compression --quick --data ~/notes\n"
        "  bytelm study compression --data corpus/ --seeds 3 --out studies/corpus\n"
        "  bytelm study my-plan.toml --data corpus/"
    )


def run(args: argparse.Namespace) -> int:
    """Run the study and say where its report is."""
    from bytelm.experiments import Plan, find_plan, run_plan
    from bytelm.experiments.store import PLAN

    file = find_plan(args.plan, scale=args.scale)
    name = file.parent.name if file.name == PLAN else file.stem
    out = args.out or Path("studies") / name
    args.recipe = str(file)
    record = run_plan(load_config(Plan, args), out)
    if args.json:
        print_json(record.as_json())
    else:
        _print(record, out)
    return 1 if record.missing else 0


def _print(record: "Record", out: Path) -> None:
    from bytelm.experiments.store import RESULTS
    from bytelm.experiments.study import REPORT

    report = out / RESULTS / f"{REPORT}.html"
    done = len(record.stages) - len(record.missing)
    print(f"{out}: {done} of {len(record.stages)} stages done, report {report}")
    if record.missing:
        first = record.missing[0]
        print(
            f"bytelm: error: {len(record.missing)} stages have no result; the first: "
            f"{first.name}: {first.error}",
            file=sys.stderr,
        )
