"""Tables to dataclasses and back, strictly: no key is ignored and no type is guessed."""

import dataclasses
import functools
import tomllib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeVar

from bytelm.config.words import (
    SCALARS,
    Flag,
    Inherited,
    Place,
    default_of,
    expected_words,
    flag_name,
    has_flag,
    hints_of,
    is_table,
    members_of,
    unwrap,
)
from bytelm.errors import ConfigError

T = TypeVar("T")


@typing.overload
def from_dict(cls: type[T], mapping: Mapping[str, object], *, where: str = "") -> T: ...


@typing.overload
def from_dict(cls: Any, mapping: Mapping[str, object], *, where: str = "") -> Any: ...


def from_dict(cls: Any, mapping: Mapping[str, object], *, where: str = "") -> Any:
    """Build a dataclass from plain tables, strictly.

    Args:
        cls: A frozen dataclass, whose fields are scalars, tuples, `Literal`s, dataclasses and
            unions; or a union of dataclasses, of which `kind` in the table chooses one.
        mapping: Nested tables as TOML or JSON gives them. A key left out takes its default.
        where: Names the source in messages, usually a file.

    Raises:
        ConfigError: An unknown or missing key, a wrong type, a value that the dataclass refuses.

    """
    try:
        return _convert(cls, mapping, Place(where))
    except RecursionError:
        raise Place(where).error("tables are nested too deeply") from None


def to_dict(config: object) -> dict[str, Any]:
    """Return JSON-able tables from which `from_dict` builds an equal object."""
    assert dataclasses.is_dataclass(config)
    values = {f.name: _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}
    return {"kind": config.kind, **values} if hasattr(config, "kind") else values  # type: ignore


def _plain(value: object) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _table(cls: type[T], value: object, at: Place) -> T:
    if not isinstance(value, Mapping):
        raise at.mismatch(cls, value)
    known = {f.name: f for f in dataclasses.fields(cls) if f.init}  # type: ignore
    given = dict(value)
    if hasattr(cls, "kind") and given.pop("kind", cls.kind) != cls.kind:  # type: ignore
        raise at.child("kind").mismatch(Literal[cls.kind], value["kind"])  # type: ignore
    arguments = {}
    for key, item in given.items():
        if key not in known and isinstance(item, Inherited):
            continue
        if key not in known:
            raise at.unknown(str(key), item, known)
        arguments[key] = _convert(hints_of(cls)[key], unwrap(item), at.child(key))
    for name, field in known.items():
        if name not in arguments and default_of(field) is dataclasses.MISSING:
            raise at.child(name).error(
                f"is missing; expected {expected_words(hints_of(cls)[name])}"
            )
    try:
        return cls(**arguments)
    except ValueError as error:
        raise at.error(str(error)) from error


def _convert(expected: Any, value: object, at: Place) -> Any:
    members = members_of(expected)
    if len(members) > 1:
        return _union(members, value, at)
    if dataclasses.is_dataclass(expected):
        return _table(typing.cast(type, expected), value, at)
    if isinstance(value, Flag):
        return _convert_plain(expected, _read_flag(expected, value), value, at)
    return _convert_plain(expected, value, value, at)


def _convert_plain(expected: Any, value: object, shown: object, at: Place) -> Any:
    """Check a value against a type that is no table; `shown` is how the user wrote it."""
    match typing.get_origin(expected) or expected:
        case typing.Literal:
            for option in typing.get_args(expected):
                if type(option) is type(value) and option == value:
                    return option
        case builtin if builtin is tuple and isinstance(value, list | tuple):
            return _tuple(expected, value, at)
        case builtin if builtin is float and type(value) is int and abs(value) < 2**1023:
            return float(value)
        case builtin if builtin in (*SCALARS, types.NoneType) and type(value) is builtin:
            return value
    raise at.mismatch(expected, shown)


def _tuple(expected: Any, value: Sequence[object], at: Place) -> tuple[Any, ...]:
    items = typing.get_args(expected)
    if items[-1] is Ellipsis:
        items = items[:1] * len(value)
    if len(items) != len(value):
        raise at.error(f"expected {len(items)} values, got {len(value)}")
    return tuple(
        _convert(item, element, at.child(str(index)))
        for index, (item, element) in enumerate(zip(items, value, strict=True))
    )


def _union(members: tuple[Any, ...], value: object, at: Place) -> Any:
    tables = {m.kind if hasattr(m, "kind") else "": m for m in members if is_table(m)}
    if isinstance(value, Mapping) and tables:
        return _table(_member(tables, value, at), value, at)
    # A flag `none` is None unless a Literal says otherwise; any string is a str, so str is last.
    plain = [member for member in members if not is_table(member)]
    for member in sorted(plain, key=_rank):
        try:
            return _convert(member, value, at)
        except ConfigError:
            continue
    # TOML has no null; the word is free where no member of the union takes a string.
    if types.NoneType in members and value == "none":
        return None
    raise at.mismatch(functools.reduce(lambda a, b: a | b, members), value)


def _rank(member: Any) -> int:
    if typing.get_origin(member) is Literal:
        return 0
    return {types.NoneType: 1, str: 3}.get(member, 2)


def _member(tables: Mapping[str, type], value: Mapping[str, object], at: Place) -> type:
    if len(tables) == 1:
        return next(iter(tables.values()))
    kinds = ", ".join(repr(kind) for kind in tables)
    if "kind" not in value:
        name = flag_name([*at.path, "kind"]) if has_flag(value) else "kind"
        raise at.error(f"'{name}' is missing; expected one of {kinds}")
    kind = value["kind"]
    if not isinstance(kind, str) or kind not in tables:
        raise at.child("kind").mismatch(Literal[tuple(tables)], kind)
    return tables[kind]


def _read_flag(expected: Any, text: str) -> object:
    """Read a flag's text as its field's type; the text itself where that is impossible."""
    origin = typing.get_origin(expected) or expected
    if origin is tuple:
        if text.startswith("["):
            return _toml_value(text)
        return [Flag(part.strip()) for part in text.split(",")] if text else []
    if origin is Literal:
        options = {str(option): option for option in typing.get_args(expected)}
        return options.get(str(text), str(text))
    words = {bool: {"true": True, "false": False}, types.NoneType: {"none": None}}.get(origin, {})
    if str(text) in words:
        return words[str(text)]
    try:
        return {int: int, float: float}.get(origin, str)(text)
    except ValueError:
        return str(text)


def _toml_value(text: str) -> object:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return str(text)
