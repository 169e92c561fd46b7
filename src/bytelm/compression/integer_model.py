"""The recurrent model in integers: the same frequencies on every machine, whatever runs them.

What `models/recurrent.py` does in floats, with int8 weights, int16 activations and int32 sums; the
arithmetic is specified in `docs/format.md`, `quantize` makes such a model of a trained one. Every
sum, product and index is bounded by the weights, and a model whose bounds do not hold is refused
when it is made: so the kernels check nothing, and nothing overflows. `NumpyModel` computes the same
in another way, and `known_answers` compares the two.

Scales: the residual stream is over 2**residual_bits, memories and gates over 2**24, a normalized
vector over 32766 / sqrt(D), logits (to base 2) over 2**11.
Shape key: L lanes, D width, F feed-forward width, G n-gram tables, W longest n-gram.
"""

import functools
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

import numpy as np
import torch

from bytelm.compression.coder import FREQUENCY_BITS
from bytelm.compression.integer_kernels import (
    LOW_WORD,
    ROW_SHIFT,
    SHARE_BITS,
    SHIFT,
    SQUARE_BITS,
    UNIT,
    WORD_BITS,
    Arrays,
    LaneState,
    predict,
    push,
    read_id,
)
from bytelm.compression.integer_tables import (
    EXP2_BITS,
    EXP2_FRACTION_BITS,
    ONE_BITS,
    SIGMOID_HALF,
    exp2_table,
    sigmoid_table,
)
from bytelm.compression.products import COLUMNS, ROWS, filled, pack
from bytelm.config import MAX_LAYERS, MAX_NGRAM_BYTES
from bytelm.errors import CompressionError
from bytelm.nn.hash_ngrams import hash_windows, ngram_powers
from bytelm.vocab import BOS, NUM_BYTES, OFFSET, VOCAB_SIZE

FINGERPRINT_BYTES = 16

SUM_LIMIT = 1 << 31
"""Sums of products are int32."""

PRODUCT_LIMIT = 1 << 62
"""All else is int64, with room for one addition."""

MAX_RESIDUAL_BITS = 20

_LARGEST_SIZE = 1 << 30
_LARGEST = {
    "n_layers": MAX_LAYERS,
    "ngram_sizes": MAX_NGRAM_BYTES,
    "residual_bits": MAX_RESIDUAL_BITS,
    "epsilon": PRODUCT_LIMIT,
}

_PROBE = b"The quick brown fox, 0123456789;\n\tjumps over \x00\xff\x80\xe2\x82\xac it. \r\n(end){"
"""64 bytes: text, numbers, and bytes that no text has."""

_PROBE_LANES = 4


@dataclass(frozen=True, kw_only=True)
class IntegerArchitecture:
    """What an integer model is besides its tensors."""

    dim: int
    n_layers: int
    ffn_dim: int
    ngram_sizes: tuple[int, ...]
    num_buckets: int
    residual_bits: int
    """The residual stream is over 2**residual_bits."""

    epsilon: int
    """What the norms add to a sum of squares."""

    def shapes(self) -> dict[str, tuple[type[np.signedinteger], tuple[int, ...]]]:
        """Type and shape of each tensor."""
        width, rows = self.dim, len(self.ngram_sizes) * self.num_buckets
        shapes: dict[str, tuple[type[np.signedinteger], tuple[int, ...]]] = {
            "embed.weight": (np.int16, (VOCAB_SIZE, width)),
            "embed.multiplier": (np.int32, (VOCAB_SIZE,)),
            "ngrams.weight": (np.int8, (rows, width)),
            "ngrams.multiplier": (np.int32, (rows,)),
            "head.weight": (np.int8, (NUM_BYTES, width)),
            "head.multiplier": (np.int64, (NUM_BYTES,)),
        }
        for index in range(self.n_layers):
            layer = f"layers.{index}"
            shapes |= {
                f"{layer}.gates.weight": (np.int8, (2 * width, width)),
                f"{layer}.gates.multiplier": (np.int64, (2 * width,)),
                f"{layer}.gates.bias": (np.int64, (2 * width,)),
                f"{layer}.memory.scale": (np.int64, (width,)),
                f"{layer}.up.weight": (np.int8, (self.ffn_dim, width)),
                f"{layer}.up.multiplier": (np.int64, (self.ffn_dim,)),
                f"{layer}.down.weight": (np.int8, (width, self.ffn_dim)),
                f"{layer}.down.multiplier": (np.int64, (width,)),
            }
        return shapes


