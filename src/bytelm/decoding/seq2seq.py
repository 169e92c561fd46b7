"""What a sequence-to-sequence model writes for an input: greedy and beam search, many at once.

The rules are those of `decoding.beam`, but for the end of a text, which the model itself predicts:
the end mark is a symbol, whose log-probability counts, and which is part of the length. All
hypotheses of all inputs of a batch are rows of one call of the model, and leave it when they are
finished. Nothing passes between inputs: each is searched as if it were alone.
Shape key: R open hypotheses, N inputs that have one, V ids of the vocabulary.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bytelm.decoding import utf8
from bytelm.decoding.arguments import whole
from bytelm.decoding.beam import Beams
from bytelm.errors import CheckpointError
from bytelm.vocab import BOS, EOS, OFFSET


@runtime_checkable
class _Limits(Protocol):
    @property
    def max_bytes(self) -> int: ...


@runtime_checkable
class Transducer(Protocol):
    """The part of a sequence-to-sequence model that writing needs."""

    @property
    def config(self) -> _Limits:
        """Its `max_bytes` is the length of the longest input and of the longest output."""
        ...

    def read(self, inputs: Sequence[bytes]) -> Any:
        """Encode a batch."""
        ...

    def begin(self, memory: Any) -> Any:
        """State of one empty text for each input; `select(index)` orders, forks and drops rows."""
        ...

    def step(self, ids: np.ndarray, state: Any) -> np.ndarray:
        """Log-probabilities of the next symbols, float32 `[R, V]`, after one more, int64 `[R]`."""
        ...


@dataclass(frozen=True)
class Transduction:
    """One text that was found for an input."""

    text: bytes
    """Without the end mark."""

    log_prob: float
    """Nats, of all bytes; that of the end mark counts."""

    score: float
    """`log_prob` under the length penalty; the end mark is part of the length."""

    ended: bool
    """Whether the model ended it; else it reached `max_new_bytes`."""


def transduce(
    model: Transducer,
    inputs: Sequence[bytes],
    *,
    beams: Beams,
    max_new_bytes: int | None = None,
    rows: int = 64,
    progress: Callable[[int], None] | None = None,
) -> list[list[Transduction]]:
    """Search the likeliest output of each input.

    The search of an input ends as soon as no open hypothesis can reach the `n_best`-th finished
    one. Deterministic: of equally likely hypotheses the child of the better one comes first, then
    the lower id.

    Args:
        model: A sequence-to-sequence model.
        inputs: Each of 1 to `model.config.max_bytes` bytes.
        beams: The width of the search and its penalty; one beam is greedy decoding.
        max_new_bytes: A text of this length is finished as it is; the model's longest unless given.
        rows: How many inputs are searched at once: those of about the same length together.
        progress: Told after each batch how many inputs it held.

    Returns:
        For each input, in their order, the `n_best` best texts, best first; of equal ones the
        earlier found. Fewer only where the model deems fewer texts possible.

    Raises:
        ValueError: An input is empty or too long for the model, or so is `max_new_bytes`.
        CheckpointError: The log-probabilities are not numbers.

    """
    longest = model.config.max_bytes
    limit = longest if max_new_bytes is None else max_new_bytes
    whole("max_new_bytes", limit, low=1, high=longest)
    whole("rows", rows, low=1)
    for index, data in enumerate(inputs):
        check_input(data, longest, name=f"input {index}")
    found: list[list[Transduction]] = [[] for _ in inputs]
    order = sorted(range(len(inputs)), key=lambda index: -len(inputs[index]))
    for first in range(0, len(order), rows):
        batch = order[first : first + rows]
        searched = _search(model, [inputs[index] for index in batch], beams, limit)
        for index, texts in zip(batch, searched, strict=True):
            found[index] = texts
        if progress is not None:
            progress(len(batch))
    return found


def check_input(data: bytes, longest: int, *, name: str = "the input") -> None:
    """Make sure that a model can read an input.

    Raises:
        ValueError: It is empty, or has more than `longest` bytes.

    """
    if not data:
        raise ValueError(f"{name} is empty: expected 1 to {longest} bytes")
    if len(data) > longest:
        raise ValueError(
            f"{name} has {len(data)} bytes, and this model reads at most {longest}: shorten it"
        )


def _search(
    model: Transducer, inputs: Sequence[bytes], beams: Beams, max_new_bytes: int
) -> list[list[Transduction]]:
    """Search the outputs of one batch."""
    beam = _Beam(len(inputs), beams, max_new_bytes)
    state = model.begin(model.read(inputs))
    ids = np.full(len(inputs), BOS)
    while True:
        parents, next_ids = beam.grow(model.step(ids, state))
        if not len(parents):
            return [texts[: beams.n_best] for texts in beam.found]
        # Most steps of a greedy search leave every row where it is: nothing to copy.
        if not np.array_equal(parents, np.arange(len(ids))):
            state.select(parents)
        ids = next_ids


class _Beam:
    """The hypotheses of a batch: open ones by input and best first, finished ones best first."""

    def __init__(self, count: int, beams: Beams, max_new_bytes: int) -> None:
        self._beams, self._max_new_bytes = beams, max_new_bytes
        self._length = 0
        """Symbols of every open hypothesis."""
        self._owners = np.arange(count)
        """The input of each open hypothesis, int64 `[R]`, ascending."""
        self._log_probs = np.zeros(count)
        """Nats, float64 `[R]`."""
        self._texts = np.zeros((count, max_new_bytes), np.uint8)
        self._places = np.full(count, beams.beams)
        """How many hypotheses each input may have open: a finished one keeps its place."""
        self.found: list[list[Transduction]] = [[] for _ in range(count)]

    def grow(self, log_probs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Add a symbol to the open hypotheses.

        Args:
            log_probs: Of the next symbol, `[R, V]`.

        Returns:
            Of each hypothesis that is open now: the row that it grows from, and its last id.

        """
        if np.isnan(log_probs).any():
            raise CheckpointError(
                f"the model has no next byte after {self._length} new bytes: its log-probabilities "
                "are NaN. The weights are damaged or their training diverged: use another "
                "checkpoint"
            )
        totals = self._log_probs[:, None] + log_probs
        if self._beams.valid_utf8:
            self._keep_utf8_(totals)
        parents, ids, sums = self._children(totals)
        owners, texts = self._owners[parents], self._texts[parents]
        ended = ids == EOS
        texts[~ended, self._length] = ids[~ended] - OFFSET
        self._length += 1
        finished = ended | (self._length == self._max_new_bytes)
        for row in np.flatnonzero(finished).tolist():
            text = texts[row, : self._length - bool(ended[row])].tobytes()
            self._finish(int(owners[row]), text, float(sums[row]), ended=bool(ended[row]))
        kept = np.flatnonzero(~finished)
        kept = kept[~np.isin(owners[kept], self._decided(owners[kept], sums[kept]))]
        self._owners, self._log_probs, self._texts = owners[kept], sums[kept], texts[kept]
        return parents[kept], ids[kept]

    def _keep_utf8_(self, totals: np.ndarray) -> None:
        """Make impossible what would not keep a text UTF-8, or would end it inside a character."""
        states = [utf8.state_after(text[: self._length].tobytes()) for text in self._texts]
        left = self._max_new_bytes - self._length
        totals[:, OFFSET:] += utf8.penalties(states, [left] * len(states))
        totals[np.array(states) != utf8.WHOLE, EOS] = -math.inf

    def _children(self, totals: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Choose the likeliest symbols, as many for each input as it has places.

        Args:
            totals: Log-probability of every hypothesis with every symbol, `[R, V]`.

        Returns:
            Of each child: its parent's row, its id and its log-probability; by input, best first.

        """
        inputs, first, group = np.unique(self._owners, return_index=True, return_inverse=True)
        ranks = np.arange(len(group)) - first[group]
        num_ids = totals.shape[1]
        grid = np.full((len(inputs), int(ranks.max()) + 1, num_ids), -math.inf)
        grid[group, ranks] = totals
        flat = grid.reshape(len(inputs), -1)
        places, lines = self._places[inputs], np.arange(len(inputs))
        chosen = np.zeros((len(inputs), min(int(places.max()), flat.shape[1])), np.int64)
        sums = np.zeros(chosen.shape)
        # A few searches for the largest are faster than sorting, and `argmax` takes the first of
        # equal ones: a rule that partitioning does not keep.
        for rank in range(chosen.shape[1]):
            best = flat.argmax(axis=1)
            chosen[:, rank], sums[:, rank] = best, flat[lines, best]
            flat[lines, best] = -math.inf
        taken = (np.arange(chosen.shape[1]) < places[:, None]) & (sums > -math.inf)
        line, rank = np.nonzero(taken)
        parents, ids = np.divmod(chosen[line, rank], num_ids)
        return first[line] + parents, ids, sums[line, rank]

    def _finish(self, owner: int, text: bytes, log_prob: float, *, ended: bool) -> None:
        score = self._beams.score(log_prob, self._length)
        self.found[owner].append(Transduction(text, log_prob, score, ended))
        self.found[owner].sort(key=lambda one: -one.score)
        self._places[owner] -= 1

    def _decided(self, owners: np.ndarray, log_probs: np.ndarray) -> list[int]:
        """The inputs whose `n_best` best nothing that is open can change."""
        decided = []
        # The first row of each input is its likeliest: the one that can reach most.
        for owner, row in zip(*np.unique(owners, return_index=True), strict=True):
            found = self.found[owner]
            if len(found) >= self._beams.n_best:
                best = float(log_probs[row])
                reach = self._beams.best_score(best, self._length, self._max_new_bytes)
                if found[self._beams.n_best - 1].score >= reach:
                    decided.append(int(owner))
        return decided
