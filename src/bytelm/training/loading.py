"""From a checkpoint folder to a model, without trusting the folder."""

from pathlib import Path

import torch

from bytelm.errors import CheckpointError
from bytelm.models import ByteModel, from_definition
from bytelm.training import checkpoints
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.run_directory import CONFIG


def load_model(path: Path) -> ByteModel:
    """The model of a run directory (its best checkpoint, else its last) or of one checkpoint.

    Raises:
        CheckpointError: Missing, truncated, foreign, or describing another model than it holds.

    """
    try:
        folder = checkpoints.find(path)
    except CheckpointError:
        _refuse_transformers(path)
        raise
    return build_stored(checkpoints.read(folder))


def _refuse_transformers(path: Path) -> None:
    file = path / CONFIG
    if file.is_file() and "model_type" in checkpoints.read_json(file, advice="restore it"):
        raise CheckpointError(
            f"{path} is a directory of transformers, expected a run directory or a checkpoint; "
            f"`bytelm import {path} RUN` makes a run of it"
        )


def build_stored(checkpoint: Checkpoint) -> ByteModel:
    """Build the model of an open checkpoint and load its weights.

    Nothing is allocated before the definition was found to describe no more than the weight file
    holds: a file that is passed around must not be able to ask for any amount of memory.

    Raises:
        CheckpointError: Definition and weights do not belong together.

    """
    try:
        with torch.device("meta"):
            outline = from_definition(checkpoint.definition)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
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
