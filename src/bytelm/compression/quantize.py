"""A trained recurrent model becomes integers: a pure function of its weights, on every machine.

Nothing but operations that IEEE 754 rounds in one way takes part (multiply, divide, square root,
round; no sum of floats, no library function), so the same weights give the same integers, and the
fingerprint of an integer model stands for the weights that it was made of. Nothing is measured on
data: activations have ranges that follow from the model (a normalized vector has a length, a gate
and a memory have bounds), and the rest follows from the weights.
Shape key: N rows, K columns, D width.
"""

import math

import numpy as np

from bytelm.compression.integer_kernels import ROW_SHIFT, SHIFT, SQUARE_BITS, UNIT
from bytelm.compression.integer_model import (
    MAX_RESIDUAL_BITS,
    PRODUCT_LIMIT,
    IntegerArchitecture,
    IntegerModel,
)
from bytelm.compression.integer_tables import (
    EXP2_FRACTION_BITS,
    ONE_BITS,
    SIGMOID_HALF,
    SIGMOID_STEPS,
)
from bytelm.errors import CompressionError
from bytelm.models.recurrent import Recurrent
from bytelm.nn.norm import RMS_EPS
from bytelm.vocab import OFFSET

_INT8_MOST = 127
_INT16_MOST = 32767

_LOG2_E = 1.4426950408889634
"""1 / ln 2 in float64."""

_RESIDUAL_MOST = 1 << 26
"""A residual stream stays below this: multipliers of rows are int32 then, squares add up."""

_PIECE_ROWS = 8192
"""Rows of a table that are converted at a time; bounds memory."""


def quantize(model: Recurrent) -> IntegerModel:
    """The model in integers; known answers are `integer_model`'s matter.

    Raises:
        CompressionError: A weight is no number, or weights are so large that sums could overflow.

    """
    floats = _Floats(model)
    config = model.config
    layers: dict[str, np.ndarray] = {}
    reach = floats.largest("embed.weight")
    for first in range(0, len(config.ngram_sizes) * config.num_buckets, config.num_buckets):
        reach += floats.largest("hash_ngrams.weight", first, first + config.num_buckets)
    downs = []
    for index in range(config.n_layers):
        layers |= _gates(floats, index)
        found, scale, most = _feed_forward(floats, index)
        layers |= found
        downs.append(scale)
        reach += floats.largest(f"layers.{index}.recurrence.scale") + most
    bits = _residual_bits(reach, config.dim)
    one = float(1 << bits)
    for index, scale in enumerate(downs):
        name = f"layers.{index}"
        layers[f"{name}.down.multiplier"] = _integers(name, scale * one * 2.0**SHIFT)
        memory = floats.of(f"{name}.recurrence.scale") * one * 2.0 ** (SHIFT - ONE_BITS)
        layers[f"{name}.memory.scale"] = _integers(name, memory)
    embed = floats.rows("embed.weight", _INT16_MOST, one)
    ngrams = floats.rows("hash_ngrams.weight", _INT8_MOST, one)
    head, scale = _matrix(floats.of("head.weight")[OFFSET:] * floats.of("norm.weight"))
    scale = scale * floats.unit * (_LOG2_E * 2.0 ** (EXP2_FRACTION_BITS + SHIFT))
    return IntegerModel(
        architecture=IntegerArchitecture(
            dim=config.dim,
            n_layers=config.n_layers,
            ffn_dim=config.hidden_dim,
            ngram_sizes=config.ngram_sizes,
            num_buckets=config.num_buckets,
            residual_bits=bits,
            epsilon=max(1, round(RMS_EPS * config.dim * one * one)),
        ),
        tensors={
            "embed.weight": embed[0],
            "embed.multiplier": embed[1],
            "ngrams.weight": ngrams[0],
            "ngrams.multiplier": ngrams[1],
            "head.weight": head,
            "head.multiplier": _integers("head", scale),
            **layers,
        },
    )


