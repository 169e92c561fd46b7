"""Linear maps without a bias, fast in float32 on any x86 processor.

torch multiplies float32 matrices with MKL, whose AVX-512 code runs on Intel's processors alone; on
AMD's it is half as wide. oneDNN, which is in torch too, has no such preference (measured on a
Zen 5: about twice as fast forward and backward, `benchmarks/kernels.py`).
Shape key: N positions, D width of the input, F width of the output.
"""

import functools

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LEAST_ROWS = 64
"""With fewer positions calling oneDNN costs more than it saves (measured)."""


class Linear(nn.Linear):
    """`nn.Linear` without a bias; its state dict is the same."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        """Multiply every position with the weight."""
        return linear(input, self.weight)


def cast_for_products(x: Tensor) -> Tensor:
    """`x` in the type that autocast gives to the factors of products; as it is without autocast.

    Cast once, it serves several products.
    """
    kind = x.device.type
    return x.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else x


def linear(x: Float[Tensor, "*N D"], weight: Float[Tensor, "F D"]) -> Float[Tensor, "*N F"]:
    """`x @ weight.T`, by the fastest way there is for these tensors."""
    if not _takes_onednn(x, weight):
        return F.linear(x, weight)
    flat = x.reshape(-1, x.shape[-1])
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        product = _Linear.apply(flat, weight)
    else:
        product = _onednn(flat, weight)
    return product.view(*x.shape[:-1], len(weight))


def times_transposed(a: Float[Tensor, "N D"], b: Float[Tensor, "F D"]) -> Float[Tensor, "N F"]:
    """`a @ b.T` without a gradient; either may be a transposed view, both have one type."""
    return _onednn(a, b) if _takes_onednn(a, b) else a @ b.t()


def _takes_onednn(a: Tensor, b: Tensor) -> bool:
    return (
        a.numel() >= LEAST_ROWS * a.shape[-1]
        and a.dtype == b.dtype == torch.float32
        and a.device.type == "cpu"
        and not torch.is_autocast_enabled("cpu")
        # The compiler takes this operation with constant weights only.
        and not torch.compiler.is_compiling()
        and _has_wide_onednn()
    )


@functools.cache
def _has_wide_onednn() -> bool:
    return torch.backends.mkldnn.is_available() and (
        torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


def _onednn(a: Tensor, b: Tensor) -> Tensor:
    """`a @ b.T` with oneDNN; either may be a transposed view."""
    return torch.ops.mkldnn._linear_pointwise(a, b, None, "none", [], "")


class _Linear(torch.autograd.Function):
    """`x @ weight.T` and its gradients, all with oneDNN."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _onednn(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight = ctx.saved_tensors
        needs_x, needs_weight = ctx.needs_input_grad
        grad_x = _onednn(grad, weight.t()) if needs_x else None
        grad_weight = _onednn(grad.t(), x.t()) if needs_weight else None
        return grad_x, grad_weight
