"""Checkpoints: safetensors and JSON, written aside, checked, then renamed into place.

    checkpoints/
      step-200/
        definition.json          what the model is (models.from_definition)
        model.safetensors        its weights
        optimizer.safetensors    optimizer state and random generators
        state.json               everything else a resumed run needs
        manifest.json            format, and size and sha256 of the files above
    best, last                   text files beside `checkpoints/`: the name of a folder in it

Whatever is interrupted, `last` names a complete checkpoint or does not exist.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import stat
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from bytelm.errors import CheckpointError

FORMAT = "bytelm-checkpoint"
VERSION = 1

DEFINITION, MODEL, OPTIMIZER, STATE = (
    "definition.json",
    "model.safetensors",
    "optimizer.safetensors",
    "state.json",
)
FILES = (DEFINITION, MODEL, OPTIMIZER, STATE)
MANIFEST = "manifest.json"

DTYPES = {
    torch.float32: "F32",
    torch.float64: "F64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint64: "U64",
    torch.uint32: "U32",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""How safetensors spells the types that a model may hold."""

FOLDER = "checkpoints"
TEMPORARY = ".tmp-"

Pointer = Literal["best", "last"]

_POINTER = "expected the name of a folder in checkpoints/, as 'step-500'; write one that is there"
_ADVICE = "use another checkpoint of the run, or copy it again"


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint whose files are complete; tensors are read when asked for."""

    path: Path
    """The folder `checkpoints/step-N`."""

    definition: dict[str, Any]
    """What `models.from_definition` takes."""

    state: dict[str, Any]
    """What the loop saved."""

    def load_model_(self, model: nn.Module) -> None:
        """Copy the stored weights into `model`.

        Raises:
            CheckpointError: A name, shape or dtype differs from the model's.

        """
        stored = _read_tensors(self.path / MODEL, model=model)
        try:
            model.load_state_dict(stored, strict=True)
        except RuntimeError as error:
            raise CheckpointError(f"{self.path / MODEL} does not fit the model: {error}") from error

    def optimizer_state(self) -> dict[str, Tensor]:
        """The tensors that were saved for the optimizer and the random generators."""
        return _read_tensors(self.path / OPTIMIZER)


def save(
    run_dir: Path,
    *,
    step: int,
    definition: Mapping[str, Any],
    model: Mapping[str, Tensor],
    optimizer: Mapping[str, Tensor],
    state: Mapping[str, Any],
) -> Path:
    """Write the checkpoint of `step` and return its folder; it appears complete or not at all.

    Raises:
        CheckpointError: It cannot be written (a full disk, no permission). What was saved
            before is as it was, and nothing half-written is left.

    """
    folder = run_dir / FOLDER
    final = folder / f"step-{step}"
    aside = folder / f"{TEMPORARY}{final.name}"
    try:
        aside.mkdir(parents=True)
        _write_json(aside / DEFINITION, definition)
        _write_tensors(aside / MODEL, model)
        _write_tensors(aside / OPTIMIZER, optimizer)
        _write_json(aside / STATE, state)
        _write_json(aside / MANIFEST, _manifest(aside))
        _sync(aside)
        if final.exists():
            _remove(final)
        aside.rename(final)
        _sync(folder)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise CheckpointError(_advice(final, error)) from error
    return final


def point(run_dir: Path, pointer: Pointer, checkpoint: str) -> None:
    """Make `best` or `last` name a checkpoint folder, atomically."""
    aside = run_dir / f"{TEMPORARY}{pointer}"
    try:
        aside.write_text(checkpoint + "\n", encoding="utf-8")
        _sync(aside)
        aside.replace(run_dir / pointer)
        _sync(run_dir)
    except OSError as error:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
        raise CheckpointError(_advice(run_dir / pointer, error)) from error


def pointed(run_dir: Path, pointer: Pointer) -> Path | None:
    """The checkpoint folder that `best` or `last` names; None if there is no such pointer.

    Raises:
        CheckpointError: The file is there and names none.

    """
    path = run_dir / pointer
    if not path.exists():
        return None
    try:
        name = path.read_text(encoding="utf-8").strip()
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}), {_POINTER}") from error
    if not re.fullmatch(r"step-\d+", name):
        raise CheckpointError(f"{path} holds {name[:40]!r}, {_POINTER}")
    return run_dir / FOLDER / name


def find(path: Path) -> Path:
    """The checkpoint folder that a user means by a run directory or a checkpoint folder.

    Of a run directory that is the best checkpoint, else the last.

    Raises:
        CheckpointError: There is none.

    """
    if (path / MANIFEST).is_file():
        return path
    for pointer in ("best", "last"):
        if (folder := pointed(path, pointer)) is not None:
            return folder
    if not path.exists():
        raise CheckpointError(f"{path} does not exist, expected a run directory or a checkpoint")
    raise CheckpointError(
        f"{path} holds no checkpoint, expected a run directory (with `best` or `last`) or a "
        f"folder with {MANIFEST}; was the run stopped before its first checkpoint?"
    )


def read(folder: Path) -> Checkpoint:
    """Open a checkpoint folder after checking that every file is what was written.

    Raises:
        CheckpointError: The folder is missing, foreign, truncated or changed.

    """
    manifest = read_json(folder / MANIFEST, advice=_ADVICE)
    if manifest.get("format") != FORMAT:
        raise CheckpointError(f"{folder} is not a bytelm checkpoint: {MANIFEST} has no {FORMAT!r}")
    if manifest.get("version") != VERSION:
        raise CheckpointError(
            f"{folder} has checkpoint version {manifest.get('version')}, expected {VERSION}; "
            "use the bytelm that wrote it"
        )
    files = manifest.get("files")
    if not isinstance(files, dict):
        raise CheckpointError(f"{folder / MANIFEST} has no table 'files'; {_ADVICE}")
    for name in FILES:
        _check(folder / name, files.get(name))
    return Checkpoint(
        path=folder,
        definition=read_json(folder / DEFINITION, advice=_ADVICE),
        state=read_json(folder / STATE, advice=_ADVICE),
    )


def read_json(path: Path, *, advice: str) -> dict[str, Any]:
    """Read a file that bytelm wrote, a JSON object.

    Raises:
        CheckpointError: It cannot be read, or is something else; the message ends with `advice`.

    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read ({error}); {advice}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} cannot be read (nested too deeply); {advice}") from error
    if not isinstance(value, dict):
        raise CheckpointError(
            f"{path} holds a {type(value).__name__}, expected a JSON object; {advice}"
        )
    return value


