"""A whole study, as small as it can be. Oracles: law 6, the files themselves, an unkilled study."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from kill_study import in_this_process, smoke_plan, write_data

from bytelm import config
from bytelm.compression import compress, decompress
from bytelm.experiments import Plan, Record, run_plan
from bytelm.experiments.compression import HeldOut, stages
from bytelm.language_model import load
from bytelm.training import run_directory


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Record, Path, Path]]:
    folder = tmp_path_factory.mktemp("study")
    file = write_data(folder)
    out = folder / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stages, "measure_container", in_this_process)
        yield run_plan(smoke_plan(file), out), out, file


def test_every_stage_of_a_small_study_is_done(study):
    record, out, _ = study
    assert record.missing == []
    report = (out / "results" / "experimental_report.txt").read_text()
    for title in ("Key findings", "Size", "Lanes", "Floats and integers", "Patch rule", "Speed"):
        assert f"\n{title}\n-" in report
    assert "nan" not in report


def test_the_figures_are_those_of_the_models_it_trained(study):
    """Oracle: the model loaded again and asked for its bits per byte of the same bytes."""
    record, out, file = study
    held_out = HeldOut(smoke_plan(file))
    key = next(stage.key for stage in record.stages if stage.name == "train base seed 0")
    bits = load(out / "runs" / f"train-{key}").bits_per_byte(held_out.array)
    values = record.values("score base seed 0")
    assert values["bits_per_byte"] == pytest.approx(bits, abs=1e-6)
    assert sum(values["block_bits"]) == pytest.approx(bits * len(held_out.array), rel=1e-5)
    assert values["bytes_scored"] == sum(values["block_bytes"]) == len(held_out.array)


def test_the_float_codec_keeps_what_the_likelihood_promises(study):
    """Law 6, in 4 lanes; 64 bytes are 8 per mille a byte, so it is held to two bytes."""
    values = study[0].values("float codec spaces seed 0")
    assert values["raw_bytes"] == 64
    gap = values["payload_bits_per_byte"] - values["expected_bits_per_byte"]
    assert abs(gap) * 64 / 8 <= 8


def test_the_mixer_row_is_a_file_that_comes_back(study):
    record, _, file = study
    raw = HeldOut(smoke_plan(file)).array.tobytes()
    blob = compress(raw)
    assert decompress(blob) == raw
    assert record.values("mixer lanes 1")["compressed_bytes"] == len(blob)


def test_what_was_clocked_is_what_was_compressed(study):
    record, _, _ = study
    for mode, stage in {"mixer": "mixer", "mixed": "mixed base seed 0"}.items():
        clocked = record.values(f"speed {mode}")["compressed_bytes"]
        assert clocked == record.values(f"{stage} lanes 1")["compressed_bytes"]
    report = (study[1] / "results" / "experimental_report.txt").read_text()
    assert "model + mixer" in report.partition("\nSpeed\n")[2]


def test_the_plan_in_the_folder_is_the_plan(study):
    _, out, file = study
    plan = smoke_plan(file).resolved()
    assert config.load(Plan, out / "plan.json") == plan
    assert json.loads((out / "plan.json").read_text())["kind"] == "compression"


def test_run_again_it_has_nothing_to_do_and_says_the_same(study):
    record, out, file = study
    before = {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")}
    again = run_plan(smoke_plan(file), out)
    assert again.stages == record.stages
    assert {path: path.stat().st_mtime_ns for path in (out / "runs").rglob("*")} == before


def test_a_failing_arm_leaves_the_others_and_a_report(study, tmp_path):
    """A recipe that diverges, or a run that cannot be read, is one arm's misfortune."""
    _, _, file = study
    plan = replace(smoke_plan(file), sweeps=(), patches=replace(smoke_plan(file).patches, rules=()))
    key = next(stage.key for stage in study[0].stages if stage.name == "train base seed 0")
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "plan.json").write_text("{}")
    # Somebody else trains where this study's model must go.
    with run_directory.locked(folder / "runs" / f"train-{key}"):
        record = run_plan(plan, folder)
    failed = {stage.name: stage.state for stage in record.missing}
    assert failed["train base seed 0"] == "failed"
    assert failed["mixed base seed 0 lanes 1"] == "skipped"
    assert record.values("mixer lanes 3") is not None
    assert "in use by process" in (folder / "results" / "experimental_report.md").read_text()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_killed_at_ten_random_moments_it_ends_with_the_same_tables(tmp_path):
    script = Path(__file__).with_name("kill_study.py")
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path / "kills"), "10", "0"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "identical after" in done.stdout
