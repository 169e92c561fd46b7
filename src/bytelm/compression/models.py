"""Models as the codec sees them: integer frequencies of the next byte of each lane, step by step.

Encoder and decoder ask the same object in the same order, so that they cannot disagree but by the
machine's arithmetic. Of the profile *exact* nothing but integers takes part: recurrent models
(`quantize`) and n-gram counts. Of the profile *float* any model takes part through the session that
it is used with elsewhere; the environment and a probe of its predictions are kept in the container,
so that another machine refuses instead of writing other bytes.
Shape key: L lanes.
"""

import hashlib
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from bytelm.compression.coder import FREQUENCY_BITS
from bytelm.compression.container import FINGERPRINT_BYTES, Profile
from bytelm.compression.frames import (
    CodecModel,
    Coding,
    Frame,
    code_symbol,
    step_alone,
    step_mixed,
)
from bytelm.compression.integer_kernels import Arrays, LaneState, predict, push
from bytelm.compression.integer_model import IntegerModel, known_answers
from bytelm.compression.kernels import kernel
from bytelm.compression.mixer import Mixer, code_byte
from bytelm.compression.quantize import quantize
from bytelm.decoding.segmenter import LastBytes
from bytelm.decoding.session import Session
from bytelm.errors import CompressionError
from bytelm.models import ByteModel, Ngram, definition
from bytelm.models.recurrent import Recurrent
from bytelm.training.loading import load_model
from bytelm.vocab import NUM_BYTES

Wanted = Literal["auto", "exact", "float"]
"""A profile; auto: exact where the model can."""

_PROBE_LANES = 4
_PROBE_STEPS = 32
_PROBE = bytes(range(32, 127)) + b"\n" + b"The quick brown fox, 0\xff\x00"
"""Text, numbers, and bytes that no text has."""

LANE_BYTES = 4096
"""A float model gets a lane for so many bytes: shorter lanes cost more than they gain."""

MAX_MODEL_LANES = 64
"""Sixty-four lanes are nearly as fast as any more."""


@runtime_checkable
class Stepper(Protocol):
    """A model in the middle of L lanes."""

    def frequencies(self) -> np.ndarray:
        """int32 `[L, 256]`, each at least 1, a row's sum 2**24: the next byte of each lane."""
        ...

    def push(self, values: np.ndarray) -> None:
        """Go on with one byte, uint8 `[l]`, of each of the first `l` lanes."""
        ...


