"""The Llama layer: pre-norm, RMSNorm, SwiGLU, rotary positions, no biases.

Source: Llama (Touvron et al. 2023, arXiv:2302.13971), section 2.2.
Shape key: N packed positions, D width, F feed-forward width.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bytelm.nn.attention import Attention, LayerMemory
from bytelm.nn.linear import Linear, cast_for_products, times_transposed
from bytelm.nn.norm import RMSNorm
from bytelm.nn.rows import Rows

FFN_MULTIPLE = 256
"""Feed-forward widths are rounded up to this, as in the released Byte Latent Transformers."""


def ffn_width(dim: int) -> int:
    """Two thirds of four times the width, rounded up to a multiple of 256."""
    return FFN_MULTIPLE * -(-int(8 * dim / 3) // FFN_MULTIPLE)


class SwiGLU(nn.Module):
    """Feed-forward `down(silu(gate x) * up x)`.

    Source: GLU Variants Improve Transformer (Shazeer 2020, arXiv:2002.05202).
    """

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.gate_proj = Linear(dim, hidden_dim)
        self.up_proj = Linear(dim, hidden_dim)
        self.down_proj = Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "N D"]) -> Float[Tensor, "N D"]:
        """Apply to every position alone."""
        if not (torch.is_grad_enabled() and x.requires_grad):
            return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
        layers = (self.gate_proj, self.up_proj, self.down_proj)
        return _SwiGLU.apply(
            cast_for_products(x), *(cast_for_products(layer.weight) for layer in layers)
        )


class _SwiGLU(torch.autograd.Function):
    """The same, keeping two of the four wide tensors that plain autograd keeps."""

    @staticmethod
    def forward(ctx, x: Tensor, gate: Tensor, up: Tensor, down: Tensor) -> Tensor:
        gated, raised = times_transposed(x, gate), times_transposed(x, up)
        ctx.save_for_backward(x, gated, raised, gate, up, down)
        return times_transposed(F.silu(gated).mul_(raised), down)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        x, gated, raised, gate, up, down = ctx.saved_tensors
        open_gate = F.silu(gated)
        grad_down = times_transposed(grad.t(), (open_gate * raised).t())
        hidden = times_transposed(grad, down.t())
        grad_raised = open_gate.mul_(hidden)
        grad_gated = torch.ops.aten.silu_backward(hidden.mul_(raised), gated)
        grad_x = times_transposed(grad_gated, gate.t()).add_(times_transposed(grad_raised, up.t()))
        grad_gate = times_transposed(grad_gated.t(), x.t())
        return grad_x, grad_gate, times_transposed(grad_raised.t(), x.t()), grad_down


class TransformerLayer(nn.Module):
    """`x + attention(norm x)`, then `x + feed-forward(norm x)`."""

    def __init__(
        self,
        dim: int,
        *,
        n_heads: int,
        n_kv_heads: int,
        ffn_dim: int,
        window: int | None,
        rope_theta: float,
    ) -> None:
        super().__init__()
        self.attention_norm = RMSNorm(dim)
        self.attention = Attention(
            dim,
            n_heads=n_heads,
            n_kv_heads=n_kv_heads,
            head_dim=dim // n_heads,
            window=window,
            rope_theta=rope_theta,
        )
        self.ffn_norm = RMSNorm(dim)
        self.ffn = SwiGLU(dim, ffn_dim)

    def forward(
        self, x: Float[Tensor, "N D"], rows: Rows, memory: LayerMemory | None = None
    ) -> Float[Tensor, "N D"]:
        """Both residual branches."""
        x = x + self.attention(self.attention_norm(x), rows, memory)
        return x + self.ffn(self.ffn_norm(x))


def initialize_(module: nn.Module, *, n_layers: int) -> None:
    """Draw every linear weight from N(0, 1/fan_in), residual outputs smaller by sqrt(2 n_layers).

    Cut at three standard deviations, as the released Byte Latent Transformers are.
    """
    for name, child in module.named_modules():
        if isinstance(child, nn.Linear):
            std = child.in_features**-0.5
            if name.endswith(("o_proj", "down_proj")):
                std /= (2 * n_layers) ** 0.5
            truncated_normal_(child.weight, std)


def truncated_normal_(weight: Tensor, std: float) -> None:
    """Fill with N(0, std^2) cut at three standard deviations."""
    with torch.no_grad():
        nn.init.trunc_normal_(weight, std=std, a=-3 * std, b=3 * std)
