"""Attention between segments of consecutive positions and what lies in them, in linear memory.

A byte belongs to exactly one patch, so byte-patch attention is a softmax inside each segment and
needs no mask of bytes by patches.
Shape key: N positions, S segments, Q queries or vectors per segment, H heads, K head width.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

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
    keys: Float[Tensor, "N H K"],
    values: Float[Tensor, "N H K"],
    segment: Int[Tensor, " N"],
) -> Float[Tensor, "S Q H K"]:
    """Each of a segment's queries attends to the positions of its own segment, and to no other."""
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


def attend_to_segment(
    queries: Float[Tensor, "N H K"],
    keys: Float[Tensor, "S Q H K"],
    values: Float[Tensor, "S Q H K"],
    segment: Int[Tensor, " N"],
) -> Float[Tensor, "N H K"]:
    """Each position attends to the Q vectors of the one segment that it names."""
    scale = queries.shape[-1] ** -0.5
    scores = full_precision(queries[:, None] * keys.index_select(0, segment)).sum(-1)
    weights = (scores * scale).softmax(dim=1)
    return (weights[..., None] * values.index_select(0, segment)).sum(1)
