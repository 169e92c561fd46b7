"""The dialog, driven through its streams. Oracles: `generate` on the document, the texts said."""

import io
import signal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bytelm.apps.repl import KEPT_TURNS, Repl, shown
from bytelm.decoding.generation import Ending
from bytelm.decoding.sampling import Sampling
from bytelm.decoding.session import Session
from bytelm.language_model import LanguageModel
from conftest import _model, ngram

WARM = Sampling(temperature=0.9, top_k=20)


class Dialog:
    """A dialog that is typed at, line by line."""

    def __init__(
        self,
        lines: list[str | type[BaseException]],
        *,
        model: LanguageModel | None = None,
        sampling: Sampling = WARM,
        new: int = 12,
        stop: tuple[bytes, ...] = (),
        seed: int | None = 3,
    ) -> None:
        self.model = LanguageModel(ngram()) if model is None else model
        self.lines = iter(lines)
        self.out, self.notes = io.StringIO(), io.StringIO()
        self.repl = Repl(
            self.model,
            sampling=sampling,
            ending=Ending(max_new_bytes=new, stop=stop),
            seed=seed,
            read=self.read,
            write=self.out.write,
            say=lambda text: print(text, file=self.notes),
        )
        self.repl.run()

    def read(self, prompt: str) -> str:
        line = next(self.lines, EOFError)
        if isinstance(line, str):
            return line
        raise line

    @property
    def document(self) -> bytes:
        return self.repl.document

    @property
    def said(self) -> str:
        return self.notes.getvalue()


def text(model: LanguageModel, prompt: bytes, seed: int, **options) -> bytes:
    options = {"max_new_bytes": 12, "temperature": 0.9, "top_k": 20, **options}
    return b"".join(model.generate(prompt, seed=seed, **options))


def synced(dialog: Dialog) -> bool:
    """Whether the session is where a fresh one is that reads the document."""
    fresh = dialog.model.session()
    fresh.push([dialog.document])
    return np.allclose(fresh.log_probs(), dialog.repl._session.log_probs(), atol=1e-5)


@pytest.mark.parametrize("name", ["ngram", "byte-gpt", "blt-entropy"])
def test_the_document_grows_turn_by_turn(name: str) -> None:
    model = LanguageModel(_model(name, True))
    dialog = Dialog(["Call", "", " me"], model=model)
    expected = b""
    for seed, typed in ((3, b"Call"), (4, b""), (5, b" me")):
        expected += typed
        expected += text(model, expected, seed)
    assert dialog.document == expected
    assert synced(dialog)


def test_what_the_model_writes_is_shown_and_nothing_else_is() -> None:
    dialog = Dialog(["Call"])
    written = dialog.document[4:]
    assert dialog.out.getvalue() == shown(written.decode(errors="replace")) + "\n"


@pytest.mark.parametrize("name", ["ngram", "byte-gpt", "blt-entropy"])
def test_again_is_another_continuation_of_the_same_prompt(name: str) -> None:
    model = LanguageModel(_model(name, True))
    dialog = Dialog(["Call", "x", "/again", "/again"], model=model)
    start = b"Call" + text(model, b"Call", 3) + b"x"
    assert dialog.document == start + text(model, start, 6)
    assert synced(dialog)


@pytest.mark.parametrize("name", ["ngram", "byte-gpt", "blt-entropy"])
def test_undo_takes_back_turns(name: str) -> None:
    model = LanguageModel(_model(name, True))
    dialog = Dialog(["Call", "x", "y", "/undo", "/undo"], model=model)
    assert dialog.document == b"Call" + text(model, b"Call", 3)
    assert synced(dialog)
    dialog = Dialog(["Call", "x", "/undo", "/again"], model=model)
    assert dialog.document == b"Call" + text(model, b"Call", 5)
    assert Dialog(["a", "/undo", "/undo"]).document == b""
    assert "no turn to take back" in Dialog(["/again"]).said
    many = Dialog(["a"] * (KEPT_TURNS + 2) + ["/undo"] * (KEPT_TURNS + 1))
    assert len(many.document) == 2 * 13
    assert f"the last {KEPT_TURNS} of a document are kept" in many.said


