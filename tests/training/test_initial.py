"""Training that begins with other weights. Oracles: those weights, bit equality, messages."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bytelm import cli, config
from bytelm.errors import BytelmError, ConfigError, RunError
from bytelm.interop.huggingface import export_run, import_directory
from bytelm.models import NgramConfig
from bytelm.training.loading import load_model
from bytelm.training.optimizers import OptimConfig
from bytelm.training.run import RunConfig, train
from bytelm.training.settings import EntropyOfInit, EntropyRecipe, Init
from bytelm.training.step import Stepper
from training.kill_and_resume import content
from training.tiny_run import blt_config, entropy_config, write_files


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def places(tmp_path_factory) -> tuple[Path, Path, Path]:
    """Text, a trained blt with its entropy model, and its export."""
    folder = tmp_path_factory.mktemp("init")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BYTELM_CACHE", str(folder / "cache"))
        data = write_files(folder / "data")
        train(blt_config(data, steps=4), folder / "run", progress=False)
    export_run(folder / "run", folder / "exported")
    return data, folder / "run", folder / "exported"


def from_weights(data: Path, path: Path, **training) -> RunConfig:
    """A recipe of another model, whose weights are to be those at `path`."""
    recipe = entropy_config(data, seed=7, **training)
    return replace(recipe, init=Init(path=str(path)))


def test_the_run_begins_with_the_weights_and_has_their_model(places, tmp_path, caplog):
    """Oracle: with a learning rate of 1e-30 they stay what they are."""
    data, first, _ = places
    recipe = from_weights(data, first, steps=2)
    recipe = replace(
        recipe, optim=OptimConfig(lr=1e-30, matrix_lr=1e-30, hash_lr=1e-30, weight_decay=0.0)
    )
    with caplog.at_level("INFO"):
        train(recipe, tmp_path / "out", progress=False)
    before, after = load_model(first).state_dict(), load_model(tmp_path / "out").state_dict()
    assert before.keys() == after.keys()
    assert all(torch.allclose(before[n], after[n], rtol=0, atol=1e-20) for n in before)
    stored = config.load(RunConfig, tmp_path / "out" / "config.json")
    trained = load_model(first)
    assert (stored.model, stored.patching) == (trained.config, trained.patcher)
    assert stored.entropy == EntropyOfInit()
    assert stored.init.path == str(first)
    assert stored.training == recipe.training
    assert (
        f"not used of the recipe: model, patching, entropy; {first} brings its own" in caplog.text
    )


def crash_at(step: int, patch: pytest.MonkeyPatch) -> None:
    """Die in one update, as from a signal that nothing can catch."""
    update, calls = Stepper.update, iter(range(10_000))

    def dying(self, *args, **kwargs):
        if next(calls) == step:
            raise SystemExit(9)
        return update(self, *args, **kwargs)

    patch.setattr(Stepper, "update", dying)


def test_interrupted_anywhere_it_ends_as_if_it_had_not_been(places, tmp_path):
    """Before the first checkpoint, after it, and with the weights at another place."""
    data, first, _ = places
    recipe = from_weights(data, first)
    train(recipe, tmp_path / "straight", progress=False)
    for step in (1, 2, 5):
        with pytest.MonkeyPatch.context() as patch:
            crash_at(step, patch)
            with pytest.raises(SystemExit):
                train(recipe, tmp_path / "killed", progress=False)
    copy = shutil.copytree(first, tmp_path / "copy")
    train(replace(recipe, init=Init(path=str(copy))), tmp_path / "killed", progress=False)
    assert content(tmp_path / "killed") == content(tmp_path / "straight")


def test_other_weights_under_the_same_name_are_refused_by_name(places, tmp_path):
    data, first, _ = places
    own = shutil.copytree(first, tmp_path / "own")
    train(from_weights(data, own, steps=2), tmp_path / "out", progress=False)
    shutil.rmtree(own)
    train(blt_config(data, steps=3), own, progress=False)
    with pytest.raises(RunError, match=r"init\.fingerprint was"):
        train(from_weights(data, own, steps=2), tmp_path / "out", progress=False)
    repeated = config.load(RunConfig, tmp_path / "out" / "config.json")
    with pytest.raises(RunError, match="holds other weights"):
        train(repeated, tmp_path / "again", progress=False)


def test_a_recipe_that_contradicts_itself_is_refused(places, tmp_path):
    data, first, _ = places
    with pytest.raises(ValueError, match="no table `init`"):
        replace(blt_config(data), entropy=EntropyOfInit())
    inner = EntropyRecipe(recipe=from_weights(data, first))
    with pytest.raises(ValueError, match=r"entropy.recipe takes no table `init`"):
        replace(blt_config(data), entropy=inner)
    counted = replace(entropy_config(data), model=NgramConfig(order=2))
    train(counted, tmp_path / "counts", progress=False)
    with pytest.raises(ConfigError, match="n-gram model, which is counted anew"):
        train(from_weights(data, tmp_path / "counts"), tmp_path / "out", progress=False)


# --- the command line ---------------------------------------------------------------------------


def bytelm(*words: object) -> int:
    return cli.main([str(word) for word in words])


def recipe_file(folder: Path) -> Path:
    (folder / "tiny.toml").write_text(
        '[model]\nkind = "byte-gpt"\n[training]\nsteps = 2\nbatch_rows = 2\neval_bytes = 500\n'
        'precision = "fp32"\n[hardware]\ndevice = "cpu"\nthreads = 1\n'
    )
    return folder / "tiny.toml"


def test_import_export_and_train_from_the_command_line(places, tmp_path, capsys):
    data, first, _ = places
    exported, run, tuned = tmp_path / "out", tmp_path / "run", tmp_path / "tuned"
    assert bytelm("export", first, exported, "--json") == 0
    written = json.loads(capsys.readouterr().out)
    assert written["architecture"] == "BltForCausalLM"
    assert set(written["files"]) == {path.name for path in exported.iterdir()}
    assert bytelm("import", exported, run) == 0
    assert "blt imported from" in capsys.readouterr().out
    words = ("train", recipe_file(tmp_path), "--data", data, "--init", exported, "--out", tuned)
    assert bytelm(*words) == 0
    assert "not used of the recipe" in capsys.readouterr().err
    assert config.load(RunConfig, tuned / "config.json").init.path == str(exported)
    before = content(tuned)
    assert bytelm(*words) == 0
    assert content(tuned) == before
    capsys.readouterr()
    again = (tuned / "config.json", "--data", data, "--out", tmp_path / "again")
    assert bytelm("train", *again) == 0
    assert "not used" not in capsys.readouterr().err
    assert content(tmp_path / "again") == before


@pytest.mark.parametrize("flag", ["--model.dim", "--patching.threshold", "--entropy.path"])
def test_what_the_weights_fix_cannot_be_set_as_well(flag, places, tmp_path, capsys):
    words = ("--init", places[1], "--out", tmp_path / "out", "--model.kind", "byte-gpt", flag, "8")
    assert bytelm("train", recipe_file(tmp_path), *words) == 1
    assert "--model.kind cannot be set together with --init" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_an_imported_run_is_trained_in_another_directory(places, tmp_path, capsys):
    """A run of no steps has no optimizer to go on with."""
    data, _, exported = places
    import_directory(exported, tmp_path / "run")
    words = ("train", tmp_path / "run" / "config.json", "--data", data, "--out", tmp_path / "run")
    assert bytelm(*words) == 1
    assert "--init" in capsys.readouterr().err


def test_a_missing_directory_is_named(places, tmp_path):
    with pytest.raises(BytelmError, match="gone does not exist"):
        train(from_weights(places[0], tmp_path / "gone"), tmp_path / "out", progress=False)


def test_an_import_computes_what_the_run_computes(places, tmp_path):
    _, first, exported = places
    import_directory(exported, tmp_path / "run")
    ids = torch.tensor([[1, 104, 105, 36, 104]])
    with torch.no_grad():
        assert torch.equal(load_model(first)(ids), load_model(tmp_path / "run")(ids))
