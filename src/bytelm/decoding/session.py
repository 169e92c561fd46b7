"""Incremental decoding of several documents at once, each of its own length."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import nn

from bytelm.decoding.arguments import byte_array, whole
from bytelm.decoding.reader import CHUNK_BYTES, Predictions, Reader


@dataclass(frozen=True)
class Snapshot:
    """A row as it was; `Session.rollback` puts it back."""

    model: nn.Module = field(repr=False)
    """Which reads the row."""

    reader: Any
    """What the model remembers of it."""

    prediction: tuple[np.ndarray, np.float32, np.bool_]
    """Of its next byte: log-probabilities, entropy, start."""


class Session:
    """Rows of bytes that grow independently; none depends on another.

    Rows are read in one pass wherever each has bytes to read, so sixteen rows cost little more
    than a few. A row's memory grows only with the patches it has closed (with its bytes, for a
    model with full attention and no patches).
    """

    def __init__(self, model: nn.Module, *, rows: int = 1) -> None:
        """Begin `rows` empty documents.

        Raises:
            ValueError: `rows` is below 1.

        """
        rows = whole("rows", rows, low=1)
        self._model = model
        self._reader = Reader(model, rows)
        first = self._reader.begin(range(rows))
        self._log_probs = first.log_probs.float().numpy()
        self._entropies, self._starts = first.entropies, first.starts

    @property
    def rows(self) -> int:
        """How many documents are open."""
        return len(self._starts)

    def log_probs(self) -> np.ndarray:
        """float32 `[rows, 256]`: natural log-probabilities of each row's next byte."""
        return self._log_probs.copy()

    def entropies(self) -> np.ndarray:
        """float32 `[rows]`, nats: what decides whether each row's next byte starts a patch."""
        return self._entropies.copy()

    def starts(self) -> np.ndarray:
        """Bool `[rows]`: whether each row's next byte starts a patch."""
        return self._starts.copy()

    def push(self, data: Sequence[bytes]) -> None:
        """Append bytes to each row; a row may get none.

        Raises:
            ValueError: The number of pieces is not the number of rows, or a piece is not bytes;
                nothing is read then.

        """
        if isinstance(data, bytes) or len(data) != self.rows:
            got = "bytes" if isinstance(data, bytes) else f"{len(data)} pieces"
            raise ValueError(
                f"expected a list of one piece for each of {self.rows} rows, got {got}"
            )
        pieces = [
            np.frombuffer(piece, np.uint8)
            if isinstance(piece, bytes)
            else byte_array(f"row {row}", piece)
            for row, piece in enumerate(data)
        ]
        left = {row: piece for row, piece in enumerate(pieces) if len(piece)}
        while left:
            size = max(1, CHUNK_BYTES // len(left))
            pieces = [piece[:size] for piece in left.values()]
            read = self._reader.read(pieces, list(left))
            if len(read.starts) > len(pieces):
                read = read.take(np.cumsum([len(piece) for piece in pieces]) - 1)
            self._note(read, list(left))
            left = {row: piece[size:] for row, piece in left.items() if len(piece) > size}

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order.

        One row may occur many times: `select([0] * 8)` forks one prompt into eight
        continuations; `select(kept)` drops the other rows.

        Raises:
            ValueError: There is no such row, or none is left.

        """
        chosen = [self._row(source) for source in sources]
        if not chosen:
            raise ValueError(f"expected at least one row of 0 to {self.rows - 1}, got none")
        self._reader.select(chosen)
        self._log_probs, self._starts = self._log_probs[chosen], self._starts[chosen]
        self._entropies = self._entropies[chosen]

    def restart(self, row: int) -> None:
        """Make a row an empty document again: a text that ended makes room for the next one."""
        row = self._row(row)
        self._note(self._reader.begin([row]), [row])

    def snapshot(self, row: int) -> Snapshot:
        """What a row is now, for `rollback`; later changes of the row leave it alone."""
        row = self._row(row)
        prediction = (self._log_probs[row].copy(), self._entropies[row], self._starts[row])
        return Snapshot(self._model, self._reader.save(row), prediction)

    def rollback(self, row: int, snapshot: Snapshot) -> None:
        """Make a row what it was; also a row of another session of the same model.

        Raises:
            ValueError: There is no such row, or the snapshot is of another model.

        """
        row = self._row(row)
        if snapshot.model is not self._model:
            raise ValueError(
                "the snapshot is of another model than this session reads with: go back to one "
                "that was taken with this model"
            )
        self._reader.restore(row, snapshot.reader)
        self._log_probs[row], self._entropies[row], self._starts[row] = snapshot.prediction

    def _note(self, predictions: Predictions, rows: list[int]) -> None:
        self._log_probs[rows] = predictions.log_probs.float().numpy()
        self._entropies[rows], self._starts[rows] = predictions.entropies, predictions.starts

    def _row(self, row: object) -> int:
        return whole("a row", row, high=self.rows - 1)
