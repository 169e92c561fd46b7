"""Files, standard streams, devices and pipes: read, and written so that nobody sees half a file."""

import contextlib
import io
import os
import select
import signal
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

from bytelm.errors import DataError

STREAM = "-"
"""Stands for stdin among inputs and for stdout among outputs."""


def shown_name(path: str) -> str:
    """Return what messages call an input."""
    return "standard input" if path == STREAM else path


def plain(text: str) -> str:
    """Escape control characters, which a stranger's container could send to the terminal."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


def is_terminal(stream: Any) -> bool:
    """Whether a standard stream is open, and a terminal."""
    return stream is not None and stream.isatty()


class Input:
    """What is read from; its errors name it."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream, self._path = stream, path

    def read(self, size: int = -1, /) -> bytes:
        """Read up to `size` bytes, or all.

        Raises:
            DataError: They cannot be read.

        """
        with _named("read", self._path):
            # None: a pipe that does not block has nothing now, and has not ended.
            while (data := self._stream.read(size)) is None:
                select.select([self._stream], [], [])
            return data

    def seekable(self) -> bool:
        """Whether `seek` can be used."""
        return self._stream.seekable()

    def tell(self) -> int:
        """Where the next read begins."""
        return self._stream.tell()

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, which is returned."""
        with _named("read", self._path):
            return self._stream.seek(offset, whence)


class Output:
    """What is written to; its errors name it."""

    def __init__(self, stream: BinaryIO, path: str) -> None:
        self._stream, self._path = stream, path

    def write(self, data: memoryview | bytes, /) -> int:
        """Write bytes, and return how many.

        Raises:
            DataError: They cannot be written; the disk is full, for example.

        """
        with _named("write", self._path):
            return self._stream.write(data)

    def seek(self, offset: int, whence: int = 0, /) -> int:
        """Go to a place, which is returned."""
        with _named("write", self._path):
            return self._stream.seek(offset, whence)

    def seekable(self) -> bool:
        """Whether `seek` can be used."""
        return self._stream.seekable()


@contextmanager
def _named(verb: str, path: str) -> Iterator[None]:
    """Say which file an error is about; a reader that went away is none."""
    try:
        yield
    except BrokenPipeError:
        raise
    except IsADirectoryError as error:
        raise DataError(
            f"{path} is a folder: make one file of it first, for example with tar"
        ) from error
    except OSError as error:
        name = f"standard {'input' if verb == 'read' else 'output'}" if path == STREAM else path
        raise DataError(f"cannot {verb} {name}: {error.strerror or error}") from error


@contextmanager
def reading(path: str) -> Iterator[tuple[Input, int | None]]:
    """Open an input; with it comes its size in bytes where that is known.

    Raises:
        DataError: A folder, missing or unreadable.

    """
    if path == STREAM:
        if sys.stdin is None:
            raise DataError("standard input is closed")
        yield Input(sys.stdin.buffer, path), None
        return
    with contextlib.ExitStack() as stack:
        with _named("read", path):
            stream = stack.enter_context(Path(path).open("rb"))
            status = os.fstat(stream.fileno())
        regular = stat.S_ISREG(status.st_mode)
        # Files of /proc claim no bytes and have some.
        yield Input(stream, path), status.st_size if regular and status.st_size else None


@contextmanager
def writing(path: str, *, source: str, force: bool) -> Iterator[Output]:
    """Open an output that takes its name only when the block ends without an error.

    Stdout, devices and pipes are written as they come.

    Args:
        path: Where to, `-` for stdout.
        source: The input, whose permissions the output gets.
        force: Replace a file that exists.

    Raises:
        DataError: It exists, or cannot be written.

    """
    if path == STREAM:
        with _stdout() as output:
            yield output
    elif _is_special(Path(path)):
        with contextlib.ExitStack() as stack:
            with _named("write", path):
                stream = stack.enter_context(Path(path).open("wb", buffering=0))
            yield Output(stream, path)
    else:
        with _aside(path, source=source, force=force) as output:
            yield output


def refuse_existing(path: str, *, source: str, force: bool) -> None:
    """Refuse an output that is there already, before any work is done.

    Raises:
        DataError: It is a folder, the input itself, or a file and `force` is not set.

    """
    if path == STREAM:
        return
    if Path(path).is_dir() or path.endswith(os.sep):
        raise DataError(f"{path} is a folder: name a file")
    if source != STREAM and _is_same(source, path):
        raise DataError(f"{path} is the input: name another --output")
    if os.path.lexists(path) and not force and not _is_special(Path(path)):
        _refuse(path)


def _is_same(first: str, second: str) -> bool:
    try:
        return Path(first).samefile(second)
    except OSError:
        return False


def _refuse(path: str) -> NoReturn:
    raise DataError(f"{path} exists already: --force replaces it, --output names another file")


def _is_special(path: Path) -> bool:
    """Whether something there is a device, a pipe or a socket: nothing that can be replaced."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


@contextmanager
def _stdout() -> Iterator[Output]:
    if sys.stdout is None:
        raise DataError("standard output is closed")
    stream = sys.stdout.buffer
    try:
        yield Output(stream, STREAM)
        with _named("write", STREAM):
            stream.flush()
    except (DataError, BrokenPipeError):
        # What could not be written stays in the buffer, and would fail once more at exit.
        with contextlib.suppress(OSError, io.UnsupportedOperation):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise


@contextmanager
def _aside(path: str, *, source: str, force: bool) -> Iterator[Output]:
    with _signals_end_the_block():
        with _named("write", path):
            # Where a link stands, the file that it leads to is replaced.
            final = Path(os.path.realpath(path))
            # Not all of the name: with what is added it could be too long for the file system.
            prefix = f".{final.name[:32]}."
            descriptor, name = tempfile.mkstemp(dir=final.parent, prefix=prefix)
        aside = Path(name)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as stream:
                os.fchmod(stream.fileno(), _mode(source))
                yield Output(stream, path)
                with _named("write", path):
                    # The input may be deleted next: the output must not be in memory only.
                    os.fsync(stream.fileno())
            with _named("write", path):
                _rename(aside, final, force=force)
        finally:
            aside.unlink(missing_ok=True)


def _rename(aside: Path, final: Path, *, force: bool) -> None:
    if force:
        aside.replace(final)
        return
    try:
        # Unlike a rename, this never replaces a file that came into being meanwhile.
        final.hardlink_to(aside)
    except FileExistsError:
        _refuse(str(final))
    except OSError:
        # Not every file system has links.
        if final.exists():
            _refuse(str(final))
        aside.replace(final)


def _mode(source: str) -> int:
    """Return the permissions of the input; where it is no file, those that a new file gets."""
    if source != STREAM:
        mode = Path(source).stat().st_mode
        if stat.S_ISREG(mode):
            return stat.S_IMODE(mode) & 0o777
    umask = os.umask(0)
    os.umask(umask)
    return 0o666 & ~umask


@contextmanager
def _signals_end_the_block() -> Iterator[None]:
    """Let a request to end run the `finally` clauses, so that no temporary file is left behind."""

    def end(number: int, _: Any) -> NoReturn:
        raise SystemExit(128 + number)

    numbers = [signal.SIGTERM, signal.SIGHUP]
    # A signal that is ignored, as `nohup` asks for, stays so.
    before = {
        number: signal.signal(number, end)
        for number in numbers
        if signal.getsignal(number) is signal.SIG_DFL
    }
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
