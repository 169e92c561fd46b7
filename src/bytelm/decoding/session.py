"""Incremental decoding of several documents at once, each of its own length."""

from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch import nn

from bytelm.decoding.reader import Predictions, Reader
from bytelm.decoding.sampling import Sampling


class Session:
    """Rows of bytes that grow independently; none depends on another."""

    def __init__(self, model: nn.Module, *, rows: int = 1) -> None:
        """Begin `rows` empty documents.

        Raises:
            ValueError: `rows` is below 1.

        """
        if rows < 1:
            raise ValueError(f"a session needs at least 1 row, got {rows}")
        self._readers = [Reader(model) for _ in range(rows)]
        self._next = [reader.begin() for reader in self._readers]

    @property
    def rows(self) -> int:
        """How many documents are open."""
        return len(self._readers)

    def log_probs(self) -> np.ndarray:
        """float32 `[rows, 256]`: natural log-probabilities of each row's next byte."""
        return torch.cat([row.log_probs for row in self._next]).float().numpy()

    def entropies(self) -> np.ndarray:
        """float32 `[rows]`, nats: what decides whether each row's next byte starts a patch."""
        return np.concatenate([row.entropies for row in self._next])

    def starts(self) -> np.ndarray:
        """Bool `[rows]`: whether each row's next byte starts a patch."""
        return np.concatenate([row.starts for row in self._next])

    def push(self, data: Sequence[bytes]) -> None:
        """Append bytes to each row; a row may get none.

        Raises:
            ValueError: The number of pieces is not the number of rows.

        """
        if isinstance(data, bytes) or len(data) != self.rows:
            got = "bytes" if isinstance(data, bytes) else f"{len(data)} pieces"
            raise ValueError(
                f"expected a list of one piece for each of {self.rows} rows, got {got}"
            )
        for index, piece in enumerate(data):
            if len(piece):
                self._next[index] = _read(self._readers[index], np.frombuffer(piece, np.uint8))


CHUNK_BYTES = 4096
"""Bytes that are read at once: memory stays bounded for any length."""


def _read(reader: Reader, data: np.ndarray) -> Predictions:
    """Read all of `data`, at least one byte; only the prediction after its last byte."""
    last = (len(data) - 1) // CHUNK_BYTES * CHUNK_BYTES
    for begin in range(0, last, CHUNK_BYTES):
        reader.read(data[begin : begin + CHUNK_BYTES])
    return reader.read(data[last:]).last()


def generate(
    model: nn.Module,
    prompt: bytes,
    *,
    max_new_bytes: int,
    sampling: Sampling,
    seed: int | None,
    stop: Sequence[bytes] = (),
) -> Iterator[bytes]:
    """Yield new bytes after `prompt`, one at a time.

    Ends after `max_new_bytes`, or when a stop sequence is complete; what belongs to a stop
    sequence is not yielded.
    """
    session = Session(model)
    session.push([prompt])
    generator = torch.Generator()
    generator.manual_seed(generator.seed() if seed is None else seed)
    longest = max((len(sequence) for sequence in stop), default=0)
    pending = b""
    for _ in range(max_new_bytes):
        byte = bytes([sampling.choose(torch.from_numpy(session.log_probs()[0]), generator)])
        pending += byte
        ended = next((sequence for sequence in stop if pending.endswith(sequence)), None)
        if ended is not None:
            if rest := pending[: -len(ended)]:
                yield rest
            return
        if ready := pending[: len(pending) - _held_back(pending, stop, longest)]:
            yield ready
            pending = pending[len(ready) :]
        session.push([byte])
    if pending:
        yield pending


def _held_back(pending: bytes, stop: Sequence[bytes], longest: int) -> int:
    """How many last bytes could be the beginning of a stop sequence."""
    for length in range(min(longest - 1, len(pending)), 0, -1):
        if any(sequence.startswith(pending[-length:]) for sequence in stop):
            return length
    return 0
