"""`bytelm study`: run the whole study of a plan, unattended."""

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bytelm import config
from bytelm.cli.arguments import (
    add_device,
    add_json,
    load_config,
    positive_int,
    print_json,
)
from bytelm.errors import ConfigError

if TYPE_CHECKING:
    from bytelm.experiments import Plan, Record

_KIND_OF = {
    "data": "compression",
    "train_csv": "comparison",
    "test_csv": "comparison",
    "match": "comparison",
    "patch_sizes": "comparison",
    "tune_epochs": "comparison",
    "max_trials": "comparison",
    "storage": "comparison",
    "grid": "comparison",
}
"""Flags that only one kind of plan has."""

_OF_A_SEARCH = ("tune_epochs", "max_trials", "storage", "grid")
"""Flags of a plan that searches settings."""


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
    scales.add_argument(
        "--tune",
        dest="scale",
        action="store_const",
        const="tune",
        help="first search settings for each model, then the plan as it is with the best",
    )
    parser.set_defaults(scale="full", settings=[])
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="the study's folder (default: studies/PLAN)"
    )
    parser.add_argument("--seeds", type=positive_int, metavar="N", help="trainings of each kind")
    compression = parser.add_argument_group("plans of kind compression")
    compression.add_argument("--data", nargs="+", metavar="PATH", help="files and folders to study")
    _add_comparison(parser.add_argument_group("plans of kind comparison"))
    add_device(parser)
    add_json(parser)
    parser.epilog = (
        "The same command with the same --out goes on where it stopped, and tries again what\n"
        "failed. Every key in a table of the plan is a flag: --patches.lanes 16. Exit status 1 if\n"
        "a stage has no result; the report says which, and why.\n\n"
        "examples:\n"
        "  bytelm study compression --quick --data ~/notes\n"
        "  bytelm study compression --data corpus/ --seeds 3 --out studies/corpus\n"
        "  bytelm study reversal --quick\n"
        "  bytelm study reversal --tune --max-trials 6 --train-csv train.csv --test-csv test.csv\n"
        "  bytelm study my-plan.toml --data corpus/"
    )


def _add_comparison(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--train-csv", metavar="FILE", help="rows to learn from: columns input and target"
    )
    group.add_argument(
        "--test-csv",
        metavar="FILE",
        help="rows to be judged on, opened once, at the end (default: part of --train-csv)",
    )
    group.add_argument(
        "--match",
        metavar="WHAT",
        help="parameters, flops or none: what both models have as much of",
    )
    group.add_argument(
        "--patch-sizes",
        metavar="BYTES,...",
        help="mean patch sizes to try beside the plan's own; '' for none",
    )
    group.add_argument(
        "--max-trials", type=positive_int, metavar="N", help="with --tune: trials of each model"
    )
    group.add_argument(
        "--tune-epochs", type=positive_int, metavar="N", help="with --tune: epochs of a trial"
    )
    group.add_argument(
        "--grid", type=Path, metavar="FILE", help="with --tune: a TOML file of what is searched"
    )
    group.add_argument(
        "--storage",
        metavar="FILE|URL",
        help="with --tune: where trials are kept, which several machines may share",
    )


def run(args: argparse.Namespace) -> int:
    """Run the study and say where its report is."""
    from bytelm.experiments import Plan, find_plan, run_plan
    from bytelm.experiments.store import PLAN

    file = find_plan(args.plan, scale=args.scale)
    _require_fit(config.load(Plan, file), args)
    if args.grid is not None:
        args.grid = _read_grid(args.grid)
    name = file.parent.name if file.name == PLAN else file.stem
    out = args.out or Path("studies") / name
    args.recipe = str(file)
    record = run_plan(load_config(Plan, args), out)
    if args.json:
        print_json(record.as_json())
    else:
        _print(record, out)
    return 1 if record.missing else 0


def _require_fit(plan: "Plan", args: argparse.Namespace) -> None:
    """Refuse flags that mean nothing to the plan."""
    given = [name for name in _KIND_OF if getattr(args, name) is not None]
    for name in given:
        flag = config.flag_name([name])
        if _KIND_OF[name] != plan.kind:
            raise ConfigError(
                f"{flag} is for plans of kind '{_KIND_OF[name]}', and {args.plan} is of kind "
                f"'{plan.kind}'; `bytelm study --help` lists the flags of each"
            )
        if name in _OF_A_SEARCH and getattr(plan, "search", None) is None:
            raise ConfigError(
                f"{flag} is for a search, and {args.plan} has none at this scale; add --tune, or "
                "a table [search] to the plan"
            )


def _read_grid(file: Path) -> list[dict[str, Any]]:
    """Read what is searched, as the plan's own table would say it."""
    from bytelm.experiments.comparison import Grid

    if not file.is_file():
        raise ConfigError(
            f"there is no grid file {file}; expected a TOML file with tables [[space]]"
        )
    return config.to_dict(config.load(Grid, file))["space"]


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
