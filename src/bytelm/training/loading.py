"""From a checkpoint folder to a model, without trusting the folder."""

from pathlib import Path

import torch

from bytelm.errors import CheckpointError
from bytelm.models import AnyModel, ByteModel, Seq2Seq, Seq2SeqConfig, from_definition
from bytelm.training import checkpoints
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.run_directory import CONFIG


def load_model(path: Path) -> ByteModel:
    """The model of a run directory (its best checkpoint, else its last) or of one checkpoint.

    Raises:
        CheckpointError: Missing, truncated, foreign, describing another model than it holds, or
            one that maps inputs to targets.

    """
    return build_byte_model(_open(path))


def load_seq2seq(path: Path) -> Seq2Seq:
    """The same for a model that maps inputs to targets, ready for use.

    Raises:
        CheckpointError: As of `load_model`, or it is a model of bytes.

    """
    model = build_stored(_open(path))
    if not isinstance(model, Seq2Seq):
        raise CheckpointError(
            f"{path} holds a model of kind {model.config.kind!r}, expected one that maps an input "
            f"to a target ({Seq2SeqConfig.kind!r}). `bytelm generate {path}` asks it"
        )
    return model.eval()


def _open(path: Path) -> Checkpoint:
    try:
        folder = checkpoints.find(path)
    except CheckpointError:
        _refuse_transformers(path)
        raise
    return checkpoints.read(folder)


def _refuse_transformers(path: Path) -> None:
    file = path / CONFIG
    if file.is_file() and "model_type" in checkpoints.read_json(file, advice="restore it"):
        raise CheckpointError(
            f"{path} is a directory of transformers, expected a run directory or a checkpoint; "
            f"`bytelm import {path} RUN` makes a run of it"
        )


def build_stored(checkpoint: Checkpoint) -> AnyModel:
    """Build the model of an open checkpoint and load its weights.

    Nothing is allocated before the definition was found to describe no more than the weight file
    holds: a file that is passed around must not be able to ask for any amount of memory.

    Raises:
        CheckpointError: Definition and weights do not belong together.

    """
    try:
        with torch.device("meta"):
            outline = from_definition(checkpoint.definition)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
        raise CheckpointError(
            f"{checkpoint.path} does not define a model of this version: {error}"
        ) from error
    wanted = sum(p.numel() * p.element_size() for p in outline.parameters())
    stored = (checkpoint.path / checkpoints.MODEL).stat().st_size
    if wanted > stored:
        raise CheckpointError(
            f"{checkpoint.path} defines a model of {wanted:,} bytes, but its weights have "
            f"{stored:,}: it is damaged or was tampered with; use another checkpoint"
        )
    model = from_definition(checkpoint.definition)
    checkpoint.load_model_(model)
    return model


def build_byte_model(checkpoint: Checkpoint) -> ByteModel:
    """The same for a checkpoint that must hold a model of bytes.

    Raises:
        CheckpointError: As of `build_stored`, or it maps inputs to targets.

    """
    model = build_stored(checkpoint)
    if isinstance(model, Seq2Seq):
        raise CheckpointError(
            f"{checkpoint.path} holds a model of kind {model.config.kind!r}, which maps an input "
            f"to a target; expected a model of bytes. `bytelm chat {checkpoint.path}` asks it"
        )
    return model
