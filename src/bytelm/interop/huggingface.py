"""Directories of `transformers`: a run written as one, one read as a run.

The files are written and read as what they are, safetensors and JSON; `transformers` itself is
neither needed nor trusted. What one of the two sides cannot express is refused by name before
anything is written.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor

from bytelm import models
from bytelm.config import to_dict
from bytelm.errors import CheckpointError, ConfigError
from bytelm.files import cache_directory
from bytelm.interop import blt, byte_gpt, mistral, released
from bytelm.interop.card import card
from bytelm.interop.names import blt_names
from bytelm.interop.tokenizer import tokenizer_config, tokenizer_json
from bytelm.interop.weight_files import (
    FLOATS,
    SINGLE,
    Weights,
    open_released,
    open_weights,
    read_json,
)
from bytelm.models import BLT, ByteGPT, ByteModel, EntropyLM, Ngram, Recurrent
from bytelm.training import checkpoints, resume, run_directory
from bytelm.training.initial import fingerprint_of
from bytelm.training.loading import load_model
from bytelm.training.loop import RunState
from bytelm.training.settings import EntropyOfInit, Init, RunConfig
from bytelm.vocab import BOE, BOS, BPE, EOS

CONFIG = "config.json"
RELEASED_ENTROPY = ("entropy_model/params.json", "entropy_model/consolidated.pth")
"""The entropy model of Meta's release, beside its config.json and model.safetensors."""

log = logging.getLogger(__name__)


def _as_it_is(_name: str, tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True, kw_only=True)
class _Exported:
    """What of a model goes into a directory."""

    config: dict[str, Any]
    names: dict[str, str]
    """Our name of each weight to the one in the file."""
    convert: Callable[[str, Tensor], Tensor] = _as_it_is
    """A weight, by its name there, as it is stored there."""
    code: Path | None = None
    """Modeling code that goes along."""


@dataclass(frozen=True, kw_only=True)
class _Foreign:
    """A model that a directory describes."""

    definition: dict[str, Any]
    """As `models.definition` gives it."""
    names: dict[str, str]
    convert: Callable[[str, Tensor], Tensor] = field(default=_as_it_is)
    """A weight, by its name there, as it is held here."""


# --- out ---------------------------------------------------------------------------------------


def export_run(run: Path, folder: Path) -> dict[str, Any]:
    """Write the model of a run as a directory that `transformers` loads.

    Args:
        run: Run directory or checkpoint folder.
        folder: Must not exist, or be empty. It appears complete or not at all.

    Returns:
        What was written, JSON-able: architecture, parameters, files.

    Raises:
        ConfigError: The format cannot express the model; the message names what.
        CheckpointError: There is no model to export, or it cannot be written.

    """
    return export_model(load_model(run), folder)


def export_model(model: ByteModel, folder: Path) -> dict[str, Any]:
    """As `export_run`, for a model in memory."""
    exported = _exported(model)
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise CheckpointError(f"{folder} is there already and not empty; name a new directory")
    folder = folder.absolute()
    # Beside its place, so that the rename is one step.
    aside = folder.with_name(f"{checkpoints.TEMPORARY}{folder.name}-{os.getpid()}")
    try:
        aside.mkdir(parents=True)
        _write(aside, model, exported)
        names = sorted(path.name for path in aside.iterdir())
        aside.rename(folder)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{folder} was not written: {error}") from error
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return {
        "directory": str(folder),
        "architecture": exported.config["architectures"][0],
        "parameters": _count(model),
        "files": names,
    }


