"""Shuffled windows of a corpus: any batch of any epoch, computed from its number alone.

The documents, BOS between them, form one stream of ids; a document of no bytes has no place in it.
An epoch cuts the stream into windows that start at a random phase, so that a byte's context differs
from epoch to epoch, and orders them by a keyed permutation.

    stream     d1 d1 d1 BOS d2 d2 d2 d2 d2 BOS d3 d3 d3     (context_bytes 4, phase 2)
    windows    [  ] [          ] [          ] [        ]

    targets    d1 IGN d2 d2        window, BOS not scored
    ids        BOS d1 BOS d2       BOS, then the window without its last id

Shape key: R rows, T bytes.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from bytelm.data.corpus import Corpus, starts_of
from bytelm.data.shuffle import Purpose, keyed_hash, keyed_permutation
from bytelm.errors import DataError
from bytelm.vocab import BOE, BOS, IGNORE, OFFSET

StreamStarts = Callable[[int, int], np.ndarray]
"""Bool flags of the stream's positions [begin, end): where a patch starts."""


@dataclass(frozen=True)
class Batch:
    """Rows for one update, or a part of them."""

    ids: Int[Tensor, "R T"]
    """int64; the first id is BOS, padding is BOE."""
    targets: Int[Tensor, "R T"]
    """int64; the id that follows, IGNORE where nothing is scored."""
    starts: Bool[Tensor, "R T+1"] | None = None
    """Which ids start a patch, and whether the id after the row does; None where nobody asked."""

    @property
    def scored(self) -> int:
        """Targets that are bytes."""
        return int((self.targets != IGNORE).sum())

    def rows(self, chosen: slice) -> "Batch":
        """View some of the rows, as a micro-batch or as one process's share."""
        starts = None if self.starts is None else self.starts[chosen]
        return Batch(self.ids[chosen], self.targets[chosen], starts)

    def to(self, device: torch.device | str) -> "Batch":
        """Copy to a device; the same tensors when they are there already."""
        starts = None if self.starts is None else self.starts.to(device)
        return Batch(self.ids.to(device), self.targets.to(device), starts)

    def logits(self, model: torch.nn.Module) -> Float[Tensor, "R T V"]:
        """What a model predicts, with the patches that the batch brings where it brings some."""
        return model(self.ids) if self.starts is None else model(self.ids, self.starts)


