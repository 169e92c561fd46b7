"""`bytelm train`: train the model of a recipe."""

import argparse
import dataclasses
from pathlib import Path

from bytelm.cli.arguments import (
    add_json,
    add_recipe,
    add_training,
    load_config,
    print_json,
    run_name,
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser)
    add_training(parser)
    parser.add_argument(
        "--out", type=Path, metavar="RUN_DIR", help="the run's folder (default: runs/RECIPE)"
    )
    add_json(parser)
    parser.epilog = (
        "The same command with the same --out goes on where it stopped. Ctrl-C saves first.\n\n"
        "examples:\n"
        "  bytelm train blt-tiny --data ~/notes --out runs/notes\n"
        "  bytelm train byte-gpt-small --data src --steps 2000 --optim.lr 3e-4 --save-every 100"
    )


def run(args: argparse.Namespace) -> int:
    """Train and say where the result is."""
    from bytelm.training.run import train
    from bytelm.training.settings import RunConfig

    config = load_config(RunConfig, args)
    result = train(config, args.out or Path("runs") / run_name(args.recipe))
    if args.json:
        print_json({**dataclasses.asdict(result), "run_dir": str(result.run_dir)})
        return 0
    early = " (stopped early)" if result.stopped_early else ""
    best = result.best_valid_bpb
    measured = "" if best is None else f", best validation {best:.4f} bits per byte"
    print(f"{result.run_dir}: {result.steps} steps{early}{measured}")
    return 0
