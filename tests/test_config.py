"""The strict loader. Oracles: hand-written trees and messages, and the round-trip law."""

import contextlib
import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm import config
from bytelm.config import recipes
from bytelm.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Static:
    """Cut every few bytes."""

    kind: ClassVar[str] = "static"

    patch_size: int = 4
    """In bytes."""
    max_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Entropy:
    """Cut where the next byte is a surprise."""

    kind: ClassVar[str] = "entropy"

    threshold: float = 1.3
    """In nats."""
    max_bytes: int | None = None

    def __post_init__(self):
        if self.threshold < 0:
            raise ValueError(f"threshold must be >= 0 nats, got {self.threshold}")


Patcher = Static | Entropy


@dataclass(frozen=True, kw_only=True)
class Optim:
    lr: float = 1e-3
    """Per step."""
    betas: tuple[float, float] = (0.9, 0.95)
    steps: int | Literal["auto"] = 10
    schedule: Literal["linear", "cosine"] = "cosine"
    fused: bool = False


@dataclass(frozen=True, kw_only=True)
class Run:
    name: str
    """Of the folder."""
    optim: Optim = Optim()
    patching: Patcher = Entropy()
    entropy: "Run | None" = None
    """The run that trains the entropy model."""
    paths: tuple[str, ...] = ()
    note: str | None = None


def write(folder: Path, name: str, text: str) -> Path:
    (folder / name).write_text(text)
    return folder / name


def load(folder: Path, text: str, **overrides: object) -> Run:
    flags = {key.replace("__", "."): value for key, value in overrides.items()}
    return config.load(Run, write(folder, "x.toml", text), flags)


def message(function, *args, **kwargs) -> str:
    with pytest.raises(ConfigError) as caught:
        function(*args, **kwargs)
    return str(caught.value)


finite = st.floats(min_value=0, allow_nan=False, allow_infinity=False)
optims = st.builds(
    Optim,
    lr=finite,
    betas=st.tuples(finite, finite),
    steps=st.integers() | st.just("auto"),
    schedule=st.sampled_from(["linear", "cosine"]),
    fused=st.booleans(),
)
patchers = st.builds(Static, patch_size=st.integers()) | st.builds(
    Entropy, threshold=finite, max_bytes=st.none() | st.integers()
)
runs = st.recursive(
    st.none(),
    lambda below: st.builds(
        Run,
        name=st.text(),
        optim=optims,
        patching=patchers,
        entropy=below,
        paths=st.lists(st.text()).map(tuple),
        note=st.none() | st.text(),
    ),
    max_leaves=3,
).filter(lambda run: run is not None)


@given(runs)
def test_a_config_comes_back_from_its_dict_and_from_json(run):
    assert config.from_dict(Run, config.to_dict(run)) == run
    assert config.from_dict(Run, json.loads(json.dumps(config.to_dict(run)))) == run


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(
        st.sampled_from(["name", "optim", "lr", "kind", "patching", "entropy", "static"]) | st.text(
            max_size=5), below, max_size=4),
))  # fmt: skip
def test_any_tree_is_a_config_or_a_config_error(tree):
    with contextlib.suppress(ConfigError):
        assert isinstance(config.from_dict(Run, {"name": "a", "optim": tree, "entropy": tree}), Run)


def test_the_types_of_toml_reach_the_fields(tmp_path):
    run = load(
        tmp_path,
        """
        name = "a"
        paths = ["x", "y"]
        [optim]
        lr = 3
        betas = [0, 0.5]
        steps = "auto"
        [patching]
        kind = "static"
        patch_size = 6
        [entropy]
        name = "b"
        """,
    )
    optim = Optim(lr=3.0, betas=(0.0, 0.5), steps="auto")
    patching = Static(patch_size=6)
    expected = Run(
        name="a", paths=("x", "y"), optim=optim, patching=patching, entropy=Run(name="b")
    )
    assert run == expected
    assert type(run.optim.lr) is float


@pytest.mark.parametrize(
    ("tree", "said"),
    [
        ({"optim": {"lrr": 1}}, "f.toml: unknown key 'lrr' in [optim]; did you mean 'lr'?"),
        ({"optmi": {}}, "f.toml: unknown key 'optmi' at the top level; did you mean 'optim'?"),
        ({"optim": {"lr": "fast"}}, "f.toml: optim.lr: expected a number, got the string 'fast'"),
        ({"optim": {"lr": True}}, "f.toml: optim.lr: expected a number, got true"),
        ({"optim": {"fused": 1}}, "f.toml: optim.fused: expected true or false, got the number 1"),
        ({"optim": {"steps": 1.5}}, "expected a whole number or 'auto', got the number 1.5"),
        ({"optim": {"steps": True}}, "expected a whole number or 'auto', got true"),
        ({"optim": {"schedule": "cosin"}}, "expected 'linear' or 'cosine', got the string 'cosin'"),
        ({"optim": {"betas": [1]}}, "f.toml: optim.betas: expected 2 values, got 1"),
        ({"optim": 3}, "f.toml: optim: expected a table, got the number 3"),
        ({"name": 3}, "f.toml: name: expected a string, got the number 3"),
        ({"paths": ["a", 1]}, "f.toml: paths.1: expected a string, got the number 1"),
        ({"patching": {"threshold": 1}}, "'kind' is missing; expected one of 'static', 'entropy'"),
        ({"patching": {"kind": "space"}}, "patching.kind: expected 'static' or 'entropy', got the"),
        ({"patching": {"kind": []}}, "patching.kind: expected 'static' or 'entropy', got a list"),
        ({"patching": {"kind": "static", "threshold": 1}}, "unknown key 'threshold' in [patching]"),
        ({"patching": {"kind": "entropy", "threshold": -1}}, "patching: threshold must be >= 0"),
        ({"entropy": {}}, "f.toml: entropy.name: is missing; expected a string"),
        ({"optim": {"lr": 10**400}}, "optim.lr: expected a number"),
    ],
)
def test_a_mistake_is_named_with_what_was_expected(tree, said):
    assert said in message(config.from_dict, Run, {"name": "a", **tree}, where="f.toml")


