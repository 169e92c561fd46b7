"""Writing bytes after prompts, streamed: one text, or many at once in the rows of a session.

A text depends on its prompt, its seed and the settings alone. Which texts are written beside it,
in which row, and whether it shared the reading of its prompt with others, changes nothing.
"""

import secrets
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import nn

from bytelm.decoding.arguments import whole
from bytelm.decoding.sampling import Row, Sampling
from bytelm.decoding.session import Session
from bytelm.decoding.speculation import speculate
from bytelm.decoding.utf8 import unfinished
from bytelm.models import ByteModel
from bytelm.vocab import NUM_BYTES

_BYTES = [bytes([value]) for value in range(NUM_BYTES)]

_DRAWN_BITS = 53
"""Of a seed that is drawn: readers of JSON that know only float64 keep it as it is."""

_FIRST_CONTINUATION, _LAST_CONTINUATION = 0x80, 0xBF
"""Bytes that cannot begin a UTF-8 character."""


@dataclass(frozen=True, kw_only=True)
class Ending:
    """When a text ends, and how what is written is cut into pieces."""

    max_new_bytes: int
    """Most bytes of a text; exactly this many where no stop sequence ends it."""

    stop: tuple[bytes, ...] = ()
    """Byte strings that end a text where they occur among its new bytes. They are not yielded."""

    whole_characters: bool = False
    """Whether pieces are held back until the UTF-8 character at their end is whole."""

    def __post_init__(self) -> None:
        whole("max_new_bytes", self.max_new_bytes)
        if not all(isinstance(sequence, bytes) and sequence for sequence in self.stop):
            raise ValueError(
                f"stop must be a list of byte strings that are not empty, got {list(self.stop)!r}"
            )

    def check_prompt(self, prompt: bytes, sampling: Sampling, *, name: str = "the prompt") -> None:
        """Make sure that a prompt can be continued with these settings.

        Raises:
            ValueError: `valid_utf8` cannot be kept.

        """
        sampling.check_prompt(prompt, max_new_bytes=self.max_new_bytes, name=name)
        if not sampling.valid_utf8:
            return
        for sequence in self.stop:
            if _FIRST_CONTINUATION <= sequence[0] <= _LAST_CONTINUATION:
                raise ValueError(
                    f"the stop sequence {sequence!r} begins inside a character, which valid_utf8 "
                    "would have to break: begin it with a whole character"
                )


def generate(
    model: nn.Module, prompt: bytes, *, ending: Ending, sampling: Sampling, seed: int | None
) -> Iterator[bytes]:
    """Yield new bytes after `prompt`, in pieces that are not empty.

    Args:
        model: Of any kind.
        prompt: Bytes before the new ones; may be empty.
        ending: When the text ends, and what a piece is.
        sampling: How bytes are chosen.
        seed: 0 to 2^64 - 1; None draws one.

    Raises:
        ValueError: The prompt or the seed does not go with the settings.

    """
    texts = generate_batch(model, [prompt], ending=ending, sampling=sampling, seeds=[seed], rows=1)
    return (piece for _, piece in texts)


def generate_batch(
    model: nn.Module,
    prompts: Sequence[bytes],
    *,
    ending: Ending,
    sampling: Sampling,
    seeds: Sequence[int | None],
    rows: int = 16,
) -> Iterator[tuple[int, bytes]]:
    """Yield (index of the prompt, new bytes) as they are written, many prompts at once.

    A text that ends makes place for the next prompt. Equal prompts are read once.

    Args:
        model: Of any kind.
        prompts: Any number of any lengths.
        ending: When a text ends, and what a piece is.
        sampling: How bytes are chosen.
        seeds: One for each prompt; None draws one.
        rows: Texts that are open at a time, at most. One more row is kept while prompts wait that
            equal one that is already read.

    Raises:
        ValueError: A prompt, a seed or a number does not go with the settings.

    """
    rows = whole("rows", rows, low=1)
    if len(seeds) != len(prompts):
        raise ValueError(f"expected one seed for each of {len(prompts)} prompts, got {len(seeds)}")
    for index, prompt in enumerate(prompts):
        name = "the prompt" if len(prompts) == 1 else f"prompt {index}"
        ending.check_prompt(prompt, sampling, name=name)
    texts = [
        _Text(index, prompt, new_seed() if seed is None else seed, ending)
        for index, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True))
    ]
    return _write(model, texts, sampling, rows) if ending.max_new_bytes else iter(())


def generate_speculating(
    model: ByteModel, prompt: bytes, *, ending: Ending, sampling: Sampling, seed: int | None
) -> Iterator[bytes]:
    """Yield what `generate` yields, byte for byte, with drafts that are checked in one pass.

    Raises:
        ValueError: As of `generate`; or the model has nothing to draft with.

    """
    ending.check_prompt(prompt, sampling)
    seed = new_seed() if seed is None else seed
    chosen = speculate(
        model,
        prompt,
        choose=sampling.chooser(prompt, seed=seed, max_new_bytes=ending.max_new_bytes),
        max_new_bytes=ending.max_new_bytes,
    )
    return _pieces(chosen, ending)


def new_seed() -> int:
    """Draw a seed from the operating system."""
    return secrets.randbits(_DRAWN_BITS)


def _pieces(chosen: Iterable[int], ending: Ending) -> Iterator[bytes]:
    """Cut a stream of chosen bytes into pieces; end at a stop sequence or `max_new_bytes`."""
    outlet = Outlet(ending)
    for byte in chosen:
        if piece := outlet.push(byte):
            yield piece
        if outlet.ended:
            return


