"""Law 5: nothing can be learned from uniform random bytes. Oracle: their entropy, 8 bits."""

from dataclasses import replace
from pathlib import Path

import pytest

import bytelm
from bytelm.config import load
from bytelm.data import random_bytes
from bytelm.training.run import RunConfig, train

SAMPLING = 0.001
"""Bits by which a finite sample of random bytes may fall below 8."""

RECIPES = {
    "ngram": {},
    "entropy-test": {"training.steps": 60},
    "byte-gpt-tiny": {"training.steps": 60},
    "blt-tiny": {"training.steps": 40, "entropy.recipe.training.steps": 20},
    "blt-space": {
        "training.steps": 40,
        "patching.kind": "space",
        "patching.max_patch_bytes": "6",
        "entropy": "none",
    },
}


@pytest.mark.parametrize("name", RECIPES)
def test_random_bytes_cost_eight_bits(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    data = tmp_path / "random.bin"
    data.write_bytes(random_bytes(400_000, seed=1))
    settings = {"data.paths": (str(data),), "hardware.threads": 1, **RECIPES[name]}
    recipe = "blt-tiny" if name == "blt-space" else name
    config = load(RunConfig, recipe, settings)
    if name != "ngram":
        training = replace(config.training, eval_every=30, eval_bytes=5_000)
        config = replace(config, training=training)
    result = train(config, tmp_path / "run", progress=False)
    bpb = bytelm.load(result.run_dir).bits_per_byte(random_bytes(40_000, seed=2))
    assert 8 - SAMPLING <= bpb <= 8.05