class _Floats:
    """The weights in float64, which holds float32 and bfloat16 exactly."""

    def __init__(self, model: Recurrent) -> None:
        self._tensors = {name: t.detach().cpu() for name, t in model.state_dict().items()}
        for name, tensor in self._tensors.items():
            if not all(piece.isfinite().all() for piece in tensor.split(_PIECE_ROWS)):
                raise CompressionError(f"{name} has weights that are no finite numbers")
        self._width = model.config.dim
        self.unit = math.sqrt(model.config.dim) / UNIT
        """What 1 in a normalized vector of integers stands for."""

    def of(self, name: str) -> np.ndarray:
        """A weight, float64."""
        return self._tensors[name].double().numpy()

    def largest(self, name: str, first: int = 0, end: int | None = None) -> float:
        """The largest magnitude in some rows."""
        return self._tensors[name][first:end].abs().max().item()

    def rows(self, name: str, most: int, one: float) -> tuple[np.ndarray, np.ndarray]:
        """A table as integers up to `most` and an int32 multiplier of each row."""
        tensor = self._tensors.get(name)
        if tensor is None:
            return np.zeros((0, self._width), np.int8), np.zeros(0, np.int32)
        weights = np.zeros(tensor.shape, np.int8 if most == _INT8_MOST else np.int16)
        multipliers = np.zeros(len(tensor), np.int32)
        for first in range(0, len(tensor), _PIECE_ROWS):
            piece = slice(first, first + _PIECE_ROWS)
            table = tensor[piece].double().numpy() * (one * 2.0**ROW_SHIFT)
            multiplier = np.ceil(np.abs(table).max(1) / most)
            multipliers[piece] = _integers(name, multiplier)
            weights[piece] = np.rint(table / np.maximum(multiplier, 1)[:, None])
        return weights, multipliers


def _gates(floats: _Floats, index: int) -> dict[str, np.ndarray]:
    """Gates and candidates of a layer: tanh a is 2 sigmoid(2 a) - 1, so one table serves both."""
    name = f"layers.{index}.recurrence"
    scaled = np.concatenate(
        [floats.of(f"{name}.{part}.weight") for part in ("gate", "candidate")]
    ) * floats.of(f"{name}.norm.weight")
    bias = np.concatenate([floats.of(f"{name}.{part}.bias") for part in ("gate", "candidate")])
    steps = np.repeat([SIGMOID_STEPS * 1.0, SIGMOID_STEPS * 2.0], len(bias) // 2) * 2.0**SHIFT
    weight, scale = _matrix(scaled)
    center = (SIGMOID_HALF << SHIFT) + (1 << (SHIFT - 1))
    return {
        f"layers.{index}.gates.weight": weight,
        f"layers.{index}.gates.multiplier": _integers(name, scale * floats.unit * steps),
        f"layers.{index}.gates.bias": _integers(name, bias * steps) + center,
    }


def _feed_forward(floats: _Floats, index: int) -> tuple[dict[str, np.ndarray], np.ndarray, float]:
    """Both matrices of a layer, the scale of the second's sums, the most that a layer adds.

    No product of a row with a normalized vector is beyond the product of their lengths: int16
    reaches that far.
    """
    name = f"layers.{index}"
    up, scale = _matrix(
        floats.of(f"{name}.ffn.up_proj.weight") * floats.of(f"{name}.ffn_norm.weight")
    )
    lengths = np.sqrt((up.astype(np.int64) ** 2).sum(1).astype(np.float64))
    scale = scale * floats.unit
    inner = _INT16_MOST / max(float((lengths * scale).max()) * UNIT, 2.0**-30)
    down, down_scale = _matrix(floats.of(f"{name}.ffn.down_proj.weight"))
    down_scale = down_scale * (2.0**SQUARE_BITS / (inner * inner))
    most = float((np.abs(down.astype(np.int64)).sum(1) * down_scale).max()) * UNIT
    return (
        {
            f"{name}.up.weight": up,
            f"{name}.up.multiplier": _integers(name, scale * (inner * 2.0**SHIFT)),
            f"{name}.down.weight": down,
        },
        down_scale,
        most,
    )


def _matrix(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A matrix as int8 `[N, K]`, and the scale float64 `[N]` of each row."""
    most = np.abs(weight).max(1)
    scale = np.where(most > 0, most, 1.0) / _INT8_MOST
    return np.clip(np.rint(weight / scale[:, None]), -_INT8_MOST, _INT8_MOST).astype(np.int8), scale


def _residual_bits(reach: float, dim: int) -> int:
    """The finest scale at which a residual stream up to `reach` stays within its limits."""
    limit = min(_RESIDUAL_MOST, math.isqrt(PRODUCT_LIMIT // dim) // 2)
    # frexp: the largest power of two whose product with `reach` is at most half the limit.
    bits = -math.frexp(reach / limit)[1]
    if bits < 1:
        raise CompressionError(
            f"weights are too large for integers: the residual stream could reach {reach:.3g}; "
            "train with a smaller learning rate, or use the profile float"
        )
    return min(bits, MAX_RESIDUAL_BITS)


def _integers(name: str, values: np.ndarray) -> np.ndarray:
    """Rounded to the nearest int64."""
    if not (np.abs(values) < PRODUCT_LIMIT).all():
        raise CompressionError(
            f"{name}: weights are too large for integers; train with a smaller learning rate, or "
            "use the profile float"
        )
    return np.rint(values).astype(np.int64)
