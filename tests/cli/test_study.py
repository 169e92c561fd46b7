"""`bytelm study` and `bytelm report`. Oracles: exit statuses, the files promised, a toy plan."""

import json
from pathlib import Path

import pytest

from bytelm import cli, experiments
from bytelm.data.pairs import Pair, write_pairs
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

    def run_study(out, *, plan, data, environment, stages, document, files, keep):
        assert (stages, keep) == ([], None)
        return whole.run_study(
            out,
            plan=plan,
            data=data,
            environment=environment,
            stages=made.stages(),
            document=document,
            files=files,
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


# --- comparisons -------------------------------------------------------------------------------


@pytest.fixture
def asked(monkeypatch):
    """What would be run; nothing is."""
    plans_run = []

    def run_plan(plan, out):
        plans_run.append((plan, out))
        return Toy().run(out)

    monkeypatch.setattr(experiments, "run_plan", run_plan)
    return plans_run


GRID = """
[[space]]
key = "optim.lr"
low = 0.001
high = 0.01
log = true

[[space]]
key = "model.dropout"
values = [0.0, 0.1]
"""


def test_a_comparison_is_asked_for_by_flags(tmp_path, asked, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grid.toml").write_text(GRID)
    words = ["--train-csv", "a.csv", "--test-csv", "b.csv", "--seeds", "3", "--max-trials", "5"]
    words += ["--tune-epochs", "2", "--grid", "grid.toml", "--storage", "shared.jsonl"]
    words += ["--model.dim", "64", "--decoding.beam-width", "3"]
    words += ["--match", "flops", "--patch-sizes", "2,4.5"]
    assert cli.main(["study", "reversal", "--tune", *words]) == 0
    ((plan, out),) = asked
    assert out == Path("studies/reversal-tune")
    assert (plan.task, plan.seeds, plan.model.dim) == ("reversal", 3, 64)
    assert (plan.data.train_csv, plan.data.test_csv) == ("a.csv", "b.csv")
    assert plan.decoding.beam_width == 3
    assert (plan.match, plan.patch_sizes) == ("flops", (2.0, 4.5))
    search = plan.search
    assert (search.trials, search.epochs, search.storage) == (5, 2, "shared.jsonl")
    assert [dimension.described() for dimension in search.space] == [
        {"low": 0.001, "high": 0.01, "log": True},
        [0.0, 0.1],
    ]


@pytest.mark.parametrize("match", ["none", "flops", "parameters"])
def test_what_is_matched_is_a_flag_and_the_curve_may_be_left_out(asked, tmp_path, match):
    out = str(tmp_path / "out")
    words = ["study", "reversal", "--match", match, "--patch-sizes", "", "--out", out]
    assert cli.main(words) == 0
    assert (asked[0][0].match, asked[0][0].patch_sizes) == (match, ())


@pytest.mark.parametrize(
    ("scale", "epochs", "beams", "trials", "folder"),
    [
        ([], 10, 5, None, "studies/reversal"),
        (["--full"], 10, 5, None, "studies/reversal"),
        (["--quick"], 2, 2, None, "studies/reversal-quick"),
        (["--tune"], 10, 5, 12, "studies/reversal-tune"),
    ],
)
def test_the_scales_of_a_comparison(
    asked, tmp_path, monkeypatch, scale, epochs, beams, trials, folder
):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["study", "reversal", *scale]) == 0
    ((plan, out),) = asked
    assert out == Path(folder)
    assert (plan.training.epochs, plan.decoding.beam_width) == (epochs, beams)
    assert (plan.search.trials if plan.search else None) == trials


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["reversal", "--data", "x"], "--data is for plans of kind 'compression', and reversal"),
        (["compression", "--train-csv", "x"], "--train-csv is for plans of kind 'comparison'"),
        (["compression", "--max-trials", "2"], "--max-trials is for plans of kind 'comparison'"),
        (["reversal", "--max-trials", "2"], "--max-trials is for a search, and reversal has none"),
        (["reversal", "--quick", "--storage", "x"], "--storage is for a search"),
        (["compression", "--tune"], "has no scale 'tune'"),
        (["reversal", "--test-csv", "x.csv"], "test_csv needs a train_csv"),
        (["reversal", "--train-csv", "no.csv"], "cannot read"),
        (["reversal", "--train-csv", "ragged.csv"], "ragged.csv, line 3: 1 field, but the header"),
        (["reversal", "--train-csv", "rows.csv", "--test-csv", "no.csv"], "the test file"),
        (["pairs"], "neither a task nor rows; name a file with --train-csv PATH"),
        (["reversal", "--tune", "--grid", "no.toml"], "there is no grid file no.toml"),
        (["reversal", "--tune", "--grid", "flat.toml"], "unknown key 'lr' at the top level"),
        (["reversal", "--tune", "--grid", "typo.toml"], "did you mean 'lr'?"),
        (["reversal", "--tune", "--grid", "wrong.toml"], "optim.lr: expected a number, got"),
        (["reversal", "--match", "speed"], "--match: expected 'parameters' or 'flops' or 'none'"),
        (["reversal", "--patch-sizes", "4,many"], "--patch-sizes.1: expected a number"),
        (["reversal", "--model.wings", "2"], "unknown flag '--model.wings'"),
        (["reversal", "--model.max-bytes", "20"], "model.max_bytes is 20"),
    ],
)
def test_what_no_comparison_can_be_is_said_before_anything_is_there(
    words, said, tmp_path, monkeypatch, capsys
):
    monkeypatch.chdir(tmp_path)
    write_pairs(tmp_path / "rows.csv", [Pair(f"row {n}", f"{n} wor") for n in range(40)])
    (tmp_path / "ragged.csv").write_text("input,target\na,b\nc\n")
    (tmp_path / "flat.toml").write_text("lr = [0.1]")
    (tmp_path / "typo.toml").write_text('[[space]]\nkey = "optim.lrr"\nvalues = [0.1]')
    (tmp_path / "wrong.toml").write_text('[[space]]\nkey = "optim.lr"\nvalues = ["fast"]')
    assert cli.main(["study", *words]) == 1
    printed = capsys.readouterr()
    assert said in printed.err
    assert "Traceback" not in printed.err
    assert not (tmp_path / "studies").exists()


@pytest.mark.parametrize("words", [["study"], ["study", "a", "--quick", "--full"], ["report"]])
def test_a_command_line_that_cannot_be_read_is_exit_status_2(words, capsys):
    with pytest.raises(SystemExit) as stopped:
        cli.main(words)
    assert stopped.value.code == 2
