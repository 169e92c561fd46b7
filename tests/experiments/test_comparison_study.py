"""A whole comparison, as small as it can be. Oracles: the models loaded again, the system's own
record of what was opened, a study that was never killed."""

import errno
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from comparison_plans import FAILING, smoke_plan, tuned_plan, write_rows

from bytelm import config
from bytelm.data.pairs import read_pairs
from bytelm.decoding.beam import Beams
from bytelm.decoding.seq2seq import transduce
from bytelm.errors import ConfigError
from bytelm.experiments import Plan, Record, rebuild, results, run_plan
from bytelm.experiments.comparison import ComparisonPlan, Rows, keep_best, list_stages
from bytelm.experiments.comparison.space import SearchConfig
from bytelm.experiments.runner import Work, run_stages, stage_keys
from bytelm.experiments.store import Store
from bytelm.training import checkpoints, run_directory
from bytelm.training.initial import fingerprint_of
from bytelm.training.loading import load_seq2seq
from bytelm.training.step import Stepper

OPENED: list[str] | None = None
"""Files that were opened, in order, while it is a list."""


def note(event: str, arguments: tuple) -> None:
    if OPENED is not None and event == "open":
        OPENED.append(str(arguments[0]))


sys.addaudithook(note)


def opened(plan, out: Path) -> list[str]:
    """The files that a study opens, in order."""
    global OPENED
    OPENED = []
    try:
        run_plan(plan, out)
        return OPENED
    finally:
        OPENED = None


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Record, Path, Path, list[str]]:
    folder = write_rows(tmp_path_factory.mktemp("study"))
    out = folder / "out"
    paths = opened(tuned_plan(folder), out)
    return results.read(out), out, folder, paths


def run_of(record: Record, out: Path, name: str) -> Path:
    stage = next(stage for stage in record.stages if stage.name == name)
    return out / "runs" / f"{stage.task}-{stage.key}"


def staged(plan: ComparisonPlan, out: Path, *tasks: str) -> Record:
    """The stages of some tasks alone, without a report."""
    plan = plan.resolved()
    rows = Rows(plan)
    chosen = [stage for stage in list_stages(plan, rows) if stage.task in tasks]
    made = run_stages(chosen, Store(out), on_change=lambda _: None)
    return Record(plan={}, data=rows.describe(), stages=tuple(made), environment={})


def test_every_stage_is_done_and_in_the_report(study):
    record, out, _, _ = study
    assert record.missing == []
    report = (out / "results" / "experimental_report.txt").read_text()
    for title in (
        "Experimental Configuration",
        "Hyperparameter Analysis",
        "Statistical Analysis",
        "Performance Breakdown by Input Length",
        "Key Findings",
        "Conclusions",
    ):
        assert f"\n{title}\n-" in report
    assert "nan" not in report.split()


# --- the test file -----------------------------------------------------------------------------


def test_the_test_file_is_opened_once_and_after_all_trainings(study):
    """Oracle: every `open` of the process, as the interpreter reports it."""
    _, out, folder, paths = study
    test = [index for index, path in enumerate(paths) if path == str(folder / "test.csv")]
    assert len(test) == 1
    train = [index for index, path in enumerate(paths) if path == str(folder / "train.csv")]
    assert len(train) == 1
    trained = [
        index
        for index, path in enumerate(paths)
        if path.startswith(str(out / "runs" / "train-")) and path.endswith("metrics.jsonl")
    ]
    searched = [i for i, path in enumerate(paths) if "/runs/search-" in path]
    predicted = [i for i, path in enumerate(paths) if "/stages/.tmp-predict-" in path]
    assert trained
    assert searched
    assert len(predicted) == 10
    assert max(searched) < min(trained)
    assert max(trained) < test[0] < min(predicted)


# --- values ------------------------------------------------------------------------------------


def test_the_rows_are_those_of_the_files(study):
    record, _, folder, _ = study
    pairs = read_pairs(folder / "test.csv", max_bytes=30)
    values = record.values("test")
    assert values["pairs"] == [[pair.input, pair.target] for pair in pairs]
    assert values["shared_with_train"] == 0
    assert record.data["rows"] == {"train": 38, "valid": 10, "test": None}


