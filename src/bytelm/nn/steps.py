"""The layers again, for one new position of each row, in NumPy.

Where a row reads one byte at a time, the arithmetic is a few small matrix-vector products, and most
of the time goes to calling them: a NumPy call costs 0.3 microseconds where torch takes 1 to 5.
These steps compute what the layers' `forward` computes (the laws compare them), on the layers' own
weights, which are not copied.
Shape key: B rows, D width, F feed-forward width, H heads, G key/value heads, K head width,
L stored positions.
"""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager

import numpy as np
import torch
from threadpoolctl import ThreadpoolController
from torch import Tensor, nn

from bytelm.nn.attention import Attention
from bytelm.nn.norm import RMS_EPS, RMSNorm
from bytelm.nn.rope import rotations
from bytelm.nn.transformer import SwiGLU

MAX_ROWS = 64
"""More rows than this are left to torch, whose kernels are then as fast."""

FEW_ROWS = 6
"""Up to this many rows, a product is a matrix-vector product for each: BLAS copies the matrix to
multiply it with more than one vector, which costs more than it saves (measured, docs/LOG.md)."""

_BLOCK_BYTES = 1 << 19
"""So much of a matrix stays in the cache while several rows are multiplied with it."""

_LEAST_TABLE, _LARGEST_TABLE = 1 << 12, 1 << 16
"""Positions whose rotations are kept, a power of two; beyond the largest, they are computed."""

Array = np.ndarray
Attend = Callable[[Array, Array, Array], Array]
"""Stores keys and values `[B, G, K]`, attends from queries `[B, H, K]`; gives `[B, H * K]`."""

PerPosition = Callable[[Array], Array]
"""`[B, D]` to `[B, F]`, each position alone."""


@functools.cache
def _blas() -> ThreadpoolController:
    return ThreadpoolController().select(internal_api="openblas")


def one_thread() -> AbstractContextManager[object]:
    """A context in which NumPy's products keep to one thread: theirs are too small to share.

    With two, one row is written a third slower, and sixteen rows five times (docs/LOG.md).
    """
    return _blas().limit(limits=1)


def array(tensor: Tensor) -> Array:
    """A tensor's own memory."""
    return tensor.detach().numpy()


def can_step(module: nn.Module) -> bool:
    """Whether NumPy has the precision and the memory of a module's weights."""
    weight = next(module.parameters())
    return weight.is_cpu and weight.dtype in (torch.float32, torch.float64)


def product(x: Array, weight: Array) -> Array:
    """`x @ weight.T` for `[N, D]` and `[F, D]`."""
    if not 1 < len(x) <= FEW_ROWS:
        return x @ weight.T
    out = np.empty((len(x), len(weight)), x.dtype)
    size = max(1, _BLOCK_BYTES // weight[0].nbytes)
    for begin in range(0, len(weight), size):
        block = weight[begin : begin + size]
        for row, part in zip(x, out[:, begin : begin + size], strict=True):
            np.dot(block, row, out=part)
    return out


def rms_norm(x: Array, weight: Array) -> Array:
    """As `RMSNorm`, over the last axis."""
    scale = np.vecdot(x, x)
    scale *= 1 / x.shape[-1]
    scale += RMS_EPS
    np.sqrt(scale, out=scale)
    return x / scale[..., None] * weight


def softmax(scores: Array) -> Array:
    """Over the last axis, in place."""
    scores -= np.maximum.reduce(scores, axis=-1, keepdims=True)
    np.exp(scores, out=scores)
    scores /= np.add.reduce(scores, axis=-1, keepdims=True)
    return scores


def log_softmax(logits: Array) -> Array:
    """Over the last axis."""
    below = logits - np.maximum.reduce(logits, axis=-1, keepdims=True)
    return below - np.log(np.add.reduce(np.exp(below), axis=-1, keepdims=True))


def silu(x: Array) -> Array:
    """As `torch.nn.functional.silu`."""
    # e^80 is finite in float32, and x / e^80 is nothing beside x.
    return x / (1 + np.exp(np.minimum(-x, 80)))


@functools.lru_cache(maxsize=64)
def _rotation_table(length: int, head_dim: int, theta: float, dtype: torch.dtype) -> Array:
    return rotations(np.arange(length), head_dim, theta, torch.empty(0, dtype=dtype)).numpy()


def turns(positions: Array, head_dim: int, theta: float, dtype: torch.dtype) -> Array:
    """Rotations of positions, int64 `[B]`; complex `[B, 1, K / 2]`."""
    last = int(positions.max())
    if last < _LARGEST_TABLE:
        length = max(_LEAST_TABLE, 1 << last.bit_length())
        return _rotation_table(length, head_dim, theta, dtype)[positions, None]
    like = torch.empty(0, dtype=dtype)
    return rotations(positions, head_dim, theta, like).numpy()[:, None]


def rotate(x: Array, turned: Array) -> Array:
    """As `rope.rotate`, for `[B, H, K]`."""
    return (x.view(turned.dtype) * turned).view(x.dtype)


class AttentionStep:
    """`Attention` for one new position of each row."""

    def __init__(self, attention: Attention) -> None:
        self._sizes = attention.n_heads, attention.n_kv_heads, attention.head_dim
        self._theta, self._dtype = attention.rope_theta, attention.q_proj.weight.dtype
        parts = attention.q_proj, attention.k_proj, attention.v_proj, attention.o_proj
        self._q, self._k, self._v, self._o = (array(part.weight) for part in parts)
        self._norms = None
        if attention.q_norm is not None and attention.k_norm is not None:
            self._norms = array(attention.q_norm.weight), array(attention.k_norm.weight)

    def turns(self, positions: Array) -> Array:
        """Rotations that every layer of the stack shares."""
        return turns(positions, self._sizes[2], self._theta, self._dtype)

    def __call__(self, x: Array, turned: Array, attend: Attend) -> Array:
        """`[B, D]` to `[B, D]`."""
        rows, (heads, groups, width) = len(x), self._sizes
        q = product(x, self._q).reshape(rows, heads, width)
        k = product(x, self._k).reshape(rows, groups, width)
        v = product(x, self._v).reshape(rows, groups, width)
        if self._norms is not None:
            q, k = rms_norm(q, self._norms[0]), rms_norm(k, self._norms[1])
        return product(attend(rotate(q, turned), rotate(k, turned), v), self._o)


class LayerStep:
    """A transformer layer for one new position of each row: two residual branches."""

    def __init__(
        self,
        attention_norm: RMSNorm,
        attention: Attention,
        ffn_norm: RMSNorm,
        feed_forward: PerPosition,
    ) -> None:
        self._norms = array(attention_norm.weight), array(ffn_norm.weight)
        self.attention, self._feed_forward = AttentionStep(attention), feed_forward

    def __call__(self, x: Array, turned: Array, attend: Attend) -> Array:
        """`[B, D]` to `[B, D]`."""
        x = x + self.attention(rms_norm(x, self._norms[0]), turned, attend)
        return x + self._feed_forward(rms_norm(x, self._norms[1]))


def swiglu(module: SwiGLU) -> PerPosition:
    """`SwiGLU` in NumPy."""
    parts = module.gate_proj, module.up_proj, module.down_proj
    gate, up, down = (array(part.weight) for part in parts)
    return lambda x: product(silu(product(x, gate)) * product(x, up), down)


def head(norm: RMSNorm, linear: nn.Linear) -> PerPosition:
    """The last norm and the output in NumPy; logits `[B, V]`."""
    weight, out = array(norm.weight), array(linear.weight)
    return lambda x: product(rms_norm(x, weight), out)