class Outlet:
    """What may be shown of one text's new bytes: no stop sequence, no part of a character."""

    def __init__(self, ending: Ending) -> None:
        self.ended = ending.max_new_bytes == 0
        self._left = ending.max_new_bytes
        self._whole_characters = ending.whole_characters
        self._matches = [_Match(sequence) for sequence in ending.stop]
        self._holds_back = bool(ending.stop) or ending.whole_characters
        self._pending = bytearray()

    def push(self, byte: int) -> bytes:
        """Take the next byte, and return what is certain to belong to the text; may be empty."""
        self._left -= 1
        self.ended = self._left == 0
        if not self._holds_back:
            return _BYTES[byte]
        self._pending.append(byte)
        held, found = 0, 0
        for match in self._matches:
            held = max(held, match.push(byte))
            found = max(found, match.found)
        if found:
            self.ended = True
            return bytes(self._pending[:-found])
        if self.ended:
            return bytes(self._pending)
        ready = len(self._pending) - held
        if self._whole_characters:
            ready -= unfinished(self._pending[:ready])
        piece = bytes(self._pending[:ready])
        del self._pending[:ready]
        return piece

    def held_back(self) -> bytes:
        """What was taken and not shown, where a text is given up before it has ended."""
        return bytes(self._pending)


class _Match:
    """One stop sequence, followed through a text byte by byte (Knuth, Morris, Pratt 1977)."""

    def __init__(self, sequence: bytes) -> None:
        self._sequence = sequence
        self._length = 0
        self._shorter = [0]
        """Length of a match, less one -> the next shorter one that ends at the same byte."""
        length = 0
        for byte in sequence[1:]:
            length = self._after(length, byte)
            self._shorter.append(length)

    def _after(self, length: int, byte: int) -> int:
        while length and self._sequence[length] != byte:
            length = self._shorter[length - 1]
        return length + (self._sequence[length] == byte)

    def push(self, byte: int) -> int:
        """Take the next byte; the number of last bytes that begin the sequence, or are it."""
        self._length = self._after(self._length, byte)
        return self._length

    @property
    def found(self) -> int:
        """The sequence's length where it has just ended, else 0."""
        return self._length if self._length == len(self._sequence) else 0


class _Text:
    """One prompt and what is written after it."""

    def __init__(self, index: int, prompt: bytes, seed: int, ending: Ending) -> None:
        self.index, self.prompt = index, prompt
        self.row = Row(prompt, seed=seed, max_new_bytes=ending.max_new_bytes)
        self.outlet = Outlet(ending)


def _write(
    model: nn.Module, texts: list[_Text], sampling: Sampling, rows: int
) -> Iterator[tuple[int, bytes]]:
    """Write all texts; the rows of the session are those of `open_texts`, and a parked one."""
    # Equal prompts follow each other: one parked row at a time serves them all.
    first: dict[bytes, int] = {}
    for text in texts:
        first.setdefault(text.prompt, text.index)
    waiting = deque(sorted(texts, key=lambda text: first[text.prompt]))
    desk = _Desk(model, waiting, rows)
    while desk.open_texts:
        log_probs = desk.session.log_probs()[: len(desk.open_texts)]
        chosen: list[int] = sampling.choose(log_probs, desk.rows).tolist()
        ended = False
        for text, byte in zip(desk.open_texts, chosen, strict=True):
            text.row.text.append(byte)
            piece = text.outlet.push(byte)
            ended |= text.outlet.ended
            if piece:
                yield text.index, piece
        desk.advance([_BYTES[byte] for byte in chosen], ended=ended)


class _Desk:
    """The open texts of a batch and their session: row i is text i.

    While the next prompt that waits equals one that is read, a last row of the session, the parked
    one, holds that prompt and nothing more; new texts are forked from it.
    """

    def __init__(self, model: nn.Module, waiting: deque[_Text], max_rows: int) -> None:
        self._waiting = waiting
        self._parked: bytes | None = None
        self.open_texts = [waiting.popleft() for _ in range(min(max_rows, len(waiting)))]
        prompts = list(dict.fromkeys(text.prompt for text in self.open_texts))
        if prompts:
            self.session = Session(model, rows=len(prompts))
            self.session.push(prompts)
        read = {prompt: row for row, prompt in enumerate(prompts)}
        self._settle([read[text.prompt] for text in self.open_texts], read)

    def advance(self, data: list[bytes], *, ended: bool) -> None:
        """Read one byte in each open text; replace those that have ended, or drop them."""
        parked = [] if self._parked is None else [b""]
        if not ended:
            self.session.push(data + parked)
            return
        # Where each prompt is read: in the parked row, or from now on in the row of an ended text.
        read = {} if self._parked is None else {self._parked: len(data)}
        sources, texts = [], []
        for row, text in enumerate(self.open_texts):
            if not text.outlet.ended:
                sources.append(row)
                texts.append(text)
                continue
            data[row] = b""
            if not self._waiting:
                continue
            new = self._waiting.popleft()
            if new.prompt not in read:
                self.session.restart(row)
                data[row], read[new.prompt] = new.prompt, row
            sources.append(read[new.prompt])
            texts.append(new)
        self.open_texts = texts
        if texts:
            self.session.push(data + parked)
            self._settle(sources, read)

    def _settle(self, sources: list[int], read: dict[bytes, int]) -> None:
        """Make the session's rows those of the open texts, and park a prompt that is needed."""
        self.rows = [text.row for text in self.open_texts]
        self._parked = None
        if self._waiting and self._waiting[0].prompt in read:
            self._parked = self._waiting[0].prompt
            sources = [*sources, read[self._parked]]
        if sources and sources != list(range(self.session.rows)):
            self.session.select(sources)
