"""From a recipe's `patching` and `entropy` to a patcher with numbers and a trained source.

What an `EntropyRecipe` trains is kept in the cache under the hash of its settings and its data,
and used again by every run that says the same.
"""

import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bytelm.config import to_dict
from bytelm.data import Corpus
from bytelm.errors import ConfigError
from bytelm.files import cache_directory
from bytelm.models import EntropyLM, EntropySource, Ngram
from bytelm.models.entropy_lm import entropy_nats
from bytelm.patching import Patcher, calibrate_threshold
from bytelm.training.loading import load_model
from bytelm.training.settings import Calibrated, HardwareConfig, PatchingConfig, RunConfig
from bytelm.training.validation import READ_BYTES, sample_documents
from bytelm.vocab import BOS, OFFSET

CODE_VERSION = 1
"""Raised when the same recipe and data would train another entropy model than before."""

log = logging.getLogger(__name__)


def cached_run(recipe: RunConfig, fingerprint: str) -> Path:
    """The run directory, in the cache, of an entropy model.

    Args:
        recipe: Resolved.
        fingerprint: Of the corpus that it is trained on, before the split.

    """
    recipe = replace(
        recipe,
        hardware=HardwareConfig(),
        data=replace(recipe.data, paths=(), suffixes=()),
        training=replace(recipe.training, tensorboard=False),
    )
    key = json.dumps([CODE_VERSION, to_dict(recipe), fingerprint], sort_keys=True)
    return cache_directory() / "entropy" / hashlib.sha256(key.encode()).hexdigest()[:32]


def load_source(path: Path) -> EntropySource:
    """A trained entropy model or n-gram model, on the CPU.

    Raises:
        CheckpointError: There is none, or it is damaged.
        ConfigError: The run trained a model of another kind.

    """
    model = load_model(path)
    if not isinstance(model, EntropyLM | Ngram):
        raise ConfigError(
            f"entropy.path: {path} holds a model of kind {model.config.kind!r}, "
            f"expected {EntropyLM.__name__} or {Ngram.__name__}"
        )
    return model.eval()


def resolve_patcher(
    config: PatchingConfig, source: EntropySource | None, valid: Corpus, *, max_bytes: int
) -> tuple[Patcher, dict[str, Any]]:
    """The patcher with its threshold, and what was found out about it, JSON-able.

    Args:
        config: A patcher is returned as it is; `Calibrated` is measured.
        source: Gives the entropies.
        valid: Text for the measurement: held back from training, and not the test split.
        max_bytes: About the most bytes to measure.

    Raises:
        ConfigError: There is no text to measure.

    """
    if not isinstance(config, Calibrated):
        return config, {}
    assert source is not None, "checked by RunConfig"
    if not valid.num_bytes:
        raise ConfigError(
            "patching.kind is calibrated, but there is no validation text to calibrate on; "
            "use a data.valid_fraction above 0"
        )
    entropies = [document_entropies(source, data) for data in sample_documents(valid, max_bytes)]
    return calibrated(config, entropies)


def calibrated(
    config: Calibrated, entropies: Sequence[np.ndarray]
) -> tuple[Patcher, dict[str, Any]]:
    """The patcher with the threshold that some documents ask for, and what was found out.

    Args:
        config: What is wanted.
        entropies: Of each document, float32 nats of the prediction of each byte.

    """
    found = calibrate_threshold(
        entropies, mean_patch_bytes=config.mean_patch_bytes, patcher=config.start()
    )
    for warning in found.warnings:
        log.warning("calibration: %s", warning)
    log.info(
        "calibrated: threshold %.4f nats, %.2f bytes per patch",
        found.threshold,
        found.mean_patch_bytes,
    )
    report = {
        "threshold_nats": found.threshold,
        "mean_patch_bytes": found.mean_patch_bytes,
        "bytes": sum(map(len, entropies)),
        "warnings": list(found.warnings),
    }
    return found.patcher, report


def document_entropies(source: EntropySource, data: np.ndarray) -> np.ndarray:
    """Float32 nats of the prediction of each byte of one document, uint8 `[n]`."""
    if isinstance(source, Ngram):
        return source.document_entropies(data, data[:0])[: len(data)]
    ids = np.concatenate(([BOS], data.astype(np.int64) + OFFSET))[: len(data)]
    state, pieces, slot = source.begin(), [np.zeros(0, np.float32)], np.zeros(1, np.int64)
    with torch.inference_mode():
        for at in range(0, len(ids), READ_BYTES):
            part = ids[at : at + READ_BYTES]
            logits = source.read(part, np.array([len(part)]), slot, state)
            pieces.append(entropy_nats(logits).float().numpy())
    return np.concatenate(pieces)
