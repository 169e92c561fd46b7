"""Where the patches of one document start, as it is read: entropies first, then the rule.

Boundaries are decided once, from the document's own beginning, whatever windows the large model
reads it in.
Shape key: n bytes.
"""

import numpy as np
import torch
from torch import nn

from bytelm.models.blt import BLT
from bytelm.models.entropy_lm import EntropyLM
from bytelm.models.ngram import Ngram
from bytelm.patching import Patcher, PatchState, ShannonWindow, window_entropies
from bytelm.vocab import BOS, OFFSET


class _LMEntropies:
    """Entropies from an entropy model, read through its windows."""

    def __init__(self, source: EntropyLM) -> None:
        self._source, self._state = source, source.begin()

    def begin(self) -> np.ndarray:
        return self._read(np.array([BOS]))

    def read(self, data: np.ndarray) -> np.ndarray:
        return self._read(data.astype(np.int64) + OFFSET)

    def _read(self, ids: np.ndarray) -> np.ndarray:
        row = torch.from_numpy(ids).to(self._source.embed.weight.device)[None]
        return self._source.entropies(row, state=self._state)[0].float().cpu().numpy()


class _NgramEntropies:
    """Entropies from counts: the last bytes are all the state there is."""

    def __init__(self, source: Ngram) -> None:
        self._source, self._history = source, np.zeros(0, np.uint8)

    def begin(self) -> np.ndarray:
        return self._source.document_entropies(self._history, self._history)

    def read(self, data: np.ndarray) -> np.ndarray:
        entropies = self._source.document_entropies(data, self._history)[1:]
        self._history = np.concatenate((self._history, data))[-self._source.config.order :]
        return entropies


class _WindowEntropies:
    """Entropies of the histogram of the last bytes: those that a `ShannonWindow` compares."""

    def __init__(self, window: int) -> None:
        self._window, self._tail = window, np.zeros(0, np.uint8)

    def begin(self) -> np.ndarray:
        return np.zeros(1, np.float32)

    def read(self, data: np.ndarray) -> np.ndarray:
        # The entropy *of* a byte is of the window before it: one more byte asks for the last.
        known = np.concatenate((self._tail, data, np.zeros(1, np.uint8)))
        self._tail = known[:-1][-self._window :]
        return window_entropies(known, window=self._window)[-len(data) :]


def _entropies(model: nn.Module) -> _LMEntropies | _NgramEntropies | _WindowEntropies | None:
    """Those that decide a BLT's patches, or a count model's own; None: nothing cheap to ask."""
    if isinstance(model, Ngram):
        return _NgramEntropies(model)
    if not isinstance(model, BLT):
        return None
    match model.entropy_model:
        case EntropyLM() as source:
            return _LMEntropies(source)
        case Ngram() as source:
            return _NgramEntropies(source)
    patcher = model.patcher
    return _WindowEntropies(patcher.window) if isinstance(patcher, ShannonWindow) else None


class Segmenter:
    """The patch starts of one document, byte by byte or chunk by chunk."""

    def __init__(self, model: nn.Module) -> None:
        self._patcher: Patcher | None = model.patcher if isinstance(model, BLT) else None
        self._source = _entropies(model)
        self._state: PatchState | None = None

    def begin(self) -> tuple[np.ndarray | None, np.ndarray]:
        """Entropy of the first byte (None without a source), and its start: always true."""
        entropies = None if self._source is None else self._source.begin()
        if self._patcher is not None:
            first = None if entropies is None else float(entropies[0])
            self._state = self._patcher.initial(first)
        return entropies, np.ones(1, bool)

    def read(self, data: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """The same of the byte after each of `data`, uint8 `[n]`: nats `[n]`, bool `[n]`."""
        entropies = None if self._source is None else self._source.read(data)
        if self._patcher is None or self._state is None:
            return entropies, np.ones(len(data), bool)
        deciding = entropies if self._patcher.needs_entropies else None
        starts, self._state = self._patcher.decide(data, deciding, self._state)
        return entropies, starts
