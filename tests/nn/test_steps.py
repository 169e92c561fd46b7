"""Oracle: the torch module that each step repeats, on the same weights."""

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from bytelm.nn import steps
from bytelm.nn.attention import Attention
from bytelm.nn.kv_cache import LayerCache, WindowCache
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rope import rotate, rotations
from bytelm.nn.transformer import SwiGLU
from conftest import randomize_

DTYPES = [(torch.float32, 1e-5), (torch.float64, 1e-12)]
each_precision = pytest.mark.parametrize(("dtype", "error"), DTYPES, ids=["float32", "float64"])


def close(got: np.ndarray, expected: torch.Tensor, error: float) -> None:
    assert got.dtype == expected.detach().numpy().dtype
    np.testing.assert_allclose(got, expected.detach().numpy(), atol=error, rtol=error)


def draw(*shape: int, dtype: torch.dtype) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0))


@each_precision
def test_rms_norm(dtype: torch.dtype, error: float) -> None:
    norm = RMSNorm(8).to(dtype)
    randomize_(norm)
    x = draw(5, 3, 8, dtype=dtype)
    x[0, 0] = 0
    close(steps.rms_norm(x.numpy(), steps.array(norm.weight)), norm(x), error)


@each_precision
def test_softmaxes(dtype: torch.dtype, error: float) -> None:
    x = 30 * draw(4, 2, 9, dtype=dtype)
    x[0, 0, :5] = -torch.inf
    close(steps.softmax(x.numpy().copy()), x.softmax(-1), error)
    close(steps.log_softmax(x.numpy()[1:]), x[1:].log_softmax(-1), 10 * error)


@each_precision
def test_silu_is_right_far_out_and_silent(dtype: torch.dtype, error: float) -> None:
    x = torch.cat((torch.linspace(-100, 100, 401), torch.tensor([-1e6, 1e6]))).to(dtype)
    with warnings.catch_warnings(), np.errstate(over="raise", invalid="raise", divide="raise"):
        warnings.simplefilter("error")
        got = steps.silu(x.numpy())
    close(got, F.silu(x), error)


@each_precision
@pytest.mark.parametrize("positions", [[0, 7, 4095], [3, 5000, 10_000_000]])
def test_turns_below_and_beyond_the_table(
    positions: list[int], dtype: torch.dtype, error: float
) -> None:
    at, x = np.array(positions), draw(3, 2, 8, dtype=dtype)
    turned = steps.turns(at, 8, 1e4, dtype)
    expected = rotations(at, 8, 1e4, x)
    np.testing.assert_array_equal(turned[:, 0], expected.numpy())
    close(steps.rotate(x.numpy(), turned), rotate(x, expected), error)


@each_precision
def test_feed_forward_and_head(dtype: torch.dtype, error: float) -> None:
    x = draw(5, 8, dtype=dtype)
    swiglu, norm, linear = SwiGLU(8, 20).to(dtype), RMSNorm(8).to(dtype), Linear(8, 11).to(dtype)
    for module in (swiglu, norm, linear):
        randomize_(module)
    with torch.no_grad():
        close(steps.swiglu(swiglu)(x.numpy()), swiglu(x), error)
        close(steps.head(norm, linear)(x.numpy()), linear(norm(x)), error)


@each_precision
@pytest.mark.parametrize("n_kv_heads", [1, 2, 4])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_a_layer_with_its_attention(
    n_kv_heads: int, qk_norm: bool, dtype: torch.dtype, error: float
) -> None:
    """Rows of their own lengths, step by step, against the layer with a cache of its own."""
    attention = Attention(
        16,
        n_heads=4,
        n_kv_heads=n_kv_heads,
        head_dim=4,
        window=6,
        rope_theta=1e4,
        qk_norm=qk_norm,
    )
    first, second, ffn = RMSNorm(16), RMSNorm(16), SwiGLU(16, 12)
    for module in (attention, first, second, ffn):
        randomize_(module.to(dtype))
    layer = steps.LayerStep(first, attention, second, steps.swiglu(ffn))

    def cache() -> WindowCache:
        like = torch.zeros(0, dtype=dtype)
        return WindowCache(3, n_layers=1, n_kv_heads=n_kv_heads, head_dim=4, window=6, like=like)

    stepping, reading = cache(), cache()
    rng = np.random.default_rng(0)
    with torch.inference_mode():
        for _ in range(20):
            slots = rng.permutation(3)[: rng.integers(1, 4)]
            x = torch.from_numpy(rng.normal(size=(len(slots), 16))).to(dtype)
            turned = layer.attention.turns(stepping.positions[slots])
            stepping.begin_step(slots)
            attend: Callable[..., np.ndarray] = lambda q, k, v: stepping.attend_step(0, q, k, v)  # noqa: E731
            got = layer(x.numpy(), turned, attend)
            rows = reading.rows(np.ones(len(slots), np.int64), slots)
            reading.begin(rows)
            x = x + attention(first(x), rows, LayerCache(reading, 0))
            close(got, x + ffn(second(x)), 5 * error)


def test_weights_are_not_copied() -> None:
    linear = Linear(4, 3)
    steps.array(linear.weight)[0, 0] = 9.0
    assert linear.weight[0, 0].item() == 9.0


def test_precisions_that_numpy_has_not_are_left_to_torch() -> None:
    assert steps.can_step(Linear(2, 2))
    assert steps.can_step(Linear(2, 2).double())
    assert not steps.can_step(Linear(2, 2).bfloat16())
    assert not steps.can_step(Linear(2, 2).to("meta"))
