"""Oracles: the singular value decomposition, and Muon written out for one matrix in float64."""

import pytest
import torch
from torch import nn

from bytelm.training import muon
from bytelm.training.muon import Muon, orthogonalize


def random_matrices(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("shape", [(3, 16, 16), (2, 8, 24), (2, 24, 8), (1, 1, 5)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_orthogonalize_keeps_vectors_and_brings_singular_values_near_one(shape, dtype) -> None:
    matrices = random_matrices(*shape)
    result = orthogonalize(matrices, dtype=dtype).float()
    u, s, vh = torch.linalg.svd(matrices, full_matrices=False)
    rotated = u.mT @ result @ vh.mT
    kept = torch.diagonal(rotated, dim1=-2, dim2=-1)
    large = s > 0.01 * s.amax(-1, keepdim=True)
    assert kept[large].min() > 0.6
    assert kept.max() < 1.3
    tolerance = 0.05 if dtype is torch.bfloat16 else 1e-4
    assert (rotated - torch.diag_embed(kept)).abs().max() < tolerance


def test_a_batch_is_the_matrices_one_by_one() -> None:
    matrices = random_matrices(4, 6, 10)
    one_by_one = torch.cat([orthogonalize(m[None]) for m in matrices])
    torch.testing.assert_close(orthogonalize(matrices), one_by_one, atol=1e-5, rtol=0)


@pytest.mark.parametrize("shape", [(12, 6), (6, 12)])
def test_step_is_keller_jordans(shape, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muon, "fast_matmul_dtype", lambda device: torch.float32)
    parameters = {name: nn.Parameter(random_matrices(*shape)) for name in "ab"}
    expected = {name: p.detach().double() for name, p in parameters.items()}
    momentum = {name: torch.zeros(shape, dtype=torch.float64) for name in "ab"}
    optimizer = Muon(parameters, momentum=0.9, weight_decay=0.1)
    generator = torch.Generator().manual_seed(1)
    for _ in range(3):
        for name, parameter in parameters.items():
            parameter.grad = torch.randn(shape, generator=generator)
            grad = parameter.grad.double()
            momentum[name] = 0.9 * momentum[name] + 0.1 * grad
            x = 0.1 * grad + 0.9 * momentum[name]
            x = x.T if shape[0] > shape[1] else x
            x = x / x.norm()
            for _ in range(5):
                gram = x @ x.T
                x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
            x = x.T if shape[0] > shape[1] else x
            scale = max(1, shape[0] / shape[1]) ** 0.5
            expected[name] = expected[name] * (1 - 0.02 * 0.1) - 0.02 * scale * x
        optimizer.step(0.02)
    for name, parameter in parameters.items():
        torch.testing.assert_close(parameter.detach().double(), expected[name], atol=1e-5, rtol=0)
