"""`bytelm export`: write a run as a directory that `transformers` loads."""

import argparse
from pathlib import Path

from bytelm.cli.arguments import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("run", type=Path, metavar="RUN", help="a run or checkpoint directory")
    parser.add_argument("directory", type=Path, metavar="DIR", help="a new directory")
    add_json(parser)
    parser.epilog = (
        "A blt becomes a BltForCausalLM with its entropy model and threshold, an entropy-lm a\n"
        "MistralForCausalLM; a byte-gpt brings its own code (trust_remote_code=True). What the\n"
        "format cannot express is refused before anything is written.\n\n"
        "examples:\n"
        "  bytelm export runs/blt-small out\n"
        "  bytelm export runs/blt-small/checkpoints/step-500 out"
    )


def run(args: argparse.Namespace) -> int:
    """Write the directory and say what is in it."""
    from bytelm.interop.huggingface import export_run

    written = export_run(args.run, args.directory)
    if args.json:
        print_json(written)
        return 0
    print(
        f"{written['directory']}: {written['architecture']}, {written['parameters']:,} parameters; "
        f"{', '.join(written['files'])}"
    )
    return 0
