"""Oracle: the 2 x 2 rotation matrix of each pair."""

import math

import numpy as np
import torch

from bytelm.nn.rope import rotate, rotations


def test_pairs_are_interleaved_and_turned_by_position_times_frequency() -> None:
    x = torch.tensor([[[1.0, 0.0, 0.0, 2.0]]], dtype=torch.float64)
    turned = rotate(x, rotations(np.array([3]), 4, 100.0, x))
    fast, slow = 3.0, 3.0 * 100.0**-0.5
    expected = [math.cos(fast), math.sin(fast), -2 * math.sin(slow), 2 * math.cos(slow)]
    torch.testing.assert_close(turned[0, 0], torch.tensor(expected, dtype=torch.float64))


def test_scores_depend_on_the_distance_alone_even_far_out() -> None:
    """At position 10^7 a float32 angle would be off by a radian."""
    q, k = torch.randn(2, 1, 3, 8)

    def score(at: int) -> torch.Tensor:
        later, earlier = (rotations(np.array([n]), 8, 1e4, q) for n in (at + 5, at))
        return (rotate(q, later) * rotate(k, earlier)).sum(-1)

    torch.testing.assert_close(score(10_000_000), score(0), atol=1e-5, rtol=0)
