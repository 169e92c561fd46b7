"""Choosing the next byte: a pure function of log-probabilities, text, seed and position.

There is no random state. The noise of a position is a fixed function of the row's seed and the
position, and a byte is drawn by an exponential race: the byte with the largest p / E wins, E a
standard exponential number of its own, which happens with probability p. (In logarithms this is
the Gumbel-max trick: -log E is a Gumbel number.) So a row's text does not depend on the rows beside
it, and whoever asks again about a position, with another distribution even, meets the same noise.

Sources: top-k (Fan et al. 2018, arXiv:1805.04833), nucleus or top-p (Holtzman et al. 2019,
arXiv:1904.09751), min-p (Nguyen et al. 2024, arXiv:2407.01082), repetition penalty (CTRL, Keskar et
al. 2019, arXiv:1909.05858, section 4.1), Gumbel-max (Maddison et al. 2014, arXiv:1411.0030),
Philox (Salmon et al. 2011, doi:10.1145/2063384.2063405).
Shape key: R rows.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int64

from bytelm.decoding import utf8
from bytelm.decoding.arguments import whole
from bytelm.errors import CheckpointError
from bytelm.vocab import NUM_BYTES

NUM_SEEDS = 1 << 64
"""Seeds are 0 to this, less one."""

_COUNTERS = NUM_BYTES // 4
"""Steps of the counter for one position: each gives four numbers of 64 bits."""

_BLOCK = 64
"""Positions whose noise is made at once: 128 KiB."""

_DROPPED_BITS = 12
"""Of 64: what is left, plus a half, is a float64 without rounding, above 0 and below 1."""


def checked_seed(seed: object) -> int:
    """Return a seed as an int.

    Raises:
        ValueError: It is not a whole number 0 to 2^64 - 1.

    """
    return whole("a seed", seed, high=NUM_SEEDS - 1)


class Noise:
    """Standard exponential numbers of one seed, 256 for each position, asked for in any order."""

    def __init__(self, seed: int) -> None:
        """Take a seed.

        Raises:
            ValueError: It is not 0 to 2^64 - 1.

        """
        self._seed = checked_seed(seed)
        self._blocks: dict[int, np.ndarray] = {}

    def at(self, position: int) -> np.ndarray:
        """Float64 `[256]`, above 0: the noise of one position."""
        index, offset = divmod(position, _BLOCK)
        block = self._blocks.get(index)
        if block is None:
            # Two are kept: what is drafted and what is checked may lie on both sides of a border.
            self._blocks = dict(list(self._blocks.items())[-1:])
            block = self._blocks[index] = self._block(index)
        return block[offset]

    def _block(self, index: int) -> np.ndarray:
        philox = np.random.Philox(key=self._seed, counter=index * _BLOCK * _COUNTERS)
        bits = philox.random_raw(_BLOCK * NUM_BYTES) >> _DROPPED_BITS
        uniform = (bits + 0.5) * 2.0 ** (_DROPPED_BITS - 64)
        return -np.log(uniform).reshape(_BLOCK, NUM_BYTES)


class Row:
    """One text that is being written: what its next byte depends on beside the model."""

    __slots__ = ("max_new_bytes", "noise", "prompt_bytes", "text")

    def __init__(self, prompt: bytes, *, seed: int, max_new_bytes: int) -> None:
        """Begin after a prompt.

        Raises:
            ValueError: The seed is out of range.

        """
        self.text = bytearray(prompt)
        self.prompt_bytes = len(prompt)
        self.max_new_bytes = max_new_bytes
        self.noise = Noise(seed)

    @property
    def position(self) -> int:
        """How many new bytes the text has."""
        return len(self.text) - self.prompt_bytes


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next byte is chosen.

    In this order: the penalty, the UTF-8 constraint, the temperature, top-k, top-p of what is
    left, min-p. Of equal bytes the one with the lowest value counts as the likelier.
    """

    temperature: float = 1.0
    """Divides the log-probabilities; 0 always takes the likeliest byte."""

    top_k: int | None = None
    """Only the k likeliest bytes. None: all."""

    top_p: float | None = None
    """Only the likeliest bytes that together reach this probability, the crossing one included."""

    min_p: float | None = None
    """Only bytes that are at least this share as likely as the likeliest one. None: all."""

    repetition_penalty: float = 1.0
    """Multiplies the log-probability of each byte value that occurs in the window: p becomes
    p^penalty, before renormalization. 1: none. A byte that is certain stays so."""

    repetition_window: int = 64
    """The last bytes of the text, the prompt included, that the penalty looks at."""

    valid_utf8: bool = False
    """Only bytes that keep the text UTF-8, and that let it end whole within the wanted length."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be a number >= 0, got {self.temperature}")
        if self.top_k is not None:
            whole("top_k", self.top_k, low=1, high=NUM_BYTES)
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")
        if self.min_p is not None and not 0 <= self.min_p <= 1:
            raise ValueError(f"min_p must be 0 to 1, got {self.min_p}")
        if not (math.isfinite(self.repetition_penalty) and self.repetition_penalty > 0):
            raise ValueError(
                f"repetition_penalty must be a number above 0, got {self.repetition_penalty}"
            )
        whole("repetition_window", self.repetition_window, low=1)

    def check_prompt(self, prompt: bytes, *, max_new_bytes: int, name: str = "the prompt") -> None:
        """Make sure that these settings can continue a prompt.

        Raises:
            ValueError: `valid_utf8` cannot be kept with it.

        """
        if self.valid_utf8:
            utf8.check_prompt(prompt, max_new_bytes=max_new_bytes, name=name)

    def choose(
        self, log_probs: Float32[np.ndarray, "R 256"], rows: Sequence[Row]
    ) -> Int64[np.ndarray, " R"]:
        """Choose the next byte of each row; a row's choice depends on that row alone.

        Args:
            log_probs: Of the next byte of each row, natural logarithm.
            rows: The texts so far. They are not changed.

        Raises:
            CheckpointError: The log-probabilities are not numbers, or no byte is possible.

        """
        scores = self._scores(log_probs, rows)
        floor = -math.inf
        if self.temperature:
            noise = [row.noise.at(row.position) for row in rows]
            scores, floor = self._weights(scores) / np.array(noise).reshape(scores.shape), 0.0
        chosen = scores.argmax(1)
        best = scores[np.arange(len(chosen)), chosen]
        # Not-a-number wins every argmax and is above nothing.
        if not (best > floor).all():
            row = int(np.argmin(best > floor))
            raise CheckpointError(
                f"the model has no next byte after {len(rows[row].text)} bytes: its "
                "log-probabilities are NaN, or -inf for every byte that may come. The weights are "
                "damaged or their training diverged: use another checkpoint"
            )
        return chosen

    def chooser(
        self, prompt: bytes, *, seed: int, max_new_bytes: int
    ) -> Callable[[np.ndarray, bytearray], int]:
        """Return `choose` of a single row: (log-probabilities float32 `[256]`, text) -> byte.

        `text` is the prompt and the new bytes so far, in any order of calls.
        """
        row = Row(prompt, seed=seed, max_new_bytes=max_new_bytes)

        def choose(log_probs: np.ndarray, text: bytearray) -> int:
            row.text = text
            return int(self.choose(log_probs[None], (row,))[0])

        return choose

    def distribution(
        self, log_probs: Float32[np.ndarray, "R 256"], rows: Sequence[Row]
    ) -> Float64[np.ndarray, "R 256"]:
        """The probabilities that `choose` draws from; temperature 0 is all on one byte."""
        scores = self._scores(log_probs, rows)
        if not self.temperature:
            return np.eye(NUM_BYTES)[scores.argmax(1)]
        weights = self._weights(scores)
        return weights / weights.sum(1, keepdims=True)

    def _scores(self, log_probs: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
        """Log-probabilities, float64 where they are changed or drawn from; not renormalized."""
        if self.repetition_penalty != 1:
            penalized = np.ones(log_probs.shape)
            for factors, row in zip(penalized, rows, strict=True):
                factors[list(row.text[-self.repetition_window :])] = self.repetition_penalty
            log_probs = log_probs * penalized
        if self.valid_utf8:
            states = [utf8.state_after(row.text) for row in rows]
            left = [row.max_new_bytes - row.position for row in rows]
            log_probs = log_probs + utf8.penalties(states, left)
        return log_probs.astype(np.float64) if self.temperature else log_probs

    def _weights(self, scores: np.ndarray) -> np.ndarray:
        """Probabilities up to a factor: the likeliest byte has 1, what is not drawn has 0."""
        # The likeliest at 0 before the division: next to no temperature then gives -inf, not NaN.
        with np.errstate(over="ignore", invalid="ignore"):
            weights = np.exp((scores - scores.max(1, keepdims=True)) / self.temperature)
        limited = (self.top_k or NUM_BYTES) < NUM_BYTES or (self.top_p or 1.0) < 1
        kept = self._kept(weights) if limited else None
        if self.min_p is not None:
            weights[weights < self.min_p] = 0
        if kept is not None:
            weights[~kept] = 0
        return weights

    def _kept(self, weights: np.ndarray) -> np.ndarray:
        """Which bytes top-k and top-p keep, bool `[R, 256]`."""
        ordered = -np.sort(-weights, 1)[:, : self.top_k]
        count = np.full(len(weights), ordered.shape[1])
        if self.top_p is not None and self.top_p < 1:
            reached = ordered.cumsum(1)
            count = 1 + (reached[:, :-1] < self.top_p * reached[:, -1:]).sum(1)
        last = ordered[np.arange(len(count)), count - 1][:, None]
        kept = weights >= last
        if (kept.sum(1) != count).any():
            # Several bytes are as likely as the last one that is kept: the lowest values stay.
            equal = weights == last
            room = count - (weights > last).sum(1)
            kept &= ~equal | (equal.cumsum(1) <= room[:, None])
        return kept
