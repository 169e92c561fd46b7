"""Oracles: the files of `plans/`, the source read with `ast` elsewhere, keys compared by hand."""

import dataclasses
import re
import typing
from dataclasses import replace
from pathlib import Path

import pytest

from bytelm import config
from bytelm.errors import ConfigError, DataError
from bytelm.experiments import find_plan
from bytelm.experiments.compression import CompressionPlan, HeldOut, list_stages
from bytelm.experiments.compression.plan import Patches, PatchRule, Sweep
from bytelm.experiments.runner import stage_keys
from bytelm.training.settings import DataConfig
from test_architecture import configs, names_read

PLANS = sorted((Path(__file__).parents[2] / "plans").glob("compression*.toml"))

TEXT = b"It was the best of times, it was the worst of times. " * 200


@pytest.fixture
def data(tmp_path: Path) -> Path:
    file = tmp_path / "data.txt"
    file.write_bytes(TEXT)
    return file


def small_plan(file: Path, /, **changes) -> CompressionPlan:
    plan = CompressionPlan(
        title="T",
        question="Q?",
        data=DataConfig(paths=(str(file),)),
        recipe="codec-tiny",
        sweeps=(
            Sweep(name="size", title="Size", key="model.dim", values=(32, 64), axis="parameters"),
        ),
        lanes=(1, 4),
        patches=Patches(
            rules=(PatchRule(name="spaces", settings=("patching.kind=space", "entropy=none")),)
        ),
    )
    return replace(plan, **changes)


def keys(plan: CompressionPlan) -> dict[str, str]:
    return stage_keys(list_stages(plan, HeldOut(plan)))


# --- files -------------------------------------------------------------------------------------


@pytest.mark.parametrize("file", PLANS, ids=lambda file: file.stem)
def test_every_shipped_plan_loads_comes_back_and_builds_its_recipes(file):
    plan = config.load(CompressionPlan, file)
    assert config.from_dict(CompressionPlan, config.to_dict(plan)) == plan
    assert plan.arms().keys() == {"base"} | {s.arm(v) for s in plan.sweeps for v in s.values}
    for sweep in plan.sweeps:
        built = [plan.arms()[sweep.arm(value)] for value in sweep.values]
        assert len({str(run) for run in built}) == len(built)
    assert len({str(run) for run in plan.patch_arms().values()}) == len(plan.patches.rules)


def test_the_plan_of_the_guide_loads(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "studies.md").read_text()
    (example,) = re.findall(r"```toml\n(.*?)```", page, re.DOTALL)
    file = tmp_path / "logs.toml"
    file.write_text(example)
    plan = config.load(CompressionPlan, file)
    assert len(plan.arms()) == 1 + 2 + 2


def test_a_plan_is_found_by_name_and_by_path_at_its_scale(tmp_path):
    assert find_plan("compression").name == "compression.toml"
    assert find_plan("compression", scale="quick").name == "compression-quick.toml"
    mine = tmp_path / "mine.toml"
    mine.write_text('extends = "missing.toml"\n')
    assert find_plan(mine) == mine
    with pytest.raises(ConfigError, match="no plan nothing; a path, or one of the plans: compress"):
        find_plan("nothing")
    with pytest.raises(ConfigError, match=r"has no scale 'quick': there is no file .*mine-quick"):
        find_plan(mine, scale="quick")


def test_every_field_of_a_plan_is_read_somewhere_frozen_and_documented():
    read = names_read()
    for cls in configs(CompressionPlan, set()):
        assert cls.__dataclass_params__.frozen
        docs = config.field_docs(cls)
        for field in dataclasses.fields(cls):
            assert docs.get(field.name), f"{cls.__qualname__}.{field.name} has no docstring"
            assert field.name in read, f"{cls.__qualname__}.{field.name} is never read"


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"lanes": (4,)}, "1 among them"),
        ({"lanes": (1, 1)}, "must be different"),
        ({"lanes": (1, 257)}, "at most 256"),
        ({"seeds": 0}, "seeds must be at least 1"),
        ({"test_bytes": 0}, "test_bytes must be at least 1"),
        ({"data": DataConfig(test_fraction=0.0)}, "test_fraction is 0"),
    ],
)
def test_settings_out_of_range_are_refused(tmp_path, changes, said):
    with pytest.raises(ValueError, match=said):
        small_plan(tmp_path, **changes)


