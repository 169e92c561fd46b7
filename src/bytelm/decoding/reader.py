"""Reading documents byte by byte, or chunk by chunk, with any model: exact and incremental.

A `Reader` holds what a model remembers of some documents and answers, after each byte, with the
prediction of the next one. Scoring a file, a session and generation are this one class, so they
cannot disagree.
Shape key: R rows, B rows read now, N bytes of all of them, V vocabulary.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bytelm.decoding.segmenter import LastBytes, Segmenter
from bytelm.models.blt import BLT, BLTState
from bytelm.models.byte_gpt import ByteGPT
from bytelm.models.entropy_lm import EntropyLM, entropy_nats
from bytelm.models.ngram import Ngram
from bytelm.models.recurrent import Recurrent
from bytelm.models.state import StackState, State
from bytelm.models.steps import StackStepper, blt_stepper, is_short, stack_stepper
from bytelm.nn.steps import one_thread
from bytelm.vocab import BOS, NUM_BYTES, OFFSET

CHUNK_BYTES = 4096
"""Bytes that are read at once: memory stays bounded for any length."""


@dataclass(frozen=True)
class Predictions:
    """What a model says of the next byte, at n positions."""

    log_probs: Tensor
    """`[n, 256]` in the model's precision, natural logarithm, normalized over the byte values."""

    entropies: np.ndarray
    """float32 `[n]`, nats: those that decide the patches, else the model's own."""

    starts: np.ndarray
    """bool `[n]`: whether the next byte starts a patch."""

    def take(self, positions: slice | np.ndarray) -> "Predictions":
        """Some of the positions."""
        return Predictions(
            self.log_probs[positions], self.entropies[positions], self.starts[positions]
        )


