"""Oracles: the files of `plans/`, the source read with `ast` elsewhere, keys compared by hand."""

import dataclasses
import itertools
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from comparison_plans import SPACE, smoke_plan, tuned_plan, write_rows
from hypothesis import given
from hypothesis import strategies as st

from bytelm import config
from bytelm.data.pairs import MAX_FILE_BYTES, shared_inputs
from bytelm.data.tasks import TASKS
from bytelm.errors import ConfigError, DataError
from bytelm.experiments import Plan, find_plan
from bytelm.experiments.comparison import ComparisonPlan, Grid, Rows, list_stages, trainings
from bytelm.experiments.comparison.plan import Decoding, PairData, with_settings
from bytelm.experiments.comparison.space import Dimension, SearchConfig
from bytelm.experiments.runner import Stage, stage_keys
from bytelm.models import PatchEncoderConfig
from bytelm.patching import Static
from bytelm.training.matching import matched_baseline
from bytelm.training.pair_settings import PairRunConfig
from bytelm.training.schedules import Constant
from test_architecture import configs, names_read

SCALES = ("", "-quick", "-tune")
NAMES = (*TASKS, "pairs")
TOLD_APART = {"title", "question", "task"}
"""What the plans of different tasks differ in."""


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path)


def stages(plan: ComparisonPlan) -> list[Stage]:
    return list_stages(plan, Rows(plan))


def keys(plan: ComparisonPlan) -> dict[str, str]:
    return stage_keys(stages(plan))


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "scale"), list(itertools.product(NAMES, SCALES)))
def test_every_shipped_plan_loads_comes_back_and_can_be_searched(name, scale):
    file = find_plan(name, scale=scale.removeprefix("-") or "full")
    plan = config.load(Plan, file)
    assert isinstance(plan, ComparisonPlan)
    assert config.from_dict(Plan, config.to_dict(plan)) == plan
    assert plan.task == (None if name == "pairs" else name)
    assert (plan.search is not None) == (scale == "-tune")
    if plan.search is not None:
        assert len(plan.space("blt")) == len(plan.search.space)
    if scale == "-quick":
        assert plan.training.epochs == 2
    else:
        assert (plan.training.epochs, plan.decoding.beam_width) == (10, 5)


@pytest.mark.parametrize("scale", SCALES)
def test_plans_of_a_scale_differ_in_their_task_alone(scale):
    """They are copies of each other, as a file extends only one other: none may be forgotten."""
    tables = {}
    for name in NAMES:
        plan = config.load(Plan, find_plan(name, scale=scale.removeprefix("-") or "full"))
        whole = config.to_dict(plan)
        tables[name] = {key: whole[key] for key in whole.keys() - TOLD_APART - {"patch_sizes"}}
    for name in NAMES:
        assert tables[name] == tables["reversal"], name


def test_the_default_search_gives_both_models_twelve_trials_of_the_same_space():
    plan = config.load(Plan, find_plan("reversal", scale="tune"))
    assert plan.search.trials == 12
    assert plan.space("baseline") == plan.space("blt")


def test_every_field_of_a_plan_is_read_somewhere_frozen_and_documented():
    read = names_read()
    for cls in configs(ComparisonPlan, {Grid}):
        assert cls.__dataclass_params__.frozen
        docs = config.field_docs(cls)
        for field in dataclasses.fields(cls):
            assert docs.get(field.name), f"{cls.__qualname__}.{field.name} has no docstring"
            assert field.name in read, f"{cls.__qualname__}.{field.name} is never read"


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"seeds": 1001}, "seeds must be .*1000, got 1001"),
        ({"task": "telepathy"}, "task: .*telepathy.*reversal"),
        ({"patch_sizes": (4.0, 4.0)}, "patch_sizes must be different"),
        ({"patch_sizes": (3.0,)}, r"patch_sizes holds the plan's own"),
        ({"patch_sizes": (0.5,)}, "mean_patch_bytes must be at least 1"),
        (
            {"patching": Static(patch_size=4), "entropy": None, "patch_sizes": (4.0,)},
            "patch_sizes need patching.kind 'calibrated'",
        ),
        ({"entropy": None}, "needs a table `entropy`"),
    ],
)
def test_settings_out_of_range_are_refused(rows, changes, said):
    with pytest.raises(ValueError, match=said):
        smoke_plan(rows, **changes)


