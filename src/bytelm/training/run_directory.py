"""A run's directory: locked by one process, and true to the settings it was begun with.

runs/NAME/
  config.json        resolved and complete; `bytelm train runs/NAME/config.json` repeats the run
  environment.json   data fingerprint, sizes and overlap of the splits; and for each start: commit,
                     versions, hardware
  metrics.jsonl      a line for each step
  checkpoints/ best last
"""

import errno
import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bytelm import config as configuration
from bytelm.errors import CheckpointError, RunError
from bytelm.training.checkpoints import TEMPORARY, read_json
from bytelm.training.settings import RunConfig

CONFIG = "config.json"
ENVIRONMENT = "environment.json"
LOCK = ".lock"

PLACE = (
    "hardware",
    "data.paths",
    "entropy.recipe.hardware",
    "entropy.recipe.data.paths",
    "init.path",
)
"""Settings that say where a run happens; its data and first weights are compared by content."""

_CHOOSE = "restore it from a copy, or choose another --out"


@contextmanager
def locked(
    path: Path, *, wait: bool = False, marker: str = CONFIG, what: str = "run"
) -> Iterator[None]:
    """Own a run directory, which is made if needed, until the block ends or the process dies.

    Args:
        path: The directory.
        wait: Wait for another process that owns it, instead of raising an error.
        marker: The file that tells such a directory from any other.
        what: What it holds, for messages.

    Raises:
        RunError: Another process owns it, the folder cannot be made, or it holds other things.

    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise RunError(f"{path} cannot be a {what} directory: {error.strerror}") from error
    try:
        _lock(path, descriptor, wait=wait)
        _refuse_foreign(path, marker, what)
        yield
    finally:
        os.close(descriptor)


def _lock(path: Path, descriptor: int, *, wait: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            raise RunError(f"{path / LOCK} cannot be locked: {error.strerror}") from error
        owner = os.pread(descriptor, 32, 0).decode("ascii", "replace").strip()
        raise RunError(
            f"{path} is in use by process {owner or 'unknown'}; "
            "wait for it, stop it, or choose another --out"
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)


def _refuse_foreign(path: Path, marker: str, what: str) -> None:
    names = {entry.name for entry in path.iterdir()}
    # A process that was killed may have left a file that had not got its name yet.
    foreign = {name for name in names if name != LOCK and not name.startswith(TEMPORARY)}
    if foreign and marker not in names:
        raise RunError(
            f"{path} is not empty and holds no {what} ({sorted(foreign)[0]!r} is in it); "
            "choose another --out"
        )


def read_config(path: Path) -> dict[str, Any] | None:
    """The settings the run was begun with, as plain tables; None for a new run.

    Raises:
        CheckpointError: The file is damaged.

    """
    file = path / CONFIG
    return read_json(file, advice=_CHOOSE) if file.exists() else None


def require_same_settings(path: Path, config: object) -> None:
    """Refuse to go on with a run under other settings than it was begun with.

    Raises:
        RunError: Some setting differs; the message names each with both values.

    """
    stored = read_config(path)
    if stored is None:
        return
    old, new = _flat(stored), _flat(as_json(config))
    differing = [
        f"{name} was {_show(old, name)}, is now {_show(new, name)}"
        for name in sorted(old.keys() | new.keys())
        if not _is_place(name) and old.get(name) != new.get(name)
    ]
    if differing:
        raise RunError(
            f"{path} was begun with other settings: {'; '.join(differing)}. "
            "Repeat the command that began it, or choose another --out"
        )


def write_config(path: Path, config: object) -> None:
    """Record the settings of a new run."""
    if not (path / CONFIG).exists():
        write_json(path / CONFIG, as_json(config))


def require_same_data(path: Path, config: RunConfig, fingerprint: str) -> None:
    """Refuse to go on with other bytes than the run was begun with.

    Raises:
        RunError: The content differs.

    """
    record = read_environment(path)
    known = record.get("data", {}).get("fingerprint")
    if known in (None, fingerprint):
        return
    stored = read_config(path) or {}
    raise RunError(
        f"{path} was begun with other data: data.paths was {stored.get('data', {}).get('paths')}, "
        f"is now {list(config.data.paths)}, and the content differs "
        f"({known[:12]} was {fingerprint[:12]} now). Restore the data, or choose another --out"
    )


def read_environment(path: Path) -> dict[str, Any]:
    """What `environment.json` holds; empty for a new run.

    Raises:
        CheckpointError: The file is damaged.

    """
    file = path / ENVIRONMENT
    record = read_json(file, advice=_CHOOSE) if file.exists() else {}
    # These are read again below; what else is in the file is for people.
    if not (
        isinstance(record.get("data", {}), dict) and isinstance(record.get("starts", []), list)
    ):
        raise CheckpointError(f"{file} is not what bytelm writes there; {_CHOOSE}")
    return record


def record_start(path: Path, *, data: dict[str, Any], start: dict[str, Any]) -> None:
    """Add a start or restart to `environment.json`."""
    starts = read_environment(path).get("starts", [])
    write_json(path / ENVIRONMENT, {"data": data, "starts": [*starts, start]})


def as_json(config: object) -> dict[str, Any]:
    """The settings as they look after a trip through JSON."""
    return json.loads(json.dumps(configuration.to_dict(config)))


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file so that nobody sees half of it.

    Raises:
        RunError: It cannot be written.

    """
    write_file(path, (json.dumps(value, indent=2) + "\n").encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that nobody sees half of it.

    Raises:
        RunError: It cannot be written.

    """
    aside = path.with_name(f"{TEMPORARY}{path.name}")
    try:
        aside.write_bytes(content)
        aside.replace(path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise RunError(f"{path} was not written: {error.strerror}") from error


def _flat(tables: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat = {}
    for key, value in tables.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat


def _is_place(name: str) -> bool:
    return any(name == place or name.startswith(f"{place}.") for place in PLACE)


def _show(flat: dict[str, Any], name: str) -> str:
    return json.dumps(flat[name]) if name in flat else "absent"
