"""Oracles: the recipe text, and rules written out by hand."""

import math
from dataclasses import replace
from pathlib import Path

import pytest

from bytelm import config as configuration
from bytelm.errors import ConfigError
from bytelm.models import BLTConfig, ByteGPTConfig, EntropyLMConfig, NgramConfig
from bytelm.patching import Entropy, Static
from bytelm.training.settings import (
    Calibrated,
    DataConfig,
    EntropyRecipe,
    EntropyRun,
    HardwareConfig,
    RunConfig,
    TrainingConfig,
)

RECIPE = """
[model]
kind = "blt"
[data]
paths = ["text"]
[patching]
kind = "calibrated"
mean_patch_bytes = 5
[entropy]
kind = "train"
[entropy.recipe.model]
kind = "entropy-lm"
dim = 32
[schedule]
kind = "cosine"
warmup_steps = 10
[training]
steps = 50
"""


def test_a_recipe_becomes_a_run_config_and_back(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    config = configuration.load(RunConfig, file, {"optim.matrix_lr": "0.01", "training.seed": "7"})
    assert config.patching == Calibrated(mean_patch_bytes=5.0)
    assert isinstance(config.entropy, EntropyRecipe)
    assert config.entropy.recipe.model == EntropyLMConfig(dim=32)
    assert (config.optim.matrix_lr, config.training.seed) == (0.01, 7)
    tables = configuration.to_dict(config.resolved())
    assert configuration.from_dict(RunConfig, tables) == config.resolved()


def test_resolving_makes_paths_absolute_and_hands_no_data_down(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    recipe = RunConfig(model=EntropyLMConfig())
    config = RunConfig(
        model=BLTConfig(),
        data=DataConfig(paths=("text", "-"), valid_fraction=0.2),
        patching=Entropy(threshold=1.0),
        entropy=EntropyRecipe(recipe=recipe),
        hardware=HardwareConfig(threads=3),
    )
    resolved = config.resolved()
    assert resolved.data.paths == (str(tmp_path / "text"), "-")
    assert resolved.entropy.recipe == recipe
    assert resolved.resolved() == resolved
    own = replace(recipe, data=DataConfig(paths=("other",)))
    resolved = replace(config, entropy=EntropyRecipe(recipe=own)).resolved()
    assert resolved.entropy.recipe.data.paths == (str(tmp_path / "other"),)
    resolved = replace(config, entropy=EntropyRun(path="run")).resolved()
    assert resolved.entropy.path == str(tmp_path / "run")


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: RunConfig(model=BLTConfig()), "'blt' needs a table `patching`"),
        (
            lambda: RunConfig(model=ByteGPTConfig(), patching=Static(patch_size=4)),
            "'byte-gpt' takes no table `patching`",
        ),
        (
            lambda: RunConfig(model=BLTConfig(), patching=Calibrated()),
            "'calibrated' patcher needs a table `entropy`",
        ),
        (
            lambda: RunConfig(
                model=BLTConfig(), patching=Static(patch_size=4), entropy=EntropyRun(path="x")
            ),
            "'static' patcher takes no `entropy`",
        ),
        (
            lambda: RunConfig(
                model=BLTConfig(),
                patching=Calibrated(),
                entropy=EntropyRecipe(recipe=RunConfig(model=ByteGPTConfig())),
            ),
            "'byte-gpt' gives no entropies",
        ),
        (lambda: DataConfig(valid_fraction=0.6, test_fraction=0.5), "got 0.6 and 0.5"),
        (lambda: TrainingConfig(steps=0), "steps must be at least 1, got 0"),
        (lambda: TrainingConfig(patience=0), "patience must be at least 1 or none"),
        (lambda: TrainingConfig(seed=-1), "seed must be >= 0"),
        (lambda: TrainingConfig(seed=10**20 - 1), r"below 2\*\*64, got 99999999999999999999"),
        (lambda: DataConfig(valid_fraction=math.nan), "got nan and 0.05"),
        (lambda: DataConfig(test_fraction=math.inf), "got 0.05 and inf"),
        (lambda: DataConfig(suffixes=("py",)), r"begin with a dot, like '.py'; got \['py'\]"),
        (lambda: DataConfig(stride=0), "stride must be at least 1 or none, got 0"),
        (lambda: DataConfig(split_seed=-1), "split_seed must be >= 0, got -1"),
        (
            lambda: RunConfig(model=EntropyLMConfig(context_bytes=32), data=DataConfig(stride=33)),
            r"stride is 33, more than model.context_bytes \(32\)",
        ),
        (lambda: HardwareConfig(threads=0), "threads must be at least 1"),
        (lambda: Calibrated(mean_patch_bytes=0.5), "at least 1, got 0.5"),
        (lambda: Calibrated(min_patch_bytes=4, max_patch_bytes=2), "max_patch_bytes"),
    ],
)
def test_settings_that_do_not_fit_are_refused(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_an_entropy_recipe_without_paths_has_no_data_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE + '[entropy.recipe.data]\nsuffixes = [".py"]\nsplit_seed = 3\n')
    with pytest.raises(ConfigError, match=r"data has suffixes, split_seed but no paths.*leave"):
        configuration.load(RunConfig, file, {})
    config = configuration.load(RunConfig, file, {"entropy.recipe.data.paths": "code"})
    assert config.entropy.recipe.data.suffixes == (".py",)


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("data.suffixes", "py"),
        ("data.stride", "0"),
        ("data.valid_fraction", "nan"),
        ("training.seed", "99999999999999999999"),
    ],
)
def test_flags_out_of_range_are_config_errors(tmp_path: Path, flag: str, value: str) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE)
    with pytest.raises(ConfigError, match=flag.split(".")[1]):
        configuration.load(RunConfig, file, {flag: value})


def test_an_ngram_model_may_give_entropies() -> None:
    recipe = RunConfig(model=NgramConfig())
    RunConfig(model=BLTConfig(), patching=Calibrated(), entropy=EntropyRecipe(recipe=recipe))


def test_a_refused_combination_names_the_file(tmp_path: Path) -> None:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE.replace('kind = "calibrated"\nmean_patch_bytes = 5', 'kind = "space"'))
    with pytest.raises(ConfigError, match=r"recipe.toml.*'space' patcher takes no `entropy`"):
        configuration.load(RunConfig, file, {})


def test_every_setting_has_a_docstring() -> None:
    assert [s.name for s in configuration.describe(RunConfig) if not s.doc] == []