def test_a_model_without_patches_is_no_plan(rows):
    with pytest.raises(ValueError, match=r"model\.patches is missing"):
        smoke_plan(rows, model=replace(smoke_plan(rows).model, patches=None))


def test_a_size_of_patches_cannot_be_searched_for_and_drawn_as_a_curve(rows):
    size = Dimension(key="patching.mean_patch_bytes", low=2.0, high=4.0)
    with pytest.raises(ValueError, match="choose one"):
        tuned_plan(rows, search=SearchConfig(space=(size,)))
    assert tuned_plan(rows, search=SearchConfig(space=(size,)), patch_sizes=())


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_train": 0}, "num_train must be at least 1"),
        ({"seed": -1}, "seed must be >= 0"),
        ({"valid_fraction": 0.0}, "must be above 0"),
        ({"valid_fraction": 0.5, "test_fraction": 0.5}, "sum below 1"),
        ({"valid_fraction": float("nan")}, "must be above 0"),
        ({"test_csv": "test.csv"}, "test_csv needs a train_csv"),
        ({"train_csv": ""}, "train_csv is empty; name a file"),
        ({"train_csv": "train.csv", "test_csv": ""}, "test_csv is empty; name a file"),
    ],
)
def test_rows_out_of_range_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        PairData(**changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"beam_width": 0}, "beam_width must be at least 1"),
        ({"beam_width": 1025}, "beam_width must be .*1,?024, got 1025"),
        ({"length_penalty": 100.5}, "length_penalty must be from -100 to 100, got 100.5"),
        ({"length_penalty": -100.5}, "length_penalty must be from -100 to 100"),
        ({"length_penalty": float("nan")}, "length_penalty must be from -100 to 100, got nan"),
        ({"length_penalty": float("-inf")}, "length_penalty must be from -100 to 100"),
    ],
)
def test_decodings_out_of_range_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        Decoding(**changes)


@pytest.mark.parametrize(
    ("dimension", "said"),
    [
        ({"key": "optim.lrr", "values": [0.1]}, r"unknown key 'lrr' in \[optim\]; .*'lr'"),
        ({"key": "optm.lr", "values": [0.1]}, "unknown key 'optm' .*'optim'"),
        ({"key": "model.dropout", "values": [0.1, "much"]}, "model.dropout: expected a number"),
        ({"key": "model.dropout", "values": [0.1, 1.5]}, "dropout must be at least 0 and below 1"),
        ({"key": "training.batch_rows", "low": 1.5, "high": 8.5}, "expected a whole number"),
        ({"key": "training.epochs", "values": [1, 2]}, "the same for every trial"),
        ({"key": "training.seed", "values": [1, 2]}, "the same for every trial"),
        ({"key": "hardware.threads", "values": [1, 2]}, "the same for every trial"),
        ({"key": "model", "values": ["large"]}, "expected a table"),
        ({"key": "model.dimm", "values": [16]}, r"unknown key 'dimm' in \[model\]"),
        ({"key": "training.precision", "values": ["fp32", "auto"]}, "not the same on every"),
    ],
)
def test_what_cannot_be_searched_is_refused_by_name_before_anything_runs(rows, dimension, said):
    space = (config.from_dict(Dimension, dimension),)
    plan = tuned_plan(rows, search=SearchConfig(space=space))
    with pytest.raises(ConfigError, match=said) as raised:
        stages(plan)
    assert str(raised.value).startswith("search.space: ")


