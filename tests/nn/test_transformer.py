"""Oracle: the feed-forward as its formula says it, with torch's own gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.nn.transformer import SwiGLU


def plain(layer: SwiGLU, x: Tensor) -> Tensor:
    gate, up, down = (p.weight for p in (layer.gate_proj, layer.up_proj, layer.down_proj))
    return F.linear(F.silu(F.linear(x, gate)) * F.linear(x, up), down)


def gradients(layer: SwiGLU, out: Tensor, x: Tensor, grad: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(out, (x, *layer.parameters()), grad))


@pytest.mark.parametrize("positions", [1, 7, 100])
@pytest.mark.parametrize(("dtype", "error"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_values_and_gradients(positions: int, dtype: torch.dtype, error: float) -> None:
    torch.manual_seed(0)
    layer = SwiGLU(12, 20).to(dtype)
    x, grad = torch.randn(2, positions, 12, dtype=dtype).unbind()
    x.requires_grad_()
    got, expected = layer(x), plain(layer, x)
    torch.testing.assert_close(got, expected, atol=error, rtol=error)
    for ours, exact in zip(
        gradients(layer, got, x, grad), gradients(layer, expected, x, grad), strict=True
    ):
        torch.testing.assert_close(ours, exact, atol=error, rtol=error)
    with torch.no_grad():
        torch.testing.assert_close(layer(x), expected, atol=error, rtol=error)


def test_under_autocast_it_is_near_and_gradients_are_those_of_the_weights_type() -> None:
    torch.manual_seed(0)
    layer, (x, grad) = SwiGLU(32, 64), torch.randn(2, 100, 32).unbind()
    x.requires_grad_()
    expected = plain(layer, x)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
    assert got.dtype == torch.bfloat16
    torch.testing.assert_close(got.float(), expected, atol=3e-2, rtol=3e-2)
    for ours, exact in zip(
        gradients(layer, got.float(), x, grad), gradients(layer, expected, x, grad), strict=True
    ):
        assert ours.dtype == torch.float32
        assert (ours - exact).norm() < 0.02 * exact.norm()


def test_frozen_weights_pass_the_gradient_on() -> None:
    torch.manual_seed(0)
    layer, x = SwiGLU(8, 16).requires_grad_(False), torch.randn(70, 8, requires_grad=True)
    (got,) = torch.autograd.grad(layer(x).sum(), x)
    (expected,) = torch.autograd.grad(plain(layer, x).sum(), x)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


def test_weights_learn_from_inputs_that_do_not() -> None:
    torch.manual_seed(0)
    layer, x = SwiGLU(8, 16), torch.randn(70, 8)
    got = torch.autograd.grad(layer(x).sum(), list(layer.parameters()))
    expected = torch.autograd.grad(plain(layer, x).sum(), list(layer.parameters()))
    torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-4)
