"""A document that a person and a model write in turns, in the terminal.

What is typed is appended to the document, and the model goes on from there. The document stays
open: each turn reads only what is new, another continuation of the same prompt reads nothing, and
a turn is taken back by putting the session where it was.
"""

import contextlib
import os
import signal
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from types import FrameType
from typing import Any

from bytelm.decoding.generation import Ending, Outlet, new_seed
from bytelm.decoding.sampling import NUM_SEEDS, Row, Sampling, checked_seed
from bytelm.decoding.session import Snapshot
from bytelm.decoding.utf8 import decoded, unfinished
from bytelm.language_model import LanguageModel

KEPT_TURNS = 16
"""Turns that can be taken back: each holds a copy of what the model remembered."""

PATCHES_BYTES = 4096
"""Bytes at the document's end that /patches shows: some screens."""

_QUOTES = '"""'

HELP = f"""\
What you type is appended to the document, and the model goes on from there.
An empty line lets it go on; {_QUOTES} begins a text of several lines, and ends it.

  /again             take back the continuation, and write another
  /undo              take back the last turn
  /new               begin an empty document
  /show              print the document
  /patches           print its end with the places where patches start
  /set               list the settings
  /set NAME VALUE    change one, as in /set temperature 0.5 or /set top-k none
  /seed N            the seed of the next continuation; each one takes the next number
  /help              print this
  /quit              end, as Ctrl-D does; Ctrl-C ends a continuation and keeps it

A text that begins with / is typed with a space before it or between {_QUOTES}.
"""

_PICTURES = {
    **{code: 0x2400 + code for code in range(0x20) if chr(code) not in "\n\t"},
    0x0D: None,
    0x7F: 0x2421,
    **dict.fromkeys(range(0x80, 0xA0), 0xFFFD),
}
"""Control characters -> symbols: a model's bytes must not steer the terminal. A carriage return,
which many files have at the end of each line, is left out."""


def shown(text: str) -> str:
    r"""Text with its control characters as symbols, except newline and tab, for a terminal.

    >>> print(shown("red: \x1b[31m"))
    red: ␛[31m
    """
    return text.translate(_PICTURES)


@dataclass(frozen=True)
class _Turn:
    """What is needed to take back a turn, or its continuation."""

    before: Snapshot
    """The session before the typed text, `start` bytes."""
    start: int
    prompted: Snapshot
    """The session after it, `end` bytes."""
    end: int