@pytest.mark.parametrize(
    "key",
    [
        "model.dim",
        "model.n_layers_encoder",
        "model.n_layers_decoder",
        "model.ffn_dim",
        "model.ffn_dim_encoder",
        "model.patches.dim",
        "model.patches.num_buckets",
        "model.patches.cross_attn_k",
    ],
)
def test_sizes_are_not_searched_where_the_models_must_match(rows, key):
    """Each model would be tuned to sizes of its own."""
    search = SearchConfig(space=(Dimension(key=key, values=(4, 8)),))
    for match in ("parameters", "flops"):
        with pytest.raises(ConfigError, match=f"{key} decides how large .*--match none"):
            stages(tuned_plan(rows, search=search, match=match))
    assert tuned_plan(rows, search=search, match="none").space("blt") == search.space


def test_what_changes_no_size_is_searched_and_the_length_of_patches_where_it_costs_none(rows):
    free = [("model.dropout", (0.0, 0.1)), ("model.positions", ("learned", "rotary"))]
    space = tuple(Dimension(key=key, values=values) for key, values in free)
    for match in ("parameters", "flops", "none"):
        assert stages(tuned_plan(rows, search=SearchConfig(space=space), match=match))
    length = SearchConfig(space=(Dimension(key="patching.mean_patch_bytes", low=2.0, high=4.0),))
    plan = tuned_plan(rows, search=length, patch_sizes=())
    assert plan.space("blt") == length.space
    with pytest.raises(ConfigError, match=r"mean_patch_bytes decides how large .*'flops'"):
        replace(plan, match="flops").space("blt")


# --- settings ----------------------------------------------------------------------------------


def test_a_setting_changes_itself_alone(rows):
    run = smoke_plan(rows).runs()["blt"]
    assert with_settings(run, {}) == run
    changed = with_settings(run, {"optim.lr": 0.5, "model.patches.dim": 16})
    assert (changed.optim.lr, changed.model.patches.dim) == (0.5, 16)
    back = with_settings(changed, {"optim.lr": run.optim.lr, "model.patches.dim": 8})
    assert back == run


@given(lr=st.floats(1e-6, 1.0), rows=st.integers(1, 512))
def test_settings_come_in_any_order(lr, rows):
    run = smoke_plan(Path()).runs()["blt"]
    settings = {"optim.lr": lr, "training.batch_rows": rows, "schedule.kind": "constant"}
    backwards = dict(reversed(settings.items()))
    changed = with_settings(run, settings)
    assert changed == with_settings(run, backwards)
    assert (changed.optim.lr, changed.training.batch_rows) == (lr, rows)


def test_another_kind_leaves_the_settings_of_the_old_one_behind(rows):
    run = smoke_plan(rows).runs()["blt"]
    settings = {"schedule.warmup_steps": 3, "schedule.kind": "constant"}
    assert with_settings(run, settings).schedule == Constant(warmup_steps=3)
    static = with_settings(run, {"patching.kind": "static", "entropy": "none"})
    assert (static.patching, static.entropy) == (Static(), None)


def test_the_baseline_is_spared_what_it_does_not_have(rows):
    keys = ["patching.max_patch_bytes", "model.patches.n_layers", "entropy.order", "optim.hash_lr"]
    space = [Dimension(key=key, values=(4, 5)) for key in keys]
    plan = tuned_plan(rows, search=SearchConfig(space=(*space, SPACE[0])), match="none")
    assert [dimension.key for dimension in plan.space("baseline")] == [SPACE[0].key]
    assert len(plan.space("blt")) == 5


def test_the_arms_of_the_curve_differ_in_their_patches_alone(rows):
    runs = smoke_plan(rows, patch_sizes=(2.0, 4.5)).runs()
    assert list(runs) == ["blt", "blt 2", "blt 4.5"]
    for name, size in {"blt 2": 2.0, "blt 4.5": 4.5}.items():
        assert runs[name].patching.mean_patch_bytes == size
        assert replace(runs[name], patching=runs["blt"].patching) == runs["blt"]


