"""Choosing the next byte from a distribution.

Sources: top-k (Fan et al. 2018, arXiv:1805.04833), nucleus or top-p (Holtzman et al. 2019,
arXiv:1904.09751).
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from bytelm.vocab import NUM_BYTES


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How the next byte is drawn."""

    temperature: float = 1.0
    """Divides the log-probabilities; 0 always takes the likeliest byte."""

    top_k: int | None = None
    """Only the k likeliest bytes. None: all."""

    top_p: float | None = None
    """Only the likeliest bytes that together reach this probability, the crossing one included."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise ValueError(f"temperature must be a number >= 0, got {self.temperature}")
        if self.top_k is not None and not 1 <= self.top_k <= NUM_BYTES:
            raise ValueError(f"top_k must be 1 to {NUM_BYTES}, got {self.top_k}")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must be above 0 and at most 1, got {self.top_p}")

    def choose(self, log_probs: Float[Tensor, " 256"], generator: torch.Generator) -> int:
        """Draw one byte value."""
        if self.temperature == 0:
            return int(log_probs.argmax())
        probs = self.distribution(log_probs)
        return int(torch.multinomial(probs, 1, generator=generator))

    def distribution(self, log_probs: Float[Tensor, " 256"]) -> Float[Tensor, " 256"]:
        """The probabilities that are drawn from, for a temperature above 0."""
        # The likeliest at 0 before the division: next to no temperature then gives -inf, not NaN.
        below_best = log_probs.double() - log_probs.double().max()
        probs = (below_best / self.temperature).softmax(0)
        ordered, order = probs.sort(descending=True, stable=True)
        if self.top_k is not None:
            ordered[self.top_k :] = 0
        if self.top_p is not None:
            before = ordered.cumsum(0) - ordered
            ordered[before >= self.top_p * ordered.sum()] = 0
        kept = torch.zeros_like(probs).scatter(0, order, ordered)
        return (kept / kept.sum()).to(log_probs.dtype)
