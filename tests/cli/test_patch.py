"""`bytelm patch`. Oracles: counts by hand, exit codes, a closed-form model in place of a run."""

import io
import json
import math
from types import SimpleNamespace

import numpy as np
import pytest

import bytelm
from bytelm.cli import main


class Halves:
    """Every bit is a coin: 8 bits a byte; a patch starts at every third byte."""

    def log_probs(self, data):
        return np.full((len(data), 256), -math.log(256), dtype=np.float32)

    def score(self, data, *, on_progress=None):
        nats = np.full(len(data), math.log(256), dtype=np.float32)
        return SimpleNamespace(nll_nats=nats, entropies=nats, starts=self.patch_starts(data))

    def patch_starts(self, data):
        return np.arange(len(data)) % 3 == 0


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    monkeypatch.setattr(bytelm, "load", lambda _: Halves(), raising=False)


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "all.bin"
    path.write_bytes(bytes(range(256)) + b"\n")
    return path


def test_json_counts_by_hand(file, capsys):
    assert main(["patch", str(file), "--patcher", "static", "--patch-size", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bytes"], found["patches"]) == (257, 65)
    assert found["mean_patch_bytes"] == pytest.approx(257 / 65)
    assert found["lengths"] == {"1": 1, "4": 64}


def test_json_sums_over_files_and_ignores_the_cap(file, capsys):
    assert main(["patch", str(file), str(file), "--run", "r", "--json", "--max-bytes", "9"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["bytes"], found["patches"]) == (514, 172)
    assert [one["name"] for one in found["files"]] == [str(file)] * 2


def test_a_pipe_gets_bars_and_a_cut_is_told(file, capsys):
    assert main(["patch", str(file), "--patcher", "space", "--max-bytes", "100"]) == 0
    out, err = capsys.readouterr()
    assert "100 bytes" in out
    assert "\x1b" not in out
    assert "first 100 of 257 bytes" in err


def test_stdin_and_html(file, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", SimpleNamespace(buffer=io.BytesIO(file.read_bytes())))
    page = tmp_path / "page.html"
    assert main(["patch", "-", "--run", "r", "--html", str(page)]) == 0
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text("utf-8")
    assert "standard input" in text
    assert "8.000" in text


def test_an_empty_file_is_no_error(tmp_path, capsys):
    (tmp_path / "empty").write_bytes(b"")
    for flags in (["--run", "r"], ["--patcher", "space"], ["--run", "r", "--json"]):
        assert main(["patch", str(tmp_path / "empty"), *flags]) == 0
    assert '"mean_patch_bytes": 0.0' in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "Give --run RUN, a trained model, or a rule that needs none: --patcher static"),
        (["--patcher", "space", "--patch-size", "3"], "--patch-size is no setting of --patcher"),
        (["--run", "r", "--threshold", "1"], "--threshold is no setting of --run"),
        (["--patcher", "shannon-window", "--window", "1"], "window must be 2"),
        (["--run", "r", "--max-bytes", "99999999"], "at most"),
        (["--run", "r", "--html", "x.html", "--json"], "--html writes one page"),
    ],
)
def test_flags_that_do_not_go_together(file, capsys, flags, message):
    assert main(["patch", str(file), *flags]) == 1
    assert message in capsys.readouterr().err


def test_missing_files_and_folders(tmp_path, capsys):
    for path, message in [(tmp_path / "none", "No such file"), (tmp_path, "is a folder")]:
        assert main(["patch", str(path), "--patcher", "space"]) == 1
        assert message in capsys.readouterr().err
