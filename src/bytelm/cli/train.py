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
from bytelm.config import flag_name, parse_overrides
from bytelm.errors import ConfigError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser)
    add_training(parser)
    parser.add_argument(
        "--out", type=Path, metavar="RUN_DIR", help="the run's folder (default: runs/RECIPE)"
    )
    parser.add_argument(
        "--init",
        metavar="DIR",
        help="begin with the weights of this run, or of this directory of transformers",
    )
    add_json(parser)
    parser.epilog = (
        "The same command with the same --out goes on where it stopped. Ctrl-C saves first.\n\n"
        "examples:\n"
        "  bytelm train blt-tiny --data ~/notes --out runs/notes\n"
        "  bytelm train byte-gpt-small --data src --steps 2000 --optim.lr 3e-4 --save-every 100\n"
        "  bytelm train blt-tiny --data ~/notes --init runs/blt-small --out runs/tuned"
    )


def run(args: argparse.Namespace) -> int:
    """Train and say where the result is."""
    from bytelm.training.run import train
    from bytelm.training.settings import RunConfig

    if args.init is not None:
        _refuse_model_settings(args.settings)
    config = load_config(RunConfig, args)
    out = args.out or Path("runs") / run_name(args.recipe)
    if config.init is None:
        result = train(config, out)
    else:
        _refuse_model_settings(args.settings)
        result = train(config, out, init=_run_of(config.init.path))
    if args.json:
        print_json({**dataclasses.asdict(result), "run_dir": str(result.run_dir)})
        return 0
    early = " (stopped early)" if result.stopped_early else ""
    best = result.best_valid_bpb
    measured = "" if best is None else f", best validation {best:.4f} bits per byte"
    print(f"{result.run_dir}: {result.steps} steps{early}{measured}")
    return 0


def _refuse_model_settings(settings: list[str]) -> None:
    """With weights to begin with, what they fix cannot be set as well."""
    for name in parse_overrides(settings):
        if name.partition(".")[0] in ("model", "patching", "entropy"):
            raise ConfigError(
                f"{flag_name([name])} cannot be set together with --init: the weights fix the "
                "model, its patches and its entropy model; leave one of the two out"
            )


def _run_of(path: str) -> Path:
    """The run directory that `--init` means; a directory of transformers is imported first."""
    from bytelm.interop.huggingface import as_run

    return as_run(Path(path).expanduser())
