"""Oracle: a softmax over all scores under an explicit mask, and torch's gradients of it."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bytelm.nn.tiled_attention import TILE, tiled_attention


def dense(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    queries, keys = q.shape[2], k.shape[2]
    distance = torch.arange(keys - queries, keys)[:, None] - torch.arange(keys)
    seen = (distance >= 0) & (distance < (keys + 1 if window is None else window))
    scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(~seen, -torch.inf)
    return scores.softmax(-1) @ v


def draw(queries: int, history: int, dtype: torch.dtype, seed: int = 0) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(seed)
    shapes = [(2, 2, queries + more, 4) for more in (0, history, history, 0)]
    q, k, v, grad = (torch.randn(*s, dtype=dtype, generator=generator) for s in shapes)
    return q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), grad


@given(
    queries=st.sampled_from([1, 2, TILE - 1, TILE, TILE + 1, 2 * TILE + 3]),
    history=st.sampled_from([0, 1, 5, TILE - 1, TILE, 150]),
    window=st.none() | st.sampled_from([1, 2, 7, TILE - 1, TILE, TILE + 1, 100, 1000]),
    seed=st.integers(0, 9),
)
def test_values_and_gradients(queries, history, window, seed) -> None:
    *qkv, grad = draw(queries, history, torch.float64, seed)
    got, expected = tiled_attention(*qkv, window=window), dense(*qkv, window)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    gradients = (torch.autograd.grad(out, qkv, grad) for out in (got, expected))
    for ours, exact in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, exact, atol=1e-12, rtol=0)


@pytest.mark.parametrize(("dtype", "error"), [(torch.float32, 1e-5), (torch.bfloat16, 3e-2)])
def test_other_precisions_keep_their_type_and_are_close(dtype: torch.dtype, error: float) -> None:
    *qkv, grad = draw(3 * TILE + 5, 0, torch.float64)
    exact = dense(*qkv, 100)
    rounded = [x.detach().to(dtype).requires_grad_() for x in qkv]
    got = tiled_attention(*rounded, window=100)
    assert got.dtype == dtype
    torch.testing.assert_close(got.double(), exact, atol=error, rtol=error)
    gradients = torch.autograd.grad(got, rounded, grad.to(dtype))
    for ours, right in zip(gradients, torch.autograd.grad(exact, qkv, grad), strict=True):
        assert ours.dtype == dtype
        torch.testing.assert_close(ours.double(), right, atol=error, rtol=error)


def test_no_matrix_of_all_scores_is_kept() -> None:
    *qkv, _ = draw(40 * TILE, 0, torch.float32)
    sizes: list[int] = []

    def note(tensor: Tensor) -> Tensor:
        sizes.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        tiled_attention(*qkv, window=512)
    assert sum(sizes) <= 5 * qkv[0].numel()
