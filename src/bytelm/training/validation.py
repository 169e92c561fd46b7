"""Bits per byte of held-out text while a model trains: the same rows each time.

Rows are cut as for training, so a byte near a row's start has less context than in use; the figure
steers a run, and `bytelm evaluate` gives the one to report.
"""

import math
from collections.abc import Iterator

import numpy as np
import torch

from bytelm.data import Batch, Batches, Corpus, StreamStarts
from bytelm.decoding.reader import Reader
from bytelm.errors import RunError
from bytelm.models import BLT, ByteModel
from bytelm.training.precision import autocast
from bytelm.training.step import cross_entropy_nats


class Validation:
    """Measures a model on a fixed choice of rows; each byte in them is scored once.

    Args:
        corpus: The validation split, 2 bytes or more.
        context_bytes: Length of a row; shortened to the corpus.
        max_bytes: About the most bytes to score.
        starts: Gives the patch starts of the split, if the model has patches and does not find
            them itself.

    """

    def __init__(
        self,
        corpus: Corpus,
        *,
        context_bytes: int,
        max_bytes: int,
        starts: StreamStarts | None = None,
    ) -> None:
        context_bytes = min(context_bytes, corpus.num_bytes)
        batches = Batches(corpus, context_bytes=context_bytes, rows=1, seed=0)
        count = max(1, min(batches.rows_per_epoch, max_bytes // context_bytes))
        self._batches = Batches(corpus, context_bytes=context_bytes, rows=count, seed=0)
        self._starts = starts
        self._batch: Batch | None = None

    @torch.no_grad()
    def bits_per_byte(
        self, model: torch.nn.Module, *, rows: int, device: torch.device, dtype: torch.dtype | None
    ) -> float:
        """Measure `model`, `rows` rows in one forward pass; its mode is left as it was.

        Raises:
            RunError: The loss is not a number.

        """
        was_training = model.training
        model.eval()
        batch, nats = self._rows(model, rows, device), 0.0
        for start in range(0, len(batch.ids), rows):
            part = batch.rows(slice(start, start + rows)).to(device)
            with autocast(dtype, device):
                logits = part.logits(model)
            nats += cross_entropy_nats(logits, part.targets).item()
        model.train(was_training)
        if not math.isfinite(nats):
            raise RunError(f"the validation loss is {nats}: the weights are broken")
        return nats / math.log(2) / max(1, batch.scored)

    def _rows(self, model: torch.nn.Module, rows: int, device: torch.device) -> Batch:
        """The rows; those of a model with patches are cut once."""
        if self._batch is None:
            batch = self._batches.batch(0, self._starts)
            if batch.starts is None and isinstance(model, BLT):
                parts = batch.ids.split(rows)
                starts = torch.cat([model.patch(ids.to(device)).cpu() for ids in parts])
                batch = Batch(batch.ids, batch.targets, starts)
            self._batch = batch
        return self._batch


READ_BYTES = 4096
"""Bytes that a model reads at once where whole documents are read."""


def sample_documents(corpus: Corpus, max_bytes: int) -> Iterator[np.ndarray]:
    """Documents in an order that is random and fixed, to `max_bytes`; the last one is cut."""
    left = max_bytes
    for index in np.random.default_rng(0).permutation(corpus.num_documents).tolist():
        if left <= 0:
            return
        document = corpus.document(index)[:left]
        left -= len(document)
        yield document


def streamed_bits_per_byte(model: ByteModel, corpus: Corpus, *, max_bytes: int) -> float:
    """Bits per byte of whole documents, for a model that has no rows."""
    nats, scored = 0.0, 0
    for data in sample_documents(corpus, max_bytes):
        reader, at = Reader(model), 0
        while at < len(data):
            # one prediction of the first byte, then one after each byte read
            before = data[max(0, at - 1) : min(at - 1 + READ_BYTES, len(data) - 1)]
            log_probs = (reader.read([before]) if at else reader.begin()).log_probs
            own = torch.from_numpy(data[at : at + len(log_probs)].astype(np.int64))
            nats -= log_probs[torch.arange(len(own)), own].sum().item()
            at += len(log_probs)
        scored += len(data)
    return nats / math.log(2) / max(1, scored)
