"""Oracle: dense attention under an explicit mask."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bytelm.nn.attention import Attention, causal_attention
from bytelm.nn.kv_cache import SLACK, GrowingCache, LayerCache, WindowCache
from bytelm.nn.rows import Rows


def dense(q: Tensor, k: Tensor, v: Tensor, window: int | None) -> Tensor:
    groups = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(groups, 1), v.repeat_interleave(groups, 1)
    scores = q @ k.mT / q.shape[-1] ** 0.5
    for query in range(q.shape[2]):
        at = query + k.shape[2] - q.shape[2]
        for key in range(k.shape[2]):
            if key > at or (window is not None and key <= at - window):
                scores[:, :, query, key] = -torch.inf
    return scores.softmax(-1) @ v


@given(
    queries=st.integers(1, 21),
    history=st.integers(0, 9),
    window=st.none() | st.integers(1, 12),
    groups=st.sampled_from([1, 2]),
    seed=st.integers(0, 9),
)
def test_equals_dense_attention(
    queries: int, history: int, window: int | None, groups: int, seed: int
) -> None:
    if window is not None:
        history = min(history, window - 1)
    generator = torch.Generator().manual_seed(seed)

    def draw(heads: int, length: int) -> Tensor:
        return torch.randn(2, heads, length, 6, dtype=torch.float64, generator=generator)

    q, k, v = draw(2 * groups, queries), draw(2, queries + history), draw(2, queries + history)
    got = causal_attention(q, k, v, window=window)
    torch.testing.assert_close(got, dense(q, k, v, window), atol=1e-12, rtol=0)


def test_long_rows_take_the_same_path_as_short_ones() -> None:
    """Above the length where plain attention hands over to the fused kernel."""
    q, k, v = torch.randn(3, 1, 2, 300, 8, dtype=torch.float64).unbind()
    got = causal_attention(q, k, v, window=None)
    torch.testing.assert_close(got, dense(q, k, v, None), atol=1e-12, rtol=0)


def test_a_window_of_512_sees_exactly_512_positions_itself_included() -> None:
    """blt.md 1.5: query 600 sees the keys 89 to 600."""
    q, k, v = torch.randn(3, 1, 1, 640, 4, dtype=torch.float64).unbind()
    v = v.clone().requires_grad_()
    causal_attention(q, k, v, window=512)[0, 0, 600].sum().backward()
    assert v.grad is not None
    seen = v.grad[0, 0].abs().sum(-1).nonzero().flatten()
    assert (int(seen[0]), int(seen[-1]), len(seen)) == (89, 600, 512)


@pytest.mark.parametrize("window", [None, 7])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_reading_in_chunks_equals_reading_at_once(window: int | None, qk_norm: bool) -> None:
    torch.manual_seed(0)
    attention = Attention(
        16,
        n_heads=4,
        n_kv_heads=2,
        head_dim=4,
        window=window,
        rope_theta=1e4,
        qk_norm=qk_norm,
    ).double()
    x = torch.randn(400, 16, dtype=torch.float64)
    sizes = {"n_layers": 1, "n_kv_heads": 2, "head_dim": 4, "like": x}
    cache = GrowingCache(1, **sizes) if window is None else WindowCache(1, window=window, **sizes)
    parts, slots = [], np.zeros(1, np.int64)
    with torch.inference_mode():
        for part in x.split([1, 3, 20, 1, 15, 300, 60]):
            rows = cache.rows(np.array([len(part)]), slots)
            cache.begin(rows)
            parts.append(attention(part, rows, LayerCache(cache, 0)))
        whole = attention(x, Rows.full(1, 400))
    torch.testing.assert_close(torch.cat(parts), whole, atol=1e-12, rtol=0)
    kept = cache.save(0).keys[0].shape[1]
    assert kept == 400 if window is None else window - 1 <= kept <= window - 1 + SLACK


@pytest.mark.parametrize("window", [None, 7])
def test_rows_are_each_as_if_alone(window: int | None) -> None:
    """Oracle: the same layer on one row at a time."""
    torch.manual_seed(0)
    attention = Attention(
        16, n_heads=4, n_kv_heads=2, head_dim=4, window=window, rope_theta=1e4
    ).double()
    counts = np.array([5, 1, 30, 12])
    x = torch.randn(int(counts.sum()), 16, dtype=torch.float64)
    alone = [attention(part, Rows.full(1, len(part))) for part in x.split(counts.tolist())]
    torch.testing.assert_close(attention(x, Rows(counts)), torch.cat(alone), atol=1e-12, rtol=0)