@dataclass(frozen=True, kw_only=True, eq=False)
class IntegerModel:
    """A recurrent model in integers.

    Raises:
        CompressionError: A tensor is missing or of another shape or type, or sums could overflow.

    """

    architecture: IntegerArchitecture
    tensors: Mapping[str, np.ndarray]
    """By the names of `IntegerArchitecture.shapes`."""

    def __post_init__(self) -> None:
        _check_shapes(self)
        _check_bounds(self)

    @functools.cached_property
    def fingerprint(self) -> bytes:
        """16 bytes that stand for this model: BLAKE2b of architecture, tensors and tables."""
        found = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
        described = json.dumps(asdict(self.architecture), sort_keys=True, separators=(",", ":"))
        found.update(described.encode())
        tables = {"sigmoid": sigmoid_table(), "exp2": exp2_table()}
        for name, tensor in sorted({**self.tensors, **tables}.items()):
            little = np.ascontiguousarray(tensor, tensor.dtype.newbyteorder("<"))
            found.update(f"{name} {little.dtype.str} {list(little.shape)}".encode())
            found.update(little.data)
        return found.digest()

    @property
    def num_bytes(self) -> int:
        """Size of the tensors when stored."""
        return sum(tensor.nbytes for tensor in self.tensors.values())

    @functools.cached_property
    def arrays(self) -> Arrays:
        """The model as the kernels read it."""
        size, tensors = self.architecture, dict(self.tensors)
        for name in ("gates", "memory", "up", "down"):
            for part in ("weight", "multiplier", "bias", "scale"):
                layers = [f"layers.{index}.{name}.{part}" for index in range(size.n_layers)]
                if layers[0] in tensors:
                    found = [tensors.pop(layer) for layer in layers]
                    packed = [pack(t) if part == "weight" else t for t in found]
                    tensors[f"{name}.{part}"] = np.stack(packed)
        tensors["head.weight"] = pack(tensors["head.weight"])
        named = {name.replace(".", "_").removesuffix("_weight"): t for name, t in tensors.items()}
        return Arrays(
            **named,
            epsilon=np.array([size.epsilon], np.int64),
            powers=_hash_factors(size),
            buckets=_bucket_numbers(size),
            sigmoid=sigmoid_table(),
            exp2=exp2_table(),
        )

    def new_state(self, lanes: int) -> LaneState:
        """Lanes in which nothing but BOS is read."""
        size = self.architecture
        most = max(2 * size.dim, size.ffn_dim, NUM_BYTES)
        one = LaneState(
            ids=np.zeros((1, max((1, *size.ngram_sizes))), np.int64),
            memory=np.zeros((1, size.n_layers, size.dim), np.int32),
            residual=np.zeros((1, size.dim), np.int32),
            normalized=np.zeros(filled(size.dim, COLUMNS), np.int16),
            hidden=np.zeros(filled(size.ffn_dim, COLUMNS), np.int16),
            sums=np.zeros(filled(most, ROWS), np.int32),
            wide=np.zeros(max(size.dim, NUM_BYTES), np.int64),
            places=np.zeros(len(size.ngram_sizes), np.int64),
        )
        read_id(self.arrays, one, 0, BOS)
        return one._replace(
            ids=one.ids.repeat(lanes, 0),
            memory=one.memory.repeat(lanes, 0),
            residual=one.residual.repeat(lanes, 0),
        )


def _powers(ngram_sizes: tuple[int, ...]) -> np.ndarray:
    """Factors of the n-grams' polynomials, int64 `[G, W]`."""
    return ngram_powers(ngram_sizes).numpy() if ngram_sizes else np.zeros((0, 1), np.int64)


def _hash_factors(size: IntegerArchitecture) -> np.ndarray:
    """Their low and their high 32 bits, int64 `[2, G, W]`."""
    powers = _powers(size.ngram_sizes)
    return np.stack([powers & LOW_WORD, (powers >> WORD_BITS) & LOW_WORD])


def _bucket_numbers(size: IntegerArchitecture) -> np.ndarray:
    """The number of buckets, and 2**32 and 2**64 modulo that."""
    count = size.num_buckets
    return np.array([count, pow(2, WORD_BITS, count), pow(2, 2 * WORD_BITS, count)], np.int64)


