"""Files and settings of runs that take a second, for tests and for `kill_and_resume.py`."""

import random
from dataclasses import replace
from pathlib import Path

from bytelm.models import BLTConfig, EntropyLMConfig
from bytelm.training.run import (
    Calibrated,
    DataConfig,
    EntropyRecipe,
    HardwareConfig,
    RunConfig,
    TrainingConfig,
)
from bytelm.training.schedules import Plateau

WORDS = ["the", "cat", "sat", "on", "a", "mat", "and", "saw", "1234", "bytes;", "slept.\n"]


def write_files(folder: Path, *, seed: int = 0, files: int = 12, words: int = 150) -> Path:
    """Fill a folder with text that is easy to predict."""
    folder.mkdir(parents=True)
    generator = random.Random(seed)
    for index in range(files):
        text = " ".join(generator.choices(WORDS, k=words))
        (folder / f"{index:02}.txt").write_text(text)
    return folder


def entropy_config(data: Path | None, **training) -> RunConfig:
    """A small entropy model; every evaluation and checkpoint path is used within `steps`."""
    settings = {
        "steps": 12,
        "batch_rows": 2,
        "accumulate": 2,
        "precision": "fp32",
        "eval_every": 4,
        "eval_bytes": 500,
        "save_every": 3,
    }
    return RunConfig(
        model=EntropyLMConfig(context_bytes=32, dim=16, n_layers=1, n_heads=2, window=16),
        data=DataConfig(paths=() if data is None else (str(data),)),
        schedule=Plateau(patience=1, warmup_steps=2),
        training=TrainingConfig(**{**settings, **training}),
        hardware=HardwareConfig(device="cpu", threads=1),
    )


def blt_config(data: Path, **training) -> RunConfig:
    """A small BLT whose entropy model is trained first."""
    base = entropy_config(data, **training)
    return replace(
        base,
        model=BLTConfig(
            context_bytes=32,
            dim=16,
            n_heads=2,
            n_layers_decoder=1,
            dim_global=32,
            n_heads_global=2,
            n_layers_global=1,
            ngram_sizes=(3, 4),
            num_buckets=64,
        ),
        patching=Calibrated(mean_patch_bytes=3.0),
        entropy=EntropyRecipe(recipe=entropy_config(None, steps=4)),
    )
