"""Data that every machine has: random bytes, and the source of Python's own standard library."""

import sysconfig
from pathlib import Path

import numpy as np

from bytelm.errors import DataError

_LEFT_OUT = frozenset(
    {
        "__pycache__",
        "dist-packages",
        "encodings",
        "idle_test",
        "idlelib",
        "site-packages",
        "test",
        "tests",
    }
)
"""Folders that are tests, generated tables, or not the standard library."""


def random_bytes(n: int, seed: int) -> bytes:
    """Draw n independent uniform bytes: the negative control, which no model gets under 8 bits."""
    if n < 0:
        raise ValueError(f"n must be a number of bytes >= 0, got {n}")
    return np.random.Generator(np.random.Philox(key=seed)).bytes(n)


def standard_library_files(folder: Path | None = None) -> list[Path]:
    """List the `*.py` files of the running Python's standard library, sorted by relative path.

    Tests, idlelib, encodings and installed packages are left out.

    Args:
        folder: Where the library is; the running Python's by default.

    Raises:
        DataError: There is none, as in an installation without sources.

    """
    top = Path(sysconfig.get_path("stdlib")) if folder is None else folder
    relatives = (path.relative_to(top) for path in top.rglob("*.py") if path.is_file())
    kept = sorted(path.as_posix() for path in relatives if _LEFT_OUT.isdisjoint(path.parts[:-1]))
    if not kept:
        raise DataError(
            f"no Python source in {top}: this Python was installed without its library's source; "
            "give the path of a file or folder to use instead"
        )
    return [top / path for path in kept]
