"""Types, values and places in the words of a message."""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from bytelm.errors import ConfigError

SCALARS = {bool: "true or false", int: "a whole number", float: "a number", str: "a string"}
"""The types of single values, in words."""


class Flag(str):
    """Text from the command line: the type of its field decides what it means."""

    __slots__ = ()


class Inherited(NamedTuple):
    """A value that belonged to another kind: dropped where the new kind has no such key."""

    value: object


class Place(NamedTuple):
    """Where a value stands, for messages."""

    file: str
    path: tuple[str, ...] = ()

    def child(self, key: str) -> "Place":
        """Return the place of a key in the table that is here."""
        return Place(self.file, (*self.path, key))

    def error(self, message: str) -> ConfigError:
        """Make the error that names this place."""
        return ConfigError(": ".join(filter(None, [self.file, ".".join(self.path), message])))

    def mismatch(self, expected: Any, value: object) -> ConfigError:
        """Make the error for a value of a wrong type; a flag is shown as a flag."""
        place = Place(flag_name(self.path)) if isinstance(value, Flag) else self
        return place.error(f"expected {expected_words(expected)}, got {got_words(value)}")

    def unknown(self, key: str, value: object, known: Iterable[str]) -> ConfigError:
        """Make the error for a key that this table lacks, with the nearest one that it has."""
        close = difflib.get_close_matches(key, list(known), n=1)
        if has_flag(value):
            hint = f"; did you mean '{flag_name([*self.path, *close])}'?" if close else ""
            return ConfigError(f"unknown flag '{flag_name([*self.path, key])}'{hint}")
        table = f"in [{'.'.join(self.path)}]" if self.path else "at the top level"
        hint = f"; did you mean '{close[0]}'?" if close else f"; known: {', '.join(sorted(known))}"
        return Place(self.file).error(f"unknown key '{key}' {table}{hint}")


@functools.cache
def hints_of(cls: type) -> dict[str, Any]:
    """Return the types of the fields; names are looked up late, so a class may contain itself."""
    return typing.get_type_hints(cls)


def members_of(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; any other type is its own only member."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if is_union else (hint,)


def is_table(hint: Any) -> bool:
    """Tell whether a recipe writes this type as a table."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def default_of(field: "dataclasses.Field[Any]") -> Any:
    """Return a field's default, `dataclasses.MISSING` where it has none."""
    made = field.default_factory is not dataclasses.MISSING
    return field.default_factory() if made else field.default  # type: ignore


def expected_words(hint: Any) -> str:
    """Say what may be written where this type is wanted."""
    if len(members_of(hint)) > 1:
        return " or ".join(expected_words(member) for member in members_of(hint))
    if is_table(hint):
        return f"a table of kind '{hint.kind}'" if hasattr(hint, "kind") else "a table"
    arguments = typing.get_args(hint)
    match typing.get_origin(hint):
        case typing.Literal:
            return " or ".join(repr(option) for option in arguments)
        case builtin if builtin is tuple and arguments[-1] is Ellipsis:
            return f"a list, each {expected_words(arguments[0])}"
        case builtin if builtin is tuple:
            return f"a list of {len(arguments)}, each {expected_words(arguments[0])}"
    return "none" if hint is types.NoneType else SCALARS[hint]


def got_words(value: object) -> str:
    """Say what was written instead."""
    if isinstance(value, str):
        return f"the string {str(value)!r}"
    if isinstance(value, bool | None):
        return {True: "true", False: "false", None: "null"}[value]
    if isinstance(value, int | float):
        return f"the number {value}"
    return {dict: "a table", list: "a list"}.get(type(value), f"{type(value).__name__} {value!r}")


def flag_name(path: Iterable[str]) -> str:
    """Spell a key as a flag.

    >>> flag_name(["patching", "patch_size"])
    '--patching.patch-size'
    """
    return "--" + ".".join(path).replace("_", "-")


def has_flag(value: object) -> bool:
    """Tell whether a value, or one inside its tables, comes from the command line."""
    if isinstance(value, Mapping):
        return any(has_flag(item) for item in value.values())
    return isinstance(value, Flag)


def unwrap(value: object) -> object:
    """Return a value without the note that it is inherited."""
    return value.value if isinstance(value, Inherited) else value
