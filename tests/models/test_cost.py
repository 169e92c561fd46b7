"""Oracle: the built model, and torch's own count of the matrix products it runs."""

from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bytelm.config import find_recipe, load
from bytelm.models import (
    BLTConfig,
    ByteGPTConfig,
    EntropyLMConfig,
    NgramConfig,
    RecurrentConfig,
    build,
)
from bytelm.models.cost import _linear_flops, cost, total_flops_per_byte
from bytelm.patching import Entropy, Static
from conftest import as_ids

CONFIGS = [
    ByteGPTConfig(num_buckets=128),
    ByteGPTConfig(ngram_sizes=(), window=None, dim=64),
    EntropyLMConfig(),
    BLTConfig(num_buckets=128),
    BLTConfig(num_buckets=128, dim_global=384, n_heads_global=6, cross_attn_k=3),
    NgramConfig(),
    RecurrentConfig(num_buckets=128),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.kind)
def test_parameters_equal_the_built_model(config: object) -> None:
    patcher = Static(patch_size=4) if isinstance(config, BLTConfig) else None
    model = build(config, patcher=patcher)  # pyright: ignore[reportArgumentType]
    found = cost(config)  # pyright: ignore[reportArgumentType]
    assert found.parameters == sum(p.numel() for p in model.parameters())
    assert sum(found.parts.values()) == found.parameters


def test_linear_flops_of_a_byte_gpt_equal_those_that_run() -> None:
    """Windows of 16 are computed as blocks of 16 queries over 32 keys."""
    config = ByteGPTConfig(ngram_sizes=(), n_layers=2, window=16)
    # In float64: torch's counter knows the products of its own, not those of oneDNN.
    model = build(config).double()
    ids = as_ids(b"x" * 63)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(ids)
    attention = 4 * 64 * 32 * config.dim * config.n_layers
    assert counter.get_total_flops() == 64 * _linear_flops(model) + attention


@pytest.mark.parametrize(
    "sizes",
    [
        {},
        {"n_kv_heads": 1, "n_heads_global": 8, "n_kv_heads_global": 2},
        {"n_heads_decoder": 8, "n_kv_heads_decoder": 1, "ffn_dim_decoder": 64},
        {"cross_attention_every_layer": False, "n_layers_decoder": 8, "cross_attn_k": 4},
    ],
)
def test_flops_of_a_blt_equal_those_that_run(sizes: dict[str, Any]) -> None:
    """Patches of one byte at P = T make both sides exact, but for the mean number of keys seen."""
    config = BLTConfig(num_buckets=64, context_bytes=64, window=64, **sizes)
    model = build(config, patcher=Static(patch_size=1)).double()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(as_ids(b"x" * 63))
    # The counter sees full squares of keys, and not the segment sums, which are not products.
    found = cost(config, mean_patch_bytes=1.0).flops_per_byte * 64
    assert counter.get_total_flops() == pytest.approx(found, rel=0.15)


def test_flops_of_a_recurrent_model_equal_those_that_run() -> None:
    config = RecurrentConfig(num_buckets=128)
    model = build(config).double()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(as_ids(b"x" * 63))
    assert counter.get_total_flops() == 64 * cost(config).flops_per_byte


def test_the_total_of_a_blt_has_its_entropy_model_in_it() -> None:
    config, source = BLTConfig(num_buckets=128), EntropyLMConfig()
    patcher, whole = Entropy(threshold=1.0), cost(config, entropy_config=source)
    alone = build(config, patcher=Static(patch_size=1))
    model = build(config, patcher=patcher, entropy_model=build(source))
    assert total_flops_per_byte(alone) == cost(config, mean_patch_bytes=1.0).flops_per_byte
    assert total_flops_per_byte(model, mean_patch_bytes=4.0) == pytest.approx(
        cost(config, mean_patch_bytes=4.0, entropy_config=source).flops_per_byte
    )
    assert whole.flops_per_byte > cost(config).flops_per_byte


def test_longer_patches_cost_less() -> None:
    config = BLTConfig()
    costs = [cost(config, mean_patch_bytes=size).flops_per_byte for size in (1.0, 4.0, 8.0)]
    assert costs == sorted(costs, reverse=True)
    with pytest.raises(ValueError, match="mean_patch_bytes must be at least 1"):
        cost(config, mean_patch_bytes=0.5)


@pytest.mark.parametrize(
    "recipe",
    [
        "ngram",
        "entropy-test",
        "entropy-full",
        "byte-gpt-tiny",
        "byte-gpt-small",
        "blt-tiny",
        "blt-small",
        "codec-tiny",
        "codec-small",
    ],
)
def test_every_recipe_parses_and_builds_on_the_meta_device(recipe: str) -> None:
    from bytelm.training.run import RunConfig

    assert cost(load(RunConfig, find_recipe(recipe)).model).flops_per_byte >= 0
