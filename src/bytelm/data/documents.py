"""Files, folders and standard input to a corpus: one file is one document, read as raw bytes.

All sources, a single one too, are copied once into one file of the cache, whose name is the SHA-256
of what is in it, and that file is memory-mapped: nothing that happens to the sources later changes
a corpus in use, or ends the process that reads it. The sources are hashed on every call, so a cache
that does not hold their present content is never used.

Empty files are documents of no bytes. Inside a folder, symbolic links, special files and what
cannot be read are skipped and reported; what the caller names itself is read or is an error.
"""

import io
import json
import logging
import os
import stat
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

from bytelm.data.corpus import (
    BLOCK_BYTES,
    Corpus,
    MappedFile,
    fingerprint_of,
    map_file,
    starts_of,
)
from bytelm.errors import DataError
from bytelm.files import cache_directory, write_aside

logger = logging.getLogger(__name__)

STDIN = "-"

_FORMAT = 1
"""Version of the cache file and its manifest; another one is built again."""

OnSkip = Callable[[str, str], None]
"""Called with the path of a file that is left out, and the reason."""


@dataclass(frozen=True, kw_only=True)
class _Source:
    """One readable file, as it was when it was found."""

    path: Path
    name: str
    size: int
    modified_ns: int
    is_spooled: bool = False


def build_corpus(
    paths: Sequence[str | Path],
    *,
    cache_dir: Path | None = None,
    suffixes: tuple[str, ...] = (),
    on_skip: OnSkip | None = None,
) -> Corpus:
    """Read files, folders and standard input as one corpus, memory-mapped.

    Args:
        paths: In the order of the documents. A folder stands for every file under it, sorted by
            the bytes of the relative path; `-` is standard input, a named pipe is read to its end.
        cache_dir: Where the copies are kept; `cache_directory()` by default.
        suffixes: File-name endings to take from folders, such as `(".py", ".md")`; empty takes all.
        on_skip: Told about each file inside a folder that is left out; a log line by default.

    Raises:
        DataError: A path is missing or unreadable, no file was found, a file changed while it was
            read, or the cache cannot be written.
        ValueError: `paths` is empty, or a suffix does not begin with a dot.

    """
    if not paths or isinstance(paths, str):
        raise ValueError(f"paths must be a sequence of at least one path, got {paths!r}")
    if wrong := [suffix for suffix in suffixes if not suffix.startswith(".")]:
        raise ValueError(f"suffixes must begin with a dot, like '.py'; got {wrong}")
    folder = cache_directory() if cache_dir is None else cache_dir
    with ExitStack() as stack:
        scan = _Scan(folder, suffixes, on_skip or _log_skip, stack)
        for path in paths:
            scan.add(path)
        return _copy_in_cache(scan.sources, folder)


class _Scan:
    """Collects the sources that the given paths stand for, in order, each file once."""

    def __init__(
        self, cache_dir: Path, suffixes: tuple[str, ...], on_skip: OnSkip, stack: ExitStack
    ) -> None:
        self.sources: list[_Source] = []
        self._cache_dir = cache_dir
        self._suffixes = suffixes
        self._on_skip = on_skip
        self._stack = stack
        self._seen: set[str] = set()

    def add(self, given: str | Path) -> None:
        """Add what the user named: here, whatever cannot be read is an error."""
        if str(given) == STDIN:
            self._add_stream(sys.stdin.buffer, STDIN)
            return
        path = Path(given).expanduser()
        try:
            mode = path.stat().st_mode
            if stat.S_ISDIR(mode):
                self._add_folder(path)
            elif stat.S_ISFIFO(mode):
                with path.open("rb") as stream:
                    self._add_stream(stream, _printable(path))
            elif stat.S_ISREG(mode):
                self._add_file(path)
            else:
                raise DataError(f"{path} is neither a file, a folder nor a pipe; give one of these")
        except OSError as error:
            raise DataError(
                f"cannot read {path}: {error.strerror or error}; give a file, a folder or - that "
                "exists and that you may read"
            ) from error

    def _add_file(self, path: Path) -> None:
        absolute = os.path.abspath(path)  # noqa: PTH100 - Path.resolve() would follow links
        if absolute in self._seen:
            self._on_skip(str(path), "named twice; read once")
            return
        with path.open("rb") as stream:
            status = os.fstat(stream.fileno())
        self._seen.add(absolute)
        self.sources.append(
            _Source(
                path=path,
                name=_printable(path),
                size=status.st_size,
                modified_ns=status.st_mtime_ns,
            )
        )

    def _add_folder(self, folder: Path) -> None:
        relatives = sorted(self._files_under(folder), key=os.fsencode)
        wanted = [name for name in relatives if not self._suffixes or name.endswith(self._suffixes)]
        if not wanted:
            ending = f" whose name ends in {', '.join(self._suffixes)}" if self._suffixes else ""
            raise DataError(
                f"no file{ending} in the folder {folder} ({len(relatives)} files seen); expected "
                "at least one: put files there, or give another path"
            )
        num_readable = 0
        for relative in wanted:
            path = folder / relative
            try:
                self._add_file(path)
                num_readable += 1
            except OSError as error:
                self._on_skip(str(path), error.strerror or str(error))
        if not num_readable:
            raise DataError(
                f"none of the {len(wanted)} files in the folder {folder} can be read; make them "
                "readable, or give another path"
            )

    def _files_under(self, top: Path) -> Iterator[str]:
        """Yield the regular files' paths relative to `top`, in the order of the file system."""
        pending = [""]
        while pending:
            prefix = pending.pop()
            for entry in self._entries(top / prefix if prefix else top):
                relative = f"{prefix}/{entry.name}" if prefix else entry.name
                if entry.is_symlink():
                    self._on_skip(entry.path, "symbolic link; name it on its own to read it")
                elif entry.is_dir(follow_symlinks=False):
                    pending.append(relative)
                elif entry.is_file(follow_symlinks=False):
                    yield relative
                else:
                    self._on_skip(entry.path, "not a regular file")

    def _entries(self, folder: Path) -> list[os.DirEntry]:
        if self._cache_dir.exists() and folder.samefile(self._cache_dir):
            self._on_skip(str(folder), "the cache's own folder")
            return []
        try:
            with os.scandir(folder) as entries:
                return list(entries)
        except OSError as error:
            self._on_skip(str(folder), error.strerror or str(error))
            return []

    def _add_stream(self, stream: BinaryIO | io.BufferedIOBase, name: str) -> None:
        if any(source.is_spooled and source.name == name for source in self.sources):
            raise DataError(f"{name} is given twice, but a stream can be read only once")
        # The finished name is unique, because another process may be spooling at the same time.
        path = self._cache_dir / f"spool-{os.getpid()}-{len(self.sources)}.bin"
        self._stack.callback(path.unlink, missing_ok=True)
        with write_aside(path) as spool:
            while block := stream.read(BLOCK_BYTES):
                spool.write(block)
        status = path.stat()
        self.sources.append(
            _Source(
                path=path,
                name=name,
                size=status.st_size,
                modified_ns=status.st_mtime_ns,
                is_spooled=True,
            )
        )


