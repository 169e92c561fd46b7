"""Tensors of a foreign directory: names, shapes and types first, values one at a time.

safetensors files are memory-mapped; pickled weights are refused, save the entropy model of Meta's
release, which exists in no other form and is opened with `weights_only=True`.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bytelm.errors import CheckpointError

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"

PICKLED = ("pytorch_model*.bin*", "*.pth", "*.pt", "*.ckpt")
"""Weights that run code when they are opened."""

MAX_JSON_BYTES = 1 << 24
"""A larger index or configuration is not read: those of the largest models have 10^5 bytes."""

FLOATS = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Stored types that become float32 without loss."""

_PTH_KEYS = ("model", "state_dict")

_UNREADABLE = (
    torch.serialization.pickle.UnpicklingError,  # pyright: ignore[reportPrivateImportUsage]
    *(OSError, RuntimeError, ValueError, EOFError, LookupError, TypeError, AttributeError),
)
"""What a damaged or hostile archive makes the reader raise."""


@dataclass(frozen=True)
class StoredTensor:
    """One tensor of a file that is open."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As safetensors spells it."""
    _source: Any
    """An open safetensors file, or the tensor itself."""
    _name: str

    def copy_to_(self, target: Tensor, convert: Callable[[Tensor], Tensor]) -> None:
        """Write the values into `target`, after `convert`.

        Raises:
            CheckpointError: They cannot be read, or one of them is no number.

        """
        values = self._values()
        if not values.isfinite().all():
            raise CheckpointError(
                f"{self.file}: {self._name!r} holds NaN or infinity: the weights are damaged; "
                "download or convert them again"
            )
        target.copy_(convert(values))

    def _values(self) -> Tensor:
        if isinstance(self._source, Tensor):
            return self._source
        try:
            return self._source.get_tensor(self._name)
        except (OSError, SafetensorError) as error:
            raise CheckpointError(f"{self.file}: {self._name!r} cannot be read: {error}") from error


@dataclass(frozen=True)
class StackedTensor:
    """Tensors that this package holds as one, one behind the other."""

    parts: Sequence[StoredTensor]

    @property
    def file(self) -> Path:
        """Of the first part."""
        return self.parts[0].file

    @property
    def dtype(self) -> str:
        """Of every part; they are told where they differ."""
        return "/".join(sorted({part.dtype for part in self.parts}))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of all parts, or of the first that does not fit to the one before."""
        odd = [part.shape for part in self.parts if part.shape[1:] != self.parts[0].shape[1:]]
        return odd[0] if odd else (sum(p.shape[0] for p in self.parts), *self.parts[0].shape[1:])

    def copy_to_(self, target: Tensor, convert: Callable[[Tensor], Tensor]) -> None:
        """Write the values of one part after the other into `target`."""
        sizes = [part.shape[0] for part in self.parts]
        for part, place in zip(self.parts, target.split(sizes), strict=True):
            part.copy_to_(place, convert)


Weights = Mapping[str, StoredTensor | StackedTensor]


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a foreign directory.

    Raises:
        CheckpointError: The file is missing, damaged, too large or something else, or a key is
            in it twice.

    """
    advice = "the directory is not complete, or not of transformers"
    # A pipe or a device could be read for ever.
    if path.exists() and not path.is_file():
        raise CheckpointError(f"{path} is no regular file; {advice}")
    try:
        with path.open("rb") as file:
            data = file.read(MAX_JSON_BYTES + 1)
        if len(data) > MAX_JSON_BYTES:
            raise CheckpointError(
                f"{path} is too large, expected at most {MAX_JSON_BYTES:,} bytes; {advice}"
            )
        value = json.loads(data.decode("utf-8"), object_pairs_hook=_table)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror}); {advice}") from error
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path} is no valid JSON ({error}); {advice}") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} holds a {type(value).__name__}, expected an object")
    return value


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; readers differ in which of two values counts, so neither is taken."""
    table: dict[str, Any] = {}
    for key, value in pairs:
        if key in table:
            raise ValueError(f"the key {key!r} is there twice")
        table[key] = value
    return table


@contextmanager
def open_weights(folder: Path) -> Iterator[dict[str, StoredTensor]]:
    """All tensors of `model.safetensors`, or of the shards that its index names.

    Raises:
        CheckpointError: There are none, shards are missing, or the weights are pickled.

    """
    if (folder / SINGLE).is_file():
        weights = _open_file(folder / SINGLE)
    elif (folder / INDEX).is_file():
        weights = _open_shards(folder)
    else:
        _refuse_pickled(folder)
        raise CheckpointError(f"{folder} has no weights, expected {SINGLE} or {INDEX}")
    try:
        yield weights
    finally:
        weights.clear()


def open_released(path: Path) -> dict[str, StoredTensor]:
    """The tensors of a `.pth` file of Meta's release, read without running what it holds.

    Raises:
        CheckpointError: It holds anything but tensors by name.

    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except _UNREADABLE as error:
        raise CheckpointError(f"{path} cannot be read as plain tensors: {error}") from error
    for key in _PTH_KEYS:
        if isinstance(held, dict) and isinstance(held.get(key), dict):
            held = held[key]
            break
    if not isinstance(held, dict) or not all(isinstance(t, Tensor) for t in held.values()):
        raise CheckpointError(f"{path} holds something else than a table of tensors")
    spelled = {dtype: name for name, dtype in FLOATS.items()}
    return {
        str(name): StoredTensor(
            path, tuple(tensor.shape), spelled.get(tensor.dtype, str(tensor.dtype)), tensor, name
        )
        for name, tensor in held.items()
    }