def test_a_plan_has_absolute_paths_and_its_record_no_password(rows, monkeypatch):
    monkeypatch.chdir(rows)
    address = "postgresql://me:secret@host/trials"
    plan = tuned_plan(Path(), search=SearchConfig(space=SPACE, storage=address)).resolved()
    assert plan.data.train_csv == str(rows / "train.csv")
    assert plan.search.storage == address
    tables = plan.for_record()
    assert tables["search"]["storage"] == "postgresql://me:***@host/trials"
    assert "secret" not in str(tables)
    shared = tuned_plan(Path(), search=SearchConfig(space=SPACE, storage="t")).resolved()
    assert shared.search.storage == str(rows / "t")
    assert smoke_plan(Path()).for_record() == config.to_dict(smoke_plan(Path()))


# --- rows --------------------------------------------------------------------------------------


def generated(**changes) -> ComparisonPlan:
    data = PairData(num_train=60, num_test=20, valid_fraction=0.1, **changes)
    model = replace(smoke_plan(Path()).model, max_bytes=192)
    return smoke_plan(Path(), data=data, model=model)


def test_rows_are_drawn_where_there_is_no_file():
    plan = generated()
    rows = Rows(plan)
    assert (len(rows.splits.train), len(rows.splits.valid), rows.splits.test) == (54, 6, ())
    test = rows.test()
    assert len(test) == 20
    assert shared_inputs((*rows.splits.train, *rows.splits.valid), test) == 0
    assert rows.describe()["source"] == "generated"
    assert rows.describe()["rows"] == {"train": 54, "valid": 6, "test": 20}
    assert Rows(generated(seed=1)).splits != rows.splits


def test_a_file_without_a_test_file_is_cut(rows):
    """Oracle: no row is lost, and none is on two sides."""
    data = replace(smoke_plan(rows).data, test_csv=None, test_fraction=0.25)
    cut = Rows(smoke_plan(rows, data=data))
    assert [len(split) for split in dataclasses.astuple(cut.splits)] == [26, 10, 12]
    assert cut.test() == list(cut.splits.test)
    inputs = [pair.input for split in (cut.splits.train, cut.splits.valid) for pair in split]
    assert len({*inputs, *(pair.input for pair in cut.test())}) == 48
    assert cut.for_training.test == ()
    assert cut.describe()["rows"]["test"] == 12


def test_a_test_file_is_read_when_it_is_asked_for_and_not_before(rows):
    plan = smoke_plan(rows)
    own = Rows(plan)
    assert own.describe()["rows"] == {"train": 38, "valid": 10, "test": None}
    assert (len(own.splits.train), len(own.splits.valid), own.splits.test) == (38, 10, ())
    (rows / "test.csv").write_text("input,target\nnoon,noon\n")
    assert [pair.input for pair in own.test()] == ["noon"]


def test_neither_file_nor_task_and_no_such_test_file_are_said(rows):
    nothing = smoke_plan(rows, task=None, data=PairData())
    with pytest.raises(ConfigError, match=r"neither a task nor rows; .*--train-csv"):
        stages(nothing)
    (rows / "test.csv").unlink()
    with pytest.raises(DataError, match=r"cannot read the test file .*test\.csv"):
        stages(smoke_plan(rows))