def _check_shapes(model: IntegerModel) -> None:
    size = model.architecture
    for field in fields(size):
        value, most = getattr(size, field.name), _LARGEST.get(field.name, _LARGEST_SIZE)
        values = value if isinstance(value, tuple) else (value,)
        if not all(1 <= number <= most for number in values):
            raise CompressionError(f"integer model: {field.name} is {value}, expected 1 to {most}")
    shapes = size.shapes()
    if set(shapes) != set(model.tensors):
        wrong = sorted(set(shapes) ^ set(model.tensors))
        raise CompressionError(f"integer model: tensors missing or unknown: {', '.join(wrong)}")
    for name, (dtype, shape) in shapes.items():
        tensor = model.tensors[name]
        if tensor.dtype != dtype or tensor.shape != shape or not tensor.flags.c_contiguous:
            raise CompressionError(
                f"integer model: {name} is {tensor.dtype} {list(tensor.shape)}, "
                f"expected {np.dtype(dtype)} {list(shape)}"
            )


def _check_bounds(model: IntegerModel) -> None:
    """Prove, by the worst input there can be, that nothing overflows.

    In Python's integers, which do not overflow either.
    """
    size, tensors = model.architecture, model.tensors
    rows = _most(tensors["embed.weight"]) * _most(tensors["embed.multiplier"])
    for first in range(0, len(tensors["ngrams.weight"]), size.num_buckets):
        table = slice(first, first + size.num_buckets)
        rows += _most(tensors["ngrams.weight"][table]) * _most(tensors["ngrams.multiplier"][table])
    _require("embed", rows, PRODUCT_LIMIT)
    residual = (rows >> ROW_SHIFT) + 1
    for index in range(size.n_layers):
        layer = f"layers.{index}"
        _scaled_most(model, f"{layer}.gates")
        memory = _most(tensors[f"{layer}.memory.scale"]) << ONE_BITS
        _require(f"{layer}.memory", memory, PRODUCT_LIMIT)
        _scaled_most(model, f"{layer}.up")
        residual += (memory >> SHIFT) + 1 + _scaled_most(model, f"{layer}.down")
    _require(
        "the sum of squares of the residual stream",
        size.dim * residual * residual + size.epsilon,
        PRODUCT_LIMIT,
    )
    _scaled_most(model, "head")


def _scaled_most(model: IntegerModel, name: str) -> int:
    """The largest a scaled sum of a matrix can be: of inputs up to 32766, any signs."""
    sums = np.abs(model.tensors[f"{name}.weight"].astype(np.int64)).sum(1) * UNIT
    _require(f"{name}.weight", int(sums.max()), SUM_LIMIT)
    multiplier = np.abs(model.tensors[f"{name}.multiplier"].astype(object))
    bias = model.tensors.get(f"{name}.bias", np.zeros(1, np.int64))
    most = int((sums.astype(object) * multiplier).max()) + _most(bias) + (1 << SHIFT)
    _require(f"{name}.multiplier", most, PRODUCT_LIMIT)
    return (most >> SHIFT) + 1


def _most(values: np.ndarray) -> int:
    """The largest magnitude."""
    return max(int(values.max(initial=0)), -int(values.min(initial=0)))


def _require(name: str, value: int, limit: int) -> None:
    if value >= limit:
        raise CompressionError(
            f"integer model: {name} could reach {value}, which must stay below {limit}: "
            "weights of this size have no exact arithmetic; train with a smaller learning rate, "
            "or use the profile float"
        )


