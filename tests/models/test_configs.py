"""The sizes a model may ask for. Oracle: the ranges written here, which every field must have."""

import dataclasses
import math

import pytest

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.models import BLTConfig, ByteGPTConfig, EntropyLMConfig, RecurrentConfig
from bytelm.models.cost import cost

WITH_HEADS = [ByteGPTConfig, EntropyLMConfig, BLTConfig]
CONFIGS = [*WITH_HEADS, RecurrentConfig]
BAD = {
    "dim": [0, -8, 10**400],
    "n_heads": [0, -1],
    "n_kv_heads": [0, -1],
    "n_layers": [0, 1_001, 10**8],
    "ffn_dim": [0, -1],
    "window": [0, -1],
    "ngram_sizes": [(0,), (-1,), (3, 65)],
    "num_buckets": [0, -1],
    "context_bytes": [1, 0, -1],
    "cross_attn_k": [0, 65],
    "num_hash_functions": [0, 65],
    "rope_theta": [0.0, -1.0, math.nan, math.inf],
}
"""By what the field's name begins with."""


def cases():
    for cls in CONFIGS:
        for field in dataclasses.fields(cls):
            for start, values in BAD.items():
                if field.name.startswith(start):
                    for value in values:
                        shown = str(value)[:12]
                        yield pytest.param(
                            cls, field.name, value, id=f"{cls.kind}-{field.name}-{shown}"
                        )


@pytest.mark.parametrize(("cls", "name", "value"), list(cases()))
def test_a_size_that_no_model_can_have_is_a_config_error_that_names_it(cls, name, value):
    plain = list(value) if isinstance(value, tuple) else value
    with pytest.raises(ConfigError, match=rf"\b{name} must be (at least|at most|a finite)"):
        config.from_dict(cls, {name: plain})


@pytest.mark.parametrize("cls", CONFIGS)
def test_every_size_of_a_model_is_checked(cls):
    unchecked = {
        field.name
        for field in dataclasses.fields(cls)
        if not any(field.name.startswith(start) for start in BAD)
    }
    assert unchecked <= {"dropout", "ngram_dropout", "cross_attention_every_layer"}, (
        "give it a range in __post_init__ and in BAD"
    )


@pytest.mark.parametrize(
    "made",
    [
        ByteGPTConfig(window=None, ffn_dim=None, ngram_sizes=(), n_layers=1_000),
        ByteGPTConfig(ngram_sizes=(1, 64), context_bytes=2, window=1, num_buckets=1),
        EntropyLMConfig(context_bytes=2, window=1, ffn_dim=1, rope_theta=1e12),
        BLTConfig(cross_attn_k=64, n_layers_global=1_000, dim=8, n_heads=4),
        RecurrentConfig(ngram_sizes=(), ffn_dim=None, dim=1, n_layers=1_000),
        BLTConfig(num_hash_functions=64, num_buckets=1, n_kv_heads=1, n_heads_decoder=32),
    ],
    ids=lambda made: made.kind,
)
def test_the_ends_of_the_ranges_are_models(made):
    assert cost(made).parameters > 0


@pytest.mark.parametrize("cls", WITH_HEADS)
def test_the_width_of_a_head_must_be_even(cls):
    with pytest.raises(ValueError, match=r"2 \* n_heads .*got dim = 12, n_heads = 4"):
        cls(dim=12, n_heads=4)


@pytest.mark.parametrize(
    ("cls", "sizes", "kv_heads"),
    [
        (EntropyLMConfig, {"n_heads": 4, "n_kv_heads": 3}, "n_kv_heads"),
        (BLTConfig, {"n_heads": 4, "n_kv_heads": 8}, "n_kv_heads"),
        (BLTConfig, {"n_heads_decoder": 2, "n_kv_heads_decoder": 4}, "n_kv_heads"),
        (BLTConfig, {"n_heads_global": 4, "n_kv_heads_global": 3}, "n_kv_heads_global"),
    ],
)
def test_key_and_value_heads_must_divide_the_heads(cls, sizes, kv_heads):
    heads, groups = sizes.values()
    found = rf"must be a multiple of {kv_heads}, got .* = {heads}, {kv_heads} = {groups}"
    with pytest.raises(ValueError, match=found):
        cls(**sizes)


def test_decoder_sizes_are_those_of_the_encoder_unless_they_are_given():
    """A decoder with heads of its own has a key and value head for each, unless told otherwise."""
    made = BLTConfig(dim=64, n_heads=4, n_kv_heads=2, ffn_dim=100)
    assert made.decoder_sizes == made.encoder_sizes
    other = BLTConfig(dim=64, n_heads=4, n_kv_heads=2, n_heads_decoder=8, ffn_dim_decoder=50)
    sizes = other.decoder_sizes
    assert (sizes.n_heads, sizes.n_kv_heads, sizes.ffn_dim) == (8, 8, 50)
    own = BLTConfig(dim=64, n_heads=4, n_kv_heads=2, n_kv_heads_decoder=1).decoder_sizes
    assert (own.n_heads, own.n_kv_heads) == (4, 1)
