"""Every setting with its type, value and docstring: the reference that cannot be out of date."""

import ast
import dataclasses
import functools
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from bytelm.config.words import default_of, expected_words, hints_of, is_table, members_of


class Setting(NamedTuple):
    """One key of a configuration, for people."""

    name: str
    """Dotted, as in a flag but with underscores."""
    type: str
    """What may be written there, in words."""
    value: Any
    """The value; for a class the default, `dataclasses.MISSING` where there is none."""
    doc: str
    """The docstring under the field."""


def describe(config: object) -> list[Setting]:
    """List every setting of a dataclass instance, or of a class and all members of its unions."""
    return list(_describe(config, "", ()))


def _describe(config: Any, prefix: str, above: tuple[type, ...]) -> Iterator[Setting]:
    cls = config if isinstance(config, type) else type(config)
    if hasattr(cls, "kind"):
        doc = inspect.cleandoc(cls.__doc__ or "").partition("\n")[0]
        yield Setting(f"{prefix}kind", repr(cls.kind), cls.kind, doc)
    for field in dataclasses.fields(cls):
        hint, name = hints_of(cls)[field.name], prefix + field.name
        doc = field_docs(cls).get(field.name, "")
        value = default_of(field) if config is cls else getattr(config, field.name)
        if config is not cls and dataclasses.is_dataclass(value):
            yield from _describe(value, f"{name}.", ())
            continue
        tables = [m for m in members_of(hint) if is_table(m)] if config is cls else []
        if not tables or len(tables) < len(members_of(hint)):
            yield Setting(name, expected_words(hint), value, doc)
        for member in tables:
            if member not in (*above, cls):
                yield from _describe(member, f"{name}.", (*above, cls))


@functools.cache
def field_docs(cls: type) -> dict[str, str]:
    """Return the docstring under each field of a dataclass, its bases' included."""
    docs: dict[str, str] = {}
    for owner in reversed(cls.__mro__):
        if dataclasses.is_dataclass(owner):
            body = ast.parse(textwrap.dedent(inspect.getsource(owner))).body[0].body  # type: ignore
            for field, text in itertools.pairwise(body):
                match field, text:
                    case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(ast.Constant(str(doc))):
                        docs[name] = inspect.cleandoc(doc)
    return docs