class NumpyModel:
    """The arithmetic of the kernels once more, over all lanes at once and by other means.

    Matrices are multiplied in float64, whose sums of integers below 2**53 are exact; the kernels'
    oracle.
    """

    def __init__(self, model: IntegerModel, lanes: int) -> None:
        self._model = model
        size = model.architecture
        self._ids = np.zeros((lanes, max((1, *size.ngram_sizes))), np.int64)
        self._memory = np.zeros((size.n_layers, lanes, size.dim), np.int64)
        self._read(np.full(lanes, BOS))

    def push(self, values: np.ndarray) -> None:
        """Read one byte, uint8 `[L]`, in each lane."""
        self._read(values.astype(np.int64) + OFFSET)

    def frequencies(self) -> np.ndarray:
        """int32 `[L, 256]`: of each lane's next byte, 2**24 in all."""
        logits = self._product("head", self._normalized())
        below = logits.max(1, keepdims=True) - logits
        halvings, fraction = np.divmod(below, 1 << EXP2_FRACTION_BITS)
        weights = exp2_table()[fraction].astype(np.int64) >> np.minimum(halvings, EXP2_BITS + 1)
        shares = (((1 << FREQUENCY_BITS) - NUM_BYTES) << SHARE_BITS) // weights.sum(1)
        found = 1 + (weights * shares[:, None] >> SHARE_BITS)
        found[np.arange(len(found)), logits.argmax(1)] += (1 << FREQUENCY_BITS) - found.sum(1)
        return found.astype(np.int32)

    def _read(self, new_ids: np.ndarray) -> None:
        self._ids = np.concatenate((self._ids[:, 1:], new_ids[:, None]), axis=1)
        self._residual = self._embedded()
        sigmoid = sigmoid_table().astype(np.int64)
        for index, memory in enumerate(self._memory):
            layer = f"layers.{index}"
            entries = self._product(f"{layer}.gates", self._normalized())
            gates = sigmoid[np.clip(entries, 0, 2 * SIGMOID_HALF)]
            gate, candidate = np.split(gates, 2, axis=1)
            moved = gate * (2 * candidate - (1 << ONE_BITS) - memory)
            memory += _rounded(moved, ONE_BITS)
            scale = self._model.tensors[f"{layer}.memory.scale"]
            self._residual += _rounded(memory * scale, SHIFT)
            inner = np.clip(self._product(f"{layer}.up", self._normalized()), 0, 32767)
            hidden = _rounded(inner * inner, SQUARE_BITS)
            self._residual += self._product(f"{layer}.down", hidden)

    def _embedded(self) -> np.ndarray:
        size, tensors = self._model.architecture, self._model.tensors
        newest = self._ids[:, -1]
        found = tensors["embed.weight"][newest].astype(np.int64)
        found *= tensors["embed.multiplier"][newest, None]
        if size.ngram_sizes:
            buckets = hash_windows(
                torch.from_numpy(self._ids),
                torch.from_numpy(_powers(size.ngram_sizes)),
                size.num_buckets,
            ).numpy()
            places = buckets + np.arange(len(size.ngram_sizes)) * size.num_buckets
            rows = tensors["ngrams.weight"][places].astype(np.int64)
            found += (rows * tensors["ngrams.multiplier"][places, None]).sum(1)
        return _rounded(found, ROW_SHIFT)

    def _normalized(self) -> np.ndarray:
        squares = (self._residual * self._residual).sum(1) + self._model.architecture.epsilon
        lengths = np.array([math.isqrt(value) for value in squares.tolist()])
        return _rounded(self._residual * ((UNIT << SHIFT) // lengths)[:, None], SHIFT)

    def _product(self, name: str, inputs: np.ndarray) -> np.ndarray:
        """Scaled sums; the bias of gates holds their rounding."""
        tensors = self._model.tensors
        weight = tensors[f"{name}.weight"].astype(np.float64)
        sums = (inputs.astype(np.float64) @ weight.T).astype(np.int64)
        scaled = sums * tensors[f"{name}.multiplier"]
        bias = tensors.get(f"{name}.bias")
        return _rounded(scaled, SHIFT) if bias is None else scaled + bias >> SHIFT


def _rounded(values: np.ndarray, bits: int) -> np.ndarray:
    """Divided by 2**bits, halves up."""
    return (values + (1 << (bits - 1))) >> bits


def known_answers(model: IntegerModel) -> bytes:
    """Digest of what the model says about a fixed text, computed in two ways.

    Raises:
        CompressionError: The two ways differ: the kernels were compiled wrong.

    """
    reference, state = NumpyModel(model, _PROBE_LANES), model.new_state(_PROBE_LANES)
    text = np.frombuffer(_PROBE, np.uint8).reshape(-1, _PROBE_LANES)
    rows = np.zeros((_PROBE_LANES, NUM_BYTES), np.int32)
    found = hashlib.blake2b(digest_size=FINGERPRINT_BYTES)
    for step, values in enumerate(text):
        expected = reference.frequencies()
        for lane, value in enumerate(values.tolist()):
            predict(model.arrays, state, lane, rows[lane])
            push(model.arrays, state, lane, value)
        if not np.array_equal(rows, expected):
            raise CompressionError(
                f"known-answer test of model {model.fingerprint.hex()}: the kernels differ from "
                f"the reference at step {step} of {len(text)}; set BYTELM_KERNELS=python and "
                "report this machine"
            )
        found.update(expected.astype("<i4").tobytes())
        reference.push(values)
    return found.digest()
