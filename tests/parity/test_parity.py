"""T1 to T9. Oracle: `BltForCausalLM` of transformers, loaded from our export."""

import functools

import pytest
import torch

from bytelm.interop import parity
from bytelm.interop.random_models import random_blt

FAST_SEEDS, ALL_SEEDS = (0, 11), range(24)
TESTS = [*(test.__name__ for test in parity.SHORT_TESTS), "t5_long_rows"]


@functools.cache
def case(kind: str, seed: int, folder) -> parity.Case:
    model, ids = (parity.short_case if kind == "short" else parity.long_case)(seed)
    return parity.make_case(model, ids, folder / f"{kind}-{seed}")


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    return tmp_path_factory.mktemp("exports")


@pytest.mark.parametrize("name", TESTS)
@pytest.mark.parametrize(
    "seed",
    [
        seed if seed in FAST_SEEDS else pytest.param(seed, marks=pytest.mark.slow)
        for seed in ALL_SEEDS
    ],
)
def test_a_random_model_equals_its_export_in_transformers(name, seed, exports):
    made = case("long" if name == "t5_long_rows" else "short", seed, exports)
    assert {0, 1, 2, 3} <= set(made.ids.flatten().tolist())
    measured = getattr(parity, name)(made)
    assert [m for m in measured if not m.passed] == []


def test_the_configurations_are_those_that_matter():
    """Hand-made list of what the issue names."""
    configs = [random_blt(seed).config for seed in ALL_SEEDS]
    assert {config.cross_attn_k for config in configs} == {1, 2, 4}
    assert {config.num_hash_functions for config in configs} == {1, 2, 3}
    assert {config.cross_attention_every_layer for config in configs} == {True, False}
    assert {config.n_kv_heads is None for config in configs} == {True, False}
    assert {config.n_heads_decoder is None for config in configs} == {True, False}
    assert {config.cross_attn_k * config.dim == config.dim_global for config in configs} == {
        True,
        False,
    }
    assert min(config.window for config in configs) < 20
    assert len({config.ngram_sizes for config in configs}) > 12


def test_a_difference_that_is_not_a_number_does_not_pass():
    wrong = parity.Measured(test="T1", what="", difference=float("nan"), tolerance=1.0)
    assert not wrong.passed


def test_patch_lengths_are_those_of_the_starts():
    """Oracle: worked out by hand."""
    starts = torch.tensor([[1, 1, 0, 0, 1], [1, 1, 1, 0, 0]]).bool()
    lengths = parity.patch_lengths(starts)
    assert lengths.tolist() == [[1, 3, 1], [1, 1, 3]]
    assert parity.patch_lengths(starts[:1, :3]).tolist() == [[1, 2]]
    assert torch.equal(parity.starts_of(lengths, 4), starts)