def test_a_test_file_that_cannot_be_one_is_refused_without_being_opened(rows, monkeypatch):
    """Oracle: its size and kind, set by hand; a file of holes is large and takes no room."""
    test = rows / "test.csv"
    with test.open("wb") as file:
        file.truncate(MAX_FILE_BYTES)
    assert stages(smoke_plan(rows))
    with test.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)
    with pytest.raises(DataError, match=r"test\.csv has 268,435,457 bytes, expected from 1"):
        stages(smoke_plan(rows))
    test.write_bytes(b"")
    with pytest.raises(DataError, match=r"test\.csv has 0 bytes"):
        stages(smoke_plan(rows))
    test.unlink()
    os.mkfifo(test)  # opened, it would wait forever
    with pytest.raises(DataError, match=r"test\.csv is a folder or a device"):
        stages(smoke_plan(rows))
    test.unlink()
    test.mkdir()
    with pytest.raises(DataError, match=r"test\.csv is a folder or a device"):
        stages(smoke_plan(rows))
    test.rmdir()
    write_rows(rows)
    # Asked, not tried: whoever runs the tests may read everything.
    monkeypatch.setattr(os, "access", lambda path, mode: (path, mode) != (str(test), os.R_OK))
    with pytest.raises(DataError, match=r"test\.csv may not be read"):
        stages(smoke_plan(rows))


@pytest.mark.parametrize("link", [None, os.symlink, os.link])
def test_the_training_file_is_no_test_file_under_any_name(rows, link):
    (rows / "test.csv").unlink()
    data = smoke_plan(rows).data
    if link is None:
        data = replace(data, test_csv=data.train_csv)
    else:
        link(rows / "train.csv", rows / "test.csv")
    with pytest.raises(DataError, match=r"is the training file: .*leave it out"):
        stages(smoke_plan(rows, data=data))


def test_rows_that_are_drawn_must_fit_into_the_model():
    plan = generated()
    with pytest.raises(ConfigError, match=r"draws rows of \d+ bytes, and model.max_bytes is 30"):
        stages(replace(plan, model=replace(plan.model, max_bytes=30)))


# --- stages and keys ---------------------------------------------------------------------------


def test_the_stages_are_these_in_this_order(rows):
    names = [stage.name for stage in stages(tuned_plan(rows))]
    arms = ["blt seed 0", "baseline seed 0", "blt seed 1", "baseline seed 1", "blt 4 seed 0"]
    assert names == [
        "search blt",
        "search baseline",
        *(f"train {arm}" for arm in arms),
        "test",
        *(f"predict {arm} {how}" for arm in arms for how in ("greedy", "beam 2")),
        "speed",
    ]
    assert "search blt" not in [stage.name for stage in stages(smoke_plan(rows))]


