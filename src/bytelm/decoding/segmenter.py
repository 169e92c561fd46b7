"""Where the patches of documents start, as they are read: entropies first, then the rule.

Boundaries are decided once, from the document's own beginning, whatever windows the large model
reads it in.
Shape key: R rows, B rows read now, N bytes of all of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from bytelm.models.blt import BLT
from bytelm.models.entropy_lm import EntropyLM, entropy_nats
from bytelm.models.ngram import Ngram
from bytelm.models.state import State
from bytelm.models.steps import is_short, stack_stepper
from bytelm.nn.kv_cache import WindowCache
from bytelm.patching import RowStates, ShannonWindow, window_entropies
from bytelm.vocab import BOS, OFFSET

FIRST = np.zeros(1, np.int64)
"""The first row: the only one, where one document is read."""


class LastBytes:
    """The last bytes of each row, newest last, and how many it had in all."""

    def __init__(self, rows: int, width: int) -> None:
        self.values = np.zeros((rows, width), np.uint8)
        self.ages = np.zeros(rows, np.int64)

    def step(self, slots: np.ndarray, data: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Append one byte to each of `slots`; their bytes that are kept, `[B, width]`, and ages."""
        values = np.concatenate((self.values[slots, 1:], data[:, None]), axis=1)
        self.values[slots] = values
        self.ages[slots] += 1
        return values, self.ages[slots]

    def known(self, slot: int) -> np.ndarray:
        """The bytes of one row that are kept, uint8."""
        width = self.values.shape[1]
        return self.values[slot, width - min(width, int(self.ages[slot])) :]

    def append(self, slot: int, data: np.ndarray) -> None:
        """Append bytes to one row."""
        width = self.values.shape[1]
        self.values[slot] = np.concatenate((self.values[slot], data))[len(data) :][-width:]
        self.ages[slot] += len(data)

    def clear(self, slot: int) -> None:
        """Forget all of a row."""
        self.ages[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        self.values, self.ages = self.values[list(sources)], self.ages[list(sources)]

    def save(self, slot: int) -> tuple[np.ndarray, int]:
        """A copy of one row."""
        return self.values[slot].copy(), int(self.ages[slot])

    def restore(self, slot: int, saved: tuple[np.ndarray, int]) -> None:
        """Make a row what was saved."""
        self.values[slot], self.ages[slot] = saved


class _LMEntropies:
    """Entropies from an entropy model, read through its windows."""

    def __init__(self, source: EntropyLM, rows: int) -> None:
        self._source, self.state = source, source.begin(rows)
        self._step = stack_stepper(source, self.state)

    def begin(self, slots: np.ndarray) -> np.ndarray:
        return self._read(np.full(len(slots), BOS), np.ones(len(slots), np.int64), slots)

    def read(self, data: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
        return self._read(data.astype(np.int64) + OFFSET, counts, slots)

    def _read(self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
        if self._step is not None and is_short(ids, slots):
            logits = torch.from_numpy(self._step(ids, slots))
        else:
            logits = self._source.read(ids, counts, slots, self.state)
        return entropy_nats(logits).float().cpu().numpy()


class _NgramEntropies:
    """Entropies from counts: the last bytes are all the state there is."""

    def __init__(self, source: Ngram, rows: int) -> None:
        self._source, self.state = source, LastBytes(rows, max(1, source.config.order))

    def begin(self, slots: np.ndarray) -> np.ndarray:
        nothing = np.zeros(0, np.uint8)
        return self._source.document_entropies(nothing, nothing).repeat(len(slots))

    def read(self, data: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
        if len(data) == len(slots):
            states = self._source.row_states(*self.state.step(slots, data))
            return self._source.state_entropies(states)
        pieces = []
        for slot, piece in zip(slots.tolist(), np.split(data, counts.cumsum()[:-1]), strict=True):
            pieces.append(self._source.document_entropies(piece, self.state.known(slot))[1:])
            self.state.append(slot, piece)
        return np.concatenate(pieces)


class _WindowEntropies:
    """Entropies of the last bytes' histogram."""

    def __init__(self, window: int, rows: int) -> None:
        self._window, self.state = window, LastBytes(rows, window)

    def begin(self, slots: np.ndarray) -> np.ndarray:
        return np.zeros(len(slots), np.float32)

    def read(self, data: np.ndarray, counts: np.ndarray, slots: np.ndarray) -> np.ndarray:
        pieces = []
        for slot, piece in zip(slots.tolist(), np.split(data, counts.cumsum()[:-1]), strict=True):
            # The entropy *of* a byte is of the window before it: one more byte asks for the last.
            known = np.concatenate((self.state.known(slot), piece, np.zeros(1, np.uint8)))
            pieces.append(window_entropies(known, window=self._window)[-len(piece) :])
            self.state.append(slot, piece)
        return np.concatenate(pieces)


_Source = _LMEntropies | _NgramEntropies | _WindowEntropies


def _entropies(model: nn.Module, rows: int) -> _Source | None:
    """Those that decide a BLT's patches, or a count model's own; None: nothing cheap to ask."""
    if isinstance(model, Ngram):
        return _NgramEntropies(model, rows)
    if not isinstance(model, BLT):
        return None
    match model.entropy_model:
        case EntropyLM() as source:
            return _LMEntropies(source, rows)
        case Ngram() as source:
            return _NgramEntropies(source, rows)
    patcher = model.patcher
    return _WindowEntropies(patcher.window, rows) if isinstance(patcher, ShannonWindow) else None


@dataclass(frozen=True)
class Mark:
    """Where a row was, to go back to from a reading ahead."""

    slot: int
    count: int
    """Most bytes that are read ahead."""

    rule: Any
    source: Any


class Segmenter:
    """The patch starts of documents, byte by byte or chunk by chunk, each at its own pace."""

    def __init__(self, model: nn.Module, rows: int = 1) -> None:
        self._source = _entropies(model, rows)
        self._rule = RowStates(model.patcher, rows) if isinstance(model, BLT) else None
        self._needs_entropies = isinstance(model, BLT) and model.patcher.needs_entropies
        self.state = State(None if self._source is None else self._source.state, self._rule)

    def begin(self, slots: np.ndarray = FIRST) -> tuple[np.ndarray | None, np.ndarray]:
        """Open an empty document in each of `slots`, int64 `[B]`.

        Returns:
            Entropies of the first bytes, nats `[B]` (None without a source), and their starts,
            bool `[B]`: always true.

        """
        for slot in slots.tolist():
            self.state.clear(slot)
        entropies = None if self._source is None else self._source.begin(slots)
        if self._rule is not None:
            self._rule.begin(slots, entropies)
        return entropies, np.ones(len(slots), bool)

    def read(
        self, data: np.ndarray, counts: np.ndarray | None = None, slots: np.ndarray = FIRST
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """The same of the byte after each of `data`, uint8 `[N]`: nats `[N]`, bool `[N]`.

        Args:
            data: The rows' new bytes, one row after the other.
            counts: int64 `[B]`, bytes of each row, at least 1; None: all are of one row.
            slots: int64 `[B]`, the rows.

        """
        counts = np.array([len(data)]) if counts is None else counts
        entropies = None if self._source is None else self._source.read(data, counts, slots)
        return entropies, self._starts(data, entropies, counts, slots)

    def mark(self, slot: int, count: int) -> Mark:
        """Remember where a row is, before `count` bytes are read that may be taken back."""
        rule = None if self._rule is None else self._rule.save(slot)
        if isinstance(self._source, _LMEntropies):
            cache = self._source.state.cache
            if isinstance(cache, WindowCache):
                cache.reserve(slot, count)
            return Mark(slot, count, rule, None)
        saved = None if self._source is None else self._source.state.save(slot)
        return Mark(slot, count, rule, saved)

    def rewind(self, mark: Mark, data: np.ndarray, entropies: np.ndarray | None) -> None:
        """Go back to `mark`, and on again over those of the bytes that were right.

        Args:
            mark: From before the reading.
            data: uint8 `[n]`, the bytes to keep.
            entropies: float32 `[n]` or more, what `read` gave for them.

        """
        forgotten = mark.count - len(data)
        if not forgotten:
            return
        if isinstance(self._source, _LMEntropies):
            self._source.state.rewind(mark.slot, forgotten)
        elif self._source is not None:
            self._source.state.restore(mark.slot, mark.source)
            self._source.state.append(mark.slot, data)
        if self._rule is not None:
            self._rule.restore(mark.slot, mark.rule)
            deciding = entropies[: len(data)] if entropies is not None else None
            self._rule.decide(mark.slot, data, deciding if self._needs_entropies else None)

    def _starts(
        self,
        data: np.ndarray,
        entropies: np.ndarray | None,
        counts: np.ndarray,
        slots: np.ndarray,
    ) -> np.ndarray:
        if self._rule is None:
            return np.ones(len(data), bool)
        deciding = entropies if self._needs_entropies else None
        if len(data) == len(slots):
            return self._rule.step(slots, data, deciding)
        ends = counts.cumsum()
        pieces: list[Any] = []
        for slot, begin, end in zip(slots, ends - counts, ends, strict=True):
            own = None if deciding is None else deciding[begin:end]
            pieces.append(self._rule.decide(int(slot), data[begin:end], own))
        return np.concatenate(pieces)