def save_tensors(
    path: Path, tensors: dict[str, Tensor], *, metadata: dict[str, str] | None = None
) -> None:
    """Write a new safetensors file that others may read, as far as the umask lets them.

    Args:
        path: Where there is no file yet.
        tensors: On the CPU, contiguous, none sharing memory with another.
        metadata: Goes into the file's header.

    """
    # safetensors writes for the owner alone; an empty file has the mode that every other gets.
    path.touch()
    mode = stat.S_IMODE(path.stat().st_mode)
    save_file(tensors, path, metadata=metadata)
    path.chmod(mode)


def prune(run_dir: Path, *, keep: Collection[str]) -> None:
    """Remove all checkpoint folders but those named, and whatever was left half-written."""
    folder = run_dir / FOLDER
    if not folder.is_dir():
        return
    for path in folder.iterdir():
        if path.name not in keep and path.name.startswith(("step-", TEMPORARY)):
            _remove(path)


def _remove(path: Path) -> None:
    """Remove a folder so that an interruption leaves no half of it under its own name."""
    doomed = path.with_name(f"{TEMPORARY}removed-{path.name.removeprefix(TEMPORARY)}")
    if doomed.exists():
        shutil.rmtree(doomed)
    path.rename(doomed)
    shutil.rmtree(doomed)


def _manifest(folder: Path) -> dict[str, Any]:
    files = {name: _fingerprint(folder / name) for name in FILES}
    return {"format": FORMAT, "version": VERSION, "files": files}


def _fingerprint(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"bytes": path.stat().st_size, "sha256": digest}


def _check(path: Path, expected: object) -> None:
    """Compare one file with its line in the manifest; the size first, which is cheap."""
    if expected is None or not path.is_file():
        raise CheckpointError(f"{path} is missing from the checkpoint; {_ADVICE}")
    if not (isinstance(expected, dict) and {"bytes", "sha256"} <= expected.keys()):
        raise CheckpointError(
            f"{path.with_name(MANIFEST)} has no bytes and sha256 of {path.name}; {_ADVICE}"
        )
    size = path.stat().st_size
    if size != expected["bytes"]:
        raise CheckpointError(f"{path} has {size} bytes, expected {expected['bytes']}; {_ADVICE}")
    if _fingerprint(path)["sha256"] != expected["sha256"]:
        raise CheckpointError(f"{path} was changed since it was written (sha256); {_ADVICE}")


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _sync(path)


def _write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    save_tensors(path, {name: tensor.contiguous() for name, tensor in own.items()})
    _sync(path)


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk, so that a rename cannot overtake it."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _read_tensors(path: Path, *, model: nn.Module | None = None) -> dict[str, Tensor]:
    """Read all tensors, after names, shapes and dtypes were compared with those of `model`."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            if model is not None:
                _compare(path, file, model)
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def _compare(path: Path, file: Any, model: nn.Module) -> None:
    own, names = model.state_dict(), set(file.keys())
    if differing := sorted(names ^ own.keys()):
        where = "missing from the file" if differing[0] in own else "unknown to the model"
        raise CheckpointError(
            f"{path} does not fit the model: {len(differing)} names differ, "
            f"the first, {differing[0]!r}, is {where}"
        )
    # the tables of an n-gram model are buffers of any size
    sized = dict(model.named_parameters())
    for name, tensor in own.items():
        stored = file.get_slice(name)
        got, want = tuple(stored.get_shape()), tuple(tensor.shape)
        if got != want and name in sized:
            raise CheckpointError(f"{path}: {name!r} has shape {got}, the model expects {want}")
        got, want = stored.get_dtype(), DTYPES[tensor.dtype]
        if got != want:
            raise CheckpointError(f"{path}: {name!r} is {got}, the model expects {want}")


def _advice(path: Path, error: Exception) -> str:
    full = getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT)
    if full or "No space left" in str(error):
        return f"the disk is full: {path} was not written; free some space, then run this again"
    return f"{path} was not written ({error}); earlier checkpoints are as they were"
