"""An entropy LM as `MistralForCausalLM` of transformers: a Llama with a sliding window.

The two differ in one thing. Rotary positions turn pairs of channels: (0, 1), (2, 3), ... here, and
(0, K/2), (1, K/2 + 1), ... in Llama and Mistral. The rows of the query and key projections are put
in the order that makes both the same, and back.
Shape key: H heads, K head width, D width.
"""

from collections.abc import Mapping
from typing import Any

from jaxtyping import Float
from torch import Tensor

from bytelm.interop.blt import entropy_from_transformers, entropy_to_transformers
from bytelm.interop.fields import Fields
from bytelm.interop.names import layer_names
from bytelm.models import EntropyLMConfig
from bytelm.vocab import BOE, BOS, EOS, VOCAB_SIZE

MODEL_TYPE = "mistral"


def names(config: EntropyLMConfig) -> dict[str, str]:
    """Our name of each weight to the one in a `MistralForCausalLM`."""
    pairs = [
        ("embed.weight", "model.embed_tokens.weight"),
        ("norm.weight", "model.norm.weight"),
        ("head.weight", "lm_head.weight"),
    ]
    for index in range(config.n_layers):
        pairs += layer_names(f"layers.{index}", f"model.layers.{index}")
    return dict(pairs)


def turns_pairs(name: str) -> bool:
    """Whether a weight, by its name here or there, is one whose rows have another order."""
    return name.endswith(("q_proj.weight", "k_proj.weight"))


def to_half_split(weight: Float[Tensor, "HK D"], head_dim: int) -> Float[Tensor, "HK D"]:
    """Rows of each head in the order 0, 2, 4, ..., 1, 3, 5, ..."""
    return weight.view(-1, head_dim // 2, 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_interleaved(weight: Float[Tensor, "HK D"], head_dim: int) -> Float[Tensor, "HK D"]:
    """What `to_half_split` undoes."""
    return weight.view(-1, 2, head_dim // 2, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def to_transformers(config: EntropyLMConfig) -> dict[str, Any]:
    """The config.json of an entropy LM."""
    return {
        "architectures": ["MistralForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        **entropy_to_transformers(config),
        "head_dim": config.dim // config.n_heads,
        "attention_dropout": 0.0,
        "tie_word_embeddings": False,
        "use_cache": True,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": BOE,
    }


def from_transformers(config: Mapping[str, Any], where: str) -> EntropyLMConfig:
    """The entropy LM that a config.json describes.

    Raises:
        ConfigError: It describes something that this package has not, by name.

    """
    fields = Fields(config, where)
    # first, since it is what tells every Mistral of tokens from an entropy LM
    if fields.has("vocab_size"):
        fields.must_be("vocab_size", VOCAB_SIZE, "the vocabulary is 4 specials and 256 bytes")
    fields.must_be("attention_dropout", 0.0, "this package trains these layers without dropout")
    for name, default in (
        ("vocab_size", 32000),
        ("num_key_value_heads", 8),
        ("rms_norm_eps", 1e-6),
        ("sliding_window", 4096),
    ):
        # transformers' defaults for Mistral are none that an entropy model has
        if not fields.has(name):
            raise fields.error(f"{name} is not stated, which means {default} to transformers")
    return entropy_from_transformers(fields)
