"""`bytelm study` and `bytelm report`. Oracles: exit statuses, the files promised, a toy plan."""

import json

import pytest

from bytelm import cli
from bytelm.experiments import plan as plans
from bytelm.experiments import study as whole
from experiments.toy_study import Toy


@pytest.fixture
def data(tmp_path):
    file = tmp_path / "data.txt"
    file.write_bytes(b"nothing of this is read by a toy " * 100)
    return file


@pytest.fixture
def toy(monkeypatch):
    """Put the toy's stages where those of compression would be; its plan is what was asked for."""
    made = Toy()

    def run_study(out, *, plan, data, environment, stages, document):
        assert stages == []
        return whole.run_study(
            out,
            plan=plan,
            data=data,
            environment=environment,
            stages=made.stages(),
            document=document,
        )

    monkeypatch.setattr(plans.compression, "list_stages", lambda plan, test: [])
    monkeypatch.setattr(plans, "run_study", run_study)
    return made


def test_a_study_ends_with_its_report(tmp_path, data, toy, capsys):
    out = tmp_path / "out"
    arguments = ["study", "compression", "--quick", "--data", str(data), "--out", str(out)]
    assert cli.main([*arguments, "--seeds", "3", "--patches.lanes", "16", "--threads", "1"]) == 0
    assert f"{out}: 5 of 5 stages done, report {out}/results/experimental_report.html" in (
        capsys.readouterr().out
    )
    plan = json.loads((out / "plan.json").read_text())
    assert plan["recipe"] == "codec-tiny"
    assert plan["seeds"] == 3
    assert plan["patches"]["lanes"] == 16
    assert plan["hardware"]["threads"] == 1
    assert plan["data"]["paths"] == [str(data)]
    for ending in ("txt", "md", "html"):
        assert (out / "results" / f"experimental_report.{ending}").stat().st_size > 100


def test_a_failed_stage_is_exit_status_1_with_a_report(tmp_path, data, toy, capsys):
    toy.failing = frozenset({"numbers 0"})
    out = tmp_path / "out"
    assert cli.main(["study", "compression", "--data", str(data), "--out", str(out)]) == 1
    printed = capsys.readouterr()
    assert "2 of 5 stages done" in printed.out
    assert "3 stages have no result; the first: numbers seed 0: ValueError" in printed.err
    assert "Traceback" not in printed.err
    assert "Not measured" in (out / "results" / "experimental_report.txt").read_text()


def test_json_is_the_record(tmp_path, data, toy, capsys):
    out = tmp_path / "out"
    code = cli.main(["study", "compression", "--data", str(data), "--out", str(out), "--json"])
    printed = json.loads(capsys.readouterr().out)
    assert code == 0
    assert printed == json.loads((out / "results" / "comprehensive_results.json").read_text())


def test_a_plan_of_ones_own_and_a_plan_json_name_their_folder(
    tmp_path, data, toy, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(
        'kind = "compression"\ntitle = "T"\nquestion = "Q"\nrecipe = "codec-tiny"\n'
    )
    assert cli.main(["study", "mine.toml", "--data", str(data)]) == 0
    assert (tmp_path / "studies" / "mine" / "plan.json").is_file()
    calls = len(toy.calls)
    assert cli.main(["study", "studies/mine/plan.json"]) == 0
    assert len(toy.calls) == calls


def test_the_report_is_made_again_from_the_results(tmp_path, data, toy, capsys):
    out = tmp_path / "out"
    cli.main(["study", "compression", "--data", str(data), "--out", str(out)])
    report = out / "results" / "experimental_report.html"
    written = report.read_bytes()
    report.unlink()
    capsys.readouterr()
    assert cli.main(["report", str(out), "--json"]) == 0
    assert str(report) in json.loads(capsys.readouterr().out)["files"]
    assert report.read_bytes() == written
    assert cli.main(["report", str(out)]) == 0
    assert capsys.readouterr().out.split() == [
        str(report.with_suffix(ending)) for ending in (".txt", ".md", ".html")
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["study", "telepathy"], "no plan telepathy"),
        (["study", "compression", "--quick"], "data.paths is empty"),
        (["study", "compression", "--data", "/no/such/file"], "/no/such/file"),
        (["study", "compression", "--patches.wings", "2"], "unknown flag '--patches.wings'"),
        (["study", "compression", "--data.paths", "x", "--data", "y"], "are the same"),
        (["report", "."], "holds no study"),
    ],
)
def test_what_cannot_be_is_said_without_a_traceback(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(words) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err


@pytest.mark.parametrize("words", [["study"], ["study", "a", "--quick", "--full"], ["report"]])
def test_a_command_line_that_cannot_be_read_is_exit_status_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
