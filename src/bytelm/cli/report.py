"""`bytelm report`: write the report and figures of a study again, from its saved results alone."""

import argparse
from pathlib import Path

from bytelm.cli.arguments import add_json, print_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("study", type=Path, metavar="DIR", help="a study's folder")
    add_json(parser)
    parser.epilog = (
        "Nothing is trained or measured; what a study has not done yet is listed as missing.\n\n"
        "example:\n"
        "  bytelm report studies/compression"
    )


def run(args: argparse.Namespace) -> int:
    """Write the report and say where it is."""
    from bytelm.experiments import rebuild

    files = [str(file) for file in rebuild(args.study)]
    if args.json:
        print_json({"files": files})
    else:
        print("\n".join(files))
    return 0