def test_the_limit_is_named_only_where_turns_were_dropped() -> None:
    dropped = ["a"] * (KEPT_TURNS + 1)
    for lines in (["a", "/new", "/undo"], ["a", "/undo", "/again"], [*dropped, "/new", "/undo"]):
        dialog = Dialog(lines, new=1)
        assert "there is no turn to take back\n" in dialog.said
    assert "are kept" in Dialog([*dropped, *["/undo"] * (KEPT_TURNS + 1)], new=1).said


def test_new_begins_an_empty_document() -> None:
    dialog = Dialog(["Call", "/new", "b"])
    assert dialog.document == b"b" + text(dialog.model, b"b", 4)
    assert Dialog(["a", "/new", "/undo"]).said.count("no turn to take back") == 1


@pytest.mark.parametrize("name", ["ngram", "byte-gpt", "blt-entropy"])
def test_a_stop_sequence_ends_a_turn_and_is_not_part_of_the_document(name: str) -> None:
    model = LanguageModel(_model(name, True))
    free = text(model, b"Call", 3, max_new_bytes=40)
    stop = free[11:14]
    dialog = Dialog(["Call", "!"], model=model, stop=(stop,), new=40)
    first = b"Call" + free[: free.index(stop)]
    assert dialog.document.startswith(first + b"!")
    assert synced(dialog)


