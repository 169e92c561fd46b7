"""Arguments that several verbs share: numbers with a range, recipes with settings, `--json`."""

import argparse
import json
import math
import re
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.vocab import NUM_BYTES

T = TypeVar("T")


def _number(
    read: type[int] | type[float], wanted: str, accepts: Callable[[float], bool]
) -> Callable[[str], Any]:
    """Make an argparse type that says what it wants, whatever is wrong with the text."""

    def reader(text: str) -> int | float:
        try:
            value = read(text)
        except ValueError:
            value = math.nan
        # Compared, not converted: a whole number may be too large for a float.
        if not (accepts(value) and value < math.inf):
            raise argparse.ArgumentTypeError(f"expected {wanted}, got '{text}'")
        return value

    return reader


positive_int = _number(int, "a whole number >= 1", lambda value: value >= 1)
non_negative_int = _number(int, "a whole number >= 0", lambda value: value >= 0)
patch_bytes = _number(float, "a number >= 1", lambda value: value >= 1)
non_negative_float = _number(float, "a number >= 0", lambda value: value >= 0)
positive_float = _number(float, "a number > 0", lambda value: value > 0)
finite_float = _number(float, "a number", lambda value: value > -math.inf)
share = _number(float, "a number 0 to 1", lambda value: 0 <= value <= 1)
fraction = _number(float, "a number > 0 and <= 1", lambda value: 0 < value <= 1)
byte_count = _number(int, f"a whole number 1 to {NUM_BYTES}", lambda value: 1 <= value <= NUM_BYTES)
thread_count = _number(int, "a whole number 1 to 1024", lambda value: 1 <= value <= 1024)
worker_count = _number(int, "a whole number 1 to 256", lambda value: 1 <= value <= 256)
lane_count = _number(int, "a whole number 1 to 256", lambda value: 1 <= value <= 256)
# 64 bits: what torch takes.
seed = _number(int, "a whole number 0 to 2^64 - 1", lambda value: 0 <= value < 2**64)


_SIZE = re.compile(r"(\d+)([KMG]?)", re.ASCII | re.IGNORECASE)

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def byte_size(text: str) -> int:
    """Read a number of bytes, as an argparse type: 65536, 64K, 16M or 2G."""
    found = _SIZE.fullmatch(text)
    # Longer numbers are no sizes, and slow to read.
    if found is None or len(text) > 20:
        raise argparse.ArgumentTypeError(f"expected a size as 65536, 64K, 16M or 2G, got '{text}'")
    return int(found[1]) * _SIZE_UNITS[found[2].upper()]


def some_text(text: str) -> str:
    """Read a text that must not be empty, as an argparse type."""
    if not text:
        raise argparse.ArgumentTypeError("expected at least one character, got ''")
    return text


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """Add the recipe and the settings that may follow it as `--table.key VALUE`."""
    parser.add_argument(
        "recipe", help="a TOML file, the name of a shipped recipe, or a run's config.json"
    )
    # Its presence tells the command line to collect the dotted flags.
    parser.set_defaults(settings=[])
    parser.add_argument_group(
        "settings",
        "Every key of a recipe is a flag: --optim.lr 3e-4, --patching.kind static,\n"
        "--table.switch or --no-table.switch, --table none. `bytelm config RECIPE` lists them.",
    )


def add_training(parser: argparse.ArgumentParser) -> None:
    """Add the flags that every training verb has; each is short for a setting."""
    group = parser.add_argument_group("training")
    group.add_argument(
        "--data", nargs="+", metavar="PATH", help="files and folders to learn from; - is stdin"
    )
    group.add_argument("--steps", type=positive_int, metavar="N", help="optimizer steps in all")
    add_hardware(group)
    group.add_argument(
        "--save-every", type=positive_int, metavar="STEPS", help="steps between checkpoints"
    )


def add_hardware(group: argparse._ActionsContainer) -> None:
    """Add `--seed`, `--device` and `--threads`."""
    group.add_argument("--seed", type=seed, metavar="N", help="of every random choice")
    add_device(group)


def add_device(group: argparse._ActionsContainer) -> None:
    """Add `--device` and `--threads`."""
    group.add_argument("--device", help="cpu, cuda or auto")
    group.add_argument("--threads", type=thread_count, metavar="N", help="CPU threads")


@typing.overload
def load_config(cls: type[T], args: argparse.Namespace) -> T: ...


@typing.overload
def load_config(cls: Any, args: argparse.Namespace) -> Any: ...


def load_config(cls: Any, args: argparse.Namespace) -> Any:
    """Build the configuration from the recipe, its settings and flags that are short for one."""
    overrides: dict[str, Any] = dict(config.parse_overrides(args.settings))
    for name, setting in [
        ("data", "data.paths"),
        ("steps", "training.steps"),
        ("seed", "training.seed"),
        ("seeds", "seeds"),
        ("train_csv", "data.train_csv"),
        ("test_csv", "data.test_csv"),
        ("match", "match"),
        ("patch_sizes", "patch_sizes"),
        ("tune_epochs", "search.epochs"),
        ("max_trials", "search.trials"),
        ("storage", "search.storage"),
        ("grid", "search.space"),
        ("device", "hardware.device"),
        ("threads", "hardware.threads"),
        ("save_every", "training.save_every"),
        ("init", "init.path"),
    ]:
        value = getattr(args, name, None)
        if value is not None:
            if setting in overrides:
                flag = config.flag_name([name])
                raise ConfigError(f"{flag} and {config.flag_name([setting])} are the same")
            overrides[setting] = value
    return config.load(cls, args.recipe, overrides)


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def print_json(value: Any) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(value, indent=2, allow_nan=False))


def run_name(recipe: str) -> str:
    """Return the name of a recipe's run: the file's stem, or its folder's for a run's config."""
    path = Path(recipe)
    return path.parent.name if path.name == "config.json" and path.parent.name else path.stem
