"""A model without weights, and a session of it that reads every row anew: the simplest oracle."""

import zlib
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from torch import nn

from bytelm.decoding import beam, generation
from bytelm.decoding.session import Session

Rule = Callable[[bytes], np.ndarray]


class Toy(nn.Module):
    """Predicts by a function: the bytes of a document -> probabilities `[256]` of the next."""

    def __init__(self, rule: Rule) -> None:
        super().__init__()
        self.rule = rule
        self.rows_read = 0
        """How many rows were ever asked for bytes: what sharing a prompt saves."""


def hashed(data: bytes) -> np.ndarray:
    """Probabilities that depend on all the bytes before, and look random."""
    generator = np.random.default_rng(zlib.crc32(data))
    return generator.dirichlet(np.full(256, 0.05)) + 1e-9


def over(alphabet: bytes) -> Rule:
    """The same over a few bytes; the others are impossible."""

    def rule(data: bytes) -> np.ndarray:
        probs = np.zeros(256)
        generator = np.random.default_rng(zlib.crc32(data))
        # Sometimes nearly certain: what comes later can outweigh what came first.
        probs[list(alphabet)] = generator.uniform(0.1, 1, len(alphabet)) ** 6
        return probs

    return rule


class ToySession(Session):
    """What a session promises, in the plainest way: each row is its bytes."""

    def __init__(self, model: Toy, *, rows: int = 1) -> None:
        assert rows >= 1
        self._model = model
        self.documents = [b""] * rows
        self.rows_at_most = rows

    @property
    def rows(self) -> int:
        return len(self.documents)

    def log_probs(self) -> np.ndarray:
        probs = np.stack([self._model.rule(document) for document in self.documents])
        with np.errstate(divide="ignore"):
            return np.log(probs / probs.sum(1, keepdims=True)).astype(np.float32)

    def push(self, data: Sequence[bytes]) -> None:
        assert len(data) == self.rows
        self._model.rows_read += sum(len(piece) > 1 for piece in data)
        self.documents = [a + b for a, b in zip(self.documents, data, strict=True)]

    def select(self, sources: Sequence[int]) -> None:
        assert len(sources)
        self.documents = [self.documents[source] for source in sources]
        self.rows_at_most = max(self.rows_at_most, self.rows)

    def restart(self, row: int) -> None:
        self.documents[row] = b""

    def snapshot(self, row: int) -> bytes:
        return self.documents[row]

    def rollback(self, row: int, snapshot: bytes) -> None:
        self.documents[row] = snapshot


@pytest.fixture
def toy_sessions(monkeypatch: pytest.MonkeyPatch) -> list[ToySession]:
    """Let generation and beam search open toy sessions, and list them."""
    opened: list[ToySession] = []

    def session(model: Toy, *, rows: int = 1) -> ToySession:
        opened.append(ToySession(model, rows=rows))
        return opened[-1]

    for module in (generation, beam):
        monkeypatch.setattr(module, "Session", session)
    return opened
