"""Recipe files, what they extend, and flags: all become one tree of tables."""

import json
import re
import tomllib
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from bytelm.config.convert import from_dict
from bytelm.config.words import Flag, Inherited, flag_name, got_words, unwrap
from bytelm.errors import ConfigError

T = TypeVar("T")

MAX_FILE_BYTES = 1 << 20
"""A larger file is no recipe; refused before it is parsed."""

_FLAG = re.compile(r"--(?P<no>no-)?(?P<name>[A-Za-z_][\w.-]*)(?:=(?P<value>.*))?", re.DOTALL)


@typing.overload
def load(cls: type[T], path: str | Path, overrides: Mapping[str, object] | None = None) -> T: ...


@typing.overload
def load(cls: Any, path: str | Path, overrides: Mapping[str, object] | None = None) -> Any: ...


def load(cls: Any, path: str | Path, overrides: Mapping[str, object] | None = None) -> Any:
    """Read a recipe, apply its `extends` and then the flags.

    Args:
        cls: The dataclass to build, or a union of dataclasses, of which `kind` chooses one.
        path: A TOML or JSON file, or the name of a recipe that ships with the package.
        overrides: Dotted name to value, from `parse_overrides`. A string is read as the type of
            its field; anything else is taken as it is.

    Raises:
        ConfigError: The file is missing, damaged or too large, or a key or value is refused.

    """
    file = find_recipe(path)
    try:
        tree = _merge(_read(file), _nest(overrides or {}))
        return from_dict(cls, tree, where=str(path))
    except RecursionError:
        raise ConfigError(f"{path}: tables are nested too deeply") from None


def find_recipe(path: str | Path, *, folder: Path | None = None) -> Path:
    """Return the file that a path or a bare recipe name means.

    Args:
        path: `my/run.toml`, `recipes/blt-tiny.toml` or `blt-tiny`.
        folder: What a relative path starts from; the working directory unless given.

    Raises:
        ConfigError: There is no such file; the message lists the recipes that exist.

    """
    path = Path(path)
    name = path if path.suffix in (".toml", ".json") else path.parent / f"{path.name}.toml"
    for candidate in [(folder or Path()) / path, (folder or Path()) / name]:
        if candidate.is_file():
            return candidate
    recipes = _recipes()
    if path.parent in (Path(), Path("recipes")) and (recipes / name.name).is_file():
        return recipes / name.name
    if (path / "config.json").is_file():
        raise ConfigError(f"{path} is a run directory; its settings are {path / 'config.json'}")
    known = ", ".join(sorted(file.stem for file in recipes.glob("*.toml")))
    raise ConfigError(f"no recipe file {path}; a path, or one of the recipes: {known or 'none'}")


def _recipes() -> Path:
    """Return the folder of shipped recipes: inside the package, or beside `src` in a clone."""
    package = Path(__file__).parents[1]
    inside = package / "recipes"
    return inside if inside.is_dir() else package.parents[1] / "recipes"


def _read(file: Path, chain: tuple[Path, ...] = (), *, extended: bool = False) -> dict[str, Any]:
    if file.resolve() in chain:
        loop = " -> ".join(link.name for link in (*chain, file))
        raise ConfigError(f"{file}: files extend each other in a circle: {loop}")
    return _extend(_parse(file), file, (*chain, file.resolve()), may_extend=not extended)


def _extend(
    table: dict[str, Any], file: Path, chain: tuple[Path, ...], *, may_extend: bool
) -> dict[str, Any]:
    own = {
        key: _extend(item, file, chain, may_extend=True) if isinstance(item, dict) else item
        for key, item in table.items()
        if key != "extends"
    }
    base = table.get("extends")
    if base is None:
        return own
    if not isinstance(base, str):
        raise ConfigError(f"{file}: extends: expected a file name, got {got_words(base)}")
    if not may_extend:
        raise ConfigError(f"{file} extends '{base}', but is itself extended: one level is allowed")
    return _merge(_read(find_recipe(base, folder=file.parent), chain, extended=True), own)


def _parse(file: Path) -> dict[str, Any]:
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}") from error
    if len(raw) > MAX_FILE_BYTES:
        raise ConfigError(f"{file} has {len(raw)} bytes; a recipe has at most {MAX_FILE_BYTES}")
    try:
        text = raw.decode()
        if file.suffix != ".json":
            return tomllib.loads(text)
        tree = json.loads(text, object_pairs_hook=_unique)
    except ValueError as error:
        raise ConfigError(f"{file} is no valid {file.suffix[1:].upper()}: {error}") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"{file}: expected a table, got {got_words(tree)}")
    return tree


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    tree = dict(pairs)
    if len(tree) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key '{next(k for k in keys if keys.count(k) > 1)}' is given twice")
    return tree


def _merge(base: Mapping[str, Any], top: Mapping[str, Any]) -> dict[str, Any]:
    """Lay `top` over `base`; keys of another kind stay only where the new kind has them."""
    switched = "kind" in top and "kind" in base and base["kind"] != top["kind"]
    kept = {key: Inherited(unwrap(item)) for key, item in base.items()} if switched else base
    merged = dict(kept)
    for key, item in top.items():
        below = unwrap(base.get(key))
        if isinstance(below, Mapping) and isinstance(item, Mapping):
            item = _merge(below, item)
        merged[key] = item
    return merged


def _nest(overrides: Mapping[str, object]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in overrides.items():
        *tables, key = name.split(".")
        table = tree
        for part in tables:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{flag_name([name])}: '{part}' is set as a whole as well")
        if key in table:
            raise ConfigError(f"{flag_name([name])} is set as a whole and in part")
        table[key] = Flag(value) if isinstance(value, str) else value
    return tree


def parse_overrides(argv: Sequence[str]) -> dict[str, str]:
    """Read `--optim.lr 3e-4`, `--optim.lr=3e-4`, `--training.resume` and `--no-training.resume`.

    Returns:
        Dotted name (underscores) to text. A flag without a value is true.

    Raises:
        ConfigError: A word that belongs to no flag, or a flag given twice.

    """
    overrides: dict[str, str] = {}
    words = list(argv)
    while words:
        word = words.pop(0)
        match = _FLAG.fullmatch(word)
        if match is None:
            raise ConfigError(f"unexpected argument '{word}'; settings are --table.key VALUE")
        name = match["name"].replace("-", "_")
        value = match["value"]
        if match["no"] and value is not None:
            raise ConfigError(f"{word}: a flag that starts with --no- takes no value")
        if match["no"]:
            value = "false"
        elif value is None:
            value = words.pop(0) if words and not words[0].startswith("--") else "true"
        if name in overrides:
            raise ConfigError(f"{flag_name([name])} is given twice")
        overrides[name] = value
    return overrides