def test_where_the_rows_are_does_not_matter_and_what_they_are_does(rows, tmp_path):
    base = keys(tuned_plan(rows))
    elsewhere = write_rows(tmp_path / "elsewhere")
    stat = (rows / "test.csv").stat()
    os.utime(elsewhere / "test.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert keys(tuned_plan(elsewhere)) == base
    with (elsewhere / "train.csv").open("a") as file:
        file.write("abc,cba\n")
    assert not set(keys(tuned_plan(elsewhere)).values()) & set(base.values())


def test_the_test_waits_for_every_training(rows):
    names = [stage.name for stage in stages(tuned_plan(rows)) if stage.task == "train"]
    (test,) = [stage for stage in stages(tuned_plan(rows)) if stage.task == "test"]
    assert list(test.needs.values()) == names
    assert len(names) == 5


def test_an_automatic_precision_is_keyed_by_what_it_means(rows, monkeypatch):
    plan = tuned_plan(rows)

    def of(precision: str) -> dict[str, str]:
        return keys(replace(plan, training=replace(plan.training, precision=precision)))

    monkeypatch.setattr(trainings, "autocast_dtype", lambda precision, device: None)
    assert of("auto") == of("fp32") == keys(plan)
    monkeypatch.setattr(trainings, "autocast_dtype", lambda precision, device: torch.bfloat16)
    assert of("auto") == of("bf16")
    assert of("fp32") == keys(plan)
    assert not set(of("auto").values()) & set(keys(plan).values())


def test_a_match_is_looked_for_once_for_all_seeds(rows, monkeypatch):
    """Oracle: the function itself, which is asked once for each model."""
    asked = []

    def counted(run, **others):
        asked.append(run.model)
        return matched_baseline(run, **others)

    monkeypatch.setattr(trainings, "matched_baseline", counted)
    plan = smoke_plan(rows, seeds=5)
    # A size that no other test has: what was found stays known.
    plan = replace(plan, model=replace(plan.model, ffn_dim=56))
    own = Rows(plan)
    baselines = [s for s in list_stages(plan, own) if s.name.startswith("train baseline")]
    assert asked == [plan.model]
    mean_input_bytes, mean_target_bytes = own.mean_bytes
    for seed, stage in enumerate(baselines):
        run = plan.runs()["blt"]
        expected = matched_baseline(
            replace(run, training=replace(run.training, seed=seed)),
            match="parameters",
            mean_input_bytes=mean_input_bytes,
            mean_target_bytes=mean_target_bytes,
        )
        run = config.from_dict(PairRunConfig, stage.settings["run"])
        assert replace(run, hardware=expected.hardware) == expected


def test_a_test_file_that_changed_is_read_again_and_nothing_is_trained_again(rows):
    base = keys(smoke_plan(rows))
    stat = (rows / "test.csv").stat()
    os.utime(rows / "test.csv", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    changed = keys(smoke_plan(rows))
    moved = {name.split()[0] for name in base if changed[name] != base[name]}
    assert moved == {"test", "predict"}


def test_a_changed_setting_moves_the_keys_that_depend_on_it_and_no_other(rows):
    plan = tuned_plan(rows)
    base = keys(plan)

    def moved(**changes) -> set[str]:
        other = keys(replace(plan, **changes))
        return {name for name in base if other.get(name, base[name]) != base[name]}

    everything = set(base)
    # What the test waits for decides when it is opened.
    tested = {name for name in base if name.startswith(("test", "predict"))}
    of_blt = {name for name in base if " blt" in name} | {"speed"} | tested
    assert moved(title="other", question="other?") == set()
    assert moved(hardware=replace(plan.hardware, threads=2)) == set()
    assert moved(seeds=3) == tested
    assert moved(training=replace(plan.training, epochs=3)) == {
        name for name in base if name.startswith(("train", "test", "predict", "speed"))
    }
    assert moved(optim=replace(plan.optim, lr=0.1)) == everything
    assert moved(search=replace(plan.search, trials=4)) == everything
    assert moved(search=replace(plan.search, storage="elsewhere")) == set()
    assert moved(decoding=replace(plan.decoding, length_penalty=0.5)) == {
        name for name in base if name.startswith(("predict", "speed"))
    }
    without = {name for name in base if name.startswith(("predict", "train", "speed"))}
    assert {name for name in moved(search=None) if name in without} == without
    untuned = keys(smoke_plan(rows))
    patching = replace(plan.patching, mean_patch_bytes=2.0)
    other = keys(smoke_plan(rows, patching=patching))
    assert {name for name in untuned if untuned[name] != other[name]} == {
        name for name in untuned if name in of_blt
    }


def test_every_seed_is_a_training_of_its_own(rows):
    found = keys(smoke_plan(rows, seeds=2))
    assert found["train blt seed 0"] != found["train blt seed 1"]
    assert found["train blt seed 0"] == keys(smoke_plan(rows))["train blt seed 0"]


@pytest.mark.parametrize("match", ["parameters", "flops", "none"])
def test_the_baseline_is_matched_before_anything_is_trained(rows, match):
    patches = PatchEncoderConfig(dim=16, n_heads=2, ffn_dim=64, num_buckets=64)
    plan = smoke_plan(rows, model=replace(smoke_plan(rows).model, patches=patches), match=match)
    (stage,) = [stage for stage in stages(plan) if stage.name == "train baseline seed 0"]
    model = stage.settings["run"]["model"]
    assert model["patches"] is None
    assert stage.settings["run"]["patching"] is None
    assert (model["ffn_dim_encoder"] == 16) == (match == "none")