class Reader:
    """Documents, as far as they are read, with any model; none depends on another."""

    def __init__(self, model: nn.Module, rows: int = 1) -> None:
        self.segmenter = Segmenter(model, rows)
        self.logits = _logit_reader(model, rows)

    @torch.inference_mode()
    def begin(self, slots: Sequence[int] = (0,)) -> Predictions:
        """Open an empty document in each of `slots`; n = B, predictions of the first bytes."""
        chosen = np.array(slots, np.int64)
        with one_thread():
            entropies, starts = self.segmenter.begin(chosen)
            return _predictions(self.logits.begin(chosen), entropies, starts)

    @torch.inference_mode()
    def read(self, pieces: Sequence[np.ndarray], slots: Sequence[int] = (0,)) -> Predictions:
        """Read more of some documents; n = N, predictions of the byte after each byte.

        Args:
            pieces: uint8 `[n]` each, n >= 1: the next bytes of each row.
            slots: The rows, each once.

        """
        data = pieces[0] if len(pieces) == 1 else np.concatenate(pieces)
        counts, chosen = np.array([len(p) for p in pieces]), np.array(slots, np.int64)
        with one_thread():
            entropies, starts = self.segmenter.read(data, counts, chosen)
            return _predictions(self.logits.read(data, starts, counts, chosen), entropies, starts)

    def read_all(self, data: np.ndarray, slot: int = 0) -> Predictions:
        """Read a long piece of one document, uint8 `[n]`; only the prediction after its end."""
        last = (len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES
        for begin in range(0, last, CHUNK_BYTES):
            self.read([data[begin : begin + CHUNK_BYTES]], [slot])
        return self.read([data[last:]], [slot]).take(slice(-1, None))

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order; one may occur many times."""
        self.segmenter.state.select(sources)
        self.logits.select(sources)

    def save(self, slot: int) -> tuple[Any, Any]:
        """A copy of one row, which later reading leaves alone."""
        return self.segmenter.state.save(slot), self.logits.save(slot)

    def restore(self, slot: int, saved: tuple[Any, Any]) -> None:
        """Make a row what was saved."""
        self.segmenter.state.restore(slot, saved[0])
        self.logits.restore(slot, saved[1])


def _predictions(logits: Tensor, entropies: np.ndarray | None, starts: np.ndarray) -> Predictions:
    if entropies is None:
        entropies = entropy_nats(logits).float().cpu().numpy()
    bytes_only = logits[:, logits.shape[1] - NUM_BYTES :]
    return Predictions(
        log_probs=bytes_only.log_softmax(-1).cpu(), entropies=entropies, starts=starts
    )


def _logit_reader(model: nn.Module, rows: int) -> "_NgramReader | _EndlessReader | HalvingReader":
    match model:
        case Ngram():
            return _NgramReader(model, rows)
        case EntropyLM() | ByteGPT() if model.config.window is not None:
            state = model.begin(rows)
            read = functools.partial(model.read, state=state)
            return _EndlessReader(state, read, stack_stepper(model, state))
        case Recurrent():
            state = model.begin(rows)
            return _EndlessReader(state, functools.partial(model.read, state=state), None)
        case ByteGPT() | BLT():
            return HalvingReader(model, rows, model.config.context_bytes)
    raise TypeError(f"expected a bytelm model, got {type(model).__name__}")


class _NgramReader(State):
    """A count model: its log-probabilities stand for logits."""

    def __init__(self, model: Ngram, rows: int) -> None:
        self._model, self._last = model, LastBytes(rows, max(1, model.config.order))
        super().__init__(self._last)

    def begin(self, slots: np.ndarray) -> Tensor:
        for slot in slots.tolist():
            self.clear(slot)
        nothing = np.zeros(0, np.uint8)
        first, _ = self._model.predict(nothing, nothing)
        return torch.from_numpy(first.repeat(len(slots), axis=0))

    def read(
        self,
        data: np.ndarray,
        starts: np.ndarray,  # noqa: ARG002
        counts: np.ndarray,
        slots: np.ndarray,
    ) -> Tensor:
        if len(data) == len(slots):
            states = self._model.row_states(*self._last.step(slots, data))
            return torch.from_numpy(self._model.log_probs(states))
        pieces = []
        for slot, piece in zip(slots.tolist(), np.split(data, counts.cumsum()[:-1]), strict=True):
            log_probs, _ = self._model.predict(piece, self._last.known(slot))
            pieces.append(torch.from_numpy(log_probs[1:]))
            self._last.append(slot, piece)
        return torch.cat(pieces)


PackedRead = Callable[[np.ndarray, np.ndarray, np.ndarray], Tensor]
"""Reads ids, `counts` of each of `slots`; gives logits."""


class _EndlessReader:
    """A model whose state is all that it needs: recurrent, or of windowed layers alone."""

    def __init__(self, state: State, read: PackedRead, step: StackStepper | None) -> None:
        self._state, self._read, self._step = state, read, step
        self.select, self.save = self._state.select, self._state.save
        self.restore = self._state.restore

    def begin(self, slots: np.ndarray) -> Tensor:
        for slot in slots.tolist():
            self._state.clear(slot)
        return self._feed(np.full(len(slots), BOS), np.ones(len(slots), np.int64), slots)

    def read(
        self,
        data: np.ndarray,
        starts: np.ndarray,  # noqa: ARG002
        counts: np.ndarray,
        slots: np.ndarray,
    ) -> Tensor:
        return self._feed(data.astype(np.int64) + OFFSET, counts, slots)

    def _feed(self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> Tensor:
        if self._step is not None and is_short(ids, slots):
            return torch.from_numpy(self._step(ids, slots))
        return self._read(ids, counts, slots)


class _Window:
    """The bytes of each row since its window began, and where patches start among them.

    A growing array for each row: twice what is in it at most.
    """

    def __init__(self, rows: int) -> None:
        self._values = [np.zeros(0, np.uint8)] * rows
        self._starts = [np.zeros(0, bool)] * rows
        self.length = np.zeros(rows, np.int64)

    def append(
        self, data: np.ndarray, starts: np.ndarray, counts: np.ndarray, slots: np.ndarray
    ) -> None:
        end = 0
        for slot, count in zip(slots.tolist(), counts.tolist(), strict=True):
            begin, end = end, end + count
            first, last = int(self.length[slot]), int(self.length[slot]) + count
            if last > len(self._values[slot]):
                room = max(64, last)
                self._values[slot] = np.concatenate((self._values[slot], np.zeros(room, np.uint8)))
                self._starts[slot] = np.concatenate((self._starts[slot], np.zeros(room, bool)))
            self._values[slot][first:last] = data[begin:end]
            self._starts[slot][first:last] = starts[begin:end]
            self.length[slot] = last

    def drop(self, slot: int, count: int) -> tuple[np.ndarray, np.ndarray]:
        """Forget the first `count` bytes of a row; the bytes and starts that are left."""
        values, starts = self.save(slot)
        self.restore(slot, (values[count:], starts[count:]))
        return values[count:], starts[count:]

    def clear(self, slot: int) -> None:
        self.length[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        saved = [self.save(source) for source in sources]
        self._values = [values for values, _ in saved]
        self._starts = [starts for _, starts in saved]
        self.length = self.length[list(sources)]

    def save(self, slot: int) -> tuple[np.ndarray, np.ndarray]:
        used = slice(0, int(self.length[slot]))
        return self._values[slot][used].copy(), self._starts[slot][used].copy()

    def restore(self, slot: int, saved: tuple[np.ndarray, np.ndarray]) -> None:
        self._values[slot], self._starts[slot] = (array.copy() for array in saved)
        self.length[slot] = len(saved[0])


class HalvingReader(State):
    """A model with full attention: when its context is full, it reads the last half again.

    For byte t it sees the bytes from a = max(0, (t // h - 1) * h), h half the context, after a
    BOS; the byte at `a` starts a patch there.
    """

    def __init__(self, model: ByteGPT | BLT, rows: int, context_bytes: int) -> None:
        self._half, self._window = context_bytes // 2, _Window(rows)
        self.state, self._feed = _blt(model, rows) if isinstance(model, BLT) else _gpt(model, rows)
        super().__init__(self.state, self._window)

    def begin(self, slots: np.ndarray) -> Tensor:
        """Open an empty document in each of `slots`; logits of its first byte, `[B, V]`."""
        for slot in slots.tolist():
            self.clear(slot)
        count = len(slots)
        ones = np.ones(count, np.int64)
        return self._feed(np.full(count, BOS), np.ones(count, bool), ones, slots)

    def read(
        self, data: np.ndarray, starts: np.ndarray, counts: np.ndarray, slots: np.ndarray
    ) -> Tensor:
        """Read `counts` bytes of each of `slots`, packed, with the starts of the bytes after."""
        # The last row that a window may answer is the one after 2 h - 1 bytes.
        if (self._window.length[slots] + counts < 2 * self._half).all():
            self._window.append(data, starts, counts, slots)
            return self._feed(data.astype(np.int64) + OFFSET, starts, counts, slots)
        ends = counts.cumsum()
        return torch.cat(
            [
                self._read_row(data[end - count : end], starts[end - count : end], int(slot))
                for slot, count, end in zip(slots, counts, ends, strict=True)
            ]
        )

    def room(self, slot: int) -> int:
        """How many bytes a row can read before its window is full."""
        return 2 * self._half - 1 - int(self._window.length[slot])

    def note(self, data: np.ndarray, starts: np.ndarray) -> None:
        """Remember bytes of the first row that its state has read already."""
        self._window.append(data, starts, np.array([len(data)]), np.zeros(1, np.int64))

    def _read_row(self, data: np.ndarray, starts: np.ndarray, slot: int) -> Tensor:
        """Read one row, whose window may become full on the way."""
        parts, row = [], np.array([slot])
        while len(data):
            room = self.room(slot)
            if room:
                piece, flags = data[:room], starts[:room]
                parts.append(self.read(piece, flags, np.array([len(piece)]), row))
                data, starts = data[room:], starts[room:]
                continue
            self._window.append(data[:1], starts[:1], np.array([1]), row)
            parts.append(self._restart(slot))
            data, starts = data[1:], starts[1:]
        return torch.cat(parts)

    def _restart(self, slot: int) -> Tensor:
        """Read a BOS and the last half of a row's window afresh; the last row of logits."""
        self.state.clear(slot)
        data, starts = self._window.drop(slot, self._half)
        ids = np.concatenate(([BOS], data.astype(np.int64) + OFFSET))
        flags = np.concatenate(([True], starts))
        return self._feed(ids, flags, np.array([len(ids)]), np.array([slot]))[-1:]


Feed = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray], Tensor]
"""Reads ids, whose next ids start patches or not, `counts` of each of `slots`; gives logits."""


def _blt(model: BLT, rows: int) -> tuple[BLTState, Feed]:
    state = model.begin(rows)
    step = blt_stepper(model, state)

    def feed(ids: np.ndarray, starts: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> Tensor:
        if step is not None and is_short(ids, slots):
            return torch.from_numpy(step(ids, starts, slots))
        return model.read(ids, starts, counts, slots, state)

    return state, feed


def _gpt(model: ByteGPT, rows: int) -> tuple[StackState, Feed]:
    state = model.begin(rows)
    step = stack_stepper(model, state)

    def feed(
        ids: np.ndarray,
        starts: np.ndarray,  # noqa: ARG001
        counts: np.ndarray,
        slots: np.ndarray,
    ) -> Tensor:
        if step is not None and is_short(ids, slots):
            return torch.from_numpy(step(ids, slots))
        return model.read(ids, counts, slots, state)

    return state, feed