def _refuse_pickled(folder: Path) -> None:
    for pattern in PICKLED:
        for path in sorted(folder.glob(pattern)):
            raise CheckpointError(
                f"{path} holds pickled weights, which can run any code when they are opened; "
                f"expected {SINGLE}: convert it where you trust it, with "
                "model.save_pretrained(DIR) of transformers"
            )


def _open_file(path: Path) -> dict[str, StoredTensor]:
    try:
        # Stays open (mapped, not read) for as long as one of its tensors is wanted.
        file = safe_open(path, framework="pt", device="cpu")
        slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    return {
        name: StoredTensor(path, tuple(slice.get_shape()), slice.get_dtype(), file, name)
        for name, slice in slices.items()
    }


def _open_shards(folder: Path) -> dict[str, StoredTensor]:
    index = folder / INDEX
    mapped = read_json(index).get("weight_map")
    if not isinstance(mapped, dict) or not mapped:
        raise CheckpointError(f"{index} has no table 'weight_map' of tensors and their files")
    for name, shard in mapped.items():
        plain = isinstance(shard, str) and shard == Path(shard).name
        if not (plain and shard.endswith(".safetensors")):
            raise CheckpointError(
                f"{index}: {name!r} is said to be in {shard!r}, expected the name of a "
                ".safetensors file in the same folder"
            )
    shards = sorted(set(mapped.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder} lacks {len(missing)} of {len(shards)} shards, the first {missing[0]}: "
            "copy or download it again"
        )
    weights: dict[str, StoredTensor] = {}
    for shard in shards:
        weights |= _open_file(folder / shard)
    if differing := sorted(weights.keys() ^ mapped.keys()):
        where = "in no shard" if differing[0] in mapped else f"not in {INDEX}"
        raise CheckpointError(
            f"{folder}: {len(differing)} tensors differ between shards and index, the first, "
            f"{differing[0]!r}, is {where}"
        )
    for name, shard in mapped.items():
        if weights[name].file.name != shard:
            raise CheckpointError(
                f"{index}: {name!r} is said to be in {shard}, it is in {weights[name].file.name}"
            )
    return weights