@pytest.mark.parametrize("arm", ["blt", "baseline", "blt 4"])
def test_the_figures_are_those_of_the_models_it_trained(study, arm):
    record, out, _, _ = study
    values = record.values(f"train {arm} seed 0")
    model = load_seq2seq(run_of(record, out, f"train {arm} seed 0"))
    assert values["weights"] == fingerprint_of(model)
    assert values["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert values["run"]["model"] == config.to_dict(model.config)
    assert [row["epoch"] for row in values["history"]] == [1, 2]
    best = min(values["history"], key=lambda row: row["valid_bpb"])
    assert values["best_epoch"] == best["epoch"]
    assert values["best_valid_bpb"] == best["valid_bpb"]
    assert (values["mean_patch_bytes"] is None) == (arm == "baseline")


def test_the_models_match(study):
    record = study[0]
    sizes = [record.values(f"train {arm} seed 0")["parameters"] for arm in ("blt", "baseline")]
    assert max(sizes) / min(sizes) < 1.05


@pytest.mark.parametrize("how", ["greedy", "beam 2"])
@pytest.mark.parametrize("arm", ["blt", "baseline"])
def test_predictions_are_what_the_model_writes_for_each_row_alone(study, arm, how):
    record, out, _, _ = study
    model = load_seq2seq(run_of(record, out, f"train {arm} seed 1"))
    values = record.values(f"predict {arm} seed 1 {how}")
    pairs = record.values("test")["pairs"]
    beams = Beams(beams=values["beam_width"], length_penalty=values["length_penalty"])
    assert (values["arm"], values["seed"]) == (arm, 1)
    for row in (0, 7):
        ((alone, *_),) = transduce(model, [pairs[row][0].encode()], beams=beams)
        assert values["predictions"][row] == alone.text.decode(errors="replace")
        assert values["log_probs"][row] == pytest.approx(alone.log_prob, rel=1e-4)
    if arm == "baseline":
        assert values["patch_lengths"] is None
        return
    for (text, _), lengths in zip(pairs, values["patch_lengths"], strict=True):
        (starts,) = model.patch_starts([text.encode()])
        assert sum(lengths) == len(text.encode())
        assert np.flatnonzero(starts).tolist() == np.cumsum([0, *lengths[:-1]]).tolist()


def test_both_models_are_searched_alike_and_trained_with_what_was_best(study):
    record = study[0]
    for model in ("blt", "baseline"):
        values = record.values(f"search {model}")
        assert (values["epochs"], values["budget"], len(values["trials"])) == (1, 3, 3)
        best = min(values["trials"], key=lambda trial: trial["valid_bpb"])
        assert (values["best"], values["best_params"]) == (best["index"], best["params"])
        assert set(values["best_params"]) == set(values["space"])
        for arm in (model, "blt 4") if model == "blt" else (model,):
            run = record.values(f"train {arm} seed 0")["run"]
            assert run["optim"]["lr"] == best["params"]["optim.lr"]
            assert run["training"]["batch_rows"] == best["params"]["training.batch_rows"]
            assert run["training"]["epochs"] == 2
        assert len(record.timing(f"search {model}")["trial_seconds"]) == 3


def test_speed_is_of_both_models_in_every_round(study):
    timing = study[0].timing("speed")
    rates = [timing["train_examples_per_second"], *timing["decode_rows_per_second"].values()]
    assert timing["decode_rows_per_second"].keys() == {"greedy", "beam 2"}
    for rate in rates:
        assert rate.keys() == {"blt", "baseline"}
        assert all(len(rounds) == 3 and min(rounds) > 0 for rounds in rate.values())
    trained = study[0].timing("train blt seed 0")
    assert len(trained["epoch_seconds"]) == 2
    assert trained["seconds"] == pytest.approx(sum(trained["epoch_seconds"]))
    assert trained["examples_per_second"] * trained["seconds"] >= 2 * 38
    assert trained["automatic"]["micro_rows"].keys() == {"choice", "why"}


# --- the directory -----------------------------------------------------------------------------


def test_the_plan_in_the_folder_is_the_plan(study):
    _, out, folder, _ = study
    assert config.load(Plan, out / "plan.json") == tuned_plan(folder).resolved()


@pytest.mark.parametrize(
    ("arm", "name"), [("blt", "best_blt_model"), ("baseline", "best_char_model")]
)
def test_the_best_models_are_where_people_look_for_them(study, arm, name):
    record, out, _, _ = study
    model = load_seq2seq(out / "checkpoints" / name)
    assert fingerprint_of(model) == record.values(f"train {arm} seed 0")["weights"]


def test_run_again_it_has_nothing_to_do_and_opens_no_test_file(study):
    record, out, folder, _ = study
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    assert str(folder / "test.csv") not in opened(tuned_plan(folder), out)
    assert results.read(out).stages == record.stages
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_the_report_and_its_files_are_made_again_from_the_record_alone(study):
    _, out, _, _ = study
    made = [*(out / "predictions").iterdir(), *(out / "results").iterdir()]
    made += (out / "checkpoints").glob("*.json")
    made = [file for file in made if file.name != "comprehensive_results.json"]
    before = {file: file.read_bytes() for file in made}
    for file in made:
        file.unlink()
    rebuild(out)
    assert {file: file.read_bytes() for file in made} == before


def test_other_settings_in_the_same_folder_have_models_of_their_own(study, tmp_path):
    """Full after quick: what was trained less is not taken for what was trained more."""
    folder, out = study[2], tmp_path / "out"
    quick = smoke_plan(folder)
    first = staged(quick, out, "train")
    keep_best(first, out)
    full = replace(quick, training=replace(quick.training, epochs=3))
    second = staged(full, out, "train")
    keep_best(second, out)
    for name in ("train blt seed 0", "train baseline seed 0"):
        assert (first.values(name)["epochs"], second.values(name)["epochs"]) == (2, 3)
        assert run_of(first, out, name) != run_of(second, out, name)
    model = load_seq2seq(out / "checkpoints" / "best_blt_model")
    assert fingerprint_of(model) == second.values("train blt seed 0")["weights"]
    # A plan that has trained no such model yet leaves none of an earlier one.
    stages = tuple(s for s in second.stages if s.name != "train baseline seed 0")
    keep_best(replace(second, stages=stages), out)
    assert not (out / "checkpoints" / "best_char_model").exists()
    assert (out / "checkpoints" / "best_blt_model").is_dir()


@pytest.mark.parametrize(("micro_rows", "expected"), [(4, 4), ("auto", 8)])
def test_speed_is_measured_with_the_rows_at_a_time_of_a_training(
    study, monkeypatch, micro_rows, expected
):
    """Oracle: a memory of eight rows; every update is made in pieces that fit."""
    plan, (record, out) = tuned_plan(study[2]).resolved(), study[:2]
    (stage,) = [stage for stage in list_stages(plan, Rows(plan)) if stage.name == "speed"]
    inputs = {}
    for model in ("blt", "baseline"):
        values = record.values(f"train {model} seed 0")
        changed = {"micro_rows": micro_rows, "batch_rows": 16}
        run = values["run"] | {"training": values["run"]["training"] | changed}
        inputs[model] = values | {"run": run}
    used = []

    def update(self, batch, *, micro_rows, lr_scale):
        used.append(micro_rows)

    monkeypatch.setattr(Stepper, "update", update)
    monkeypatch.setattr(Stepper, "try_out", lambda self, batch, *, micro_rows: micro_rows // 2)
    folders = {model: run_of(record, out, f"train {model} seed 0") for model in inputs}
    stage.run(Work(settings=stage.settings, inputs=inputs, folder=out, folders=folders))
    assert set(used) == {expected}


# --- what goes wrong ---------------------------------------------------------------------------


def test_a_trial_that_fails_is_recorded_and_the_rest_goes_on(study, tmp_path):
    plan = tuned_plan(study[2], patch_sizes=(), seeds=1)
    plan = replace(plan, search=SearchConfig(trials=3, epochs=1, space=(FAILING,)))
    record = staged(plan, tmp_path / "out", "search", "train")
    assert record.missing == []
    for model in ("blt", "baseline"):
        trials = record.values(f"search {model}")["trials"]
        assert [trial["state"] for trial in trials] == ["complete", "failed", "complete"]
        assert trials[1]["error"].startswith("RunError: step 2: the loss is")
        assert str(tmp_path) not in trials[1]["error"]
        assert record.values(f"train {model} seed 0")["run"]["optim"]["lr"] < 1


def test_where_every_trial_fails_the_model_is_not_trained_and_the_report_says_so(study, tmp_path):
    space = (replace(FAILING, values=(1e30,)),)
    plan = replace(tuned_plan(study[2]), search=SearchConfig(trials=1, epochs=1, space=space))
    record = run_plan(replace(plan, seeds=1, patch_sizes=()), tmp_path / "out")
    states = {stage.name: stage.state for stage in record.stages}
    assert states["search blt"] == "failed"
    for name in ("train blt seed 0", "test", "predict blt seed 0 greedy"):
        assert states[name] == "skipped"
    report = (tmp_path / "out" / "results" / "experimental_report.txt").read_text()
    assert "every trial of the search failed" in " ".join(report.split())
    assert str(tmp_path) not in report


def test_a_full_disk_is_no_failed_trial_and_the_same_command_goes_on(study, tmp_path, monkeypatch):
    """Oracle: the search of the same plan that had room."""
    plan, out = tuned_plan(study[2], patch_sizes=(), seeds=1), tmp_path / "out"

    def full(*_, metadata=None) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoints, "save_file", full)
        record = staged(plan, out, "search")
    for stage in record.stages:
        assert stage.state == "failed"
        assert "the disk is full" in stage.error
    again = staged(plan, out, "search")
    for model in ("blt", "baseline"):
        assert again.values(f"search {model}") == study[0].values(f"search {model}")


def test_a_test_file_that_cannot_be_read_leaves_the_trained_models(study, tmp_path):
    folder = write_rows(tmp_path / "rows")
    (folder / "test.csv").write_text("question,answer\nabc,cba\n")
    record = run_plan(smoke_plan(folder), tmp_path / "out")
    states = {stage.name: stage.state for stage in record.stages}
    assert states["train blt seed 0"] == states["train baseline seed 0"] == "done"
    assert (states["test"], states["predict blt seed 0 greedy"]) == ("failed", "skipped")
    report = (tmp_path / "out" / "results" / "experimental_report.md").read_text()
    assert "expected one column" in report
    assert (tmp_path / "out" / "checkpoints" / "best_blt_model").is_dir()
    # The file is put right, and the same command does the rest.
    write_rows(folder)
    again = staged(smoke_plan(folder), tmp_path / "out", "train", "test", "predict")
    assert again.missing == []
    assert again.values("train blt seed 0") == record.values("train blt seed 0")


def test_a_model_that_cannot_be_trained_leaves_the_other(study, tmp_path):
    plan, out = smoke_plan(study[2]), tmp_path / "out"
    key = stage_keys(list_stages(plan, Rows(plan)))["train blt seed 0"]
    out.mkdir()
    (out / "plan.json").write_text("{}")
    with run_directory.locked(out / "runs" / f"train-{key}"):
        record = run_plan(plan, out)
    failed = {stage.name: stage.state for stage in record.missing}
    assert failed["train blt seed 0"] == "failed"
    assert failed["speed"] == "skipped"
    assert record.values("train baseline seed 0") is not None
    # It could still be changed after a look at the test.
    assert failed["test"] == failed["predict baseline seed 0 greedy"] == "skipped"
    assert not (out / "checkpoints" / "best_blt_model").exists()
    assert (out / "checkpoints" / "best_char_model").is_dir()
    assert "in use by process" in (out / "results" / "experimental_report.md").read_text()


def test_a_setting_that_cannot_be_searched_stops_it_before_anything_is_there(study, tmp_path):
    space = (replace(FAILING, key="optim.rate"),)
    plan = replace(tuned_plan(study[2]), search=SearchConfig(space=space))
    with pytest.raises(ConfigError, match=r"search\.space: unknown key 'rate' in \[optim\]"):
        run_plan(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- several machines, and kills ---------------------------------------------------------------


def test_two_studies_share_a_storage_and_the_second_tries_nothing_again(study, tmp_path):
    folder = study[2]
    search = replace(tuned_plan(folder).search, storage=str(tmp_path / "trials"))
    plan = tuned_plan(folder, search=search, seeds=1, patch_sizes=())
    first, second = (staged(plan, tmp_path / name, "search") for name in ("first", "second"))
    for model in ("blt", "baseline"):
        assert second.values(f"search {model}") == first.values(f"search {model}")
        # Nor does it matter to the values where the trials are kept.
        assert first.values(f"search {model}") == study[0].values(f"search {model}")
    assert (run_of(first, tmp_path / "first", "search blt") / "trials").exists()
    assert not (run_of(second, tmp_path / "second", "search blt") / "trials").exists()


@pytest.mark.slow
def test_two_identical_studies_have_identical_tables_weights_and_figures(study, tmp_path):
    """Without `timing` and `environment`, which is where the report keeps what may differ."""
    _, out, folder, _ = study
    again = tmp_path / "again"
    run_plan(tuned_plan(folder), again)
    for name in ("comprehensive_results.json", "hyperparameter_tuning_blt.json"):
        first, second = (json.loads((o / "results" / name).read_text()) for o in (out, again))
        for tables in (first, second):
            tables.pop("timing", None)
            tables.pop("environment", None)
        assert first == second
    for file in (*again.rglob("*.safetensors"), *again.rglob("*.csv"), *again.rglob("*.svg")):
        assert file.read_bytes() == (out / file.relative_to(again)).read_bytes(), file.name


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_ten_random_moments_it_ends_with_the_same_tables(tmp_path):
    script = Path(__file__).with_name("kill_comparison.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "kills"), "10", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "identical after" in done.stdout
