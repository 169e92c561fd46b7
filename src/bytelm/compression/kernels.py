"""Loops over bytes and bits: compiled by numba where it is installed, else run by the interpreter.

A kernel is one plain function over integer arrays. Its text is the same for both back ends, and so
are its results: every operation is on int64 values that do not overflow, or is masked by hand.
`BYTELM_KERNELS=python` asks for the interpreter, which is some hundred times slower.

What was compiled is kept in the cache directory under a digest of this package's sources: numba
itself notices only changes of the file that a kernel stands in, not of what the kernel calls.
"""

import hashlib
import importlib.util
import inspect
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np

from bytelm.errors import ConfigError
from bytelm.files import cache_directory

_CACHE_ROOM_BYTES = 64 << 20
"""Compiled kernels take a few megabytes; numba fails where the disk is full."""

Backend = Literal["numba", "python"]

Integer = int | np.int64
"""What a kernel's arguments are: int64 values where it is compiled, any integers elsewhere."""

_Function = TypeVar("_Function", bound=Callable[..., Any])


def _chosen() -> Backend:
    installed = importlib.util.find_spec("numba") is not None
    wanted = os.environ.get("BYTELM_KERNELS", "")
    match wanted:
        case "":
            return "numba" if installed else "python"
        case "python":
            return "python"
        case "numba" if installed:
            return "numba"
    raise ConfigError(
        f"BYTELM_KERNELS is {wanted!r}: expected 'numba' (pip install 'bytelm[codec]') or 'python'"
    )


BACKEND: Backend = _chosen()
"""Which back end runs the kernels of this process."""


def source_digest() -> str:
    """Digest of the sources that decide what the codec computes, hexadecimal."""
    package = Path(__file__).parents[1]
    sources = [*sorted((package / "compression").glob("*.py")), package / "vocab.py"]
    digest = hashlib.blake2b(digest_size=8)
    for source in sources:
        digest.update(source.read_bytes())
    return digest.hexdigest()


def _cache_path() -> Path | None:
    """Where compiled kernels are kept; None where they cannot be: then each process compiles."""
    path = cache_directory() / "kernels" / source_digest()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            return path if shutil.disk_usage(path).free > _CACHE_ROOM_BYTES else None
    except OSError:
        return None


_CACHE = _cache_path() if BACKEND == "numba" else None


def kernel(function: _Function) -> _Function:
    """Make a function a kernel: compiled at its first call, or found compiled in the cache."""
    # A type checker around it, as the tests have, is Python: compiled code cannot call that.
    function = inspect.unwrap(function)
    if BACKEND == "python":
        return function
    from numba import njit
    from numba.core import config

    before = config.CACHE_DIR  # pyright: ignore[reportAttributeAccessIssue]
    try:
        if _CACHE is not None:
            config.CACHE_DIR = str(_CACHE)  # pyright: ignore[reportAttributeAccessIssue]
        # Without numba's run time (_nrt) no references are counted: kernels allocate nothing, and
        # the counting, two locked additions per array and call, took half of their time.
        options: dict[str, Any] = {"nogil": True, "cache": _CACHE is not None, "_nrt": False}
        return njit(function, **options)  # pyright: ignore[reportReturnType]
    finally:
        config.CACHE_DIR = before  # pyright: ignore[reportAttributeAccessIssue]