class SteppedModel:
    """A model that is asked from Python, step by step."""

    def __init__(self, model: nn.Module, *, profile: Profile) -> None:
        self._model, self.profile = model, profile
        self.kind: str = model.config.kind  # pyright: ignore[reportAttributeAccessIssue]
        self.fingerprint = _fingerprint(model)
        self.num_bytes = sum(t.numel() * t.element_size() for t in model.state_dict().values())
        self.environment = _environment() if profile is Profile.FLOAT else {}
        self.is_threaded = False
        self._probes: dict[int, bytes] = {}

    def open(self, lanes: int) -> Stepper:
        """Begin `lanes` empty documents."""
        if self.profile is Profile.EXACT:
            assert isinstance(self._model, Ngram)
            return _NgramStepper(self._model, lanes)
        return _SessionStepper(self._model, lanes)

    def probe(self) -> bytes:
        """Digest of the frequencies on a fixed text, of one lane and of several."""
        threads = torch.get_num_threads()
        if threads not in self._probes:
            self._probes[threads] = self._probe()
        return self._probes[threads]

    def _probe(self) -> bytes:
        found = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
        text = np.frombuffer(_PROBE * 2, np.uint8)
        for lanes in (1, _PROBE_LANES):
            stepper = self.open(lanes)
            for step in range(_PROBE_STEPS):
                found.update(stepper.frequencies().astype("<i4").tobytes())
                stepper.push(text[step * lanes : (step + 1) * lanes])
        return found.digest()

    def lanes(self, num_bytes: int) -> int:
        """How many lanes a frame of so many bytes gets unless somebody asks for others."""
        return max(1, min(MAX_MODEL_LANES, num_bytes // LANE_BYTES))

    def coding(self, frame: Frame, mixer: Mixer | None, *, decoding: bool) -> Coding:
        """Begin to code a frame, with the mixer or alone."""
        stepper = self.open(len(frame.lane_begins) - 1)
        return _SteppedCoding(frame, mixer, stepper, decoding)


class ExactModel:
    """A model whose steps are kernels; its lanes cost nothing, so one is enough."""

    def __init__(self, model: IntegerModel) -> None:
        self.integers = model
        self.profile, self.kind = Profile.EXACT, "recurrent"
        self.fingerprint, self.num_bytes = model.fingerprint, model.num_bytes
        self.environment: dict[str, str | int] = {}
        self.is_threaded = True
        self._known_answers = known_answers(model)

    def probe(self) -> bytes:
        """The known answers of this model, which were tried when it was loaded."""
        return self._known_answers

    def lanes(self, num_bytes: int) -> int:  # noqa: ARG002
        """One: the mixer learns most from bytes in order."""
        return 1

    def coding(self, frame: Frame, mixer: Mixer | None, *, decoding: bool) -> Coding:
        """Begin to code a frame, with the mixer or alone."""
        return _ExactCoding(frame, mixer, self.integers, decoding)


def codec_model(model: ByteModel, *, profile: Wanted = "auto") -> CodecModel:
    """Make a trained model ready for the codec.

    Raises:
        CompressionError: The model has no exact arithmetic and `profile` asks for it; or its
            integer arithmetic fails its known-answer test here.

    """
    if profile != "float":
        if isinstance(model, Recurrent):
            return ExactModel(quantize(model))
        if isinstance(model, Ngram):
            return SteppedModel(model, profile=Profile.EXACT)
        if profile == "exact":
            raise CompressionError(
                f"a {model.config.kind} has no exact integer arithmetic: train a recurrent model "
                "(recipes/codec-small.toml), or use --profile float"
            )
    return SteppedModel(model, profile=Profile.FLOAT)


def load_codec_model(run: Path, *, profile: Wanted = "auto") -> CodecModel:
    """Load a run or checkpoint directory for the codec.

    Raises:
        CheckpointError: As of `bytelm.load`.
        CompressionError: As of `codec_model`.

    """
    model = load_model(run)
    if profile == "float" or not isinstance(model, Recurrent | Ngram):
        # As `bytelm.load` has it, so that both read each other's containers; where integers are
        # made of the weights it would only take memory.
        model = model.double()
    return codec_model(model, profile=profile)


def to_frequencies(log_probs: np.ndarray) -> np.ndarray:
    """Natural log-probabilities float `[L, 256]` as integers for the coder, int32 `[L, 256]`.

    Each byte gets 1 and its share of the rest, rounded down; the likeliest byte (the first of
    equals) gets what is left. By exp in float64: the profile *float* alone may use it.
    """
    return shares(np.exp(log_probs.astype(np.float64)) * (1 << FREQUENCY_BITS))


def shares(weights: np.ndarray) -> np.ndarray:
    """Weights `[L, 256]`, not negative, as frequencies by the rule of `to_frequencies`."""
    weights = np.minimum(weights, 1 << 30).astype(np.int64)
    rest = (1 << FREQUENCY_BITS) - NUM_BYTES
    found = 1 + weights * rest // np.maximum(weights.sum(1, keepdims=True), 1)
    rows = np.arange(len(found))
    found[rows, weights.argmax(1)] += (1 << FREQUENCY_BITS) - found.sum(1)
    return found.astype(np.int32)


class _SessionStepper:
    """Through the session that reads with this model everywhere else."""

    def __init__(self, model: nn.Module, lanes: int) -> None:
        self._session = Session(model, rows=lanes)

    def frequencies(self) -> np.ndarray:
        return to_frequencies(self._session.log_probs())

    def push(self, values: np.ndarray) -> None:
        idle = self._session.rows - len(values)
        self._session.push([bytes([value]) for value in values] + [b""] * idle)


class _NgramStepper:
    """Integer counts, looked up in integers."""

    def __init__(self, model: Ngram, lanes: int) -> None:
        self._model = model
        self._last = LastBytes(lanes, max(1, model.config.order))
        self._frequencies = shares(model.state_weights(np.zeros(lanes, np.int32)))

    def frequencies(self) -> np.ndarray:
        return self._frequencies

    def push(self, values: np.ndarray) -> None:
        states = self._model.row_states(*self._last.step(np.arange(len(values)), values))
        self._frequencies[: len(values)] = shares(self._model.state_weights(states))


def _fingerprint(model: nn.Module) -> bytes:
    found = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
    described: Mapping[str, object] = definition(model)  # pyright: ignore[reportArgumentType]
    found.update(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(model.state_dict().items()):
        array = tensor.detach().cpu().numpy()
        found.update(f"{name} {array.dtype.str} {array.shape}".encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.digest()


def _environment() -> dict[str, str | int]:
    """What float arithmetic depends on, as far as it can be named."""
    return {
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
    }


class _ExactCoding:
    """A model in kernels, with the mixer or alone."""

    def __init__(
        self, frame: Frame, mixer: Mixer | None, model: IntegerModel, decoding: bool
    ) -> None:
        self.frame, self._mixer, self._decoding = frame, mixer, decoding
        self._arrays = model.arrays
        self._state = model.new_state(len(frame.lane_begins) - 1)
        self._row = np.zeros(NUM_BYTES, np.int32)

    def run(self, first: int, last: int) -> None:
        model = (self._arrays, self._state, self._row)
        if self._mixer is None:
            _run_exact(self.frame, *model, first, last, self._decoding)
        else:
            _run_mixed(self.frame, self._mixer, *model, first, last, self._decoding)


class _SteppedCoding:
    """A model that Python asks at each step, with the mixer or alone."""

    def __init__(self, frame: Frame, mixer: Mixer | None, stepper: Stepper, decoding: bool) -> None:
        self.frame, self._mixer, self._decoding = frame, mixer, decoding
        self._stepper = stepper

    def run(self, first: int, last: int) -> None:
        begins = self.frame.lane_begins
        lengths = np.diff(begins)
        for step in range(first, last):
            rows = self._stepper.frequencies()
            if self._mixer is None:
                step_alone(self.frame, rows, step, self._decoding)
            else:
                step_mixed(self.frame, self._mixer, rows, step, self._decoding)
            self._stepper.push(self.frame.data[begins[:-1][lengths > step] + step])


@kernel
def _run_mixed(
    frame: Frame,
    mixer: Mixer,
    model: Arrays,
    state: LaneState,
    row: np.ndarray,
    first: int,
    last: int,
    decoding: bool,
) -> None:
    begins = frame.lane_begins
    for step in range(first, last):
        for lane in range(begins.shape[0] - 1):
            at = begins[lane] + step
            if at < begins[lane + 1]:
                predict(model, state, lane, row)
                code_byte(mixer, frame.coder, frame.buffer, frame.data, lane, step, row, decoding)
                push(model, state, lane, np.int64(frame.data[at]))


@kernel
def _run_exact(
    frame: Frame,
    model: Arrays,
    state: LaneState,
    row: np.ndarray,
    first: int,
    last: int,
    decoding: bool,
) -> None:
    begins = frame.lane_begins
    for step in range(first, last):
        for lane in range(begins.shape[0] - 1):
            at = begins[lane] + step
            if at < begins[lane + 1]:
                predict(model, state, lane, row)
                code_symbol(frame, row, at, decoding)
                push(model, state, lane, np.int64(frame.data[at]))
