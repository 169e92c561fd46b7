"""`LanguageModel`: any trained model as people use it, on bytes.

The last thing built: it composes decoding and evaluation over a model that a run directory or a
checkpoint holds, and is the same for every kind of model.
Shape key: n bytes.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from bytelm.decoding.arguments import byte_array, whole
from bytelm.decoding.beam import Beams, Hypothesis, beam_search
from bytelm.decoding.generation import Ending, generate, generate_batch, generate_speculating
from bytelm.decoding.reader import Predictions, Reader
from bytelm.decoding.sampling import NUM_SEEDS, Sampling, checked_seed
from bytelm.decoding.segmenter import Segmenter
from bytelm.decoding.session import CHUNK_BYTES, Session
from bytelm.evaluation.likelihood import bits_per_byte
from bytelm.models import ByteModel
from bytelm.training.loading import load_model
from bytelm.vocab import NUM_BYTES

if TYPE_CHECKING:
    from bytelm.compression.models import Wanted

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

    def bits_per_byte(self, data: Bytes, *, lanes: int = 1) -> float:
        """Mean code length of a byte of one document, in bits; 0.0 for an empty one.

        Args:
            data: Of any length.
            lanes: Parts of equal length into which the document is cut, each read as a document of
                its own: what the codec pays that reads so many at once.

        """
        from bytelm.compression.frames import lane_begins

        data, nats = _array(data), 0.0
        lanes = whole("lanes", lanes, low=1, high=max(1, len(data)))
        for begin, end in itertools.pairwise(lane_begins(len(data), lanes).tolist()):
            for chunk, rows in self._chunks(data[begin:end]):
                nats += float(_nll(rows, chunk).sum(dtype=np.float64))
        return bits_per_byte(nats, len(data)) if len(data) else 0.0

    def compress(self, data: Bytes, **options: Any) -> bytes:
        """Compress bytes with this model, into a container that `decompress` gives back.

        The mixer of `bytelm.compression` helps, frame by frame, and what the model makes worse it
        does not take part in. Exact models (recurrent, n-gram) are the same on every machine; of
        the others a container can be read only where the same arithmetic is found.

        Args:
            data: Of any length.
            **options: As of `bytelm.compression.Options`, and `profile`: auto, exact or float.

        Raises:
            CompressionError: The model has no exact arithmetic and `profile` asks for it.
            ValueError: An option is out of range.

        """
        from bytelm.compression import Options, compress
        from bytelm.compression.models import codec_model

        profile = options.pop("profile", "auto")
        return compress(
            _array(data).tobytes(),
            model=codec_model(self.model, profile=profile),
            options=Options(**options),
        )

    def decompress(self, blob: Bytes, *, profile: "Wanted" = "auto") -> bytes:
        """Give back what `compress` got.

        Raises:
            NotAContainerError, VersionError, WrongModelError, EnvironmentMismatchError,
            DamagedError, LimitError: As their names say.

        """
        from bytelm.compression import decompress
        from bytelm.compression.models import codec_model

        return decompress(_array(blob).tobytes(), model=codec_model(self.model, profile=profile))

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

    def generate(  # noqa: PLR0913  one keyword for each thing that people set
        self,
        prompt: Bytes = b"",
        *,
        max_new_bytes: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        valid_utf8: bool = False,
        seed: int | None = 0,
        stop: Sequence[bytes] = (),
        whole_characters: bool = False,
        speculate: bool = False,
    ) -> Iterator[bytes]:
        """Yield what the model writes after `prompt`, without the prompt, in pieces.

        Special ids are never written: a byte always follows, and no text ends by itself.

        Args:
            prompt: Bytes before the new ones; may be empty.
            max_new_bytes: Exactly this many are yielded in all, unless a stop sequence ends it.
            temperature: 0 is greedy.
            top_k: Only the k likeliest bytes.
            top_p: Only the likeliest bytes that together reach this probability.
            min_p: Only bytes at least this share as likely as the likeliest one.
            repetition_penalty: A byte that occurs in the window gets its probability to the power
                of this, before renormalization; 1 is none.
            repetition_window: The last bytes that the penalty looks at, the prompt's included.
            valid_utf8: Only bytes that keep prompt and text valid UTF-8, whole at the end.
            seed: The same seed gives the same text; None draws another each time.
            stop: Byte strings that end the text where they occur in it; they are not yielded.
            whole_characters: Cut pieces between UTF-8 characters only.
            speculate: Draft bytes with a part of the model and check them together: the same text,
                sooner where the global transformer is most of the work.

        Raises:
            ValueError: An argument is out of range, the prompt is not UTF-8 where `valid_utf8`
                asks for it, or this model has nothing to draft with.

        """
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            repetition_window=repetition_window,
            valid_utf8=valid_utf8,
        )
        ending = _ending(max_new_bytes, stop, whole_characters=whole_characters)
        write = generate_speculating if speculate else generate
        return write(self.model, _prompt(prompt), ending=ending, sampling=sampling, seed=seed)

    def generate_batch(  # noqa: PLR0913  as `generate`
        self,
        prompts: Sequence[Bytes],
        *,
        max_new_bytes: int = 200,
        temperature: float = 0.8,
        top_k: int | None = None,
        top_p: float | None = None,
        min_p: float | None = None,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        valid_utf8: bool = False,
        seeds: Sequence[int | None] | int | None = 0,
        stop: Sequence[bytes] = (),
        whole_characters: bool = False,
        rows: int = 16,
    ) -> Iterator[tuple[int, bytes]]:
        """Yield (index of the prompt, piece) as many prompts are continued at once.

        Each text is the one that `generate` gives for its prompt and seed, whatever is beside it.
        A text that ends makes place for the next prompt; equal prompts are read once.

        Args:
            prompts: Any number, of any lengths; may hold one prompt several times.
            max_new_bytes: Of each text.
            temperature: As of `generate`, like all that is not explained here.
            top_k: The same.
            top_p: The same.
            min_p: The same.
            repetition_penalty: The same.
            repetition_window: The same.
            valid_utf8: The same.
            seeds: One for each prompt; or one number s, and prompt i has the seed s + i; or None,
                and each draws its own.
            stop: The same.
            whole_characters: The same.
            rows: Texts that are open at a time, at most: more are faster and take more memory.

        Raises:
            ValueError: As of `generate`; or the seeds are not as many as the prompts.

        """
        if isinstance(prompts, bytes | bytearray | memoryview | str):
            raise ValueError(f"prompts must be a list of bytes, got {type(prompts).__name__}")
        sampling = Sampling(
            temperature=temperature,
            top_k=top_k,
            top_p=top_p,
            min_p=min_p,
            repetition_penalty=repetition_penalty,
            repetition_window=repetition_window,
            valid_utf8=valid_utf8,
        )
        return generate_batch(
            self.model,
            [_prompt(prompt, f"prompt {index}") for index, prompt in enumerate(prompts)],
            ending=_ending(max_new_bytes, stop, whole_characters=whole_characters),
            sampling=sampling,
            seeds=_seeds(seeds, len(prompts)),
            rows=rows,
        )

    def beam_search(
        self,
        prompt: Bytes = b"",
        *,
        beams: int = 4,
        n_best: int = 1,
        length_penalty: float = 1.0,
        max_new_bytes: int = 200,
        stop: Sequence[bytes] = (),
        valid_utf8: bool = False,
    ) -> list[Hypothesis]:
        """Return the likeliest texts after `prompt` that a search finds, best first.

        Args:
            prompt: Bytes before the new ones; may be empty.
            beams: Texts that are kept at each byte; 1 is greedy.
            n_best: Texts that are returned, at most `beams`.
            length_penalty: A text's log-probability is divided by its length to this power before
                texts are compared; larger prefers longer texts.
            max_new_bytes: A text that no stop sequence ends has exactly this many.
            stop: Byte strings that end a text; they are not part of it.
            valid_utf8: Only bytes that keep prompt and text valid UTF-8, whole at the end.

        Raises:
            ValueError: An argument is out of range, or the prompt is not UTF-8 where `valid_utf8`
                asks for it.

        """
        search = Beams(
            beams=beams, n_best=n_best, length_penalty=length_penalty, valid_utf8=valid_utf8
        )
        ending = _ending(max_new_bytes, stop)
        return beam_search(self.model, _prompt(prompt), ending=ending, beams=search)

    def _chunks(self, data: np.ndarray) -> Iterator[tuple[np.ndarray, Predictions]]:
        """Each chunk of the document with the predictions *of* its bytes."""
        if not len(data):
            return
        reader = Reader(self.model)
        ahead = reader.begin()
        for begin in range(0, len(data), CHUNK_BYTES):
            chunk = data[begin : begin + CHUNK_BYTES]
            rows = reader.read([chunk])
            yield chunk, _shifted(ahead, rows)
            ahead = rows.take(slice(-1, None))

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


def _prompt(prompt: Bytes, name: str = "prompt") -> bytes:
    return prompt if isinstance(prompt, bytes) else byte_array(name, prompt).tobytes()


def _ending(max_new_bytes: int, stop: Sequence[bytes], *, whole_characters: bool = False) -> Ending:
    if isinstance(stop, bytes | str):
        raise ValueError(f"stop must be a list of byte strings that are not empty, got {stop!r}")
    return Ending(max_new_bytes=max_new_bytes, stop=tuple(stop), whole_characters=whole_characters)


def _seeds(seeds: Sequence[int | None] | int | None, count: int) -> Sequence[int | None]:
    if seeds is None:
        return [None] * count
    if isinstance(seeds, Sized):
        return seeds
    first = checked_seed(seeds)
    return [(first + index) % NUM_SEEDS for index in range(count)]


def _array(data: Bytes) -> np.ndarray:
    return byte_array("data", data)


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
