"""`bytelm import`: read a directory of `transformers` into a run directory."""

# A verb is the name of its file, even where Python has the word for itself.
# ruff: noqa: N999

import argparse
from pathlib import Path

from bytelm.cli.arguments import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "directory", type=Path, metavar="DIR", help="with config.json and safetensors"
    )
    parser.add_argument("run", type=Path, metavar="RUN", help="a new run directory")
    add_json(parser)
    parser.epilog = (
        "Reads a BltForCausalLM, the layout of Meta's release, and what `bytelm export` writes.\n"
        "No code in DIR is run and no pickled weights are opened. `bytelm train --init DIR`\n"
        "imports by itself.\n\n"
        "examples:\n"
        "  bytelm import blt-1b-hf runs/blt-1b\n"
        "  bytelm evaluate runs/blt-1b README.md"
    )


def run(args: argparse.Namespace) -> int:
    """Import and say what was found."""
    from bytelm.config import to_dict
    from bytelm.interop.huggingface import import_directory

    config = import_directory(args.directory, args.run)
    patching = None if config.patching is None else to_dict(config.patching)
    if args.json:
        found = {"run_dir": str(args.run), "model": to_dict(config.model), "patching": patching}
        print_json(found)
        return 0
    cut = "" if patching is None else f", patches at more than {patching['threshold']:.4f} nats"
    print(f"{args.run}: {config.model.kind} imported from {args.directory}{cut}")
    return 0
