"""`bytelm chat` as a user meets it. Oracles: a model that mirrors its input, the library."""

import base64
import contextlib
import io
import json
import math
import os
import pty
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bytelm import cli
from bytelm.apps.chat import one_line
from bytelm.apps.repl import shown
from bytelm.decoding.beam import Beams
from bytelm.decoding.seq2seq import transduce
from bytelm.models import Ngram, PatchEncoderConfig, Seq2Seq, Seq2SeqConfig, definition
from bytelm.patching import Static
from bytelm.training import checkpoints, loading
from conftest import ngram, randomize_
from mirror import LONGEST, SURE, Mirror


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.fixture
def mirror(monkeypatch):
    model = Mirror()
    monkeypatch.setattr(loading, "load_seq2seq", lambda path: model)
    return model


@pytest.fixture
def pipe(monkeypatch):
    def fill(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    return fill


# --- one text and lines ------------------------------------------------------------------------


def test_one_input(mirror, capsys):
    assert cli.main(["chat", "run", "--input", "stressed"]) == 0
    assert capsys.readouterr() == ("desserts\n", "")


def test_each_line_of_a_pipe_is_one_line(mirror, pipe, capsys):
    """The last line has no end; the second is of a file with other line ends."""
    pipe("ab c\nx\r\né".encode())
    assert cli.main(["chat", "run"]) == 0
    assert capsys.readouterr() == ("c ba\nx\n\ufffd\ufffd\n", "")
    assert mirror.batches == [[b"ab c"], [b"x"], ["é".encode()]]


def test_lines_are_answered_together_and_in_order(mirror, pipe, capsys):
    pipe(b"ab\nlonger\nxyz\n")
    assert cli.main(["chat", "run", "--rows", "2"]) == 0
    assert capsys.readouterr().out == "ba\nregnol\nzyx\n"
    assert mirror.batches == [[b"longer", b"ab"], [b"xyz"]]


@pytest.mark.parametrize("rows", ["1", "2", "9"])
def test_what_cannot_be_read_is_named_and_the_rest_is_answered(mirror, pipe, capsys, rows):
    pipe(b"ab\n" + b"x" * (LONGEST + 1) + b"\n\ncd\n")
    assert cli.main(["chat", "run", "--rows", rows]) == 1
    out, errors = capsys.readouterr()
    assert out == "ba\n\n\ndc\n"
    assert errors.splitlines() == [
        "bytelm: line 2 has 13 bytes, and this model reads at most 12: shorten it",
        "bytelm: line 3 is empty: expected 1 to 12 bytes",
        "bytelm: error: 2 of 4 inputs have no answer: the lines above say why",
    ]


def test_an_input_that_is_too_long(mirror, capsys):
    assert cli.main(["chat", "run", "--input", "x" * 99]) == 1
    assert "--input has 99 bytes" in capsys.readouterr().err


def test_an_empty_pipe(mirror, pipe, capsys):
    pipe(b"")
    assert cli.main(["chat", "run"]) == 0
    assert capsys.readouterr() == ("", "")


def test_line_ends_of_an_answer_do_not_break_its_line(mirror, capsys):
    assert cli.main(["chat", "run", "--input", "a\nb\rc\x1b"]) == 0
    assert capsys.readouterr().out == "\x1bc␍b␊a\n"


def test_a_terminal_is_not_steered_by_what_the_model_writes(mirror, monkeypatch, capsys):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["chat", "run", "--input", "a\x1b"]) == 0
    assert capsys.readouterr().out == "␛a\n"


def test_n_best_are_numbered_and_scored(mirror, pipe, capsys):
    """The score of a right answer is known: all symbols have the probability that the toy says."""
    pipe(b"ab\n" + b"x" * 99 + b"\ncd\n")
    argv = ["chat", "run", "--beam-width", "3", "--n-best", "2", "--length-penalty", "0"]
    assert cli.main(argv) == 1
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == ["1", "1", "", "3", "3"]
    assert lines[0][2] == "ba"
    assert lines[3][2] == "dc"
    assert float(lines[0][1]) == pytest.approx(3 * math.log(SURE), abs=1e-5)
    assert float(lines[1][1]) < float(lines[0][1])


def test_json_has_every_byte(mirror, pipe, capsys):
    pipe("é\n\n".encode())
    assert cli.main(["chat", "run", "--json"]) == 1
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    (answer,) = first["answers"]
    assert first["input"] == "é"
    assert base64.b64decode(answer["base64"]) == "é".encode()[::-1]
    assert answer["text"] == "\ufffd\ufffd"
    assert answer["ended"] is True
    assert answer["log_prob_nats"] == pytest.approx(3 * math.log(SURE), abs=1e-5)
    assert answer["score"] == pytest.approx(math.log(SURE), abs=1e-5)
    assert (first["error"], second["answers"]) == (None, [])
    assert second["error"] == "line 2 is empty: expected 1 to 12 bytes"


# --- the dialog --------------------------------------------------------------------------------


def test_on_a_terminal_it_is_a_dialog(mirror, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"")))
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    lines = iter(["ab", "/quit"])
    monkeypatch.setattr("builtins.input", lambda prompt: next(lines))
    assert cli.main(["chat", "run"]) == 0
    assert capsys.readouterr() == ("ba\n", "/help lists what can be typed; Ctrl-D ends.\n")


def test_what_is_typed_while_the_answers_go_to_a_file(mirror, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"ab\n")))
    assert cli.main(["chat", "run"]) == 0
    assert capsys.readouterr() == ("ba\n", "")


