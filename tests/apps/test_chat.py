"""The dialog of inputs and answers, driven through its streams. Oracles: a model that spells out
its answer, and the texts said."""

import io
from collections.abc import Sequence
from pathlib import Path

import pytest

from bytelm.apps.chat import Chat, ChatModel, model_folder, one_line
from bytelm.decoding.beam import Beams
from bytelm.errors import CheckpointError
from mirror import LONGEST, Mirror


class Dialog:
    """A dialog that is typed at, line by line."""

    def __init__(
        self,
        lines: Sequence[str | type[BaseException]],
        *,
        model: ChatModel | None = None,
        beams: int = 1,
    ) -> None:
        self.lines = iter(lines)
        self.out, self.notes = io.StringIO(), io.StringIO()
        Chat(
            Mirror() if model is None else model,
            beams=Beams(beams=beams),
            read=self.read,
            write=self.out.write,
            say=lambda text: print(text, file=self.notes),
        ).run()

    def read(self, prompt: str) -> str:
        line = next(self.lines, EOFError)
        if isinstance(line, str):
            return line
        raise line

    @property
    def answers(self) -> list[str]:
        return self.out.getvalue().splitlines()

    @property
    def said(self) -> list[str]:
        """Without the greeting and the line that ends Ctrl-D's."""
        return self.notes.getvalue().splitlines()[1:]


def test_each_line_is_answered() -> None:
    assert Dialog(["abc", "x y", "", "ab"]).answers == ["cba", "y x", "ba"]


def test_bytes_that_are_no_text_are_read_and_shown() -> None:
    """A reversed character of two bytes is no UTF-8; an escape must not reach the terminal."""
    assert Dialog(["é", "a\x1b", "\udcffa"]).answers == ["\ufffd\ufffd", "\u241ba", "a\ufffd"]


def test_a_text_that_begins_like_a_command() -> None:
    assert Dialog([" /ab", "  c"]).answers == ["ba/", "c  "]


def test_commands_change_the_search() -> None:
    dialog = Dialog(["/beam 3", "/n-best 2", "/length-penalty 0.5", "/beam", "ab"])
    assert dialog.said[:4] == ["beams = 3", "n_best = 2", "length_penalty = 0.5", "beams = 3"]
    scores, texts = zip(*(line.split() for line in dialog.answers), strict=True)
    assert len(texts) == 2
    assert texts[0] == "ba"
    assert float(scores[0]) > float(scores[1])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("/beam x", "beams: expected a whole number, got 'x'"),
        ("/beam 0", "beams must be a whole number, 1 to 1024, got 0"),
        ("/n-best 2", "n_best, of the beams, must be a whole number, 1 to 1, got 2"),
        ("/length-penalty x", "length_penalty: expected a number, got 'x'"),
        ("/length-penalty inf", "length_penalty must be a number from -100 to 100, got inf"),
        ("/nonsense", "unknown command /nonsense: /help lists the commands"),
        ("/patches", "there is no input yet: type one first"),
        ("a" * (LONGEST + 1), "the input has 13 bytes, and this model reads at most 12"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_dialog_goes_on(line: str, said: str) -> None:
    dialog = Dialog([line, "ab"])
    assert dialog.said[0].startswith(said)
    assert dialog.answers == ["ba"]


def test_patches_of_the_last_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    dialog = Dialog(["abcde", "/patches"], model=Mirror(patch_size=2))
    assert dialog.answers[1] == "the last input: 5 bytes, 3 patches, 1.67 bytes per patch"
    assert dialog.answers[-1] == "ab\u2502cd\u2502e"
    assert Dialog(["ab", "/patches"]).said[0] == "this model has no patches: it reads bytes"


def test_it_ends() -> None:
    """Oracle: the line after the end is not answered."""
    assert Dialog(["/quit", "ab"]).answers == []
    assert Dialog([EOFError, "ab"]).answers == []
    interrupted = Dialog([KeyboardInterrupt, "ab", "/help"])
    assert interrupted.answers == ["ba"]
    assert "/length-penalty X" in interrupted.notes.getvalue()


def test_an_answer_that_does_not_end_is_marked() -> None:
    dialog = Dialog(["ab"], model=Mirror(is_endless=True))
    assert dialog.answers == ["ba" + "?" * (LONGEST - 2)]
    assert dialog.said[0] == "(cut: an answer has at most 12 bytes)"


def test_one_line() -> None:
    assert one_line("é\r\n\t\x1b".encode() + b"\xff") == "é\u240d\u240a\t\x1b\ufffd"


# --- which model -------------------------------------------------------------------------------


def test_a_study_directory_holds_two_models(tmp_path: Path) -> None:
    blt, char = (tmp_path / "checkpoints" / f"best_{name}_model" for name in ("blt", "char"))
    char.mkdir(parents=True)
    assert model_folder(tmp_path, "char") == char
    for name in (None, "blt"):
        with pytest.raises(CheckpointError, match=r"start its study again .* or use --model char"):
            model_folder(tmp_path, name)
    blt.mkdir()
    assert model_folder(tmp_path, None) == blt
    assert model_folder(tmp_path, "blt") == blt


def test_any_other_path_is_the_model(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-3").mkdir(parents=True)
    assert model_folder(tmp_path, None) == tmp_path
    assert model_folder(tmp_path / "missing", None) == tmp_path / "missing"
    with pytest.raises(CheckpointError, match="has no checkpoints/best_char_model: --model char"):
        model_folder(tmp_path, "char")