def _log_skip(path: str, reason: str) -> None:
    logger.warning("skipped %s: %s", path, reason)


def _printable(path: Path) -> str:
    """Spell a path so that it can always be printed: bytes that are not UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _copy_in_cache(sources: list[_Source], folder: Path) -> Corpus:
    lengths = _lengths(sources)
    key = fingerprint_of(lengths, (block for source in sources for block in _blocks(source)))
    path = folder / f"corpus-{key}.bin"
    manifest = {
        "format": _FORMAT,
        "fingerprint": key,
        "num_bytes": int(lengths.sum()),
        "num_documents": len(lengths),
    }
    if cached := _cached(path, sources, manifest):
        return cached
    with write_aside(path) as stream:
        if fingerprint_of(lengths, _copied(sources, stream)) != key:
            raise DataError("a file changed while it was read; start the same command again")
    with write_aside(_manifest_path(path)) as stream:
        stream.write(json.dumps(manifest, indent=2).encode())
    return _corpus(sources, map_file(path, manifest["num_bytes"]), key)


def _cached(path: Path, sources: list[_Source], manifest: dict[str, int | str]) -> Corpus | None:
    """Open the cached corpus, or return None when there is none that is whole."""
    if not path.exists() or not _manifest_path(path).exists():
        return None
    if (
        path.stat().st_size == manifest["num_bytes"]
        and _read_json(_manifest_path(path)) == manifest
    ):
        mapped = map_file(path, path.stat().st_size)
        # The file is hashed again, because a damaged disk or a curious user may have changed it.
        corpus = _corpus(sources, mapped, None)
        if corpus.fingerprint == manifest["fingerprint"]:
            return corpus
    logger.warning("the cache file %s is damaged or of another version; building it again", path)
    return None


def _manifest_path(path: Path) -> Path:
    return path.with_suffix(".json")


def _read_json(path: Path) -> object:
    try:
        return json.loads(path.read_bytes())
    except ValueError:
        return None


def _corpus(sources: list[_Source], mapped: MappedFile, fingerprint: str | None) -> Corpus:
    lengths = _lengths(sources)
    return Corpus(
        data=mapped.data,
        starts=starts_of(lengths),
        lengths=lengths,
        names=tuple(source.name for source in sources),
        mapped=mapped,
        known_fingerprint=fingerprint,
    )


def _lengths(sources: list[_Source]) -> np.ndarray:
    return np.array([source.size for source in sources], dtype=np.int64)


def _copied(sources: list[_Source], target: BinaryIO) -> Iterator[memoryview]:
    for source in sources:
        for block in _blocks(source):
            target.write(block)
            yield block


def _blocks(source: _Source) -> Iterator[memoryview]:
    """Read a file through one buffer; each block is valid until the next is asked for."""
    buffer = memoryview(bytearray(min(BLOCK_BYTES, source.size + 1)))
    total = 0
    try:
        with source.path.open("rb", buffering=0) as stream:
            while total <= source.size and (count := stream.readinto(buffer)):
                total += count
                yield buffer[:count]
            _check_unchanged(source, os.fstat(stream.fileno()), total)
    except OSError as error:
        raise _unreadable(source, error) from error


def _unreadable(source: _Source, error: OSError) -> DataError:
    return DataError(
        f"cannot read {source.path}: {error.strerror or error}; it could be opened a moment ago: "
        "mend or remove it, and start again"
    )


def _check_unchanged(source: _Source, status: os.stat_result, num_read: int) -> None:
    if (status.st_size, status.st_mtime_ns, num_read) == (
        source.size,
        source.modified_ns,
        source.size,
    ):
        return
    raise DataError(
        f"{source.path} changed while it was read: {source.size:,} bytes at first, now "
        f"{status.st_size:,} ({num_read:,} read); wait until nothing writes to it, then start again"
    )