def test_a_union_is_built_by_its_kind():
    assert config.from_dict(Patcher, {"kind": "static", "patch_size": 2}) == Static(patch_size=2)
    assert "'kind' is missing; expected one of" in message(config.from_dict, Patcher, {})


def test_flags_are_keys_read_as_the_type_of_their_field(tmp_path):
    run = load(
        tmp_path,
        'name = "a"\nnote = "old"',
        name="3",
        note="none",
        paths="a,b c",
        optim__lr="3e-4",
        optim__betas="[0.5, 1]",
        optim__steps="auto",
        optim__fused="true",
        patching__kind="static",
        patching__patch_size="8",
        entropy__name="b",
        entropy__optim__steps="7",
    )
    optim = Optim(lr=3e-4, betas=(0.5, 1.0), steps="auto", fused=True)
    inner = Run(name="b", optim=Optim(steps=7))
    assert run == Run(
        name="3", paths=("a", "b c"), optim=optim, patching=Static(patch_size=8), entropy=inner
    )


def test_a_flag_can_be_a_value_instead_of_text(tmp_path):
    assert load(tmp_path, 'name = "a"', paths=["x,y", "1"]).paths == ("x,y", "1")


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"optim.lrr": "1"}, "unknown flag '--optim.lrr'; did you mean '--optim.lr'?"),
        ({"optmi.lr": "1"}, "unknown flag '--optmi'; did you mean '--optim'?"),
        ({"optim.lr": "fast"}, "--optim.lr: expected a number, got the string 'fast'"),
        ({"optim.fused": "x.toml"}, "--optim.fused: expected true or false, got the string"),
        ({"patching.threshold": "1"}, "'--patching.kind' is missing; expected one of 'static'"),
        ({"optim": "1", "optim.lr": "1"}, "--optim.lr: 'optim' is set as a whole as well"),
        ({"optim.lr": "1", "optim": "1"}, "--optim is set as a whole and in part"),
        ({"optim.steps": "9" * 5000}, "--optim.steps: expected a whole number or 'auto'"),
    ],
)
def test_a_mistake_in_a_flag_is_named_as_a_flag(tmp_path, flags, said):
    path = write(tmp_path, "x.toml", 'name = "a"')
    assert said in message(config.load, Run, path, flags)


def test_another_kind_drops_the_keys_it_lacks_and_keeps_the_shared_ones(tmp_path):
    recipe = 'name = "a"\n[patching]\nkind = "entropy"\nthreshold = 2.0\nmax_bytes = 9'
    run = load(tmp_path, recipe, patching__kind="static")
    assert run.patching == Static(max_bytes=9)
    assert load(tmp_path, recipe, patching__threshold="1").patching == Entropy(
        threshold=1.0, max_bytes=9
    )
    write(tmp_path, "base.toml", recipe)
    extending = 'extends = "base.toml"\n[patching]\nkind = "static"\npatch_size = 2'
    assert load(tmp_path, extending).patching == Static(patch_size=2, max_bytes=9)
    back = load(tmp_path, extending, patching__kind="entropy").patching
    assert back == Entropy(threshold=2.0, max_bytes=9)


def test_extends_lays_a_file_or_a_table_over_another_file(tmp_path):
    write(tmp_path, "tiny.toml", 'name = "tiny"\n[optim]\nlr = 0.5\nsteps = 3')
    write(tmp_path, "base.toml", 'name = "base"\n[entropy]\nextends = "tiny.toml"\nname = "e"')
    run = load(tmp_path, 'extends = "base.toml"\n[entropy.optim]\nsteps = 4')
    assert run == Run(name="base", entropy=Run(name="e", optim=Optim(lr=0.5, steps=4)))
    run = load(tmp_path, 'extends = "base.toml"\n[patching]\nkind = "static"')
    assert run.patching == Static()


def test_the_kind_may_come_from_the_extended_file(tmp_path):
    write(tmp_path, "base.toml", 'name = "a"\n[patching]\nkind = "entropy"')
    run = load(tmp_path, 'extends = "base.toml"\n[patching]\nthreshold = 3.0')
    assert run.patching == Entropy(threshold=3.0)


