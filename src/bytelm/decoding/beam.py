"""Beam search: the likeliest texts, instead of drawn ones.

A hypothesis of n new bytes with log-probability s has the score s / n^length_penalty, as in
`transformers`: 0 compares log-probabilities, 1 their mean per byte. (GNMT, Wu et al. 2016,
arXiv:1609.08144, eq. 14, adds 5 to the length, a number of words.) A finished hypothesis keeps its
place, so that the beam of open ones narrows, and with one beam the search is greedy decoding.
Shape key: R open hypotheses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import nn

from bytelm.decoding import utf8
from bytelm.decoding.arguments import whole
from bytelm.decoding.generation import Ending
from bytelm.decoding.sampling import Sampling
from bytelm.decoding.session import Session
from bytelm.errors import CheckpointError
from bytelm.vocab import NUM_BYTES

MAX_BEAMS = 1024
"""Each is a row of the model."""

MAX_LENGTH_PENALTY = 100
"""A length to this power still is a float."""


@dataclass(frozen=True, kw_only=True)
class Beams:
    """How wide to search, and how to compare texts of different lengths."""

    beams: int = 4
    """Hypotheses that are kept at each byte."""

    n_best: int = 1
    """How many are returned; at most `beams`."""

    length_penalty: float = 1.0
    """Exponent of the length that divides a log-probability; larger prefers longer texts."""

    valid_utf8: bool = False
    """Only bytes that keep the text UTF-8, and that let it end whole. Scores stay the model's."""

    def __post_init__(self) -> None:
        whole("beams", self.beams, low=1, high=MAX_BEAMS)
        whole("n_best, of the beams,", self.n_best, low=1, high=self.beams)
        if not abs(self.length_penalty) <= MAX_LENGTH_PENALTY:
            raise ValueError(
                f"length_penalty must be a number from {-MAX_LENGTH_PENALTY} to "
                f"{MAX_LENGTH_PENALTY}, got {self.length_penalty}"
            )

    def score(self, log_prob: float, length: int) -> float:
        """What hypotheses are compared by; higher is better."""
        return log_prob / max(length, 1) ** self.length_penalty

    def best_score(self, log_prob: float, length: int, max_new_bytes: int) -> float:
        """The best score that an open hypothesis can still reach: each further byte for certain.

        Log-probabilities are not positive, so that more length helps where the penalty is
        positive, and harms where it is negative.
        """
        return self.score(log_prob, max_new_bytes if self.length_penalty > 0 else length + 1)


@dataclass(frozen=True)
class Hypothesis:
    """One text that a beam search found."""

    text: bytes
    """The new bytes, without the stop sequence that ended them."""

    log_prob: float
    """Nats, of all new bytes; those of the stop sequence count."""

    score: float
    """`log_prob` under the length penalty; the stop sequence is part of the length."""

    stop: bytes
    """The stop sequence that ended it; empty where it reached `max_new_bytes`."""


@dataclass(frozen=True)
class _Open:
    """A hypothesis that is being written."""

    new: bytes
    log_prob: float


def beam_search(
    model: nn.Module, prompt: bytes, *, ending: Ending, beams: Beams
) -> list[Hypothesis]:
    """Search the likeliest continuations of a prompt.

    Ends as soon as no open hypothesis can reach the `n_best`-th finished one.

    Args:
        model: Of any kind.
        prompt: Bytes before the new ones; may be empty.
        ending: When a text ends.
        beams: The width of the search and its penalty.

    Returns:
        The `n_best` best finished hypotheses, best first; of equal ones the earlier found. Fewer
        only where the model deems fewer texts possible.

    Raises:
        ValueError: The prompt cannot be kept valid UTF-8, and `beams.valid_utf8` is set.
        CheckpointError: The log-probabilities are not numbers.

    """
    ending.check_prompt(prompt, Sampling(valid_utf8=beams.valid_utf8))
    if ending.max_new_bytes == 0:
        return [Hypothesis(b"", 0.0, 0.0, b"")]
    session = Session(model, rows=1)
    session.push([prompt])
    opened = [_Open(b"", 0.0)]
    finished: list[Hypothesis] = []
    while opened:
        log_probs = session.log_probs().astype(np.float64)
        if beams.valid_utf8:
            states = [utf8.state_after(prompt[-4:] + one.new[-4:]) for one in opened]
            left = [ending.max_new_bytes - len(one.new) for one in opened]
            log_probs += utf8.penalties(states, left)
        children = _children(opened, log_probs, beams.beams - len(finished))
        kept: list[tuple[int, _Open]] = []
        for parent, child in children:
            stop = _stop(child.new, ending.stop)
            if stop or len(child.new) == ending.max_new_bytes:
                score = beams.score(child.log_prob, len(child.new))
                text = child.new[: len(child.new) - len(stop)]
                finished.append(Hypothesis(text, child.log_prob, score, stop))
            else:
                kept.append((parent, child))
        opened = [child for _, child in kept]
        finished.sort(key=lambda one: -one.score)
        if not opened or _decided(finished, opened, beams, ending.max_new_bytes):
            break
        session.select([parent for parent, _ in kept])
        session.push([child.new[-1:] for child in opened])
    return finished[: beams.n_best]


def _children(
    opened: Sequence[_Open], log_probs: np.ndarray, width: int
) -> list[tuple[int, _Open]]:
    """The likeliest next hypotheses, best first, each with the row that it grows from."""
    totals = np.array([one.log_prob for one in opened])[:, None] + log_probs
    flat = totals.ravel()
    if np.isnan(flat).any():
        raise CheckpointError(
            f"the model has no next byte after {len(opened[0].new)} new bytes: its "
            "log-probabilities are NaN. The weights are damaged or their training diverged: use "
            "another checkpoint"
        )
    # Stable: of equal ones the better parent's come first, then the lower byte values.
    order = np.argsort(-flat, kind="stable")[:width]
    return [
        (parent, _Open(opened[parent].new + bytes([byte]), float(totals[parent, byte])))
        for parent, byte in (divmod(index, NUM_BYTES) for index in order.tolist())
        if totals[parent, byte] > -math.inf
    ]


def _stop(new: bytes, stop: Sequence[bytes]) -> bytes:
    """The longest stop sequence that the text ends with; empty for none."""
    return max((sequence for sequence in stop if new.endswith(sequence)), key=len, default=b"")


def _decided(
    finished: Sequence[Hypothesis], opened: Sequence[_Open], beams: Beams, max_new_bytes: int
) -> bool:
    """Whether nothing that is open can change the `n_best` best."""
    if len(finished) < beams.n_best:
        return False
    # All open ones have the same length: the likeliest is the one that can reach most.
    best = max(opened, key=lambda one: one.log_prob)
    reach = beams.best_score(best.log_prob, len(best.new), max_new_bytes)
    return finished[beams.n_best - 1].score >= reach