def test_two_of_a_name_are_refused(tmp_path):
    sweep = Sweep(name="spaces", title="", key="model.dim", values=(1,), axis="parameters")
    with pytest.raises(ValueError, match="names of their own"):
        small_plan(tmp_path, sweeps=(sweep,))
    with pytest.raises(ValueError, match="values must be different"):
        replace(sweep, values=(1, 1))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"recipe": "no-such"}, "no recipe file no-such"),
        ({"settings": ("model.wisdom=3",)}, "unknown flag '--model.wisdom'"),
        ({"settings": ("data.paths=x",)}, "set for the whole plan"),
        ({"settings": ("hardware.threads=2",)}, "set for the whole plan"),
    ],
)
def test_a_recipe_that_cannot_be_built_is_named(data, changes, said):
    with pytest.raises(ConfigError, match=said):
        small_plan(data, **changes).arms()


def test_a_value_of_a_sweep_is_read_as_the_type_of_its_key(data):
    sweep = Sweep(name="s", title="", key="model.dim", values=("48",), axis="parameters")
    assert small_plan(data, sweeps=(sweep,)).arms()["s dim=48"].model.dim == 48
    wrong = replace(sweep, values=("wide",))
    with pytest.raises(ConfigError, match=r"--model\.dim: expected a whole number"):
        small_plan(data, sweeps=(wrong,)).arms()


def test_no_data_and_no_test_bytes_are_said(tmp_path):
    plan = small_plan(tmp_path, data=DataConfig())
    with pytest.raises(ConfigError, match=r"data\.paths is empty"):
        list_stages(plan, HeldOut(plan))
    empty = tmp_path / "empty.txt"
    empty.touch()
    plan = small_plan(empty)
    with pytest.raises(DataError, match="no bytes"):
        _ = HeldOut(plan).array


# --- keys --------------------------------------------------------------------------------------


def test_where_the_data_are_does_not_matter_and_what_they_are_does(tmp_path, data):
    plan = small_plan(data)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    copy = elsewhere / "data.txt"
    copy.write_bytes(TEXT)
    assert keys(small_plan(copy)) == keys(plan)
    copy.write_bytes(TEXT + b"!")
    assert not set(keys(small_plan(copy)).values()) & set(keys(plan).values())


def test_a_changed_setting_moves_the_keys_that_depend_on_it_and_no_other(data):
    base = keys(small_plan(data))

    def moved(**changes) -> set[str]:
        other = keys(small_plan(data, **changes))
        return {
            name.partition(" ")[0] for name in base if other.get(name, base[name]) != base[name]
        }

    assert moved(settings=("optim.lr=0.001",)) == {"train", "score", "model", "mixed", "speed"}
    assert moved(title="other") == set()
    assert moved(test_bytes=100) == {
        "classics",
        "mixer",
        "speed",
        "score",
        "model",
        "mixed",
        "float",
    }
    assert moved(patches=replace(small_plan(data).patches, num_bytes=64)) == {"float"}


def test_the_recipe_as_it_is_and_a_sweep_through_it_share_their_work(data):
    """`codec-tiny` has the width 64: its arm of the sweep is the base, and is trained once."""
    found = keys(small_plan(data))
    assert found["train size dim=64 seed 0"] == found["train base seed 0"]
    assert found["train size dim=32 seed 0"] != found["train base seed 0"]


def test_every_seed_is_a_training_of_its_own(data):
    found = keys(small_plan(data, seeds=2))
    assert found["train base seed 0"] != found["train base seed 1"]
    assert found["train base seed 0"] == keys(small_plan(data))["train base seed 0"]


def test_what_is_compressed_is_the_begin_of_the_test_split(data):
    held_out = HeldOut(small_plan(data, test_bytes=100))
    assert held_out.array.tobytes() == TEXT[-len(TEXT) // 20 :][:100]
    assert HeldOut(small_plan(data)).array.tobytes() == TEXT[-len(TEXT) // 20 :]


def test_a_plan_says_what_it_is():
    assert typing.get_type_hints(CompressionPlan)["lanes"] == tuple[int, ...]
    assert CompressionPlan.kind == "compression"
