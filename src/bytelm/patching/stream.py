"""Deciding starts: one implementation for documents, chunks of any size and batches of rows.

After each id that is read (the BOS of a document, then its bytes) a rule says whether the next
byte starts a patch. `StartRule.decide` carries a state between chunks; `patch_starts` is `decide`
over a document and `batch_starts` the same code over many rows at once, so they cannot disagree.

Shape key: B rows, T ids.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.patching.lengths import limit_lengths
from bytelm.vocab import BOS, OFFSET

CHUNK_BYTES = 1 << 18
"""A document is decided in pieces of this size: intermediate arrays stay in the cache."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Reads:
    """What was read, in order: entry i is one id, and asks about the byte after it."""

    values: np.ndarray
    """uint8 `[n]`, the bytes; a BOS has an arbitrary value."""

    ages: np.ndarray
    """int64 `[n]`, bytes of its document that are read with this one: 0 for a BOS."""

    entropies: np.ndarray | None
    """float32 `[n]`, nats, of the prediction of the byte after each."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PatchState:
    """What a rule remembers of one document between two calls of `decide`."""

    open_length: int
    """Bytes of the open patch that are read."""

    recent: Reads
    """The last reads, as many as the rule looks back."""


class StartRule(ABC):
    """Whether the next byte starts a patch, from what was read. Final subclasses are values."""

    kind: ClassVar[str]
    needs_entropies: ClassVar[bool]

    @property
    @abstractmethod
    def look_back(self) -> int:
        """How many reads before the current one `candidates` uses."""

    @property
    @abstractmethod
    def limits(self) -> tuple[int, int | None]:
        """The shortest and longest patch, bytes."""

    @abstractmethod
    def candidates(self, reads: Reads) -> np.ndarray:
        """Bool `[n]`: does the rule ask for a start after each read; any value at age 0."""

    def row_candidates(self, reads: Reads) -> np.ndarray:
        """Bool `[R]`: as `candidates`, for the last read of each of several documents.

        Args:
            reads: Arrays `[R, look_back + 1]`; reads before a document's first have age 0.

        """
        flat = Reads(
            values=reads.values.ravel(),
            ages=reads.ages.ravel(),
            entropies=None if reads.entropies is None else reads.entropies.ravel(),
        )
        return self.candidates(flat).reshape(reads.values.shape)[:, -1]

    def initial(self, first_entropy: float | None = None) -> PatchState:
        """The state at a document's start: byte 0 starts a patch and is not read yet.

        Args:
            first_entropy: Of the prediction of byte 0, nats; needed if the rule takes entropies.

        """
        if self.needs_entropies and first_entropy is None:
            raise ValueError(f"a {self.kind!r} patcher needs the entropy of the first byte")
        bos = Reads(
            values=np.zeros(1, np.uint8),
            ages=np.zeros(1, np.int64),
            entropies=np.array([first_entropy], np.float32) if self.needs_entropies else None,
        )
        return PatchState(open_length=0, recent=bos)

    def decide(
        self, previous: np.ndarray, entropies: np.ndarray | None, state: PatchState
    ) -> tuple[np.ndarray, PatchState]:
        """Say, after each byte, whether the byte after it starts a patch.

        Args:
            previous: uint8 `[n]`, the bytes just read.
            entropies: float32 `[n]`, nats, of the prediction of the byte after each; None if
                the rule needs none.
            state: From `initial` or an earlier call for the same document.

        Returns:
            bool `[n]`, and the state for the bytes that follow.

        Raises:
            ValueError: Entropies are missing, too few or not numbers.

        """
        entropies = self.used_entropies(previous, entropies)
        recent = state.recent
        reads = Reads(
            values=np.concatenate((recent.values, previous)),
            ages=np.arange(recent.ages[0], recent.ages[-1] + 1 + len(previous)),
            entropies=_joined(recent.entropies, entropies),
        )
        shortest, longest = self.limits
        starts, open_length = limit_lengths(
            self.candidates(reads)[len(recent.ages) :],
            min_bytes=shortest,
            max_bytes=longest,
            open_length=state.open_length,
        )
        keep = max(1, self.look_back)
        recent = Reads(
            values=reads.values[-keep:],
            ages=reads.ages[-keep:],
            entropies=None if reads.entropies is None else reads.entropies[-keep:],
        )
        return starts, PatchState(open_length=open_length, recent=recent)

    def used_entropies(self, values: np.ndarray, entropies: np.ndarray | None) -> np.ndarray | None:
        """`entropies` checked, or None where the rule needs none.

        Raises:
            ValueError: Entropies are missing, too few or not numbers.

        """
        if not self.needs_entropies:
            return None
        if entropies is None:
            raise ValueError(f"a {self.kind!r} patcher needs entropies, got None")
        if entropies.shape != values.shape:
            raise ValueError(
                f"expected one entropy for each of {len(values)} bytes, got {len(entropies)}"
            )
        if np.isnan(entropies).any():
            raise ValueError("entropies hold values that are not a number")
        return entropies


class RowStates:
    """What a rule remembers of several documents that are read side by side.

    `step` is `StartRule.decide` for one more byte of each, without a loop over them.
    """

    def __init__(self, rule: StartRule, rows: int) -> None:
        self._rule = rule
        width = max(1, rule.look_back)
        self._values = np.zeros((rows, width), np.uint8)
        self._entropies = np.zeros((rows, width), np.float32)
        self._ages = np.zeros(rows, np.int64)
        self._open = np.zeros(rows, np.int64)

    def begin(self, slots: np.ndarray, first_entropies: np.ndarray | None) -> None:
        """Open a document in each of `slots`; entropies in nats `[B]`, if the rule needs them."""
        self._values[slots], self._ages[slots], self._open[slots] = 0, 0, 0
        if self._rule.needs_entropies:
            assert first_entropies is not None, "the rule needs entropies"
            self._entropies[slots] = first_entropies[:, None]

    def step(
        self, slots: np.ndarray, values: np.ndarray, entropies: np.ndarray | None
    ) -> np.ndarray:
        """Bool `[B]`: whether a patch starts after one more byte of each of `slots`.

        Args:
            slots: int64 `[B]`.
            values: uint8 `[B]`, the bytes just read.
            entropies: float32 `[B]`, nats, of the prediction of the byte after each.

        """
        rule = self._rule
        entropies = rule.used_entropies(values, entropies)
        self._ages[slots] += 1
        values = np.concatenate((self._values[slots], values[:, None]), axis=1)
        if entropies is not None:
            entropies = np.concatenate((self._entropies[slots], entropies[:, None]), axis=1)
            self._entropies[slots] = entropies[:, 1:]
        self._values[slots] = values[:, 1:]
        width = values.shape[1]
        ages = np.maximum(self._ages[slots, None] + np.arange(1 - width, 1), 0)
        starts = rule.row_candidates(Reads(values=values, ages=ages, entropies=entropies))
        shortest, longest = rule.limits
        length = self._open[slots] + 1
        starts = starts & (length >= shortest)
        if longest is not None:
            starts |= length >= longest
        self._open[slots] = np.where(starts, 0, length)
        return starts

    def decide(self, slot: int, previous: np.ndarray, entropies: np.ndarray | None) -> np.ndarray:
        """As `StartRule.decide` for more bytes of one document."""
        known = min(self._values.shape[1], int(self._ages[slot]) + 1)
        needs = self._rule.needs_entropies
        recent = Reads(
            values=self._values[slot, -known:],
            ages=self._ages[slot] + np.arange(1 - known, 1),
            entropies=self._entropies[slot, -known:] if needs else None,
        )
        state = PatchState(open_length=int(self._open[slot]), recent=recent)
        starts, state = self._rule.decide(previous, entropies, state)
        recent = state.recent
        self._values[slot, -len(recent.values) :] = recent.values
        if recent.entropies is not None:
            self._entropies[slot, -len(recent.values) :] = recent.entropies
        self._ages[slot], self._open[slot] = recent.ages[-1], state.open_length
        return starts

    def clear(self, slot: int) -> None:
        """Nothing: `begin` opens the next document of a row."""

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        chosen = list(sources)
        self._values, self._entropies = self._values[chosen], self._entropies[chosen]
        self._ages, self._open = self._ages[chosen], self._open[chosen]

    def save(self, slot: int) -> tuple[np.ndarray, np.ndarray, int, int]:
        """A copy of one row."""
        values, entropies = self._values[slot].copy(), self._entropies[slot].copy()
        return values, entropies, int(self._ages[slot]), int(self._open[slot])

    def restore(self, slot: int, saved: tuple[np.ndarray, np.ndarray, int, int]) -> None:
        """Make a row what was saved."""
        self._values[slot], self._entropies[slot], self._ages[slot], self._open[slot] = saved


def _joined(before: np.ndarray | None, after: np.ndarray | None) -> np.ndarray | None:
    return None if before is None or after is None else np.concatenate((before, after))


def patch_starts(
    patcher: StartRule, data: np.ndarray, entropies: np.ndarray | None = None
) -> np.ndarray:
    """Bool `[n]`: which bytes of one document start a patch.

    Args:
        patcher: The rule.
        data: uint8 `[n]`, the whole document.
        entropies: float32 `[n]`, nats, of the prediction *of* each byte; None if none are needed.

    """
    entropies = patcher.used_entropies(data, entropies)
    starts = np.ones(len(data), bool)
    if len(data) < 2:
        return starts
    state = patcher.initial(None if entropies is None else float(entropies[0]))
    for begin in range(0, len(data) - 1, CHUNK_BYTES):
        end = min(begin + CHUNK_BYTES, len(data) - 1)
        of_next = None if entropies is None else entropies[begin + 1 : end + 1]
        starts[begin + 1 : end + 1], state = patcher.decide(data[begin:end], of_next, state)
    return starts


def batch_starts(
    patcher: StartRule, ids: Int[Tensor, "B T"], entropies: Float[Tensor, "B T"] | None = None
) -> Bool[Tensor, "B T+1"]:
    """Where patches start in rows of ids, and whether the id after each row would start one.

    Every BOS opens a document: it is a patch of its own, and what was read before it is
    forgotten. Padding is patched like bytes.

    Args:
        patcher: The rule.
        ids: Rows that begin with BOS.
        entropies: Nats, of the prediction made *after* each id; None if none are needed.

    """
    rows, length = ids.shape
    is_bos = (ids == BOS).cpu().numpy()
    if not length or not is_bos[:, 0].all():
        raise ValueError("every row must begin with BOS")
    index = np.arange(is_bos.size)
    flat_bos = is_bos.ravel()
    ages = index - np.maximum.accumulate(np.where(flat_bos, index, 0))
    values = (ids - OFFSET).clamp(min=0).to(torch.uint8).cpu().numpy().ravel()
    flat = None if entropies is None else entropies.detach().float().cpu().numpy().ravel()
    reads = Reads(values=values, ages=ages, entropies=patcher.used_entropies(values, flat))
    shortest, longest = patcher.limits
    decided, _ = limit_lengths(
        patcher.candidates(reads),
        min_bytes=shortest,
        max_bytes=longest,
        open_length=0,
        forced=flat_bos,
    )
    starts = np.ones((rows, length + 1), bool)
    starts[:, 1:] = decided.reshape(rows, length)
    starts[:, :-1] |= is_bos
    return torch.from_numpy(starts).to(ids.device)