class Repl:
    """The dialog: reads lines, changes the document, prints what the model writes."""

    def __init__(
        self,
        model: LanguageModel,
        *,
        sampling: Sampling,
        ending: Ending,
        seed: int | None,
        read: Callable[[str], str],
        write: Callable[[str], object],
        say: Callable[[str], None],
    ) -> None:
        """Open an empty document.

        Args:
            model: Of any kind.
            sampling: How bytes are chosen, at first.
            ending: When a continuation ends, at first.
            seed: Of the first continuation; None draws one.
            read: Given a prompt, returns a line; raises EOFError when there is none.
            write: Takes what the model writes, with its line breaks, piece by piece.
            say: Takes everything else that is said, one line at a time.

        """
        self._model, self._sampling, self._ending = model, sampling, ending
        self._seed = new_seed() if seed is None else seed
        self._read, self._write, self._say = read, write, say
        self._commands: dict[str, Callable[[str], None]] = {
            "again": self._again,
            "undo": self._undo,
            "new": self._new,
            "show": self._show,
            "patches": self._patches,
            "set": self._set,
            "seed": self._set_seed,
            "help": lambda _: self._say(HELP.rstrip()),
        }
        self._interrupted: Callable[[], bool] = lambda: False
        self._new("")

    @property
    def document(self) -> bytes:
        """Everything that was typed and written, as the model has read it."""
        return bytes(self._document)

    def run(self) -> None:
        """Take turns until the input ends."""
        self._say("/help lists what can be typed; Ctrl-D ends.")
        while True:
            try:
                action = self._ask()
            except EOFError:
                self._say("")
                return
            except KeyboardInterrupt:
                self._say("\n(Ctrl-D or /quit ends)")
                continue
            if action is None:
                return
            try:
                with _interruptible() as self._interrupted:
                    action()
            except ValueError as error:
                self._say(str(error))

    def _ask(self) -> Callable[[], None] | None:
        """Read a text or a command, and return what it asks for; None is to end."""
        line = self._read("> ")
        if line.startswith(_QUOTES):
            text = line.removeprefix(_QUOTES)
            while not text.endswith(_QUOTES):
                text += "\n" + self._read("... ")
            return partial(self._append, os.fsencode(text.removesuffix(_QUOTES)))
        if not line.startswith("/"):
            text = line.removeprefix(" ") if line.startswith(" /") else line
            return partial(self._append, os.fsencode(text))
        name, _, rest = line[1:].partition(" ")
        if name == "quit":
            return None
        if name not in self._commands:
            return partial(self._say, f"unknown command /{name}: /help lists the commands")
        return partial(self._commands[name], rest.strip())

    # --- turns ---------------------------------------------------------------------------------

    def _append(self, typed: bytes) -> None:
        self._ending.check_prompt(self.document + typed, self._sampling, name="the document")
        before, start = self._session.snapshot(0), len(self._document)
        self._session.push([typed])
        self._document += typed
        turn = _Turn(before, start, self._session.snapshot(0), len(self._document))
        self._turns.append(turn)
        self._continue(turn)

    def _continue(self, turn: _Turn) -> None:
        """Let the model write after a turn's prompt, where document and session are."""
        row = Row(self.document, seed=self._next_seed(), max_new_bytes=self._ending.max_new_bytes)
        for text in decoded(self._pieces(row)):
            self._write(shown(text))
        self._write("\n")
        if self._interrupted():
            self._say(f"(ended after {len(self._document) - turn.end} bytes)")
        if len(self._document) != len(row.text):
            # Bytes of a stop sequence were read: put the session where the document ends.
            self._session.rollback(0, turn.prompted)
            self._session.push([bytes(self._document[turn.end :])])

    def _pieces(self, row: Row) -> Iterator[bytes]:
        """Write until the end or Ctrl-C; what is yielded is also appended to the document."""
        outlet = Outlet(self._ending)
        while not outlet.ended and not self._may_end(row):
            byte = int(self._sampling.choose(self._session.log_probs(), [row])[0])
            row.text.append(byte)
            self._session.push([bytes([byte])])
            piece = outlet.push(byte)
            self._document += piece
            yield piece
        if not outlet.ended:
            self._document += outlet.held_back()
            yield outlet.held_back()

    def _may_end(self, row: Row) -> bool:
        """Whether Ctrl-C was pressed, and the text need not go on to end its character."""
        return self._interrupted() and not (self._sampling.valid_utf8 and unfinished(row.text))

    def _again(self, _: str) -> None:
        turn = self._last_turn()
        self._session.rollback(0, turn.prompted)
        del self._document[turn.end :]
        self._continue(turn)

    def _undo(self, _: str) -> None:
        turn = self._last_turn()
        self._turns.pop()
        self._session.rollback(0, turn.before)
        del self._document[turn.start :]
        self._say(f"the document has {turn.start} bytes again")

    def _last_turn(self) -> _Turn:
        if not self._turns:
            # What is left of the document then is of turns that were not kept.
            limit = f": the last {KEPT_TURNS} of a document are kept" if self._document else ""
            raise ValueError(f"there is no turn to take back{limit}")
        return self._turns[-1]

    def _new(self, _: str) -> None:
        self._session = self._model.session()
        self._document = bytearray()
        self._turns: deque[_Turn] = deque(maxlen=KEPT_TURNS)

    # --- looking -------------------------------------------------------------------------------

    def _show(self, _: str) -> None:
        self._write(shown(self.document.decode(errors="replace")) + "\n")

    def _patches(self, _: str) -> None:
        from rich.console import Console

        from bytelm.apps.render import PatchView, terminal_legend, terminal_text

        scored = self._model.score(self.document)
        part = slice(-PATCHES_BYTES, None)
        view = PatchView(
            name="the document" if len(self.document) <= PATCHES_BYTES else "its end",
            data=self.document[part],
            starts=scored.starts[part],
            entropies=scored.entropies[part],
            surprises=scored.nll_nats[part],
        )
        console = Console(highlight=False, markup=False, emoji=False)
        color = console.color_system is not None and not console.no_color
        with console.capture() as drawn:
            for text in (terminal_legend(view, color=color), terminal_text(view, color=color)):
                console.print(text, soft_wrap=not console.is_terminal)
        self._write(drawn.get() + "\n")

    # --- settings ------------------------------------------------------------------------------

    def _set(self, rest: str) -> None:
        settings = {**vars(self._sampling), **vars(self._ending)}
        if not rest:
            for name in _SETTINGS:
                self._say(f"  {name:<20} {_written(settings[name.replace('-', '_')])}")
            return
        name, _, text = rest.partition(" ")
        name = name.replace("_", "-")
        if name not in _SETTINGS or not text:
            raise ValueError(f"expected NAME VALUE after /set, NAME one of {', '.join(_SETTINGS)}")
        value = _SETTINGS[name](name, text.strip())
        field = name.replace("-", "_")
        if field in vars(self._sampling):
            self._sampling = replace(self._sampling, **{field: value})
        else:
            self._ending = replace(self._ending, **{field: value})

    def _set_seed(self, rest: str) -> None:
        if rest:
            self._seed = checked_seed(_whole("seed", rest))
        self._say(f"the next continuation has the seed {self._seed}")

    def _next_seed(self) -> int:
        seed = self._seed
        self._seed = (seed + 1) % NUM_SEEDS
        return seed