class Batches:
    """Endless epochs of a corpus in batches; `batch(step)` depends on nothing that came before."""

    def __init__(
        self,
        corpus: Corpus,
        *,
        context_bytes: int,
        rows: int,
        seed: int,
        stride: int | None = None,
    ) -> None:
        """Plan the windows; nothing is read yet.

        Args:
            corpus: At least `context_bytes` bytes.
            context_bytes: T, length of a row, at least 2.
            rows: R, rows in a batch, of all processes and micro-batches together.
            seed: Integer >= 0; decides the phases and the order.
            stride: Ids from one window's start to the next, at most `context_bytes`, the default:
                then every byte is a target once in an epoch. A smaller one makes windows overlap.

        Raises:
            DataError: The corpus is shorter than a row.
            ValueError: An argument is out of its range.

        """
        stride = context_bytes if stride is None else stride
        if context_bytes < 2 or rows < 1 or seed < 0 or not 1 <= stride <= context_bytes:
            raise ValueError(
                "expected context_bytes >= 2, rows >= 1, seed >= 0 and 1 <= stride <= "
                f"context_bytes; got {context_bytes}, {rows}, {seed} and {stride}"
            )
        if corpus.num_bytes < context_bytes:
            raise DataError(
                f"the corpus has {corpus.num_bytes:,} bytes, fewer than one row of "
                f"{context_bytes:,} (model.context_bytes); reduce model.context_bytes to at most "
                f"{corpus.num_bytes:,}, or give more data"
            )
        self.corpus = corpus
        self.context_bytes = context_bytes
        self.rows = rows
        self.seed = seed
        self.stride = stride
        self._stream = Stream(corpus)
        self._first_rows = np.zeros(1, dtype=np.int64)
        self._shuffle: _Shuffle | None = None

    @property
    def rows_per_epoch(self) -> int:
        """Rows in an epoch of phase 0; an epoch of another phase has up to one more."""
        return int(self._count_rows(np.zeros(1, dtype=np.int64))[0])

    def epoch(self, step: int) -> int:
        """Tell in which epoch, counted from 0, the first row of a step lies."""
        return int(self._epochs_of(np.array([self._first_row(step)]))[0])

    def batch(self, step: int, starts: StreamStarts | None = None) -> Batch:
        """Make the batch of an update, counted from 0; with patch starts where they are given.

        A row takes the starts of its bytes as they are in their documents; its BOS and its first
        byte start a patch each. Padding starts none.

        Raises:
            DataError: The cache's file under the corpus shrank.

        """
        self.corpus.check()
        first = self._first_row(step)
        begins, ends = self._windows(np.arange(first, first + self.rows))
        batch = self._stream.read(begins, ends, self.context_bytes)
        if starts is None:
            return batch
        flags = np.zeros((self.rows, self.context_bytes + 1), bool)
        for row, (begin, end) in enumerate(zip(begins.tolist(), ends.tolist(), strict=True)):
            flags[row, 1 : end - begin + 1] = starts(begin, end)
        is_bos = (batch.ids == BOS).numpy()
        flags[:, :-1] |= is_bos
        flags[:, 1:] |= is_bos
        return Batch(batch.ids, batch.targets, torch.from_numpy(flags))

    def _first_row(self, step: int) -> int:
        if step < 0:
            raise ValueError(f"step must be >= 0, got {step}")
        return step * self.rows

    def _windows(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Find where the rows, counted over all epochs, begin and end in the stream."""
        epochs = self._epochs_of(rows)
        begins, ends = np.empty_like(rows), np.empty_like(rows)
        for epoch in range(epochs[0], epochs[-1] + 1):
            chosen = epochs == epoch
            shuffle = self._shuffle_of(epoch)
            window = shuffle.order[rows[chosen] - self._first_rows[epoch]]
            # A phase above 0 leaves a short first window, and shifts the others.
            begin = shuffle.phase + (window - int(shuffle.phase > 0)) * self.stride
            begins[chosen] = np.maximum(begin, 0)
            ends[chosen] = np.where(begin < 0, shuffle.phase, begin + self.context_bytes)
        return begins, np.minimum(ends, self._stream.length)

    def _epochs_of(self, rows: np.ndarray) -> np.ndarray:
        """Find the rows' epochs; what is known of the epochs grows by doubling."""
        while self._first_rows[-1] <= rows[-1]:
            known = len(self._first_rows) - 1
            more = self._count_rows(self._phases(np.arange(known, 2 * known + 16)))
            later = self._first_rows[-1] + np.cumsum(more)
            self._first_rows = np.concatenate([self._first_rows, later])
        return np.searchsorted(self._first_rows, rows, side="right") - 1

    def _phases(self, epochs: np.ndarray) -> np.ndarray:
        hashes = keyed_hash(epochs, seed=self.seed, purpose=Purpose.PHASE)
        return (hashes % np.uint64(self.stride)).astype(np.int64)

    def _count_rows(self, phases: np.ndarray) -> np.ndarray:
        beyond_first = np.maximum(self._stream.length - phases - self.context_bytes, 0)
        return (phases > 0) + 1 + -(-beyond_first // self.stride)

    def _shuffle_of(self, epoch: int) -> "_Shuffle":
        if self._shuffle is None or self._shuffle.epoch != epoch:
            count = int(self._first_rows[epoch + 1] - self._first_rows[epoch])
            order = keyed_permutation(count, seed=self.seed, purpose=Purpose.ROWS, stream=epoch)
            self._shuffle = _Shuffle(epoch, int(self._phases(np.array([epoch]))[0]), order)
        return self._shuffle


@dataclass(frozen=True)
class _Shuffle:
    """How one epoch cuts and orders its windows; kept until another epoch is asked for."""

    epoch: int
    phase: int
    order: np.ndarray


class Stream:
    """The ids `d1 BOS d2 BOS d3 …` of a corpus, read by position and never written down."""

    def __init__(self, corpus: Corpus) -> None:
        kept = corpus.lengths > 0
        lengths = corpus.lengths[kept]
        self._data = corpus.data
        self._begins = starts_of(lengths + 1)
        self._ends = self._begins + lengths
        # Add this to a position in the stream to have the index in the data.
        self._shifts = corpus.starts[kept] - self._begins
        self.length = int(self._ends[-1])

    def documents(self, begin: int, end: int) -> Iterator[tuple[int, np.ndarray]]:
        """Each document with bytes at [begin, end): where it begins, and all its bytes, uint8."""
        first = int(np.searchsorted(self._ends, begin, side="right"))
        last = int(np.searchsorted(self._begins, end, side="left"))
        for index in range(first, last):
            place, stop = int(self._begins[index]), int(self._ends[index])
            shift = int(self._shifts[index])
            yield place, self._data[place + shift : stop + shift]

    def read(self, begins: np.ndarray, ends: np.ndarray, context_bytes: int) -> Batch:
        """Read windows [begins, ends) into rows of `context_bytes`, padded."""
        rows = np.arange(len(begins))
        first = np.searchsorted(self._begins, begins, side="right") - 1
        last = np.searchsorted(self._begins, ends - 1, side="right") - 1
        # One segment for each document that a row meets; it goes on over the BOS that ends it, and
        # a row's last segment over the padding, so the segments tile the batch.
        counts = last - first + 1
        row = np.repeat(rows, counts)
        document = np.arange(len(row)) - np.repeat(np.cumsum(counts) - counts, counts) + first[row]
        column = np.maximum(self._begins[document] - begins[row], 0)
        flat = row * context_bytes + column
        total = len(rows) * context_bytes
        sizes = np.diff(flat, append=total)
        shifts = self._shifts[document] + begins[row] - row * context_bytes

        source = np.repeat(shifts, sizes)
        source += np.arange(total)
        # Past its document a segment's source is meaningless, and may lie outside the data.
        targets = self._data.take(source, mode="clip").astype(np.int64)
        targets += OFFSET
        ids = np.empty_like(targets)
        ids[1:] = targets[:-1]
        ids[::context_bytes] = BOS

        is_ended = self._ends[document] < ends[row]
        separators = (row * context_bytes + self._ends[document] - begins[row])[is_ended]
        targets[separators] = IGNORE
        ids[separators[(separators + 1) % context_bytes != 0] + 1] = BOS
        shape = (len(rows), context_bytes)
        ids, targets = ids.reshape(shape), targets.reshape(shape)
        for short in np.flatnonzero(ends - begins < context_bytes):
            ids[short, ends[short] - begins[short] :] = BOE
            targets[short, ends[short] - begins[short] :] = IGNORE
        return Batch(torch.from_numpy(ids), torch.from_numpy(targets))
