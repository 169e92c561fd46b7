"""Inputs typed line by line in the terminal, and what a sequence-to-sequence model answers."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from bytelm.apps.repl import shown
from bytelm.decoding.beam import Beams
from bytelm.decoding.seq2seq import Transducer, check_input, transduce
from bytelm.errors import CheckpointError

STUDY_MODELS = {"blt": "best_blt_model", "char": "best_char_model"}
"""Model of a study -> its folder in the `checkpoints` of the study directory."""

HELP = """\
Each line that you type is an input, and the model answers it.

  /beam N            search with N beams; 1 takes the likeliest byte each time
  /n-best N          print the N best answers with their scores; at most the beams
  /length-penalty X  compare log-probability / length^X; larger prefers longer answers
  /patches           print the last input with the places where patches start
  /help              print this
  /quit              end, as Ctrl-D does; Ctrl-C gives up an answer

A command without its value prints it. A text that begins with / is typed with a space before it.
"""


@runtime_checkable
class ChatModel(Transducer, Protocol):
    """The part of a sequence-to-sequence model that a dialog needs."""

    @property
    def patcher(self) -> object | None:
        """None for a model that reads bytes."""
        ...

    def patch_starts(self, inputs: Sequence[bytes]) -> list[np.ndarray]:
        """Where patches start, bool `[n]` for each input."""
        ...


def model_folder(path: Path, name: str | None) -> Path:
    """Return what to load: the chosen model of a study directory, or the path itself.

    Args:
        path: A run, a checkpoint, or a study directory.
        name: One of `STUDY_MODELS`; None is "blt" of a study.

    Raises:
        CheckpointError: The study has no such model, or a model was chosen and this is no study.

    """
    folders = {key: path / "checkpoints" / folder for key, folder in STUDY_MODELS.items()}
    stored = {key: folder for key, folder in folders.items() if folder.is_dir()}
    if not stored:
        if name is not None:
            raise CheckpointError(
                f"{path} has no {folders[name].relative_to(path)}: --model {name} is one of the "
                "two models of a finished study; leave it out for a run or a checkpoint"
            )
        return path
    wanted = name or "blt"
    if wanted not in stored:
        raise CheckpointError(
            f"{path} has no {folders[wanted].relative_to(path)}: start its study again to finish "
            f"it, or use --model {next(iter(stored))}"
        )
    return stored[wanted]


def one_line(text: bytes) -> str:
    r"""Text for people: line ends as symbols, and U+FFFD for what is not UTF-8.

    >>> print(one_line(b"a\r\nb\xff"))
    a␍␊b�
    """
    return text.decode(errors="replace").replace("\r", "␍").replace("\n", "␊")


class Chat:
    """The dialog: reads inputs and commands, prints answers."""

    def __init__(
        self,
        model: ChatModel,
        *,
        beams: Beams,
        read: Callable[[str], str],
        write: Callable[[str], object],
        say: Callable[[str], None],
    ) -> None:
        """Begin without an input.

        Args:
            model: Baseline or patched.
            beams: How answers are searched, at first.
            read: Given a prompt, returns a line; raises EOFError when there is none.
            write: Takes the answers, with their line breaks.
            say: Takes everything else that is said, one line at a time.

        """
        self._model, self._beams = model, beams
        self._read, self._write, self._say = read, write, say
        self._last: bytes | None = None
        self._commands: dict[str, Callable[[str], None]] = {
            "beam": partial(self._set, "beams", int),
            "n-best": partial(self._set, "n_best", int),
            "length-penalty": partial(self._set, "length_penalty", float),
            "patches": lambda _: self._patches(),
            "help": lambda _: self._say(HELP.rstrip()),
        }

    def run(self) -> None:
        """Answer until the input ends."""
        self._say("/help lists what can be typed; Ctrl-D ends.")
        while True:
            try:
                line = self._read("> ")
                if line.strip() == "/quit":
                    return
                self._obey(line)
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._say("\n(Ctrl-D or /quit ends)")
            except ValueError as error:
                self._say(str(error))

    def _obey(self, line: str) -> None:
        if not line.startswith("/"):
            text = line.removeprefix(" ") if line.startswith(" /") else line
            if text:
                self._answer(os.fsencode(text))
            return
        name, _, rest = line[1:].partition(" ")
        if name not in self._commands:
            raise ValueError(f"unknown command /{name}: /help lists the commands")
        self._commands[name](rest.strip())

    def _answer(self, data: bytes) -> None:
        check_input(data, self._model.config.max_bytes)
        self._last = data
        (found,) = transduce(self._model, [data], beams=self._beams)
        for one in found:
            score = f"{one.score:9.4f}  " if self._beams.n_best > 1 else ""
            self._write(f"{score}{shown(one_line(one.text))}\n")
            if not one.ended:
                self._say(f"(cut: an answer has at most {self._model.config.max_bytes} bytes)")

    def _set(self, field: str, read: Callable[[str], int | float], text: str) -> None:
        """Change a setting of the search; without a value, print it."""
        if text:
            try:
                value = read(text)
            except ValueError:
                wanted = "a whole number" if read is int else "a number"
                raise ValueError(f"{field}: expected {wanted}, got '{text}'") from None
            self._beams = replace(self._beams, **{field: value})
        self._say(f"{field} = {getattr(self._beams, field)}")

    def _patches(self) -> None:
        from rich.console import Console

        from bytelm.apps.render import PatchView, terminal_legend, terminal_text

        if self._last is None:
            raise ValueError("there is no input yet: type one first")
        if self._model.patcher is None:
            raise ValueError("this model has no patches: it reads bytes")
        (starts,) = self._model.patch_starts([self._last])
        view = PatchView(name="the last input", data=self._last, starts=starts)
        console = Console(highlight=False, markup=False, emoji=False)
        color = console.color_system is not None and not console.no_color
        with console.capture() as drawn:
            for text in (terminal_legend(view, color=color), terminal_text(view, color=color)):
                console.print(text, soft_wrap=not console.is_terminal)
        self._write(drawn.get())