# --- what is refused ---------------------------------------------------------------------------


def test_flags_that_do_not_go_together(mirror, monkeypatch, capsys):
    assert cli.main(["chat", "run", "--input", "a", "--n-best", "2"]) == 1
    assert "--n-best 2 needs at least as much --beam-width" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"")))
    assert cli.main(["chat", "run", "--json"]) == 1
    assert "The dialog has no --json" in capsys.readouterr().err
    assert mirror.batches == []


@pytest.mark.parametrize(
    "argv",
    [
        ["--beam-width", "0"],
        ["--n-best", "0"],
        ["--rows", "0"],
        ["--length-penalty", "nan"],
        ["--model", "both"],
    ],
)
def test_arguments_out_of_range(mirror, argv):
    with pytest.raises(SystemExit) as caught:
        cli.main(["chat", "run", "--input", "a", *argv])
    assert caught.value.code == 2
    assert mirror.batches == []


# --- the whole program -------------------------------------------------------------------------


def random_model(name: str) -> Seq2Seq:
    patches = PatchEncoderConfig(dim=8, n_heads=2, ffn_dim=8, num_buckets=16, max_patch_bytes=3)
    config = Seq2SeqConfig(
        max_bytes=24,
        dim=8,
        n_heads=2,
        n_layers_encoder=1,
        n_layers_decoder=1,
        ffn_dim_encoder=8,
        ffn_dim=8,
        patches=patches if name == "blt" else None,
    )
    model = Seq2Seq(config, Static(patch_size=3) if name == "blt" else None)
    randomize_(model, seed=len(name))
    return model.eval()


def save(model: Seq2Seq | Ngram, run: Path) -> Path:
    parts = {"definition": definition(model), "model": model.state_dict()}
    return checkpoints.save(run, step=1, optimizer={}, state={}, **parts)


@pytest.fixture(scope="module")
def study(tmp_path_factory) -> Path:
    """A directory as a study leaves it, with two models."""
    folder = tmp_path_factory.mktemp("study")
    for name in ("blt", "char"):
        stored = save(random_model(name), folder / "runs" / name)
        shutil.copytree(stored, folder / "checkpoints" / f"best_{name}_model")
    return folder


def answer(name: str, text: str, **beams) -> str:
    ((found,),) = transduce(random_model(name), [text.encode()], beams=Beams(**beams))
    return one_line(found.text)


def test_the_models_of_a_study(study, capsys):
    for flags, name in (([], "blt"), (["--model", "blt"], "blt"), (["--model", "char"], "char")):
        argv = ["chat", str(study), *flags, "--beam-width", "3", "--input", "Call me"]
        assert cli.main(argv) == 0
        assert capsys.readouterr().out == answer(name, "Call me", beams=3) + "\n"
    assert answer("blt", "Call me", beams=3) != answer("char", "Call me", beams=3)


def test_a_checkpoint(study, capsys):
    run = study / "runs" / "char" / "checkpoints" / "step-1"
    assert cli.main(["chat", str(run), "--input", "Call"]) == 0
    assert capsys.readouterr().out == answer("char", "Call", beams=1) + "\n"
    assert cli.main(["chat", str(run), "--model", "char", "--input", "Call"]) == 1
    assert "--model char is one of the two models of a finished study" in capsys.readouterr().err


def test_a_model_of_another_kind_names_the_verb_for_it(tmp_path, study, capsys):
    folder = save(ngram(), tmp_path)
    assert cli.main(["chat", str(folder), "--input", "a"]) == 1
    assert f"`bytelm generate {folder}`" in capsys.readouterr().err
    blt = study / "checkpoints" / "best_blt_model"
    assert cli.main(["generate", str(blt), "--prompt", "a"]) == 1
    assert f"`bytelm chat {blt}`" in capsys.readouterr().err


def test_no_model_at_all(tmp_path, capsys):
    assert cli.main(["chat", str(tmp_path / "missing"), "--input", "a"]) == 1
    assert "missing" in capsys.readouterr().err


def test_a_program_that_waits_for_each_answer_gets_it(study):
    """Both ends of the pipe stay open: nothing is held back until the input ends."""
    argv = [sys.executable, "-m", "bytelm", "chat", str(study)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for text in ("Call", "me Ishmael"):
            process.stdin.write(text.encode() + b"\n")
            process.stdin.flush()
            assert process.stdout.readline().decode() == answer("blt", text, beams=1) + "\n"
        process.stdin.close()
        assert process.stdout.read() == b""
        assert process.wait() == 0


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_in_a_real_terminal(study):
    """A pseudo-terminal: a line typed, its answer, its patches, Ctrl-D."""
    process, terminal = pty.fork()
    if process == 0:
        argv = [sys.executable, "-m", "bytelm", "chat", str(study)]
        os.execve(sys.executable, argv, {**os.environ, "NO_COLOR": "1"})
    seen = b""
    for typed in (b"Call me\n", b"/patches\n", b"\x04"):
        since = b""
        while not since.endswith(b"> "):
            since += os.read(terminal, 1024)
        seen += since
        os.write(terminal, typed)
    # Linux ends the output of a terminal whose program is gone with an error.
    with contextlib.suppress(OSError):
        while piece := os.read(terminal, 1024):
            seen += piece
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    assert shown(answer("blt", "Call me", beams=1)) in seen.decode()
    assert "Cal│l m│e" in seen.decode()