def _whole(name: str, text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"{name}: expected a whole number, got '{text}'") from None


def _real(name: str, text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"{name}: expected a number, got '{text}'") from None


def _or_none(read: Callable[[str, str], Any]) -> Callable[[str, str], Any]:
    return lambda name, text: None if text == "none" else read(name, text)


def _switch(name: str, text: str) -> bool:
    values = {"on": True, "true": True, "off": False, "false": False}
    if text not in values:
        raise ValueError(f"{name}: expected on or off, got '{text}'")
    return values[text]


def _sequence(name: str, text: str) -> tuple[bytes, ...]:  # noqa: ARG001
    return () if text == "none" else (os.fsencode(text.replace("\\n", "\n")),)


_SETTINGS: dict[str, Callable[[str, str], Any]] = {
    "temperature": _real,
    "top-k": _or_none(_whole),
    "top-p": _or_none(_real),
    "min-p": _or_none(_real),
    "repetition-penalty": _real,
    "repetition-window": _whole,
    "valid-utf8": _switch,
    "max-new-bytes": _whole,
    "stop": _sequence,
}
"""Name of a setting -> what reads its value; `_written` is the way back."""


def _written(value: object) -> str:
    match value:
        case None | ():
            return "none"
        case bool():
            return "on" if value else "off"
        case tuple():
            return " ".join(os.fsdecode(part).replace("\n", "\\n") for part in value)
    return str(value)


@contextlib.contextmanager
def _interruptible() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a question that can be asked between two bytes.

    An exception could come while the session reads a byte. The second Ctrl-C raises it anyway.
    """
    hits: list[int] = []

    def note(signum: int, frame: FrameType | None) -> None:  # noqa: ARG001
        if hits:
            raise KeyboardInterrupt
        hits.append(signum)

    previous = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: bool(hits)
    finally:
        signal.signal(signal.SIGINT, previous)
