"""Recipes to frozen dataclasses and back: one strict conversion for files and for flags.

A recipe is TOML or JSON; a flag is one of its keys spelled on the command line, `--optim.lr 3e-4`
for `lr` in `[optim]`. A choice is a union of dataclasses told apart by `kind: ClassVar[str]`.
An unknown key, a wrong type or a missing kind is a `ConfigError` that says what was expected.

    words.py       types, values and places as a message names them
    convert.py     tables <-> dataclasses
    recipes.py     files, `extends` and flags -> tables
    settings.py    every key with its docstring, for people
    checks.py      ranges of sizes, for the dataclasses themselves
"""

from bytelm.config.checks import (
    MAX_LAYERS,
    MAX_NGRAM_BYTES,
    MAX_PATCH_VECTORS,
    require_heads,
    require_positive,
)
from bytelm.config.convert import from_dict, to_dict
from bytelm.config.recipes import MAX_FILE_BYTES, find_recipe, load, parse_overrides
from bytelm.config.settings import Setting, describe, field_docs
from bytelm.config.words import flag_name

__all__ = [
    "MAX_FILE_BYTES",
    "MAX_LAYERS",
    "MAX_NGRAM_BYTES",
    "MAX_PATCH_VECTORS",
    "Setting",
    "describe",
    "field_docs",
    "find_recipe",
    "flag_name",
    "from_dict",
    "load",
    "parse_overrides",
    "require_heads",
    "require_positive",
    "to_dict",
]
