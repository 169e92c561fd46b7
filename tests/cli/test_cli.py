"""The command line as a user meets it. Oracles: exit codes, the texts promised, stand-in models."""

import argparse
import dataclasses
import json
import os
import subprocess
import sys
import tomllib
import types
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pytest

import bytelm
from bytelm import cli, config
from bytelm.cli import arguments
from bytelm.cli import config as config_verb
from bytelm.errors import BytelmError

LIGHT_VERBS = ["train", "calibrate", "generate", "config", "cost", "compress", "decompress"]
LIGHT_VERBS += ["test", "info", "salvage", "bench"]


@dataclass(frozen=True, kw_only=True)
class Data:
    paths: tuple[str, ...] = ()
    """Files and folders."""


@dataclass(frozen=True, kw_only=True)
class Training:
    steps: int | None = 100
    """Optimizer updates."""
    seed: int = 0
    """Of everything."""
    save_every: int = 10
    """In steps."""
    tensorboard: bool = True
    """Curves."""


@dataclass(frozen=True, kw_only=True)
class Hardware:
    device: Literal["auto", "cpu"] = "auto"
    """Where."""
    threads: int | None = None
    """None: all."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model for tests."""

    kind: ClassVar[str] = "test"

    dim: int = 8
    """Width."""
    betas: tuple[float, ...] = (0.5, 1e-5)
    """Two numbers."""


@dataclass(frozen=True, kw_only=True)
class Patching:
    mean_patch_bytes: float = 4.0
    """Wanted."""