def test_extends_is_one_level_and_never_a_circle(tmp_path):
    write(tmp_path, "base.toml", 'extends = "other.toml"')
    write(tmp_path, "other.toml", 'name = "a"')
    assert "one level" in message(load, tmp_path, 'extends = "base.toml"')
    write(tmp_path, "loop.toml", 'name = "a"\n[entropy]\nextends = "loop.toml"')
    assert "loop.toml -> loop.toml" in message(config.load, Run, tmp_path / "loop.toml")
    assert "expected a file name, got the number 3" in message(load, tmp_path, "extends = 3")
    assert "no recipe file gone.toml" in message(load, tmp_path, 'extends = "gone.toml"')


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.toml", b"name = 'a'\nname = 'b'", "no valid TOML"),
        ("a.toml", b"[optim]\nlr = ", "no valid TOML"),
        ("a.toml", b"name = '\xff'", "no valid TOML"),
        ("a.json", b'{"name": "a", "name": "b"}', "key 'name' is given twice"),
        ("a.json", b'{"name": ', "no valid JSON"),
        ("a.json", b"[]", "expected a table, got a list"),
        ("a.json", b'{"name": ' + b"9" * 5000 + b"}", "no valid JSON"),
        ("a.json", b'{"a":' * 50_000, "nested too deeply"),
        ("a.json", b"[" * 100_000, "nested too deeply"),
        ("a.json", b'{"entropy":' * 400 + b"{}" + b"}" * 400, "nested too deeply"),
        ("a.toml", b"a = " + b"[" * 100_000, "nested too deeply"),
        ("a.toml", b"[a" + b".a" * 5000 + b"]", "nested too deeply"),
        ("a.toml", b"#" * (config.MAX_FILE_BYTES + 1), "1048577 bytes; a recipe has at most"),
    ],
)
def test_a_damaged_or_hostile_file_is_a_config_error(tmp_path, name, text, said):
    (tmp_path / name).write_bytes(text)
    assert said in message(config.load, Run, tmp_path / name)


def test_a_deep_tree_in_memory_is_a_config_error():
    tree: dict[str, object] = {"name": "a"}
    for _ in range(5000):
        tree = {"name": "a", "entropy": tree}
    assert "nested too deeply" in message(config.from_dict, Run, tree)


def test_a_missing_recipe_names_those_that_exist(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipped").mkdir()
    monkeypatch.setattr(recipes, "_recipes", lambda: tmp_path / "shipped")
    shipped = write(tmp_path / "shipped", "blt-tiny.toml", 'name = "a"')
    for name in ["blt-tiny", "blt-tiny.toml", "recipes/blt-tiny.toml", Path("recipes/blt-tiny")]:
        assert config.find_recipe(name) == shipped
    said = "no recipe file blt-tniy; a path, or one of the recipes: blt-tiny"
    assert message(config.find_recipe, "blt-tniy") == said
    assert "blt-tiny" in message(config.find_recipe, "elsewhere/blt-tiny.toml")
    (tmp_path / "run").mkdir()
    write(tmp_path / "run", "config.json", "{}")
    assert "run/config.json" in message(config.find_recipe, "run")
    write(tmp_path, "blt-tiny.toml", 'name = "mine"')
    assert config.load(Run, "blt-tiny").name == "mine"


def test_flags_are_parsed_into_dotted_names():
    argv = ["--optim.weight-decay", "-1", "--a.b", "--no-c.d-e", "--f.g=x=y", "--h.i="]
    assert config.parse_overrides(argv) == {
        "optim.weight_decay": "-1",
        "a.b": "true",
        "c.d_e": "false",
        "f.g": "x=y",
        "h.i": "",
    }


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["x"], "unexpected argument 'x'"),
        (["-x", "1"], "unexpected argument '-x'"),
        (["--a.b_c", "1", "--a.b-c", "2"], "--a.b-c is given twice"),
        (["--no-a.b=1"], "takes no value"),
    ],
)
def test_a_word_that_is_no_flag_is_refused(argv, said):
    assert said in message(config.parse_overrides, argv)


def test_describe_lists_values_types_and_docstrings():
    settings = {s.name: s for s in config.describe(Run(name="a", entropy=Run(name="b")))}
    assert settings["optim.lr"] == ("optim.lr", "a number", 1e-3, "Per step.")
    assert settings["patching.kind"].doc == "Cut where the next byte is a surprise."
    assert settings["entropy.name"].value == "b"
    assert settings["entropy.entropy"].value is None
    assert "patching.patch_size" not in settings


def test_describe_of_a_class_lists_every_member_and_stops_at_recursion():
    settings = [s.name for s in config.describe(Run)]
    assert {"patching.patch_size", "patching.threshold", "entropy"} <= set(settings)
    assert not any(name.startswith("entropy.") for name in settings)
    assert next(s for s in config.describe(Run) if s.name == "name").value is dataclasses.MISSING