@pytest.mark.parametrize("name", ["ngram", "blt-entropy"])
def test_ctrl_c_ends_a_continuation_and_keeps_it(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LanguageModel(_model(name, True))
    before = signal.getsignal(signal.SIGINT)
    interrupt_at(monkeypatch, pushes=6)
    dialog = Dialog(["Call", "x"], model=model)
    kept = b"Call" + text(model, b"Call", 3)[:5]
    assert dialog.document == kept + b"x" + text(model, kept + b"x", 4)
    assert "(ended after 5 bytes)" in dialog.said
    assert synced(dialog)
    assert signal.getsignal(signal.SIGINT) == before


def interrupt_at(monkeypatch: pytest.MonkeyPatch, *, pushes: int) -> None:
    """Press Ctrl-C in the middle of a push."""
    count, push = 0, Session.push

    def counting(self: Session, data: list[bytes]) -> None:
        nonlocal count
        count += 1
        if count == pushes:
            signal.raise_signal(signal.SIGINT)
        push(self, data)

    monkeypatch.setattr(Session, "push", counting)


def test_ctrl_c_keeps_what_a_stop_sequence_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    free = text(LanguageModel(ngram()), b"Call", 3)
    interrupt_at(monkeypatch, pushes=6)
    dialog = Dialog(["Call"], stop=(free[3:8],))
    assert dialog.document == b"Call" + free[:5]
    assert dialog.out.getvalue() == shown(free[:5].decode(errors="replace")) + "\n"


def test_ctrl_c_twice_ends_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long prompt is being read: the first Ctrl-C waits for its end, the second does not."""

    def endless(self: Session, data: list[bytes]) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Session, "push", endless)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        Dialog(["Call"])
    assert signal.getsignal(signal.SIGINT) == before


def test_ctrl_c_at_the_input_only_says_how_to_end() -> None:
    dialog = Dialog([KeyboardInterrupt, "a"])
    assert "Ctrl-D or /quit" in dialog.said
    assert len(dialog.document) == 13


def test_quit_ends_before_what_follows() -> None:
    assert Dialog(["/quit", "a"]).document == b""


def test_valid_utf8_holds_for_the_whole_document(monkeypatch: pytest.MonkeyPatch) -> None:
    interrupt_at(monkeypatch, pushes=4)
    lines: list = ["caf\u00e9", "\udcff", "\u6f22"]
    dialog = Dialog(lines, sampling=Sampling(temperature=3, valid_utf8=True), new=40)
    dialog.document.decode()
    assert "\u6f22" in dialog.document.decode()
    assert "the document has the byte 0xff" in dialog.said
    assert synced(dialog)


@pytest.mark.parametrize(
    ("lines", "typed"),
    [
        (['"""a', "/b", 'c"""'], b"a\n/b\nc"),
        (['"""/a"""'], b"/a"),
        (['"""', '"""'], b"\n"),
        ([" /a"], b"/a"),
        (["  /a"], b"  /a"),
        ([" a"], b" a"),
        (["\udcff\u00e9"], b"\xff\xc3\xa9"),
    ],
)
def test_any_text_can_be_typed(lines: list, typed: bytes) -> None:
    assert Dialog(lines, new=0).document == typed


def test_settings() -> None:
    lines: list = ["/set temperature 0", "/set max_new_bytes 5", "/set top-k none", "Call"]
    dialog = Dialog([*lines, "/set"])
    assert dialog.document == b"Call" + text(
        dialog.model, b"Call", 3, max_new_bytes=5, temperature=0
    )
    listed = dict(line.split() for line in dialog.said.splitlines()[1:] if line.startswith("  "))
    assert listed == {
        "temperature": "0.0",
        "top-k": "none",
        "top-p": "none",
        "min-p": "none",
        "repetition-penalty": "1.0",
        "repetition-window": "64",
        "valid-utf8": "off",
        "max-new-bytes": "5",
        "stop": "none",
    }


@pytest.mark.parametrize("value", ["on", "true", "off", "false"])
def test_a_switch(value: str) -> None:
    dialog = Dialog(["/set valid-utf8 on", f"/set valid-utf8 {value}"])
    assert dialog.repl._sampling.valid_utf8 == (value in ("on", "true"))


def test_a_newline_may_be_the_stop() -> None:
    dialog = Dialog([r"/set stop \n", "/set"], new=200)
    assert r"stop                 \n" in dialog.said
    assert dialog.repl._ending.stop == (b"\n",)
    assert Dialog([r"/set stop \n", "/set stop none"]).repl._ending.stop == ()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/set temperature hot", "temperature: expected a number, got 'hot'"),
        ("/set temperature -1", "temperature must be a number >= 0, got -1.0"),
        ("/set top-k 1.5", "top-k: expected a whole number, got '1.5'"),
        ("/set top-k 300", "top_k must be a whole number, 1 to 256, got 300"),
        ("/set valid-utf8 yes", "valid-utf8: expected on or off, got 'yes'"),
        ("/set max-new-bytes -1", "max_new_bytes must be a whole number, at least 0, got -1"),
        ("/set tempo 3", "NAME one of temperature, top-k"),
        ("/set temperature", "expected NAME VALUE after /set"),
        ("/seed x", "seed: expected a whole number, got 'x'"),
        ("/seed -1", f"a seed must be a whole number, 0 to {2**64 - 1}, got -1"),
        ("/nonsense", "unknown command /nonsense: /help lists the commands"),
        ("/", "unknown command /"),
        ("/help", "take back the last turn"),
        ("/seed 9", "the next continuation has the seed 9"),
        ("/seed", "the next continuation has the seed 3"),
    ],
)
def test_what_commands_say(line: str, said: str) -> None:
    dialog = Dialog([line])
    assert said in dialog.said
    assert dialog.document == b""


def test_a_seed_repeats_a_continuation() -> None:
    dialog = Dialog(["Call", "/seed 3", "/again"])
    assert dialog.document == b"Call" + text(dialog.model, b"Call", 3)


def test_show_and_patches(capsys: pytest.CaptureFixture) -> None:
    model = LanguageModel(_model("blt-space", True))
    dialog = Dialog(["one two", "/show", "/patches"], model=model, new=0)
    assert dialog.out.getvalue().splitlines()[1] == "one two"
    starts = np.flatnonzero(model.patch_starts(b"one two"))
    cut = [b"one two"[a:b].decode() for a, b in zip(starts, [*starts[1:], 7], strict=True)]
    assert "\u2502".join(cut) in dialog.out.getvalue()
    assert f"7 bytes, {len(starts)} patches" in dialog.out.getvalue()
    Dialog(["/patches", "/show"])


@given(st.text())
def test_nothing_shown_steers_a_terminal(anything: str) -> None:
    kept = shown(anything)
    assert len(kept) == len(anything.replace("\r", ""))
    assert not any(ord(c) < 32 or 127 <= ord(c) < 160 for c in kept if c not in "\n\t")
