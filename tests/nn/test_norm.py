"""Oracle: torch's own RMSNorm, and its gradient by finite differences."""

import torch
import torch.nn.functional as F

from bytelm.nn.norm import RMS_EPS, RMSNorm


def test_values_and_gradients() -> None:
    torch.manual_seed(0)
    norm = RMSNorm(7).double()
    torch.nn.init.normal_(norm.weight)
    x = torch.randn(3, 5, 7, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(norm(x), F.rms_norm(x, (7,), norm.weight, RMS_EPS))
    assert torch.autograd.gradcheck(norm, (x,))
    assert torch.autograd.gradcheck(
        lambda weight: torch.func.functional_call(norm, {"weight": weight}, (x,)), (norm.weight,)
    )


def test_half_precision_is_normalized_in_float32() -> None:
    x = torch.randn(2, 7).bfloat16()
    assert RMSNorm(7)(x).dtype == torch.float32
