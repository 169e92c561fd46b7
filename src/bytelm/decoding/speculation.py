"""Lossless self-speculation: a BLT drafts with its local decoder, and verifies in one pass.

While a patch stays open, a BLT's next byte depends on its local layers alone. The draft goes on as
if it never closed: encoder and decoder write some bytes, and neither the entropy model nor the
global transformer is asked. Then the entropy model reads the draft in one pass and says where
patches close, the global transformer runs once over all patches that closed, and the decoder
writes the bytes after the first of them again. The text is kept up to the first byte that differs.
Every byte is the one that plain decoding chooses, because `choose` depends on nothing but its
arguments; what is saved are passes of the entropy model and of the global transformer.

Source: speculative decoding (Leviathan et al. 2023, arXiv:2211.17192), with the draft model inside
the model, and the choice coupled by its random numbers instead of by rejection.
Shape key: n bytes of a draft, D local width, V vocabulary.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bytelm.decoding.arguments import whole
from bytelm.decoding.reader import HalvingReader, Reader
from bytelm.models import ByteModel
from bytelm.models.blt import BLT, BLTState, Closing
from bytelm.models.steps import blt_stepper
from bytelm.nn.kv_cache import SLACK, WindowCache
from bytelm.nn.rows import Rows
from bytelm.nn.steps import log_softmax, one_thread
from bytelm.vocab import OFFSET

DRAFT_BYTES = 24
"""Longest draft, bytes; the length follows how much of the last drafts was kept."""

Choose = Callable[[np.ndarray, bytearray], int]
"""Log-probabilities float32 `[256]` and the text before; the next byte."""

_NAMES = {
    "byte-gpt": "a byte-gpt",
    "entropy-lm": "an entropy-lm",
    "ngram": "an ngram",
    "recurrent": "a recurrent model",
}

_ROW, _ONE = np.zeros(1, np.int64), np.ones(1, np.int64)


def speculate(
    model: ByteModel,
    prompt: bytes,
    *,
    choose: Choose,
    max_new_bytes: int,
    draft_bytes: int = DRAFT_BYTES,
) -> Iterator[int]:
    """Yield the bytes that plain decoding would choose after `prompt`.

    Args:
        model: A BLT.
        prompt: Bytes before the new ones.
        choose: A pure function of its arguments.
        max_new_bytes: How many bytes are yielded.
        draft_bytes: Longest draft, 2 to 64.

    Raises:
        ValueError: The model is not a BLT, or `draft_bytes` is out of range.

    """
    if not isinstance(model, BLT):
        raise ValueError(
            f"self-speculation drafts while a patch is open, and {_NAMES[model.config.kind]} has "
            "no patches: leave `speculate` out, or use a BLT"
        )
    if not 2 <= draft_bytes <= SLACK:
        raise ValueError(f"draft_bytes must be 2 to {SLACK}, got {draft_bytes}")
    max_new_bytes = whole("max_new_bytes", max_new_bytes)
    return _Speculator(model, prompt, choose, draft_bytes).run(max_new_bytes)


class _TorchSteps:
    """What `BLTStepper` does with one row, for a device or precision that NumPy does not have."""

    def __init__(self, model: BLT, state: BLTState) -> None:
        self._model, self._state = model, state

    def encode(self, ids: np.ndarray, slots: np.ndarray) -> Tensor:
        return self._model.encode(ids, _ONE, slots, self._state)[0]

    def decode(self, x: Tensor, slots: np.ndarray) -> Tensor:
        rows = Rows(_ONE, begins=self._state.decoder.positions[slots], slots=slots)
        still_open = self._model.close(x, rows, np.zeros(1, bool), self._state)
        return self._model.decode(x, still_open, self._state)

    def close_piece(self, x: Tensor, next_starts: np.ndarray, slot: int) -> Closing:
        slots = np.array([slot])
        rows = Rows(np.array([len(x)]), begins=self._state.decoder.positions[slots], slots=slots)
        return self._model.close(x, rows, next_starts, self._state)

    def decode_piece(self, x: Tensor, closing: Closing, slot: int, *, begin: int) -> Tensor:
        part = closing.part(begin, len(x), begins=self._state.decoder.positions[[slot]])
        return self._model.decode(x[begin:], part, self._state)

    def keep_piece(self, x: Tensor, closing: Closing, slot: int) -> None:  # noqa: ARG002
        self._model.keep(x, closing.part(0, len(x)), self._state)


class _Speculator:
    """One text."""

    def __init__(self, model: BLT, prompt: bytes, choose: Choose, draft_bytes: int) -> None:
        self._choose, self._longest = choose, draft_bytes
        self._text, self._reader = bytearray(prompt), Reader(model)
        logits = self._reader.logits
        assert isinstance(logits, HalvingReader)
        assert isinstance(logits.state, BLTState)
        self._logits, self._state = logits, logits.state
        state = self._state
        self._steps: Any = blt_stepper(model, state) or _TorchSteps(model, state)
        self._kept = float(draft_bytes) / 2

    def run(self, max_new_bytes: int) -> Iterator[int]:
        """The new bytes."""
        ahead = self._reader.begin()
        if self._text:
            ahead = self._reader.read_all(np.frombuffer(bytes(self._text), np.uint8))
        byte = self._choose(_row(ahead.log_probs), self._text) if max_new_bytes else 0
        left = max_new_bytes
        while left:
            self._text.append(byte)
            yield byte
            left -= 1
            if not left:
                return
            size = min(self._longest, left, self._logits.room(0), 2 + round(2 * self._kept))
            if size < 2:
                ahead = self._reader.read([np.array([byte], np.uint8)])
                byte = self._choose(_row(ahead.log_probs), self._text)
                continue
            with one_thread():
                more, byte = self._cycle(byte, size)
            yield from more
            left -= len(more)

    @torch.inference_mode()
    def _cycle(self, byte: int, size: int) -> tuple[list[int], int]:
        """Read `byte` and a draft after it; the draft's bytes that are right, and the next one."""
        state, segmenter = self._state, self._reader.segmenter
        mark = segmenter.mark(0, size)
        for cache in (state.encoder, state.decoder):
            if isinstance(cache, WindowCache):
                cache.reserve(0, size)
        draft, x = self._draft(byte, size)
        data = np.array(draft, np.uint8)
        entropies, starts = segmenter.read(data)
        closing = self._steps.close_piece(x, starts, 0)
        # What was drafted before the first patch closed is what plain decoding gives.
        exact = min(int(starts.argmax()) if starts.any() else size, size - 1)
        state.decoder.rewind(0, size - 1 - exact)
        del self._text[len(self._text) - (size - 1 - exact) :]
        log_probs = _rows(self._steps.decode_piece(x, closing, 0, begin=exact))
        kept, following = exact, -1
        for row in log_probs:
            following = self._choose(row, self._text)
            kept += 1
            if kept == size or draft[kept] != following:
                break
            self._text.append(following)

        forgotten = size - kept
        if forgotten:
            state.encoder.rewind(0, forgotten)
            state.ids.rewind(0, forgotten)
            state.decoder.rewind(0, forgotten)
            state.patches.rewind(0, int(closing.counts[-1] - closing.counts[kept - 1]))
        segmenter.rewind(mark, data[:kept], entropies)
        self._steps.keep_piece(x[:kept], closing, 0)
        self._logits.note(data[:kept], starts[:kept])
        self._kept += 0.25 * (kept - self._kept)
        return draft[1:kept], following

    def _draft(self, byte: int, size: int) -> tuple[list[int], Any]:
        """`byte` and what follows if the patch stays open, `size` bytes; their encoder states."""
        draft, encoded = [byte], []
        while True:
            x = self._steps.encode(np.array([draft[-1] + OFFSET]), _ROW)
            encoded.append(x)
            if len(encoded) == size:
                join = torch.cat if isinstance(x, Tensor) else np.concatenate
                return draft, join(encoded)  # pyright: ignore[reportCallIssue, reportArgumentType]
            draft.append(self._choose(_rows(self._steps.decode(x, _ROW))[0], self._text))
            self._text.append(draft[-1])


def _rows(logits: Tensor | np.ndarray) -> np.ndarray:
    """Log-probabilities of the byte values, float32 `[n, 256]`, of logits `[n, V]`."""
    if isinstance(logits, Tensor):
        return logits[:, OFFSET:].log_softmax(-1).float().cpu().numpy()
    return log_softmax(logits[:, OFFSET:]).astype(np.float32)


def _row(log_probs: Tensor) -> np.ndarray:
    """float32 `[256]` of the last position."""
    return log_probs[-1].float().cpu().numpy()
