"""Where derived files are kept, and how one is written so that nobody ever sees half of it."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from bytelm.errors import DataError


def cache_directory() -> Path:
    """Name the folder of derived files; it is not created.

    `BYTELM_CACHE`, else `bytelm` under `XDG_CACHE_HOME`, else `~/.cache/bytelm`. Everything in it
    is keyed by content, so it may be deleted at any time.
    """
    if chosen := os.environ.get("BYTELM_CACHE"):
        return Path(chosen).expanduser()
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared).expanduser() / "bytelm"
    return Path.home() / ".cache" / "bytelm"


@contextmanager
def write_aside(path: Path) -> Iterator[BinaryIO]:
    """Open a file that takes the name `path` only when the block ends without an error.

    Two processes may write the same path at once: each has its own temporary file beside it, and
    the rename is atomic.

    Raises:
        DataError: The folder or the file cannot be written, a full disk included. Nothing is left
            behind, and an older file at `path` is untouched.

    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                yield stream
            aside.replace(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise DataError(
            f"cannot write {path}: {error.strerror or error}; free some space, or write to another "
            "folder (of derived files: the environment variable BYTELM_CACHE)"
        ) from error
