"""Oracle: dense attention under a mask of positions by segments."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bytelm.nn.segments import (
    attend_to_segment,
    attend_to_vectors,
    attend_within_segments,
    segment_max,
)

LENGTHS = st.lists(st.integers(0, 6), min_size=1, max_size=8).filter(
    lambda lengths: sum(lengths) > 0
)


def random(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, dtype=torch.float64, generator=generator).requires_grad_()


def segments(lengths: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """q [A, H, K], k and v [B, H, K], mask [A, B]."""
    scores = torch.einsum("ahk,bhk->hab", q, k) * q.shape[-1] ** -0.5
    weights = scores.masked_fill(~mask, -torch.inf).softmax(-1).nan_to_num(0.0)
    return torch.einsum("hab,bhk->ahk", weights, v)


@given(lengths=LENGTHS, vectors=st.sampled_from([1, 2, 4]), groups=st.sampled_from([1, 2, 4]))
def test_within_segments_equals_dense(lengths: list[int], vectors: int, groups: int) -> None:
    own, count = segments(lengths), len(lengths)
    q = random(count, vectors, 4, 3)
    k, v = random(len(own), groups, 3, seed=1), random(len(own), groups, 3, seed=2)
    got = attend_within_segments(q, k, v, own)
    mask = (torch.arange(count)[:, None] == own).repeat_interleave(vectors, 0)
    wide_k, wide_v = (x.repeat_interleave(4 // groups, 1) for x in (k, v))
    expected = dense(q.flatten(0, 1), wide_k, wide_v, mask).view_as(q)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    for tensor in (q, k, v):
        (wanted,) = torch.autograd.grad(expected.square().sum(), tensor, retain_graph=True)
        (grad,) = torch.autograd.grad(got.square().sum(), tensor, retain_graph=True)
        torch.testing.assert_close(grad, wanted, atol=1e-12, rtol=0)


@given(lengths=LENGTHS, vectors=st.sampled_from([1, 2, 4]), groups=st.sampled_from([1, 2, 4]))
def test_to_segment_equals_dense(lengths: list[int], vectors: int, groups: int) -> None:
    own, count = segments(lengths), len(lengths)
    q = random(len(own), 4, 3)
    k, v = random(count, vectors, groups, 3, seed=1), random(count, vectors, groups, 3, seed=2)
    got = attend_to_segment(q, k, v, own)
    wide_k, wide_v = (x.repeat_interleave(4 // groups, 2).flatten(0, 1) for x in (k, v))
    mask = (own[:, None] == torch.arange(count)).repeat_interleave(vectors, 1)
    expected = dense(q, wide_k, wide_v, mask)
    torch.testing.assert_close(got, expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(attend_to_vectors(q, k[own], v[own]), got, atol=1e-12, rtol=0)
    wanted = torch.autograd.grad(expected.square().sum(), (q, k, v))
    grads = torch.autograd.grad(got.square().sum(), (q, k, v))
    torch.testing.assert_close(grads, wanted, atol=1e-12, rtol=0)


def test_maximum_shares_the_gradient_among_ties() -> None:
    values = torch.tensor([[1.0], [3.0], [3.0], [-5.0]], requires_grad=True)
    top = segment_max(values, torch.tensor([0, 0, 0, 2]), 3)
    assert top.flatten().tolist() == [3.0, 0.0, -5.0]
    top.sum().backward()
    assert values.grad is not None
    assert values.grad.flatten().tolist() == [0.0, 0.5, 0.5, 1.0]