@dataclass(frozen=True, kw_only=True)
class EntropyRecipe:
    recipe: "RunConfig"
    """Trained first."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    model: Model
    """The model."""
    patching: Patching | None = None
    """The patcher."""
    data: Data = Data()
    training: Training = Training()
    hardware: Hardware = Hardware()
    entropy: EntropyRecipe | None = None
    """The source of entropies."""
    init: Data | None = None
    """Weights to begin with."""


@dataclass(frozen=True, kw_only=True)
class Result:
    run_dir: Path
    steps: int
    best_valid_bpb: float | None
    stopped_early: bool


@pytest.fixture
def recipe(tmp_path, monkeypatch):
    """A recipe in the working directory and a stand-in for training, which records its call."""
    monkeypatch.chdir(tmp_path)
    Path("tiny.toml").write_text("[model]\ndim = 16\n[entropy.recipe.model]\ndim = 4\n")
    calls = []

    def train(config: RunConfig, out: Path) -> Result:
        calls.append((config, out))
        return Result(run_dir=out, steps=7, best_valid_bpb=2.5, stopped_early=False)

    for name, contents in {
        "bytelm.training.settings": {"RunConfig": RunConfig, "EntropyRecipe": EntropyRecipe},
        "bytelm.training.run": {"train": train},
    }.items():
        stand_in = types.ModuleType(name)
        vars(stand_in).update(contents)
        monkeypatch.setitem(sys.modules, name, stand_in)
    return calls


def usage_error(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(argv))
    return caught.value.code


# --- the front page ----------------------------------------------------------------------------


def test_help_lists_every_verb(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["--help"])
    assert caught.value.code == 0
    listed = capsys.readouterr().out
    assert all(f"  {verb} " in listed for verb in cli.VERBS)


def test_no_verb_is_a_usage_error_that_shows_the_help(capsys):
    assert cli.main([]) == 2
    captured = capsys.readouterr()
    assert "verbs:" in captured.err
    assert captured.out == ""


def test_a_mistyped_verb_or_flag_names_the_nearest(capsys):
    assert usage_error("trian") == 2
    assert "unknown verb 'trian'; did you mean 'train'?" in capsys.readouterr().err
    assert usage_error("train", "x.toml", "--sed", "3") == 2
    assert "unknown argument '--sed'; did you mean '--seed'?" in capsys.readouterr().err


def test_python_m_is_the_same_program():
    argv = [sys.executable, "-m", "bytelm", "no-such-verb"]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "unknown verb" in done.stderr


@pytest.mark.parametrize("verb", LIGHT_VERBS)
def test_the_help_of_a_verb_teaches_with_two_examples(verb, capsys):
    assert usage_error(verb, "--help") == 0
    shown = capsys.readouterr().out
    assert shown.count(f"  bytelm {verb} ") >= 2


# --- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (BytelmError("no such thing"), 1, "bytelm: error: no such thing\n"),
        (OSError(28, "No space left on device", "x"), 1, "x: No space left on device\n"),
        (MemoryError("of 2 TB"), 1, "not enough memory: of 2 TB\n"),
        (KeyboardInterrupt(), 130, "bytelm: interrupted\n"),
        (ModuleNotFoundError(name="matplotlib.pyplot"), 1, "pip install 'bytelm[report]'\n"),
    ],
)
def test_an_error_is_one_line_on_stderr(monkeypatch, capsys, error, code, said):
    def fail(args):
        raise error

    verb = types.ModuleType("bytelm.cli.cost")
    verb.add_arguments = lambda parser: None
    verb.run = fail
    monkeypatch.setitem(sys.modules, "bytelm.cli.cost", verb)
    assert cli.main(["cost"]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.endswith(said)
    assert captured.err.count("\n") == 1


def test_a_package_that_is_no_extra_is_a_defect_and_not_hidden(monkeypatch):
    def fail(args):
        raise ModuleNotFoundError(name="nonsense")

    verb = types.ModuleType("bytelm.cli.cost")
    verb.add_arguments = lambda parser: None
    verb.run = fail
    monkeypatch.setitem(sys.modules, "bytelm.cli.cost", verb)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["cost"])


def test_a_reader_that_goes_away_ends_it_quietly():
    code = (
        "import sys, types, bytelm.cli\n"
        "verb = types.ModuleType('bytelm.cli.cost')\n"
        "verb.add_arguments = lambda parser: None\n"
        "verb.run = lambda args: [print('x' * 9999) for _ in range(999)] and 0\n"
        "sys.modules['bytelm.cli.cost'] = verb\n"
        "sys.exit(bytelm.cli.main(['cost']))"
    )
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb") as stdout:
        done = subprocess.run(
            [sys.executable, "-c", code], stdout=stdout, stderr=subprocess.PIPE, check=False
        )
    assert (done.returncode, done.stderr) == (141, b"")


def test_every_extra_is_declared_in_the_package():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    extras = project["project"]["optional-dependencies"]
    for package, extra in cli.EXTRAS.items():
        assert any(line.startswith(package) for line in extras[extra])


# --- train, config, cost -----------------------------------------------------------------------


def test_train_hands_over_the_recipe_with_its_flags(recipe, capsys):
    argv = ["train", "tiny", "--data", "a", "b,c", "--steps", "7", "--seed", "3", "--threads", "2"]
    argv += ["--device", "cpu", "--save-every", "5", "--model.dim", "32", "--out", "here"]
    assert cli.main([*argv, "--no-training.tensorboard"]) == 0
    expected = RunConfig(
        model=Model(dim=32),
        data=Data(paths=("a", "b,c")),
        training=Training(steps=7, seed=3, save_every=5, tensorboard=False),
        hardware=Hardware(device="cpu", threads=2),
        entropy=EntropyRecipe(recipe=RunConfig(model=Model(dim=4))),
    )
    assert recipe == [(expected, Path("here"))]
    assert capsys.readouterr().out == "here: 7 steps, best validation 2.5000 bits per byte\n"


def test_train_json_is_how_it_ended(recipe, capsys):
    assert cli.main(["train", "tiny", "--out", "here", "--json"]) == 0
    ended = {"run_dir": "here", "steps": 7, "best_valid_bpb": 2.5, "stopped_early": False}
    assert json.loads(capsys.readouterr().out) == ended


def test_flags_may_come_before_the_recipe(recipe):
    assert cli.main(["train", "--model.dim", "32", "--model.betas=1,2", "tiny.toml"]) == 0
    ((trained, out),) = recipe
    assert trained.model == Model(dim=32, betas=(1.0, 2.0))
    assert out == Path("runs/tiny")


def test_the_name_of_a_run_is_that_of_its_recipe_or_folder():
    assert arguments.run_name("recipes/blt-tiny.toml") == "blt-tiny"
    assert arguments.run_name("blt-tiny") == "blt-tiny"
    assert arguments.run_name("runs/x/config.json") == "x"


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--modle.dim", "1"], "unknown flag '--modle'; did you mean '--model'?"),
        (["--model.dim", "big"], "--model.dim: expected a whole number, got the string 'big'"),
        (["--device", "tpu"], "hardware.device: expected 'auto' or 'cpu', got the string 'tpu'"),
        (["--steps", "3", "--training.steps", "4"], "--steps and --training.steps are the same"),
        (["--model.dim", "1", "--model.dim", "2"], "--model.dim is given twice"),
    ],
)
def test_a_mistake_in_a_setting_ends_in_one_line(recipe, capsys, argv, said):
    assert cli.main(["train", "tiny", *argv]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert recipe == []


def test_numbers_out_of_range_are_usage_errors(recipe, capsys):
    for text in ["0", "-1", "x", "1.5"]:
        assert usage_error("train", "tiny", "--steps", text) == 2
        assert f"expected a whole number >= 1, got '{text}'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "text", "wanted"),
    [
        ("--steps", "1" + 400 * "0", None),
        ("--seed", str(2**64), "a whole number 0 to 2^64 - 1"),
        ("--threads", "99999999999", "a whole number 1 to 1024"),
    ],
)
def test_huge_numbers_are_read_or_refused_with_their_range(recipe, capsys, flag, text, wanted):
    if wanted is None:
        assert cli.main(["train", "tiny", flag, text]) == 0
        return
    assert usage_error("train", "tiny", flag, text) == 2
    assert f"expected {wanted}, got '{text}'" in capsys.readouterr().err


def test_demo_hands_its_flags_to_both_models(monkeypatch, capsys):
    asked = {}

    def run_demo(paths, *, out, settings, say, scoring):
        asked.update(settings, paths=paths)
        raise BytelmError("enough")

    stand_in = types.ModuleType("bytelm.apps.demo")
    stand_in.run_demo = run_demo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bytelm.apps.demo", stand_in)
    flags = ["--steps", "5", "--seed", "0", "--device", "cpu", "--threads", "2"]
    assert cli.main(["demo", "here", *flags]) == 1
    assert asked == {
        "paths": ["here"],
        "training.steps": 5,
        "training.seed": 0,
        "hardware.device": "cpu",
        "hardware.threads": 2,
    }


def test_config_prints_a_recipe_that_loads_to_the_same_settings(recipe, capsys):
    flags = ["--data", 'a"\\', "\x7fb", "--training.steps", "none", "--model.betas", "1e-5,inf"]
    assert cli.main(["config", "tiny", *flags]) == 0
    printed = capsys.readouterr().out
    assert "# Optimizer updates.\nsteps = " in printed
    Path("printed.toml").write_text(printed)
    assert cli.main(["train", "tiny", *flags]) == 0
    assert config.load(RunConfig, "printed.toml") == recipe[0][0]


def test_config_json_is_the_whole_configuration(recipe, capsys):
    assert cli.main(["config", "tiny", "--json"]) == 0
    tree = json.loads(capsys.readouterr().out)
    assert tree["model"] == {"kind": "test", "dim": 16, "betas": [0.5, 1e-5]}
    assert config.from_dict(RunConfig, tree) == config.load(RunConfig, "tiny")


def test_config_shows_tables_after_their_parents_keys(recipe):
    lines = list(config_verb.toml_lines(RunConfig(model=Model())))
    assert lines.index('entropy = "none"') < lines.index("\n[model]")


# --- calibrate, cost ---------------------------------------------------------------------------


class ByteValues:
    """A byte's entropy is its value in 1/64 nats."""

    def entropies(self, data: bytes):
        return np.asarray([byte / 64 for byte in data], np.float32)


