"""`bytelm cost`: what a recipe's model costs, from its configuration alone."""

import argparse
import dataclasses

from bytelm.cli.arguments import add_json, add_recipe, load_config, patch_bytes, print_json

USUAL_MEAN_PATCH_BYTES = 4.5
"""That of the released BLTs' recipe; a threshold alone does not tell the size."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser)
    parser.add_argument(
        "--mean-patch-bytes",
        type=patch_bytes,
        metavar="X",
        help="bytes per patch (default: what the recipe's patcher states, else 4.5)",
    )
    add_json(parser)
    parser.epilog = (
        "An entropy model that is a run, not a recipe, is not counted.\n\n"
        "examples:\n  bytelm cost blt-small\n  bytelm cost byte-gpt-small --model.dim 512 --json"
    )


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from bytelm.models.cost import cost
    from bytelm.training.settings import EntropyRecipe, RunConfig

    config = load_config(RunConfig, args)
    recipe = config.entropy
    found = cost(
        config.model,
        mean_patch_bytes=args.mean_patch_bytes or _mean_patch_bytes(config.patching),
        entropy_config=recipe.recipe.model if isinstance(recipe, EntropyRecipe) else None,
    )
    figures = dataclasses.asdict(found)
    if args.json:
        print_json(figures)
        return 0
    for name, value in figures.items():
        rows = value if isinstance(value, dict) else {name: value}
        for part, number in rows.items():
            label = f"  {part}" if rows is value else part.replace("_", " ")
            print(f"{label:<24} {number:>18,.{1 if isinstance(number, float) else 0}f}")
    return 0


def _mean_patch_bytes(patching: object) -> float:
    """Return the size that the recipe itself states, else the usual one of a BLT."""
    for name in ("patch_size", "mean_patch_bytes"):
        if hasattr(patching, name):
            return float(getattr(patching, name))
    return 1.0 if patching is None else USUAL_MEAN_PATCH_BYTES
