"""A sequence-to-sequence model without weights: it writes the bytes of its input backwards."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from bytelm.vocab import EOS, OFFSET, VOCAB_SIZE

LONGEST = 12
"""Bytes of the longest input and of the longest output."""

SURE = 0.9
"""Probability of the right symbol; the others share the rest."""


@dataclass(frozen=True)
class MirrorConfig:
    max_bytes: int = LONGEST


class MirrorState:
    """The inputs of all rows, and how far all outputs are."""

    def __init__(self, inputs: Sequence[bytes]) -> None:
        self.inputs = list(inputs)
        self.length = 0

    def select(self, index: np.ndarray) -> None:
        self.inputs = [self.inputs[row] for row in index]


class Mirror:
    """Its patches, where it has any, are of `patch_size` bytes."""

    def __init__(self, *, patch_size: int | None = None, is_endless: bool = False) -> None:
        self.config = MirrorConfig()
        self.patcher = patch_size
        self.is_endless = is_endless
        """Goes on with question marks instead of an end."""
        self.batches: list[list[bytes]] = []
        """The inputs that were read at once."""

    def patch_starts(self, inputs: Sequence[bytes]) -> list[np.ndarray]:
        return [np.arange(len(data)) % (self.patcher or 1) == 0 for data in inputs]

    def read(self, inputs: Sequence[bytes]) -> list[bytes]:
        self.batches.append(list(inputs))
        return list(inputs)

    def begin(self, memory: list[bytes]) -> MirrorState:
        return MirrorState(memory)

    def step(self, ids: np.ndarray, state: MirrorState) -> np.ndarray:
        log_probs = np.full((len(ids), VOCAB_SIZE), math.log((1 - SURE) / 256), np.float32)
        log_probs[:, :EOS] = log_probs[:, EOS + 1 : OFFSET] = -math.inf
        for row, data in enumerate(state.inputs):
            right = OFFSET + ord("?") if self.is_endless else EOS
            if state.length < len(data):
                right = OFFSET + data[-1 - state.length]
            log_probs[row, right] = math.log(SURE)
        state.length += 1
        return log_probs
