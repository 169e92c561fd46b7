"""RMSNorm: divide by the root mean square, then scale each channel.

Source: Zhang and Sennrich 2019, arXiv:1910.07467.
Shape key: D channels.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

RMS_EPS = 1e-5
"""As in Llama and the released Byte Latent Transformers."""


def full_precision(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The same values as float32 if they are of half precision, else as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class RMSNorm(nn.Module):
    """RMSNorm with a learned scale, in at least float32 whatever the input's precision."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """Normalize the last axis."""
        x = x.to(self.weight.dtype)
        if x.is_cpu and x.requires_grad:
            return _FusedRMSNorm.apply(x, self.weight)
        return F.rms_norm(x, self.weight.shape, self.weight, RMS_EPS)


class _FusedRMSNorm(torch.autograd.Function):
    """The same values as `F.rms_norm`, whose backward on a CPU is a dozen unfused kernels.

    The gradient of LayerNorm is that of RMSNorm less the mean of the incoming gradient, and its
    kernel is fused; the mean is added back.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        rms = torch.linalg.vector_norm(x, dim=-1, keepdim=True) * x.shape[-1] ** -0.5
        scale = (rms.square() + RMS_EPS).rsqrt()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, weight, scale = ctx.saved_tensors
        grad = grad.contiguous()
        centered, grad_weight, _ = torch.ops.aten.native_layer_norm_backward(
            grad, x, weight.shape, torch.zeros_like(scale), scale, weight, None, [True, True, False]
        )
        mean = (grad @ weight)[..., None] / x.shape[-1]
        return centered.addcmul_(mean, scale), grad_weight