def test_calibrate_prints_the_threshold_in_nats_and_bits(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bytelm, "load", lambda run: ByteValues(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "a.bin").write_bytes(bytes(range(200)))
    argv = ["calibrate", str(tmp_path / "a.bin"), "--entropy", "run", "--mean-patch-bytes", "4"]
    assert cli.main([*argv, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    # Fifty starts: the first byte and the 49 highest entropies, those of bytes 151 to 199.
    assert found["mean_patch_bytes"] == pytest.approx(4, rel=0.02)
    assert found["threshold_nats"] == pytest.approx(150.5 / 64, abs=1 / 64)
    assert found["threshold_bits"] == pytest.approx(found["threshold_nats"] * 1.442695)
    assert cli.main(argv) == 0
    assert "nats (" in capsys.readouterr().out


@pytest.fixture
def rising(monkeypatch, tmp_path):
    monkeypatch.setattr(bytelm, "load", lambda run: ByteValues(), raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    # Every fourth byte rises by 1 to 50 steps; the fall after it is no start.
    (tmp_path / "a.bin").write_bytes(b"".join(bytes([10, 10, 10, 11 + i]) for i in range(50)))
    return ["calibrate", str(tmp_path / "a.bin"), "--entropy", "run", "--json"]


def test_calibrate_finds_the_threshold_of_the_rise(rising, capsys):
    assert cli.main([*rising, "--relative", "--mean-patch-bytes", "8"]) == 0
    found = json.loads(capsys.readouterr().out)
    # 25 starts in 200 bytes: the first byte and the 24 largest rises, 27 to 50 steps of 1/64.
    assert found["rule"] == "relative_threshold"
    assert found["mean_patch_bytes"] == 8
    assert found["threshold_nats"] == pytest.approx(26.5 / 64)


def test_calibrate_keeps_the_limits_and_its_warnings_name_files(rising, capsys, tmp_path):
    (tmp_path / "flat.bin").write_bytes(b"\x00" * 300)
    rising.insert(1, str(tmp_path / "flat.bin"))
    assert cli.main([*rising, "--mean-patch-bytes", "8", "--max-patch-bytes", "100"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert found["rule"] == "threshold"
    assert found["mean_patch_bytes_per_file"][str(tmp_path / "flat.bin")] == 100
    assert f"{tmp_path / 'flat.bin'} (100.00)" in captured.err
    assert cli.main([*rising, "--mean-patch-bytes", "8", "--min-patch-bytes", "9"]) == 0
    assert json.loads(capsys.readouterr().out)["mean_patch_bytes"] >= 9


def test_calibrate_refuses_limits_that_no_patch_can_meet(rising, capsys):
    assert cli.main([*rising, "--min-patch-bytes", "9", "--max-patch-bytes", "8"]) == 1
    assert "max_patch_bytes must be at least min_patch_bytes (9), got 8" in capsys.readouterr().err


def test_calibrate_refuses_text_without_bytes(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr(bytelm, "load", lambda run: None, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "empty").touch()
    assert cli.main(["calibrate", str(tmp_path / "empty"), "--entropy", "run"]) == 1
    assert capsys.readouterr().err.startswith("bytelm: error: ")


def test_a_file_name_that_is_not_utf8_can_be_printed():
    code = "import sys, bytelm.cli; bytelm.cli.main([]); print('\\udcff')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"\\udcff\n")


def test_cost_prints_what_the_model_costs(recipe, monkeypatch, capsys):
    @dataclasses.dataclass(frozen=True)
    class Cost:
        parameters: int
        parts: dict[str, int]
        flops_per_byte: float

    def cost(model, *, mean_patch_bytes, entropy_config):
        extra = entropy_config.dim if entropy_config else 0
        return Cost(model.dim * 1000, {"encoder": extra}, mean_patch_bytes)

    stand_in = types.ModuleType("bytelm.models.cost")
    stand_in.cost = cost
    monkeypatch.setitem(sys.modules, "bytelm.models.cost", stand_in)
    assert cli.main(["cost", "tiny"]) == 0
    words = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert words == [["parameters", "16,000"], ["encoder", "4"], ["flops", "per", "byte", "1.0"]]
    argv = ["cost", "tiny", "--json", "--model.dim", "2", "--entropy", "none"]
    for flags, size in [
        ([], 1.0),
        (["--patching.mean-patch-bytes", "6"], 6.0),
        (["--mean-patch-bytes", "3"], 3.0),
    ]:
        assert cli.main([*argv, *flags]) == 0
        figures = json.loads(capsys.readouterr().out)
        assert figures == {"parameters": 2000, "parts": {"encoder": 0}, "flops_per_byte": size}


def test_number_types_say_what_they_want():
    with pytest.raises(argparse.ArgumentTypeError, match="expected a number > 0 and <= 1, got '2'"):
        arguments.fraction("2")
