"""`bytelm generate` as a user meets it. Oracles: stand-in models, the library on the same model."""

import base64
import io
import json
import os
import pty
import sys
from pathlib import Path

import pytest

import bytelm
from bytelm import cli
from bytelm.decoding.beam import Hypothesis
from bytelm.language_model import LanguageModel
from conftest import ngram


class Parrot:
    """Writes the bytes it was made with, one at a time, and keeps what it was asked."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.asked: list = []

    def generate(self, prompt, **options):
        self.asked.append((prompt, options))
        return (bytes([byte]) for byte in self.answer)

    def generate_batch(self, prompts, **options):
        self.asked.append((prompts, options))
        return (
            (index, bytes([byte]))
            for byte in self.answer
            for index in reversed(range(len(prompts)))
        )

    def beam_search(self, prompt, **options):
        self.asked.append((prompt, options))
        return [
            Hypothesis(self.answer, -4.5, -0.5 - rank, b"") for rank in range(options["n_best"])
        ]


ANSWER = "né\n".encode() + b"\xff"
SHOWN = "né\n\N{REPLACEMENT CHARACTER}"

SAMPLING = {
    "temperature": 0.8,
    "top_k": None,
    "top_p": None,
    "min_p": None,
    "repetition_penalty": 1.0,
    "repetition_window": 64,
}
COMMON = {"max_new_bytes": 200, "valid_utf8": False, "stop": []}


@pytest.fixture
def parrot(monkeypatch):
    model = Parrot(ANSWER)
    monkeypatch.setattr(bytelm, "load", lambda run: model, raising=False)
    return model


@pytest.fixture
def counts(monkeypatch):
    """A real model of every call."""
    model = LanguageModel(ngram())
    monkeypatch.setattr(bytelm, "load", lambda run: model, raising=False)
    return model


def usage_error(*argv: str) -> int:
    with pytest.raises(SystemExit) as caught:
        cli.main(list(argv))
    return caught.value.code


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


# --- one text ----------------------------------------------------------------------------------


def test_it_streams_text_and_marks_what_is_not_utf8(parrot, capsys):
    argv = ["generate", "run", "--prompt", "a", "--top-k", "3", "--seed", "1", "--stop", "x"]
    assert cli.main([*argv, "--stop", "é"]) == 0
    assert capsys.readouterr().out == f"{SHOWN}\n"
    options = {**COMMON, **SAMPLING, "top_k": 3, "seed": 1, "speculate": False}
    assert parrot.asked == [(b"a", {**options, "stop": [b"x", "é".encode()]})]


def test_every_setting_reaches_the_model(parrot):
    flags = ["--temperature", "0", "--top-p", "0.5", "--min-p", "0.1", "--valid-utf8"]
    flags += ["--repetition-penalty", "1.5", "--repetition-window", "9", "--speculate"]
    assert cli.main(["generate", "run", "--prompt", "", "--max-new-bytes", "3", *flags]) == 0
    assert parrot.asked[0][1] == {
        "max_new_bytes": 3,
        "temperature": 0,
        "top_k": None,
        "top_p": 0.5,
        "min_p": 0.1,
        "repetition_penalty": 1.5,
        "repetition_window": 9,
        "valid_utf8": True,
        "seed": None,
        "stop": [],
        "speculate": True,
    }


def test_raw_writes_the_bytes_from_a_file(parrot, capfdbinary, tmp_path):
    prompt = tmp_path / "prompt"
    prompt.write_bytes(b"\x00\xff")
    assert cli.main(["generate", "run", "--prompt-file", str(prompt), "--raw"]) == 0
    assert capfdbinary.readouterr().out == parrot.answer
    assert parrot.asked[0][0] == b"\x00\xff"


def test_a_pipe_is_the_prompt(parrot, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"one\ntwo")))
    assert cli.main(["generate", "run"]) == 0
    assert [prompt for prompt, _ in parrot.asked] == [b"one\ntwo"]


def test_a_terminal_is_not_steered_by_what_the_model_writes(parrot, monkeypatch, capsys):
    parrot.answer = b"\x1b[2J\ta\r\n\x7f"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert cli.main(["generate", "run", "--prompt", ""]) == 0
    assert capsys.readouterr().out == "\u241b[2J\ta\n\u2421\n"


# --- several texts -----------------------------------------------------------------------------


def test_several_prompts_are_printed_in_their_order_after_their_names(parrot, capsys):
    argv = ["--prompt", "a\n", "--prompt", "b", "--samples", "2", "--seed", "7", "--rows", "3"]
    assert cli.main(["generate", "run", *argv]) == 0
    blocks = [
        f"==> {prompt}, seed {seed} <==\n{SHOWN}\n"
        for prompt, seed in ((r"'a\n'", 7), (r"'a\n'", 8), ("'b'", 9), ("'b'", 10))
    ]
    assert capsys.readouterr().out == "\n".join(blocks)
    options = {**COMMON, **SAMPLING, "seeds": [7, 8, 9, 10], "rows": 3}
    assert parrot.asked == [([b"a\n", b"a\n", b"b", b"b"], options)]


def test_json_has_every_byte_and_the_seed_that_repeats_it(counts, capsys, tmp_path):
    prompts = tmp_path / "prompts"
    prompts.write_bytes(b"Call\n\xff\n")
    argv = ["generate", "run", "--prompts-file", str(prompts), "--max-new-bytes", "30", "--json"]
    assert cli.main(argv) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    assert [text["prompt"] for text in texts] == ["Call", "\N{REPLACEMENT CHARACTER}"]
    assert texts[1]["seed"] == (texts[0]["seed"] + 1) % 2**64
    for prompt, text in zip((b"Call", b"\xff"), texts, strict=True):
        exact = base64.b64decode(text["base64"])
        assert text["text"] == exact.decode(errors="replace")
        assert text["new_bytes"] == len(exact) == 30
        alone = counts.generate(prompt, max_new_bytes=30, seed=text["seed"])
        assert b"".join(alone) == exact


def test_json_of_one_text(parrot, capsys):
    assert cli.main(["generate", "run", "--prompt", "p", "--seed", "4", "--json"]) == 0
    (text,) = json.loads(capsys.readouterr().out)["texts"]
    assert text == {
        "prompt": "p",
        "text": SHOWN,
        "base64": base64.b64encode(ANSWER).decode(),
        "new_bytes": 5,
        "seed": 4,
    }


# --- beam search -------------------------------------------------------------------------------


def test_beams(parrot, capsys):
    argv = ["generate", "run", "--prompt", "a", "--beams", "5"]
    assert cli.main(argv) == 0
    assert capsys.readouterr().out == f"{SHOWN}\n"
    assert cli.main([*argv, "--n-best", "2", "--length-penalty", "-0.5"]) == 0
    first = f"==> 'a', log_prob_nats -4.5000, score -0.5000 <==\n{SHOWN}\n"
    second = f"==> 'a', log_prob_nats -4.5000, score -1.5000 <==\n{SHOWN}\n"
    assert capsys.readouterr().out == f"{first}\n{second}"
    assert parrot.asked == [
        (b"a", {**COMMON, "beams": 5, "n_best": 1}),
        (b"a", {**COMMON, "beams": 5, "n_best": 2, "length_penalty": -0.5}),
    ]


def test_beams_of_a_real_model(counts, capsys):
    argv = ["generate", "run", "--prompt", "Call", "--max-new-bytes", "9", "--beams", "3"]
    assert cli.main([*argv, "--n-best", "3", "--json"]) == 0
    texts = json.loads(capsys.readouterr().out)["texts"]
    expected = counts.beam_search(b"Call", beams=3, n_best=3, max_new_bytes=9)
    assert [base64.b64decode(text["base64"]) for text in texts] == [one.text for one in expected]
    assert [text["score"] for text in texts] == [one.score for one in expected]


# --- what is refused ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--prompt", "a", "--n-best", "2"], "--n-best is a setting of beam search: add --beams"),
        (["--prompt", "a", "--length-penalty", "1"], "--length-penalty is a setting of beam"),
        (["--prompt", "a", "--beams", "2", "--n-best", "3"], "--n-best 3 needs at least as many"),
        (["--prompt", "a", "--beams", "2", "--top-p", "1"], "--top-p is a setting of sampling"),
        (["--prompt", "a", "--beams", "2", "--seed", "0"], "--seed is a setting of sampling"),
        (["--prompt", "a", "--beams", "2", "--speculate"], "--speculate is a setting of sampling"),
        (["--prompt", "a", "--samples", "2", "--speculate"], "one prompt and one sample"),
        (["--prompt", "a", "--prompt", "b", "--raw"], "--raw writes the bytes of one text"),
        (["--prompt", "a", "--json", "--raw"], "--raw writes the bytes of one text"),
        (["--prompt-file", "no such file"], "cannot read --prompt-file no such file: No such file"),
    ],
)
def test_flags_that_do_not_go_together(parrot, capsys, argv, said):
    assert cli.main(["generate", "run", *argv]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1
    assert parrot.asked == []


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["--prompt", os.fsdecode(b"a\xff"), "--valid-utf8"], "the byte 0xff at position 1"),
        (["--prompt", "a", "--stop", os.fsdecode(b"\x80"), "--valid-utf8"], "inside a character"),
        (["--prompt", "a", "--prompt", os.fsdecode(b"\xff"), "--valid-utf8"], "prompt 1 has the"),
    ],
)
def test_what_the_library_refuses_is_one_line(counts, capsys, argv, said):
    assert cli.main(["generate", "run", *argv]) == 1
    captured = capsys.readouterr()
    assert said in captured.err
    assert captured.err.count("\n") == 1


def test_an_empty_file_of_prompts(parrot, capsys, tmp_path):
    (tmp_path / "none").touch()
    assert cli.main(["generate", "run", "--prompts-file", str(tmp_path / "none")]) == 1
    assert "is empty: expected a prompt a line" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ["--temperature", "-1"],
        ["--temperature", "nan"],
        ["--top-p", "0"],
        ["--top-p", "1.1"],
        ["--top-k", "0"],
        ["--top-k", "257"],
        ["--min-p", "-0.1"],
        ["--min-p", "nan"],
        ["--repetition-penalty", "0"],
        ["--repetition-penalty", "inf"],
        ["--length-penalty", "-inf"],
        ["--length-penalty", "nan"],
        ["--beams", "0"],
        ["--rows", "0"],
        ["--samples", "0"],
        ["--stop="],
        ["--seed", str(2**64)],
        ["--seed", "-1"],
        ["--max-new-bytes", "-1"],
        ["--prompt", "a", "--prompt-file", "b"],
        ["--prompt", "a", "--prompts-file", "b"],
    ],
)
def test_arguments_out_of_range(parrot, capsys, argv):
    assert usage_error("generate", "run", *argv) == 2
    assert parrot.asked == []


# --- the dialog --------------------------------------------------------------------------------


def test_without_a_prompt_it_is_a_dialog_on_a_terminal(counts, monkeypatch, capsys):
    lines = b"Call me\n/again\n/nonsense\n"
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(lines)))
    argv = ["generate", "run", "--seed", "5", "--max-new-bytes", "20", "--top-k", "9"]
    assert cli.main(argv) == 0
    captured = capsys.readouterr()
    alone = [
        b"".join(counts.generate(b"Call me", max_new_bytes=20, seed=seed, top_k=9))
        for seed in (5, 6)
    ]
    from bytelm.apps.repl import shown

    assert captured.out == "".join(shown(t.decode(errors="replace")) + "\n" for t in alone)
    assert captured.err.count("> ") == 4
    assert "unknown command /nonsense" in captured.err


def test_the_dialog_does_one_thing(parrot, monkeypatch, capsys):
    monkeypatch.setattr(sys, "stdin", Terminal(io.BytesIO(b"")))
    assert cli.main(["generate", "run", "--json"]) == 1
    assert "which text? Give --prompt TEXT" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="no pseudo-terminals")
def test_in_a_real_terminal(tmp_path: Path):
    """A pseudo-terminal, the whole program: a line typed, a continuation, Ctrl-D."""
    from bytelm.models import definition
    from bytelm.training import checkpoints

    model = ngram()
    folder = checkpoints.save(
        tmp_path,
        step=1,
        definition=definition(model),
        model=model.state_dict(),
        optimizer={},
        state={},
    )
    argv = [sys.executable, "-m", "bytelm", "generate", str(folder)]
    argv += ["--max-new-bytes", "40", "--temperature", "0"]
    process, terminal = pty.fork()
    if process == 0:
        os.execv(sys.executable, argv)
    seen = b""
    for wanted, typed in ((b"> ", b"Call me \n"), (b"> ", b"\x04")):
        seen += read_until(terminal, wanted)
        os.write(terminal, typed)
    seen += read_until(terminal, None)
    assert os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) == 0
    written = b"".join(
        LanguageModel(ngram()).generate(b"Call me ", max_new_bytes=40, temperature=0)
    )
    assert written.decode() in seen.decode().replace("\r\n", "\n")


def read_until(terminal: int, wanted: bytes | None) -> bytes:
    """What the terminal shows until its end is `wanted`; until it closes for None."""
    seen = b""
    while wanted is None or not seen.endswith(wanted):
        try:
            piece = os.read(terminal, 1024)
        except OSError:
            break
        if not piece:
            break
        seen += piece
    return seen