def _exported(model: ByteModel) -> _Exported:
    match model:
        case Ngram():
            raise ConfigError(
                "an n-gram model is counts, not weights: transformers has no architecture for it; "
                "export a model of kind blt, byte-gpt or entropy-lm"
            )
        case Recurrent():
            raise ConfigError(
                "a recurrent model is the codec's: transformers has no architecture for it; export "
                "a model of kind blt, byte-gpt or entropy-lm"
            )
        case BLT():
            blt.refuse_what_the_format_lacks(model)
            assert isinstance(model.entropy_model, EntropyLM), "an n-gram source was refused"
            names = blt_names(model.config, model.entropy_model.config)
            return _Exported(config=blt.to_transformers(model), names=names)
        case EntropyLM(config=config):
            return _Exported(
                config=mistral.to_transformers(config),
                names=mistral.names(config),
                convert=partial(_turn, mistral.to_half_split, config.dim // config.n_heads),
            )
        case ByteGPT(config=config):
            names = {name: name for name in model.state_dict()}
            settings = byte_gpt.to_transformers(config)
            return _Exported(config=settings, names=names, code=byte_gpt.CODE)


def _count(model: ByteModel) -> int:
    return sum(tensor.numel() for tensor in model.state_dict().values())


def _turn(reorder: Callable[..., Tensor], head_dim: int, name: str, tensor: Tensor) -> Tensor:
    return reorder(tensor, head_dim) if mistral.turns_pairs(name) else tensor


def _finite(name: str, tensor: Tensor) -> Tensor:
    if not tensor.isfinite().all():
        raise CheckpointError(
            f"{name!r} holds NaN or infinity: the model computes nothing; export an earlier "
            "checkpoint of the run"
        )
    return tensor.detach()


def _write(folder: Path, model: ByteModel, exported: _Exported) -> None:
    weights = {
        exported.names[name]: exported.convert(name, _finite(name, tensor)).cpu().contiguous()
        for name, tensor in model.state_dict().items()
    }
    checkpoints.save_tensors(folder / SINGLE, weights, metadata={"format": "pt"})
    generation = {
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": BOE,
        "use_cache": exported.config["use_cache"],
        # bytelm's distributions are over the 256 byte values: specials are never written
        "suppress_tokens": [BOE, BOS, EOS, BPE],
    }
    for name, value in (
        (CONFIG, exported.config),
        ("generation_config.json", generation),
        ("tokenizer.json", tokenizer_json()),
        ("tokenizer_config.json", tokenizer_config()),
    ):
        text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")
    context = exported.config["max_position_embeddings"]
    text = card(exported.config, _count(model), context)
    (folder / "README.md").write_text(text, encoding="utf-8")
    if exported.code is not None:
        shutil.copyfile(exported.code, folder / exported.code.name)


# --- in ----------------------------------------------------------------------------------------


def import_directory(folder: Path, run: Path) -> RunConfig:
    """Read a directory of `transformers`, or of Meta's release, into a run directory of no steps.

    Args:
        folder: With config.json and safetensors. Code in it is never run.
        run: New, or the same directory was imported there before.

    Returns:
        The settings in the run's config.json; model, patcher and entropy model are complete.

    Raises:
        ConfigError: The configuration is of something that this package has not.
        CheckpointError: Weights are missing, unknown, of another shape, damaged or pickled.
        RunError: `run` holds another run.

    """
    return _write_run(load_directory(folder), folder, run)


def _write_run(model: ByteModel, folder: Path, run: Path) -> RunConfig:
    """A run directory of a model that was read from `folder`."""
    patcher = model.patcher if isinstance(model, BLT) else None
    config = RunConfig(
        model=model.config,
        patching=patcher,
        entropy=None if patcher is None else EntropyOfInit(),
        init=Init(path=str(folder), fingerprint=fingerprint_of(model)),
    ).resolved()
    with run_directory.locked(run, wait=True):
        run_directory.require_same_settings(run, config)
        if checkpoints.pointed(run, "last") is None:
            run_directory.write_config(run, config)
            resume.save(run, RunState(micro_rows=1), model, keep_every=None)
    return config


def load_directory(folder: Path) -> ByteModel:
    """The model of a directory of `transformers`, or of Meta's release, on the CPU in float32.

    Raises:
        ConfigError: The configuration is of something that this package has not.
        CheckpointError: Weights are missing, unknown, of another shape, damaged or pickled.

    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is no directory, expected one with {CONFIG} and {SINGLE}")
    stored = read_json(folder / CONFIG)
    where = str(folder / CONFIG)
    if not _is_described(stored):
        hint = "; it is a run of bytelm, which needs no import" if "model" in stored else ""
        raise ConfigError(f"{where} has no 'model_type' of transformers{hint}")
    # With the table `args` it may be Meta's release, which its weights tell.
    foreign = None if "args" in stored else _foreign(stored, where)
    with open_weights(folder) as weights:
        if released.is_released(weights):
            return _released(folder, stored, weights, where)
        return _load(foreign or _foreign(stored, where), weights, folder)


def is_foreign(path: Path) -> bool:
    """Whether a directory is one of `transformers`, or of Meta's release, and not a run."""
    is_run = (path / checkpoints.MANIFEST).exists() or (path / checkpoints.FOLDER).exists()
    return not is_run and (path / CONFIG).is_file() and _is_described(read_json(path / CONFIG))


def as_run(path: Path) -> Path:
    """What `--init` names as a run directory: itself, or its import, kept in the cache.

    Raises:
        BytelmError: As `import_directory`.

    """
    if not is_foreign(path):
        return path
    model = load_directory(path)
    run = cache_directory() / "imported" / fingerprint_of(model)[:32]
    if checkpoints.pointed(run, "last") is None:
        _write_run(model, path, run)
    return run


def _is_described(config: Mapping[str, Any]) -> bool:
    return "model_type" in config or "args" in config


def _foreign(stored: Mapping[str, Any], where: str) -> _Foreign:
    match stored.get("model_type"):
        case blt.MODEL_TYPE:
            config, patcher, entropy = blt.from_transformers(stored, where)
            definition = {
                "model": to_dict(config),
                "patcher": to_dict(patcher),
                "entropy_model": {"model": to_dict(entropy)},
            }
            return _Foreign(definition=definition, names=blt_names(config, entropy))
        case mistral.MODEL_TYPE:
            config = mistral.from_transformers(stored, where)
            return _Foreign(
                definition={"model": to_dict(config)},
                names=mistral.names(config),
                convert=partial(_turn, mistral.to_interleaved, config.dim // config.n_heads),
            )
        case byte_gpt.MODEL_TYPE:
            config = byte_gpt.from_transformers(stored, where)
            with torch.device("meta"):
                names = {name: name for name in models.build(config).state_dict()}
            return _Foreign(definition={"model": to_dict(config)}, names=names)
        case other:
            raise ConfigError(
                f"{where}: model_type is {other!r}, expected {blt.MODEL_TYPE!r} (a BLT), "
                f"{mistral.MODEL_TYPE!r} (an entropy LM) or {byte_gpt.MODEL_TYPE!r} (a byte GPT)"
            )


def _released(
    folder: Path, stored: Mapping[str, Any], weights: Mapping[str, Any], where: str
) -> ByteModel:
    """The model of Meta's release, whose entropy model has a folder and a file of its own."""
    params, pickled = (folder / name for name in RELEASED_ENTROPY)
    if (pickled.parent / SINGLE).is_file():
        with open_weights(pickled.parent) as entropy:
            renamed = released.from_released(weights, entropy)
            config = _released_config(stored, params, renamed, where)
            return _load(_foreign(config, where), renamed, folder)
    if not pickled.is_file():
        raise CheckpointError(
            f"{folder} has no {RELEASED_ENTROPY[1]}, the entropy model without which there are no "
            "patches; download it with the rest of the release"
        )
    renamed = released.from_released(weights, open_released(pickled))
    return _load(_foreign(_released_config(stored, params, renamed, where), where), renamed, folder)


def _released_config(
    stored: Mapping[str, Any], params: Path, weights: Weights, where: str
) -> Mapping[str, Any]:
    """The release's settings in the words of transformers, unless they are that already."""
    if stored.get("model_type") == blt.MODEL_TYPE:
        return stored
    config = released.released_config(stored, read_json(params), weights, where)
    return {"model_type": blt.MODEL_TYPE, **config}


def _load(foreign: _Foreign, weights: Weights, folder: Path) -> ByteModel:
    """The model with its weights; nothing is allocated before names and shapes were compared."""
    with torch.device("meta"):
        outline = models.from_definition(foreign.definition).state_dict()
    _require_names(foreign.names, weights, folder)
    wide = set()
    for name, tensor in outline.items():
        theirs = foreign.names[name]
        stored = weights[theirs]
        if stored.shape != tuple(tensor.shape):
            raise CheckpointError(
                f"{stored.file}: {theirs!r} has shape {stored.shape}, the configuration asks for "
                f"{tuple(tensor.shape)}"
            )
        if stored.dtype not in FLOATS:
            raise CheckpointError(
                f"{stored.file}: {theirs!r} is {stored.dtype}, expected {', '.join(FLOATS)}"
            )
        wide.add(stored.dtype)
    if wide - {"F32"}:
        log.info("weights in %s are held as float32 here", ", ".join(sorted(wide - {"F32"})))
    model = models.from_definition(foreign.definition)
    assert isinstance(model, ByteModel), "no other kind is described"
    with torch.no_grad():
        for name, tensor in model.state_dict().items():
            theirs = foreign.names[name]
            weights[theirs].copy_to_(tensor, partial(foreign.convert, theirs))
    return model.eval()


def _require_names(names: Mapping[str, str], weights: Weights, folder: Path) -> None:
    wanted = set(names.values())
    for differing, are in (
        (sorted(wanted - weights.keys()), "missing"),
        (sorted(weights.keys() - wanted), "unknown to the configuration"),
    ):
        if differing:
            raise CheckpointError(
                f"{folder}: {len(differing)} weights are {are}, the first {differing[0]!r}; "
                "the configuration and the weights are not of one model"
            )
