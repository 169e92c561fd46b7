"""`bytelm config`: the resolved settings of a recipe as commented TOML, which is a recipe again."""

import argparse
import json
import textwrap
from collections.abc import Iterator

from bytelm import config
from bytelm.cli.arguments import add_json, add_recipe, add_training, load_config, print_json

_COMMENT_WIDTH = 96


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe(parser)
    add_training(parser)
    add_json(parser)
    parser.epilog = (
        "examples:\n"
        "  bytelm config blt-tiny\n"
        "  bytelm config recipes/blt-small.toml --optim.lr 3e-4 > my-recipe.toml"
    )


def run(args: argparse.Namespace) -> int:
    """Print the configuration."""
    from bytelm.training.settings import RunConfig

    resolved = load_config(RunConfig, args)
    if args.json:
        print_json(config.to_dict(resolved))
    else:
        print("\n".join(toml_lines(resolved)).lstrip("\n"))
    return 0


def toml_lines(resolved: object) -> Iterator[str]:
    """Write a configuration as TOML with the docstring of each key above it."""
    tables: dict[str, list[config.Setting]] = {"": []}
    for setting in config.describe(resolved):
        tables.setdefault(setting.name.rpartition(".")[0], []).append(setting)
    for table, settings in tables.items():
        if table:
            yield f"\n[{table}]"
        for setting in settings:
            key = setting.name.rpartition(".")[2]
            doc = " ".join(setting.doc.split())
            yield from textwrap.wrap(
                doc, _COMMENT_WIDTH, initial_indent="# ", subsequent_indent="# "
            )
            # TOML has no null: "none" is read back as absent, except where it would be a string.
            absent_text = setting.value is None and "a string" in setting.type
            yield f"{'# ' if absent_text else ''}{key} = {_toml(setting.value)}"


def _toml(value: object) -> str:
    if value is None:
        return '"none"'
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, str):
        # JSON's strings are TOML's, but for DEL, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
