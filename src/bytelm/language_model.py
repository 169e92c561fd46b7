"""`LanguageModel`: any trained model as people use it, on bytes.

The last thing built: it composes decoding and evaluation over a model that a run directory or a
checkpoint holds, and is the same for every kind of model.
Shape key: n bytes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from bytelm.decoding.reader import Predictions, Reader
from bytelm.decoding.sampling import Sampling
from bytelm.decoding.segmenter import Segmenter
from bytelm.decoding.session import CHUNK_BYTES, Session, generate
from bytelm.evaluation.likelihood import bits_per_byte
from bytelm.models import ByteModel
from bytelm.training.loading import load_model
from bytelm.vocab import NUM_BYTES

SEGMENT_BYTES = 1 << 16
"""Bytes whose patches are found at once."""

Bytes = bytes | bytearray | memoryview | np.ndarray


@dataclass(frozen=True)
class Scored:
    """What a model says of each byte of one document."""

    nll_nats: np.ndarray
    """float32 `[n]`: negative log-likelihood of each byte, nats."""

    entropies: np.ndarray
    """float32 `[n]`, nats: those that decide the patches, else the model's own."""

    starts: np.ndarray
    """bool `[n]`: where patches start."""


class LanguageModel:
    """A model with its patcher and its entropy model, ready to use."""

    def __init__(self, model: ByteModel) -> None:
        self.model = model.eval()

    @property
    def kind(self) -> str:
        """Which model this is: byte-gpt, blt, entropy-lm or ngram."""
        return self.model.config.kind

    def log_probs(self, data: Bytes) -> np.ndarray:
        """Log p(byte t | bytes before t) in row t, float32 `[n, 256]`, natural logarithm.

        Normalized over the 256 byte values. `data` is one document. Holds n * 1 KiB; use
        `bits_per_byte` for long files.
        """
        chunks = [rows.log_probs.float() for _, rows in self._chunks(_array(data))]
        return torch.cat(chunks).numpy() if chunks else np.zeros((0, NUM_BYTES), np.float32)

    def score(self, data: Bytes, *, on_progress: Callable[[int], None] | None = None) -> Scored:
        """Score one document in a stream: nothing but the result is held whole.

        Args:
            data: Of any length.
            on_progress: Called with the number of bytes that were just scored.

        """
        data = _array(data)
        nll, entropies, starts = [], [], []
        for chunk, rows in self._chunks(data):
            nll.append(_nll(rows, chunk))
            entropies.append(rows.entropies)
            starts.append(rows.starts)
            if on_progress is not None:
                on_progress(len(chunk))
        if not nll:
            return Scored(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0, bool))
        return Scored(np.concatenate(nll), np.concatenate(entropies), np.concatenate(starts))

    def bits_per_byte(self, data: Bytes) -> float:
        """Mean code length of a byte of one document, in bits; 0.0 for an empty one."""
        data, nats = _array(data), 0.0
        for chunk, rows in self._chunks(data):
            nats += float(_nll(rows, chunk).sum(dtype=np.float64))
        return bits_per_byte(nats, len(data)) if len(data) else 0.0

    def patch_starts(self, data: Bytes) -> np.ndarray:
        """Where patches start, bool `[n]`; everywhere for a model without patches."""
        return self._segment(_array(data))[1]

    def entropies(self, data: Bytes) -> np.ndarray:
        """Entropy of the prediction of each byte, float32 `[n]`, nats: those that decide patches.

        Of a model without patches, or whose patcher uses none, they are its own.
        """
        entropies, _ = self._segment(_array(data))
        return self.score(data).entropies if entropies is None else entropies

    def session(self, rows: int = 1) -> Session:
        """Open `rows` empty documents that grow byte by byte, each at its own pace."""
        return Session(self.model, rows=rows)

    def generate(
        self,
        prompt: bytes = b"",
        *,
        max_new_bytes: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = 0,
        stop: Sequence[bytes] = (),
    ) -> Iterator[bytes]:
        """Yield what the model writes after `prompt`, without the prompt, in pieces.

        Args:
            prompt: Bytes before the new ones; may be empty.
            max_new_bytes: Exactly this many are yielded in all, unless a stop sequence ends it.
            temperature: 0 is greedy.
            top_k: Only the k likeliest bytes.
            top_p: Only the likeliest bytes that together reach this probability.
            seed: The same seed gives the same text; None draws another each time.
            stop: Byte strings that end the text; they are not yielded.

        Raises:
            ValueError: An argument is out of range.

        """
        if max_new_bytes < 0:
            raise ValueError(f"max_new_bytes must be at least 0, got {max_new_bytes}")
        if isinstance(stop, bytes) or not all(isinstance(s, bytes) and s for s in stop):
            raise ValueError(
                f"stop must be a list of byte strings that are not empty, got {stop!r}"
            )
        if not isinstance(prompt, bytes | bytearray | memoryview):
            raise ValueError(f"prompt must be bytes, got {type(prompt).__name__}")
        sampling = Sampling(temperature=temperature, top_k=top_k, top_p=top_p)
        return generate(
            self.model,
            bytes(prompt),
            max_new_bytes=max_new_bytes,
            sampling=sampling,
            seed=seed,
            stop=tuple(stop),
        )

    def _chunks(self, data: np.ndarray) -> Iterator[tuple[np.ndarray, Predictions]]:
        """Each chunk of the document with the predictions *of* its bytes."""
        if not len(data):
            return
        reader = Reader(self.model)
        ahead = reader.begin()
        for begin in range(0, len(data), CHUNK_BYTES):
            chunk = data[begin : begin + CHUNK_BYTES]
            rows = reader.read(chunk)
            yield chunk, _shifted(ahead, rows)
            ahead = rows.last()

    def _segment(self, data: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
        """Entropies (None without a source of them) and starts of a document, without scoring."""
        segmenter = Segmenter(self.model)
        pieces = [segmenter.begin()]
        for begin in range(0, len(data), SEGMENT_BYTES):
            pieces.append(segmenter.read(data[begin : begin + SEGMENT_BYTES]))
        starts = np.concatenate([piece for _, piece in pieces])[: len(data)]
        known = [piece for piece, _ in pieces if piece is not None]
        return (np.concatenate(known)[: len(data)] if known else None), starts


def _nll(rows: Predictions, chunk: np.ndarray) -> np.ndarray:
    """Negative log-likelihood, float32 nats, of each byte of a chunk."""
    index = torch.from_numpy(chunk.astype(np.int64))[:, None]
    return -rows.log_probs.gather(1, index)[:, 0].float().numpy()


def _shifted(ahead: Predictions, rows: Predictions) -> Predictions:
    """Predictions of the bytes of a chunk, from those of the bytes after them."""
    return Predictions(
        torch.cat((ahead.log_probs, rows.log_probs[:-1])),
        np.concatenate((ahead.entropies, rows.entropies[:-1])),
        np.concatenate((ahead.starts, rows.starts[:-1])),
    )


def _array(data: Bytes) -> np.ndarray:
    if isinstance(data, np.ndarray):
        if data.dtype != np.uint8 or data.ndim != 1:
            raise ValueError(f"expected uint8 [n], got {data.dtype} {list(data.shape)}")
        return data
    return np.frombuffer(data, np.uint8)


def load(path: str | Path, *, device: str = "cpu") -> LanguageModel:
    """Load a run directory (its best checkpoint, else its last) or one checkpoint directory.

    It computes in float64 where the device has it: a trained model's log-probabilities reach -30,
    and in float32 the same bytes read in other chunks differ there by more than 1e-5.

    Raises:
        CheckpointError: Missing, truncated, foreign or of another version.

    """
    model = load_model(Path(path)).to(device)
    has_float64 = torch.device(device).type != "mps"
    return LanguageModel(model.double() if has_float64 else model)
