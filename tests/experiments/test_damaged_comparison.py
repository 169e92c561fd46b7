"""Records that were damaged or forged, and what an earlier record left. Oracle: the whole record.

Whatever stands in `comprehensive_results.json`, a report is made of it or its fault is named, and
nothing outside the study is touched.
"""

import contextlib
import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparison_records import made_up, without
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bytelm.cli import main
from bytelm.errors import BytelmError, CheckpointError, RunError
from bytelm.experiments import rebuild, results, study
from bytelm.experiments.comparison import NAMES, document, files
from bytelm.experiments.document import Document
from bytelm.experiments.study import Beside, write_report

WHOLE = json.loads(json.dumps(made_up(rows=12, sweeps=(4,)).as_json()))


@pytest.fixture(autouse=True)
def no_drawing(monkeypatch):
    monkeypatch.setattr(study, "draw", lambda figures, folder: {})


def written(out: Path, tables: dict[str, Any]) -> Path:
    (out / "results").mkdir(parents=True, exist_ok=True)
    (out / "results" / results.FILE).write_text(json.dumps(tables))
    return out


def stage(tables: dict[str, Any], name: str) -> dict[str, Any]:
    return next(one for one in tables["stages"] if one["name"] == name)


def values(tables: dict[str, Any], name: str) -> dict[str, Any]:
    return stage(tables, name)["values"]


def everything(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*")}


# --- damaged values ----------------------------------------------------------------------------

BLT, BEAM = "train blt seed 0", "predict blt seed 0 beam 5"


def put(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda tables: values(tables, name).__setitem__(key, value)


def drop(name: str, key: str) -> Callable[[dict[str, Any]], None]:
    return lambda tables: values(tables, name).__delitem__(key)


DAMAGES = {
    "kind": (lambda t: t["plan"].update(kind=["comparison"]), "kind"),
    "no stages": (lambda t: t.update(stages={}), "stages"),
    "a stage": (lambda t: t["stages"].append([1]), "stages"),
    "a stage twice": (lambda t: t["stages"].append(t["stages"][-1]), "name"),
    "timing": (lambda t: t["timing"].update({BLT: "soon"}), BLT),
    "rates": (lambda t: t["timing"]["speed"].update(train_examples_per_second=[3]), "speed"),
    "data": (lambda t: t["data"].update(mean_input_bytes="many"), "mean_input_bytes"),
    "deep": (lambda t: t["plan"].update(question=json.loads("[" * 90 + "]" * 90)), "plan"),
    "predictions": (drop(BEAM, "predictions"), f"{BEAM}.*predictions"),
    "predictions none": (put(BEAM, "predictions", None), f"{BEAM}.*predictions"),
    "predictions ints": (put(BEAM, "predictions", [1] * 12), f"{BEAM}.*predictions"),
    "predictions few": (put(BEAM, "predictions", ["a"]), f"{BEAM}.*predictions.* 12 rows"),
    "predictions surrogate": (put(BEAM, "predictions", ["\ud800"] * 12), f"{BEAM}.*Unicode"),
    "pairs": (put("test", "pairs", [["a"], ["b"]]), "'test'.*pairs"),
    "pairs none": (put("test", "pairs", []), "'test'.*pairs"),
    "target": (put("test", "pairs", [["a", ""]]), "'test'.*pairs"),
    "history": (drop(BLT, "history"), f"{BLT}.*history"),
    "an epoch": (put(BLT, "history", [{"epoch": 1}]), f"{BLT}.*history"),
    "parameters": (put(BLT, "parameters", "1"), f"{BLT}.*parameters"),
    "parameters 0": (put("train baseline seed 0", "parameters", 0), "parameters"),
    "tables": (put(BLT, "table_parameters", 10**9), f"{BLT}.*table_parameters"),
    "flops": (drop(BLT, "flops_per_example"), f"{BLT}.*flops_per_example"),
    "threshold": (drop(BLT, "threshold_nats"), f"{BLT}.*threshold_nats"),
    "patch size": (put(BLT, "mean_patch_bytes", None), f"{BLT}.*mean_patch_bytes"),
    "nan": (put(BLT, "best_valid_bpb", float("nan")), f"{BLT}.*nan"),
    "huge": (put(BLT, "steps", 10**400), f"{BLT}.*64 bits"),
    "seed": (put(BLT, "seed", "/../../../../x"), f"{BLT}.*seed"),
    "other seed": (put(BLT, "seed", 3), f"{BLT}.*seed must be 0"),
    "other width": (put(BEAM, "beam_width", 4), f"{BEAM}.*beam_width must be 5"),
    "terabytes": (put(BEAM, "patch_lengths", [[10**12]] * 12), f"{BEAM}.*patch_lengths of row 0"),
    "patches": (put(BEAM, "patch_lengths", [[1]] * 12), f"{BEAM}.*patch_lengths of row 0"),
    "patches few": (put(BEAM, "patch_lengths", []), f"{BEAM}.*patch_lengths.* 12 rows"),
    "best": (put("search blt", "best", 99), "search blt.*best"),
    "space": (put("search blt", "space", {"optim.lr": 3}), "search blt.*space"),
    "params": (put("search blt", "space", {"optim.x": [3]}), r"search blt.*params\.optim\.x"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_value_is_named_with_its_file_and_stage(tmp_path, damage):
    tables = copy.deepcopy(WHOLE)
    change, expected = DAMAGES[damage]
    change(tables)
    out = written(tmp_path / "study", tables)
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match=f"(?s){results.FILE}.*{expected}"):
        rebuild(out)
    assert everything(tmp_path) == before


def test_the_command_says_it_in_one_line(tmp_path, capsys):
    tables = copy.deepcopy(WHOLE)
    put(BLT, "parameters", 0)(tables)
    status = main(["report", str(written(tmp_path / "study", tables))])
    said = capsys.readouterr().err
    assert status == 1
    assert "parameters must be a whole number from 1 on, got 0" in said
    assert "Traceback" not in said


JUNK = st.sampled_from(
    [None, [], {}, "", 0, -1, 1.5, True, 10**12, [[1]], {"a": 1}, 1e308, "../../x", "$x^{", "\0"]
)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.data())
def test_whatever_is_damaged_a_report_is_made_or_the_fault_is_named(tmp_path, data):
    tables = copy.deepcopy(WHOLE)
    node: Any = tables
    # Down to some value.
    while True:
        keys = list(node) if isinstance(node, dict) else list(range(len(node)))
        key = data.draw(st.sampled_from(keys))
        is_leaf = not isinstance(node[key], dict | list) or not node[key]
        if is_leaf or data.draw(st.integers(0, 3)) == 0:
            break
        node = node[key]
    node[key] = data.draw(JUNK)
    out = written(tmp_path / "study", tables)
    with contextlib.suppress(BytelmError):
        rebuild(out)
    assert everything(tmp_path) - {"study"} == {f"study/{name}" for name in everything(out)}


# --- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "train /../../../../x seed 0",
        "train blt /../../x seed 0",
        "train blt 4/../../x seed 0",
        "train blt 4 seed 0\n",
        "train blt seed \u0663",
        "predict ../x seed 0 greedy",
        "search ../x",
        "test ../x",
    ],
)
def test_a_forged_stage_is_refused_and_writes_nothing(tmp_path, name):
    tables = copy.deepcopy(WHOLE)
    task = name.partition(" ")[0]
    forged = next(one for one in tables["stages"] if one["task"] == task)
    tables["timing"][name] = tables["timing"][forged["name"]]
    forged["name"] = name
    if task in ("train", "predict"):
        forged["values"]["arm"] = name.partition(" ")[2].rpartition(" seed ")[0]
    out = written(tmp_path / "deep" / "study", tables)
    before = everything(tmp_path)
    with pytest.raises(CheckpointError, match="has this name"):
        rebuild(out)
    assert everything(tmp_path) == before


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "/tmp/x", "..\\x", "C:x", "a/..", "predictions/x"]
)
def test_no_report_writes_outside_its_study(tmp_path, name):
    out, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    out.mkdir()
    elsewhere.mkdir()
    (out / "predictions").symlink_to(elsewhere, target_is_directory=True)
    before = everything(tmp_path)
    beside = Beside({"good": b"", name: b"x"}, NAMES)
    with pytest.raises(RunError, match="which is not in"):
        write_report(out, Document(title="A", lead="", sections=()), beside)
    assert everything(tmp_path) == before


