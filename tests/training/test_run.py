"""Oracles: a run that was never interrupted, and hand-made changes that must be refused."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from kill_and_resume import content, count_rows
from tiny_run import blt_config, entropy_config, write_files

from bytelm import config as configuration
from bytelm.data import Splits
from bytelm.errors import CheckpointError, ConfigError, DataError, RunError
from bytelm.models import BLT, Ngram, NgramConfig, from_definition
from bytelm.training import checkpoints, metrics, resume, run_directory
from bytelm.training.checkpoints import Checkpoint
from bytelm.training.loop import RunState
from bytelm.training.optimizers import OptimConfig
from bytelm.training.run import (
    Calibrated,
    EntropyRecipe,
    EntropyRun,
    HardwareConfig,
    RunConfig,
    train,
)
from bytelm.training.step import NotFiniteError, Stepper
from bytelm.training.validation import Validation


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("BYTELM_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_files(tmp_path / "data")


def run(config: RunConfig, out: Path):
    return train(config, out, progress=False)


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch, number=signal.SIGINT) -> None:
    """Send a signal during one update."""
    update, calls = Stepper.update, iter(range(10_000))

    def signalling(self, *arguments, **keywords):
        if next(calls) == step:
            os.kill(os.getpid(), number)
        return update(self, *arguments, **keywords)

    monkeypatch.setattr(Stepper, "update", signalling)


def loaded(out: Path) -> torch.nn.Module:
    checkpoint = checkpoints.read(checkpoints.find(out))
    model = from_definition(checkpoint.definition)
    checkpoint.load_model_(model)
    return model


def test_a_run_leaves_what_the_design_promises(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "runs" / "toy"
    result = run(entropy_config(data), out)
    assert (result.run_dir, result.steps, result.stopped_early) == (out, 12, False)
    rows = metrics.read(out)
    assert [row["step"] for row in rows] == list(range(1, 13))
    valid = {row["step"]: row["valid_bpb"] for row in rows if row["valid_bpb"] is not None}
    assert sorted(valid) == [4, 8, 12]
    assert result.best_valid_bpb == min(valid.values()) < 8
    assert checkpoints.find(out).name == f"step-{min(valid, key=valid.get)}"
    assert checkpoints.pointed(out, "last").name == "step-12"
    stored = json.loads((out / "config.json").read_text())
    assert configuration.from_dict(RunConfig, stored) == entropy_config(data).resolved()
    environment = json.loads((out / "environment.json").read_text())
    assert set(environment["data"]["bytes"]) == {"train", "valid", "test"}
    assert environment["starts"][0]["packages"]["torch"] == torch.__version__
    assert loaded(out).config == entropy_config(data).model


def test_two_runs_of_one_seed_are_equal_and_another_seed_is_not(tmp_path, data) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(entropy_config(data, seed=seed, steps=4), tmp_path / name)
    a, b, c = (content(tmp_path / name) for name in "abc")
    assert a == b
    assert a != c


def test_the_config_of_a_run_repeats_it(tmp_path: Path, data: Path, monkeypatch) -> None:
    monkeypatch.chdir(data)
    run(entropy_config(Path(), steps=4), tmp_path / "first")
    monkeypatch.chdir(tmp_path)
    repeated = configuration.load(RunConfig, tmp_path / "first" / "config.json", {})
    run(repeated, tmp_path / "second")
    assert content(tmp_path / "first") == content(tmp_path / "second")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_saves_and_goes_on_bit_for_bit(
    tmp_path: Path, data: Path, number: signal.Signals
) -> None:
    config = entropy_config(data)
    run(config, tmp_path / "straight")
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(4, patch, number)
        with pytest.raises(KeyboardInterrupt):
            run(config, tmp_path / "interrupted")
    assert checkpoints.pointed(tmp_path / "interrupted", "last").name == "step-5"
    run(config, tmp_path / "interrupted")
    assert content(tmp_path / "straight") == content(tmp_path / "interrupted")


def kill_and_resume(model: str, tmp_path: Path, kills: int) -> None:
    script = Path(__file__).with_name("kill_and_resume.py")
    done = subprocess.run(
        [sys.executable, str(script), model, str(tmp_path / "kills"), str(kills), "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert f"identical after {kills} kills" in done.stdout


def test_sigkill_three_times_then_resume_is_bit_exact(tmp_path: Path) -> None:
    kill_and_resume("blt", tmp_path, 3)


@pytest.mark.slow
@pytest.mark.parametrize("model", ["blt", "pairs"])
def test_sigkill_ten_times_then_resume_is_bit_exact(tmp_path: Path, model: str) -> None:
    kill_and_resume(model, tmp_path, 10)


def test_a_finished_run_is_left_alone(tmp_path: Path, data: Path) -> None:
    config, out = entropy_config(data, steps=4), tmp_path / "out"
    first = run(config, out)
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*.*") if p.name != ".lock"}
    assert run(config, out) == first
    assert {p: p.stat().st_mtime_ns for p in before if p.name not in ("best", "last")} == before


def test_other_settings_are_refused_by_name(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    config = blt_config(data, steps=2)
    run(config, out)
    other = replace(
        config,
        optim=OptimConfig(lr=0.5),
        training=replace(config.training, steps=9),
        patching=Calibrated(mean_patch_bytes=3.5),
    )
    with pytest.raises(RunError) as caught:
        run(other, out)
    message = str(caught.value)
    for difference in (
        "optim.lr was 0.006, is now 0.5",
        "training.steps was 2, is now 9",
        "patching.mean_patch_bytes was 3.0, is now 3.5",
        "choose another --out",
    ):
        assert difference in message


def test_another_machine_is_no_other_setting(tmp_path: Path, data: Path) -> None:
    config, out = entropy_config(data, steps=2), tmp_path / "out"
    first = run(config, out)
    assert run(replace(config, hardware=HardwareConfig(device="cpu")), out) == first


def test_moved_data_is_the_same_and_changed_data_is_refused(tmp_path, data, monkeypatch) -> None:
    config, out = entropy_config(data), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    other = write_files(tmp_path / "other", seed=1)
    with pytest.raises(RunError, match=r"other data: data\.paths was"):
        run(entropy_config(other), out)
    moved = tmp_path / "moved"
    data.rename(moved)
    assert run(entropy_config(moved), out).steps == 12


def test_two_at_once_are_refused(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    with (
        run_directory.locked(out),
        pytest.raises(RunError, match=f"in use by process {os.getpid()}"),
    ):
        run(entropy_config(data), out)
    assert run(entropy_config(data, steps=1), out).steps == 1


def test_a_folder_of_other_things_is_refused(tmp_path: Path, data: Path) -> None:
    with pytest.raises(RunError, match=r"holds no run \('00.txt' is in it\)"):
        run(entropy_config(data), data)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(RunError, match="cannot be a run directory"):
        run(entropy_config(data), blocked / "out")


def test_what_a_kill_left_half_written_is_no_other_thing(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / ".tmp-config.json").write_text('{"model"')
    assert run(entropy_config(data, steps=1), out).steps == 1
    assert not (out / ".tmp-config.json").exists()


@pytest.mark.parametrize("name", ["config.json", "environment.json"])
@pytest.mark.parametrize("content", ['{"data": {"fin', "[]", "[" * 100_000, "\xff"])
def test_a_damaged_record_is_refused_by_name(tmp_path, data, name: str, content: str) -> None:
    config, out = entropy_config(data), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    (out / name).write_text(content, encoding="latin-1")
    with pytest.raises(CheckpointError, match=rf"{name} .*choose another --out"):
        run(config, out)


def test_environment_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "environment.json").write_text('{"data": 3}')
    with pytest.raises(CheckpointError, match=r"environment\.json is not what bytelm writes"):
        run_directory.read_environment(tmp_path)


RUN_STATE = RunState(micro_rows=2, step=3, valid_history=[2.0], best_step=3).to_dict()


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"run": RUN_STATE},
        {"run": [], "scaler": {}},
        {"run": {**RUN_STATE, "step": "3"}, "scaler": {}},
        {"run": {**RUN_STATE, "micro_rows": 0}, "scaler": {}},
        {"run": {**RUN_STATE, "valid_history": None}, "scaler": {}},
        {"run": {**RUN_STATE, "later": 1}, "scaler": {}},
    ],
)
def test_a_state_that_is_none_is_refused(tmp_path: Path, state: dict) -> None:
    checkpoint = Checkpoint(path=tmp_path / "step-3", definition={}, state=state)
    with pytest.raises(CheckpointError, match=r"step-3/state\.json .*use another checkpoint"):
        resume.state_of(checkpoint)


def test_mistakes_about_data_leave_the_folder_free(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="--data PATH"):
        run(entropy_config(None), out)
    with pytest.raises(DataError):
        run(entropy_config(tmp_path / "nowhere"), out)
    assert run(entropy_config(data, steps=1), out).steps == 1


def test_a_loss_that_is_no_number_ends_with_advice(tmp_path, data, monkeypatch) -> None:
    update, calls, out = Stepper.update, iter(range(100)), tmp_path / "out"

    def breaking(self, *arguments, **keywords):
        if next(calls) == 4:
            raise NotFiniteError("the loss is nan")
        return update(self, *arguments, **keywords)

    monkeypatch.setattr(Stepper, "update", breaking)
    with pytest.raises(RunError) as caught:
        run(entropy_config(data), out)
    message = str(caught.value)
    for part in ("step 5: the loss is nan", "step-4", "optim.lr", "optim.matrix_lr", "fp32"):
        assert part in message
    checkpoints.read(out / "checkpoints" / "step-4")


def test_huge_learning_rates_meet_the_guard(tmp_path: Path, data: Path) -> None:
    config = replace(
        entropy_config(data, steps=12),
        optim=OptimConfig(lr=1e30, matrices="adamw", clip_norm=None),
    )
    with pytest.raises(RunError, match=r"weights|broken"):
        run(config, tmp_path / "out")


def test_one_row_that_does_not_fit_says_so(tmp_path, data, monkeypatch) -> None:
    def full(self, *arguments, **keywords):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Stepper, "update", full)
    with pytest.raises(RunError, match=r"single row; lower model\.context_bytes \(now 32\)"):
        run(entropy_config(data), tmp_path / "out")


def test_validation_takes_the_rows_that_fit_into_memory(tmp_path, data, monkeypatch) -> None:
    measured, update = [], Stepper.update
    bits_per_byte = Validation.bits_per_byte

    def halved(self, batch, *, micro_rows, lr_scale):
        return replace(update(self, batch, micro_rows=1, lr_scale=lr_scale), micro_rows=1)

    def watched(self, *arguments, rows, **keywords):
        measured.append(rows)
        return bits_per_byte(self, *arguments, rows=rows, **keywords)

    monkeypatch.setattr(Stepper, "update", halved)
    monkeypatch.setattr(Validation, "bits_per_byte", watched)
    run(entropy_config(data, steps=4), tmp_path / "out")
    assert measured == [1]


def test_patience_stops_a_run_and_stays_stopped(tmp_path, data, monkeypatch) -> None:
    values = iter([3.0, 2.0, 2.5, 2.5, 1.0])
    monkeypatch.setattr(Validation, "bits_per_byte", lambda self, *a, **k: next(values))
    config = entropy_config(data, eval_every=1, patience=2)
    result = run(config, tmp_path / "out")
    assert (result.steps, result.best_valid_bpb, result.stopped_early) == (4, 2.0, True)
    assert run(config, tmp_path / "out") == result
    assert checkpoints.find(tmp_path / "out").name == "step-2"


def test_keep_every_keeps_more_than_best_and_last(tmp_path: Path, data: Path) -> None:
    out = tmp_path / "out"
    run(entropy_config(data, keep_every=6, save_every=2), out)
    names = {path.name for path in (out / "checkpoints").iterdir()}
    best = checkpoints.pointed(out, "best").name
    assert names == {"step-6", "step-12", best}


def test_a_blt_trains_its_entropy_model_first_and_only_once(tmp_path, data, cache, caplog) -> None:
    caplog.set_level(logging.INFO)
    config = blt_config(data, steps=2)
    run(config, tmp_path / "a")
    (entropy_run,) = (cache / "entropy").iterdir()
    before = (entropy_run / "environment.json").read_bytes()
    run(replace(config, training=replace(config.training, seed=5)), tmp_path / "b")
    assert (entropy_run / "environment.json").read_bytes() == before
    model = loaded(tmp_path / "a")
    assert isinstance(model, BLT)
    source = loaded(entropy_run)
    for name, tensor in source.state_dict().items():
        assert torch.equal(tensor, model.entropy_model.state_dict()[name])
    start = json.loads((tmp_path / "a" / "environment.json").read_text())["starts"][0]
    assert model.patcher.threshold == start["calibration"]["threshold_nats"]
    assert start["calibration"]["mean_patch_bytes"] == pytest.approx(3.0, rel=0.02)
    other = replace(config.entropy.recipe, training=replace(config.training, steps=3))
    run(replace(config, entropy=EntropyRecipe(recipe=other)), tmp_path / "c")
    assert len(list((cache / "entropy").iterdir())) == 2


def test_a_resumed_blt_needs_no_entropy_model(tmp_path, data, cache, monkeypatch) -> None:
    config, out = blt_config(data), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(10, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    for path in sorted((cache / "entropy").rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert run(config, out).steps == 12
    assert list((cache / "entropy").iterdir()) == []


def test_an_ngram_model_is_counted_and_serves_a_blt(tmp_path: Path, data: Path) -> None:
    config = replace(entropy_config(data), model=NgramConfig(order=3))
    result = run(config, tmp_path / "ngram")
    assert result.steps == 0
    assert 0 < result.best_valid_bpb < 8
    assert isinstance(loaded(tmp_path / "ngram"), Ngram)
    assert run(config, tmp_path / "ngram") == result
    blt = replace(blt_config(data, steps=2), entropy=EntropyRun(path=str(tmp_path / "ngram")))
    run(blt, tmp_path / "blt")
    assert isinstance(loaded(tmp_path / "blt").entropy_model, Ngram)


def test_a_run_repeated_with_other_data_has_an_entropy_model_of_them(tmp_path, data, cache) -> None:
    run(blt_config(data, steps=1), tmp_path / "first")
    other = write_files(tmp_path / "other", seed=1)
    file = tmp_path / "first" / "config.json"
    repeated = configuration.load(RunConfig, file, {"data.paths": str(other)})
    run(repeated, tmp_path / "second")
    stored = [json.loads(p.read_text()) for p in (cache / "entropy").glob("*/config.json")]
    assert sorted(config["data"]["paths"] for config in stored) == [[str(data)], [str(other)]]
    run(configuration.load(RunConfig, file, {}), tmp_path / "third")
    assert content(tmp_path / "third") == content(tmp_path / "first")
    assert len(list((cache / "entropy").iterdir())) == 2


def test_an_entropy_model_of_the_same_paths_may_take_other_suffixes(tmp_path, data, cache) -> None:
    (data / "code.py").write_text("pass\n" * 400)
    config = blt_config(data, steps=1)
    own = replace(config.data, suffixes=(".py",))
    recipe = replace(config.entropy.recipe, data=own)
    run(replace(config, entropy=EntropyRecipe(recipe=recipe)), tmp_path / "out")
    (record,) = (cache / "entropy").glob("*/environment.json")
    assert sum(json.loads(record.read_text())["data"]["bytes"].values()) == 2000


def test_repeated_files_are_recorded_and_warned_of(tmp_path, data, caplog, monkeypatch) -> None:
    text = (data / "00.txt").read_text()
    for path in data.iterdir():
        path.write_text(text)
    config, out = entropy_config(data), tmp_path / "out"
    with pytest.MonkeyPatch.context() as patch:
        interrupt_at(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run(config, out)
    first = json.loads((out / "environment.json").read_text())["data"]["overlap"]
    assert (first["valid"], first["test"]) == (1.0, 1.0)
    assert {Path(pair["train"]).parent for pair in first["duplicates"]} == {data}
    assert "100 % of the validation bytes occur in the training data" in caplog.text
    assert "will look better than on new text" in caplog.text
    assert f"{len(first['duplicates'])} held-out files are copies" in caplog.text
    caplog.clear()
    monkeypatch.setattr(Splits, "overlap", None)
    run(config, out)
    assert json.loads((out / "environment.json").read_text())["data"]["overlap"] == first
    assert caplog.text == ""


def test_text_that_repeats_little_is_not_warned_of(tmp_path, data, caplog) -> None:
    run(entropy_config(data, steps=1), tmp_path / "out")
    environment = json.loads((tmp_path / "out" / "environment.json").read_text())
    assert environment["data"]["overlap"] == {"valid": 0.0, "test": 0.0, "duplicates": []}
    assert caplog.text == ""


def test_an_ngram_model_needs_a_byte_of_text(tmp_path: Path) -> None:
    (tmp_path / "empty").touch()
    config = replace(entropy_config(tmp_path / "empty"), model=NgramConfig(order=3))
    with pytest.raises(DataError, match="training split has no bytes"):
        run(config, tmp_path / "out")
    assert not (tmp_path / "out" / "checkpoints").exists()


def test_a_blt_gives_no_entropies(tmp_path: Path, data: Path) -> None:
    run(blt_config(data, steps=1), tmp_path / "blt")
    config = replace(blt_config(data), entropy=EntropyRun(path=str(tmp_path / "blt")))
    with pytest.raises(ConfigError, match="kind 'blt'"):
        run(config, tmp_path / "out")


def test_no_validation_text(tmp_path: Path, data: Path) -> None:
    config = entropy_config(data, steps=2)
    config = replace(config, data=replace(config.data, valid_fraction=0.0))
    result = run(config, tmp_path / "out")
    assert result.best_valid_bpb is None
    assert checkpoints.find(tmp_path / "out").name == "step-2"
    blt = blt_config(data)
    with pytest.raises(ConfigError, match="no validation text"):
        run(replace(blt, data=config.data), tmp_path / "blt")


def test_global_state_is_left_as_found(tmp_path: Path, data: Path) -> None:
    random = torch.get_rng_state()
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run(entropy_config(data, steps=1), tmp_path / "out")
    assert torch.equal(torch.get_rng_state(), random)
    assert not torch.are_deterministic_algorithms_enabled()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == handlers


def test_progress_goes_to_stderr_only(tmp_path: Path, data: Path, capsys) -> None:
    train(entropy_config(data, steps=2), tmp_path / "toy")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "entropy-lm toy: step 2/2" in captured.err


def test_ctrl_c_on_the_command_line_exits_130_and_goes_on(tmp_path: Path, data: Path) -> None:
    config, out = entropy_config(data, steps=40, save_every=1000), tmp_path / "out"
    recipe = tmp_path / "recipe.json"
    recipe.write_text(json.dumps(run_directory.as_json(config)))
    command = [sys.executable, "-m", "bytelm", "train", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    while count_rows(out) < 2 and process.poll() is None:
        time.sleep(0.001)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert count_rows(out) < 40
    assert subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0
    run(config, tmp_path / "straight")
    assert content(out) == content(tmp_path / "straight")
