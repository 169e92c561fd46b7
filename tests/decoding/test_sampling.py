"""Oracle: distributions worked out by hand."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from bytelm.decoding.sampling import Sampling


def log_probs(*probs: float) -> torch.Tensor:
    """The given probabilities for the first byte values, next to nothing for the others."""
    full = torch.full((256,), 1e-30)
    full[: len(probs)] = torch.tensor(probs)
    return (full / full.sum()).log()


def kept(sampling: Sampling, *probs: float) -> list[float]:
    return sampling.distribution(log_probs(*probs))[: len(probs)].tolist()


def test_top_p_keeps_the_byte_that_crosses() -> None:
    assert kept(Sampling(top_p=0.6), 0.5, 0.3, 0.2) == pytest.approx([0.625, 0.375, 0])
    assert kept(Sampling(top_p=0.5), 0.5, 0.3, 0.2) == pytest.approx([1, 0, 0])


def test_top_k_keeps_the_likeliest() -> None:
    assert kept(Sampling(top_k=2), 0.2, 0.5, 0.3) == pytest.approx([0, 0.625, 0.375])


def test_temperature_is_an_exponent() -> None:
    assert kept(Sampling(temperature=0.5), 0.75, 0.25) == pytest.approx([0.9, 0.1])


@pytest.mark.parametrize("temperature", [1e-30, 1e-310, 5e-324, 1e308])
def test_any_temperature_above_zero_gives_a_distribution(temperature: float) -> None:
    probs = kept(Sampling(temperature=temperature), 0.2, 0.5, 0.3)
    # The limits of p^(1/T): all on the likeliest, or the same for each of the 256.
    assert probs == pytest.approx([0, 1, 0] if temperature < 1 else [1 / 256] * 3)
    sampling = Sampling(temperature=temperature, top_k=2, top_p=0.9)
    chosen = sampling.choose(log_probs(0.2, 0.5, 0.3), torch.Generator().manual_seed(0))
    assert chosen == 1 or temperature > 1


def test_temperature_zero_is_greedy() -> None:
    choice = Sampling(temperature=0).choose(log_probs(0.2, 0.5, 0.3), torch.Generator())
    assert choice == 1


@given(
    temperature=st.floats(0.1, 5),
    top_k=st.none() | st.integers(1, 256),
    top_p=st.none() | st.floats(0.01, 1),
    seed=st.integers(0, 99),
)
def test_any_setting_gives_a_distribution_with_the_likeliest_byte_in_it(
    temperature: float, top_k: int | None, top_p: float | None, seed: int
) -> None:
    scores = torch.randn(256, generator=torch.Generator().manual_seed(seed)).log_softmax(0)
    probs = Sampling(temperature=temperature, top_k=top_k, top_p=top_p).distribution(scores)
    assert probs.sum().item() == pytest.approx(1, abs=1e-5)
    assert probs[scores.argmax()] > 0
    assert top_k is None or int((probs > 0).sum()) <= top_k


def test_same_seed_same_bytes() -> None:
    scores = torch.zeros(256).log_softmax(0)

    def draw(seed: int) -> list[int]:
        generator = torch.Generator().manual_seed(seed)
        return [Sampling().choose(scores, generator) for _ in range(20)]

    assert draw(1) == draw(1) != draw(2)


@pytest.mark.parametrize(
    "bad", [{"temperature": -1.0}, {"temperature": math.nan}, {"top_k": 0}, {"top_p": 0.0}]
)
def test_settings_out_of_range(bad: dict) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        Sampling(**bad)