# --- an earlier record -------------------------------------------------------------------------


def test_what_an_earlier_record_left_goes_and_nothing_else(tmp_path):
    out = tmp_path / "study"
    first = made_up(rows=12, seeds=2, sweeps=(4, 6))
    results.write(out, first)
    rebuild(out)
    figures = {f"results/{one.name}.{end}" for one in document(first).figures() for end in FORMS}
    foreign = {
        "notes.txt",
        "predictions/mine.csv",
        "predictions/predictions_blt_mine.csv",
        "predictions/old/predictions_blt.csv",
        "checkpoints/best_blt_model/history_blt.json",
        "results/mine.png",
        "stages/history_blt.json",
    }
    for name in figures | foreign:
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_text("x")
    left = {name for name in everything(out) if (out / name).is_file()}
    second = made_up(rows=12, sweeps=(), is_searched=False)
    results.write(out, second)
    rebuild(out)
    kept = {f"results/{one.name}.{end}" for one in document(second).figures() for end in FORMS}
    assert kept < figures
    report = {f"results/experimental_report.{end}" for end in ("txt", "md", "html")}
    now = {name for name in everything(out) if (out / name).is_file()}
    record = f"results/{results.FILE}"
    assert now == {*files(second), *kept, *foreign, *report, record}
    assert left - now == (files(first).keys() | figures) - (files(second).keys() | kept)
    # A study that has nothing yet has none of it.
    results.write(out, without(second, {one.name for one in second.stages}))
    rebuild(out)
    now = {name for name in everything(out) if (out / name).is_file()}
    assert now == {"results/summary_report.txt", *foreign, *report, record}


FORMS = ("png", "svg")


def test_every_file_has_a_name_that_is_known_as_ours():
    made = made_up(rows=12, seeds=2)
    names = [*files(made)]
    names += [f"results/{one.name}.{end}" for one in document(made).figures() for end in FORMS]
    assert len(names) > 30
    assert [name for name in names if not NAMES.fullmatch(name)] == []
