"""Reading one document byte by byte, or chunk by chunk, with any model: exact and incremental.

A `Reader` holds what a model remembers of one document and answers, after each byte, with the
prediction of the next one. Scoring a file, a session and generation are this one class, so they
cannot disagree.
Shape key: n bytes, V vocabulary.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from bytelm.decoding.segmenter import Segmenter
from bytelm.models.blt import BLT, BLTState
from bytelm.models.byte_gpt import ByteGPT, ByteGPTState
from bytelm.models.entropy_lm import EntropyLM, entropy_nats
from bytelm.models.ngram import Ngram
from bytelm.vocab import BOS, NUM_BYTES, OFFSET


@dataclass(frozen=True)
class Predictions:
    """What a model says of the next byte, at n consecutive positions."""

    log_probs: Tensor
    """`[n, 256]` in the model's precision, natural logarithm, normalized over the byte values."""

    entropies: np.ndarray
    """float32 `[n]`, nats: those that decide the patches, else the model's own."""

    starts: np.ndarray
    """bool `[n]`: whether the next byte starts a patch."""

    def last(self) -> "Predictions":
        """The last position alone."""
        return Predictions(self.log_probs[-1:], self.entropies[-1:], self.starts[-1:])


class Reader:
    """One document, as far as it is read, with any model."""

    def __init__(self, model: nn.Module) -> None:
        self._segmenter = Segmenter(model)
        self._logits = _logit_reader(model)

    @torch.no_grad()
    def begin(self) -> Predictions:
        """Predict the first byte of the document; n = 1."""
        entropies, starts = self._segmenter.begin()
        return _predictions(self._logits.begin(), entropies, starts)

    @torch.no_grad()
    def read(self, data: np.ndarray) -> Predictions:
        """Read bytes, uint8 `[n]` with n >= 1; row i predicts the byte after `data[: i + 1]`."""
        entropies, starts = self._segmenter.read(data)
        return _predictions(self._logits.read(data, starts), entropies, starts)


def _predictions(logits: Tensor, entropies: np.ndarray | None, starts: np.ndarray) -> Predictions:
    if entropies is None:
        entropies = entropy_nats(logits).float().cpu().numpy()
    bytes_only = logits[:, logits.shape[1] - NUM_BYTES :]
    return Predictions(
        log_probs=bytes_only.log_softmax(-1).cpu(), entropies=entropies, starts=starts
    )


def _logit_reader(model: nn.Module) -> "_NgramReader | _EndlessReader | _HalvingReader":
    match model:
        case Ngram():
            return _NgramReader(model)
        case EntropyLM() | ByteGPT() if model.config.window is not None:
            return _EndlessReader(model)
        case ByteGPT() | BLT():
            return _HalvingReader(model, model.config.context_bytes)
    raise TypeError(f"expected a bytelm model, got {type(model).__name__}")


class _NgramReader:
    """A count model: its log-probabilities stand for logits."""

    def __init__(self, model: Ngram) -> None:
        self._model, self._history = model, np.zeros(0, np.uint8)

    def begin(self) -> Tensor:
        return torch.from_numpy(self._model.predict(self._history, self._history)[0])

    def read(self, data: np.ndarray, starts: np.ndarray) -> Tensor:  # noqa: ARG002
        log_probs, _ = self._model.predict(data, self._history)
        self._history = np.concatenate((self._history, data))[-self._model.config.order :]
        return torch.from_numpy(log_probs[1:])


class _EndlessReader:
    """A model of which every layer is windowed: its caches are all that it needs."""

    def __init__(self, model: EntropyLM | ByteGPT) -> None:
        self._model, self._state = model, model.begin()
        self._device = next(model.parameters()).device

    def begin(self) -> Tensor:
        return self._feed(np.array([BOS]))

    def read(self, data: np.ndarray, starts: np.ndarray) -> Tensor:  # noqa: ARG002
        return self._feed(data.astype(np.int64) + OFFSET)

    def _feed(self, ids: np.ndarray) -> Tensor:
        row = torch.from_numpy(ids).to(self._device)[None]
        return self._model(row, state=self._state)[0]


class _HalvingReader:
    """A model with full attention: when its context is full, it reads the last half again.

    For byte t it sees the bytes from a = max(0, (t // h - 1) * h), h half the context, after a
    BOS; the byte at `a` starts a patch there.
    """

    def __init__(self, model: ByteGPT | BLT, context_bytes: int) -> None:
        self._model, self._half = model, context_bytes // 2
        self._device = next(model.parameters()).device
        self._data = np.zeros(0, np.uint8)
        self._starts = np.zeros(0, bool)
        self._state: BLTState | ByteGPTState = model.begin()

    def begin(self) -> Tensor:
        return self._restart()

    def read(self, data: np.ndarray, starts: np.ndarray) -> Tensor:
        parts = []
        while len(data):
            # The last row that this window may answer is the one after 2 h - 1 bytes.
            room = 2 * self._half - 1 - len(self._data)
            if room == 0:
                self._keep(data[:1], starts[:1])
                self._data, self._starts = self._data[self._half :], self._starts[self._half :]
                parts.append(self._restart())
                data, starts = data[1:], starts[1:]
                continue
            piece, flags = data[:room], starts[:room]
            self._keep(piece, flags)
            parts.append(self._feed(piece.astype(np.int64) + OFFSET, flags))
            data, starts = data[room:], starts[room:]
        return torch.cat(parts)

    def _keep(self, data: np.ndarray, starts: np.ndarray) -> None:
        self._data = np.concatenate((self._data, data))
        self._starts = np.concatenate((self._starts, starts))

    def _restart(self) -> Tensor:
        """Read a BOS and what is kept with a fresh state; the last row of logits, `[1, V]`."""
        self._state = self._model.begin()
        ids = np.concatenate(([BOS], self._data.astype(np.int64) + OFFSET))
        return self._feed(ids, np.concatenate(([True], self._starts)))[-1:]

    def _feed(self, ids: np.ndarray, starts: np.ndarray) -> Tensor:
        row = torch.from_numpy(ids).to(self._device)[None]
        if isinstance(self._model, BLT) and isinstance(self._state, BLTState):
            return self._model.extend(row, torch.from_numpy(starts).to(self._device), self._state)[
                0
            ]
        return self._model(row, state=self._state)[0]
