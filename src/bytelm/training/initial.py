"""The weights that a run begins with when they are another run's: its table `init`."""

import hashlib
import logging
from dataclasses import replace
from pathlib import Path

import torch

from bytelm.errors import ConfigError, RunError
from bytelm.models import BLT, AnyModel, ByteModel, Ngram
from bytelm.training.loading import load_model
from bytelm.training.settings import EntropyOfInit, Init, RunConfig

log = logging.getLogger(__name__)


def fingerprint_of(model: AnyModel) -> str:
    """SHA-256 over the names, shapes and values of all weights, those of the entropy model too."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {values.dtype} {tuple(values.shape)}\n".encode())
        digest.update(values.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()


def with_initial(config: RunConfig, path: Path | None = None) -> tuple[RunConfig, ByteModel]:
    """The settings with what `init` decides filled in, and the model that it names.

    Args:
        config: Resolved, with a table `init`.
        path: Where the model is, if that is not `init.path`.

    Returns:
        Model, patcher and entropy model of the settings are those of the stored one; the
        fingerprint is that of its weights.

    Raises:
        CheckpointError: There is no model, or it is damaged.
        ConfigError: It is one that cannot be trained.
        RunError: It is another than the settings were made with.

    """
    assert config.init is not None, "checked by the caller"
    named, known = config.init.path, config.init.fingerprint
    model = load_model(path or Path(named))
    if isinstance(model, Ngram):
        raise ConfigError(
            f"init: {named} holds an n-gram model, which is counted anew, not trained "
            "on; expected a byte-gpt, an entropy-lm or a blt"
        )
    found = fingerprint_of(model)
    if known not in (None, found):
        raise RunError(
            f"init.path: {named} holds other weights ({found[:12]}) than this run was "
            f"begun with ({known[:12]}); restore them, or choose another --out"
        )
    patcher = model.patcher if isinstance(model, BLT) else None
    filled = replace(
        config,
        model=model.config,
        patching=patcher,
        entropy=EntropyOfInit() if patcher is not None and patcher.needs_entropies else None,
        init=Init(path=named, fingerprint=found),
    )
    unused = [
        name
        for name in ("model", "patching", "entropy")
        if getattr(config, name) != getattr(filled, name)
    ]
    if unused:
        log.info("not used of the recipe: %s; %s brings its own", ", ".join(unused), named)
    return filled, model
