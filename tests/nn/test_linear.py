"""Oracle: `F.linear` and torch's own gradients, in float64."""

import pytest
import torch
import torch.nn.functional as F

from bytelm.nn import linear as module
from bytelm.nn.linear import Linear, linear

ROWS = [(1,), (63,), (64,), (3, 50), (2, 5, 17), (0,)]


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("widths", [(16, 40), (33, 7), (128, 1)])
def test_values_and_gradients(rows: tuple[int, ...], widths: tuple[int, int]) -> None:
    width, out = widths
    x, weight = draw(*rows, width).requires_grad_(), draw(out, width, seed=1).requires_grad_()
    grad = draw(*rows, out, seed=2)
    result = linear(x, weight)
    result.backward(grad)
    exact_x, exact_weight = (t.detach().double().requires_grad_() for t in (x, weight))
    exact = F.linear(exact_x, exact_weight)
    exact.backward(grad.double())
    assert result.dtype == torch.float32
    for got, expected in (
        (result, exact),
        (x.grad, exact_x.grad),
        (weight.grad, exact_weight.grad),
    ):
        torch.testing.assert_close(got.double(), expected, atol=1e-4, rtol=1e-5)


def test_views_of_any_stride() -> None:
    base, weight = draw(40, 100), draw(24, 40, seed=1)
    exact = F.linear(base.t().double(), weight.double())
    torch.testing.assert_close(linear(base.t(), weight).double(), exact, atol=1e-4, rtol=1e-5)
    wide = draw(100, 80)
    exact = F.linear(wide[:, ::2].double(), weight.double())
    torch.testing.assert_close(linear(wide[:, ::2], weight).double(), exact, atol=1e-4, rtol=1e-5)
    x, weight = draw(100, 40).requires_grad_(), weight.requires_grad_()
    linear(x, weight).sum().backward()
    torch.testing.assert_close(x.grad, weight.detach().sum(0).expand(100, 40), atol=1e-4, rtol=1e-5)


def test_only_the_gradients_that_are_asked_for() -> None:
    x, weight = draw(70, 8), draw(6, 8, seed=1)
    assert not linear(x, weight).requires_grad
    linear(x, weight.requires_grad_()).sum().backward()
    assert x.grad is None
    assert weight.grad is not None
    with torch.no_grad():
        assert not linear(x, weight).requires_grad
    frozen = weight.detach()
    linear(x.requires_grad_(), frozen).sum().backward()
    torch.testing.assert_close(x.grad, frozen.sum(0).expand(70, 8))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_precisions_are_those_of_torch(dtype: torch.dtype) -> None:
    x, weight = draw(70, 8).to(dtype), draw(6, 8, seed=1).to(dtype)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_autocast_is_respected() -> None:
    x, layer = draw(70, 8), Linear(8, 6)
    with torch.autocast("cpu", torch.bfloat16):
        got = layer(x)
        assert torch.equal(got, F.linear(x, layer.weight))
    assert got.dtype == torch.bfloat16


def test_the_same_bits_each_time() -> None:
    x, weight = draw(500, 64), draw(96, 64, seed=1)
    assert torch.equal(linear(x, weight), linear(x.clone(), weight.clone()))


def test_a_processor_without_it_multiplies_as_torch_does(monkeypatch) -> None:
    x, weight = draw(500, 64), draw(96, 64, seed=1)
    monkeypatch.setattr(module, "_has_wide_onednn", lambda: False)
    assert torch.equal(linear(x, weight), F.linear(x, weight))


def test_the_state_dict_is_that_of_torch() -> None:
    plain = torch.nn.Linear(8, 6, bias=False)
    ours = Linear(8, 6)
    ours.load_state_dict(plain.state_dict(), strict=True)
    assert ours.state_dict().keys() == plain.state_dict().keys() == {"weight"}
