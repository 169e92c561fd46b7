"""`bytelm task`. Oracles: the files read back, exit codes, the texts promised."""

import json
from pathlib import Path

import pytest

from bytelm.cli import main
from bytelm.data.pairs import fingerprint, read_pairs
from bytelm.data.tasks import TASKS

SMALL = ["--n-train", "40", "--n-test", "20"]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def written(folder: str | Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def test_train_and_test_files_have_the_rows_asked_for_and_share_no_input(capsys):
    assert main(["task", "reversal", *SMALL]) == 0
    assert sorted(written("tasks/reversal")) == ["test.csv", "train.csv"]
    train = read_pairs(Path("tasks/reversal/train.csv"), max_bytes=192)
    test = read_pairs(Path("tasks/reversal/test.csv"), max_bytes=192)
    assert (len(train), len(test)) == (40, 20)
    assert not {pair.input for pair in train} & {pair.input for pair in test}
    assert all(pair.target == pair.input[::-1] for pair in train + test)
    assert "      40 pairs, " in (out := capsys.readouterr().out)
    assert str(Path("tasks/reversal/test.csv")) in out


def test_the_default_is_the_size_of_the_public_data():
    assert main(["task", "reversal"]) == 0
    lines = {name: data.count(b"\n") for name, data in written("tasks/reversal").items()}
    assert lines == {"train.csv": 10_001, "test.csv": 2_001}


@pytest.mark.parametrize("task", TASKS)
def test_the_same_command_writes_the_same_bytes_and_another_seed_others(task):
    for name, seed in (("a", "0"), ("b", "0"), ("c", "1")):
        assert main(["task", task, *SMALL, "--seed", seed, "--out", name]) == 0
    assert written("a") == written("b")
    assert all(written("a")[name] != written("c")[name] for name in written("a"))


def test_test_rows_do_not_depend_on_the_number_of_training_rows():
    assert main(["task", "counting", "--n-train", "5", "--n-test", "20", "--out", "a"]) == 0
    assert main(["task", "counting", *SMALL, "--out", "b"]) == 0
    assert written("a")["test.csv"] == written("b")["test.csv"]
    assert written("b")["train.csv"].startswith(written("a")["train.csv"])


def test_json_describes_the_files(capsys):
    assert main(["task", "spelling", *SMALL, "--seed", "7", "--json", "--out", "x"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["task"], found["seed"]) == ("spelling", 7)
    for file, rows in zip(found["files"], (40, 20), strict=True):
        pairs = read_pairs(Path(file["path"]), max_bytes=file["longest_bytes"])
        assert (file["rows"], len(pairs)) == (rows, rows)
        assert file["fingerprint"] == fingerprint(pairs)
        total = sum(len(pair.input.encode()) for pair in pairs)
        assert file["mean_input_bytes"] == pytest.approx(total / rows)


def test_files_that_are_there_are_replaced_only_when_told(capsys):
    Path("x").mkdir()
    Path("x/test.csv").write_text("mine")
    Path("x/notes").write_text("mine too")
    assert main(["task", "reversal", *SMALL, "--out", "x"]) == 1
    assert "x/test.csv; --force replaces" in capsys.readouterr().err
    assert written("x") == {"test.csv": b"mine", "notes": b"mine too"}
    assert main(["task", "reversal", *SMALL, "--out", "x", "--force"]) == 0
    assert len(read_pairs(Path("x/test.csv"), max_bytes=192)) == 20
    assert written("x")["notes"] == b"mine too"


def test_an_output_that_cannot_be_a_folder_is_an_error(capsys):
    Path("x").write_text("a file")
    assert main(["task", "reversal", *SMALL, "--out", "x"]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_the_list_names_every_task(capsys):
    assert main(["task", "--list"]) == 0
    out = capsys.readouterr().out
    assert all(task.summary in out and task.why in out for task in TASKS.values())
    assert main(["task", "--list", "--json"]) == 0
    assert [task["name"] for task in json.loads(capsys.readouterr().out)["tasks"]] == list(TASKS)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["revesal"], "unknown task 'revesal', expected one of .* did you mean 'reversal'?"),
        ([], "expected the name of a task: `bytelm task --list`"),
    ],
)
def test_a_task_that_is_not_there_is_an_error(words, message, capsys):
    assert main(["task", *words]) == 1
    err = capsys.readouterr().err
    assert all(part in err for part in message.split(".*"))
    assert not list(Path().iterdir())


@pytest.mark.parametrize("words", [["--n-train", "0"], ["--n-test", "-1"], ["--seed", "x"]])
def test_numbers_out_of_range_are_usage_errors(words):
    with pytest.raises(SystemExit) as caught:
        main(["task", "reversal", *words])
    assert caught.value.code == 2
