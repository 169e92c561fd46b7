"""Attention between segments of consecutive positions and what lies in them, in linear memory.

A byte belongs to exactly one patch, so byte-patch attention is a softmax inside each segment and
needs no mask of bytes by patches.
Shape key: N positions, S segments, Q queries or vectors per segment, H heads, G key/value heads,
K head width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from bytelm.nn.norm import full_precision


def segment_max(
    values: Float[Tensor, "N D"], segment: Int[Tensor, " N"], num_segments: int
) -> Float[Tensor, "S D"]:
    """Channel-wise maximum over each segment's positions; an empty segment gives zeros.

    Of positions that tie in a channel each gets an equal share of the gradient.
    """
    index = segment[:, None].expand_as(values)
    empty = values.new_zeros(num_segments, values.shape[1])
    return empty.scatter_reduce(0, index, values, reduce="amax", include_self=False)


def attend_within_segments(
    queries: Float[Tensor, "S Q H K"],
    keys: Float[Tensor, "N G K"],
    values: Float[Tensor, "N G K"],
    segment: Int[Tensor, " N"],
) -> Float[Tensor, "S Q H K"]:
    """Each of a segment's queries attends to the positions of its own segment, and to no other."""
    keys, values = _shared_by(queries.shape[2], keys), _shared_by(queries.shape[2], values)
    scale = queries.shape[-1] ** -0.5
    own = queries.index_select(0, segment)
    scores = full_precision(own * keys[:, None]).sum(-1) * scale
    index = segment[:, None, None].expand_as(scores)
    shape = (queries.shape[0], *scores.shape[1:])
    with torch.no_grad():
        highest = scores.new_zeros(shape).scatter_reduce(
            0, index, scores, reduce="amax", include_self=False
        )
        highest = highest.index_select(0, segment)
    weights = (scores - highest).exp()
    total = weights.new_zeros(shape).index_add(0, segment, weights)
    weighted = weights[..., None] * values[:, None]
    mixed = weighted.new_zeros(queries.shape).index_add(0, segment, weighted)
    # An empty segment has no weight at all: it keeps zeros.
    return mixed / total.clamp_min(torch.finfo(total.dtype).tiny)[..., None]


def attend_to_vectors(
    queries: Float[Tensor, "N H K"],
    keys: Float[Tensor, "N Q G K"],
    values: Float[Tensor, "N Q G K"],
) -> Float[Tensor, "N H K"]:
    """Each position attends to the Q vectors that are its own."""
    keys, values = _shared_by(queries.shape[1], keys), _shared_by(queries.shape[1], values)
    scale = queries.shape[-1] ** -0.5
    scores = full_precision(queries[:, None] * keys).sum(-1)
    weights = (scores * scale).softmax(dim=1)
    return (weights[..., None] * values).sum(1)


def attend_to_segment(
    queries: Float[Tensor, "N H K"],
    keys: Float[Tensor, "S Q G K"],
    values: Float[Tensor, "S Q G K"],
    segment: Int[Tensor, " N"],
) -> Float[Tensor, "N H K"]:
    """Each position attends to the Q vectors of the one segment that it names.

    As `attend_to_vectors`, but what is kept for the backward pass is one vector for each segment,
    not one for each position.
    """
    groups = keys.shape[2]
    grouped = queries.view(len(queries), 1, groups, -1, queries.shape[2])
    mixed = _AttendToSegment.apply(grouped, keys[:, :, :, None], values[:, :, :, None], segment)
    return mixed.view(queries.shape)


class _AttendToSegment(torch.autograd.Function):
    """The same with the heads of a group, R, on an axis of their own: queries `[N, 1, G, R, K]`."""

    @staticmethod
    def forward(ctx, queries: Tensor, keys: Tensor, values: Tensor, segment: Tensor) -> Tensor:
        scale = queries.shape[-1] ** -0.5
        scores = full_precision(queries * keys.index_select(0, segment)).sum(-1, keepdim=True)
        weights = (scores * scale).softmax(dim=1)
        ctx.save_for_backward(queries, keys, values, segment, weights)
        return (weights * values.index_select(0, segment)).sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        queries, keys, values, segment, weights = ctx.saved_tensors
        grad = grad[:, None]
        grad_weights = (grad * values.index_select(0, segment)).sum(-1, keepdim=True)
        mean = (grad_weights * weights).sum(1, keepdim=True)
        grad_scores = (grad_weights - mean).mul_(weights).mul_(queries.shape[-1] ** -0.5)
        grad_queries = (grad_scores * keys.index_select(0, segment)).sum(1, keepdim=True)

        def gathered(per_position: Tensor, like: Tensor) -> Tensor:
            summed = per_position.sum(3, keepdim=True)
            return summed.new_zeros(like.shape).index_add_(0, segment, summed).to(like.dtype)

        grad_keys = gathered(grad_scores * queries, keys)
        return grad_queries.to(queries.dtype), grad_keys, gathered(weights * grad, values), None


def _shared_by(heads: int, x: Float[Tensor, "*N G K"]) -> Float[Tensor, "*N H K"]:
    """Key or value heads, each repeated for the heads of its group."""
    groups = x.shape[-2]
    return x if groups == heads else x.repeat_interleave(heads // groups, dim=-2)
