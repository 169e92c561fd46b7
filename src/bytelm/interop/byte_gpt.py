"""A byte GPT as a directory of transformers with modeling code of its own (`auto_map`).

No architecture of transformers has hashed n-grams, normalized queries and keys and squared ReLU
together; `docs/decisions/0005-byte-gpt-in-transformers.md` has the choice.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bytelm.interop.fields import Fields
from bytelm.models import ByteGPTConfig
from bytelm.nn.norm import RMS_EPS
from bytelm.vocab import BOE, BOS, EOS, VOCAB_SIZE

MODEL_TYPE = "bytelm_byte_gpt"

CODE = Path(__file__).parent / "hub_code" / "modeling_bytelm_byte_gpt.py"
"""Goes into the directory as it is."""

_FIELDS = {
    "context_bytes": "max_position_embeddings",
    "dim": "hidden_size",
    "n_layers": "num_hidden_layers",
    "n_heads": "num_attention_heads",
    "window": "sliding_window",
    "ffn_dim": "intermediate_size",
    "ngram_sizes": "ngram_sizes",
    "num_buckets": "num_buckets",
    "dropout": "dropout",
    "rope_theta": "rotary_base",
}
"""Our name of each setting to the one in config.json."""


def to_transformers(config: ByteGPTConfig) -> dict[str, Any]:
    """The config.json of a byte GPT."""
    values = {theirs: getattr(config, ours) for ours, theirs in _FIELDS.items()}
    return {
        "architectures": ["BytelmByteGPTForCausalLM"],
        "model_type": MODEL_TYPE,
        "auto_map": {
            "AutoConfig": f"{CODE.stem}.BytelmByteGPTConfig",
            "AutoModelForCausalLM": f"{CODE.stem}.BytelmByteGPTForCausalLM",
        },
        "dtype": "float32",
        "vocab_size": VOCAB_SIZE,
        **values,
        "intermediate_size": config.hidden_dim,
        "ngram_sizes": list(config.ngram_sizes),
        "rms_norm_eps": RMS_EPS,
        "tie_word_embeddings": False,
        "use_cache": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": BOE,
    }


def from_transformers(config: Mapping[str, Any], where: str) -> ByteGPTConfig:
    """The byte GPT that a config.json of `to_transformers` describes.

    Raises:
        ConfigError: It is damaged, or describes something that this package has not.

    """
    fields = Fields(config, where)
    fields.must_be("vocab_size", VOCAB_SIZE, "the vocabulary is 4 specials and 256 bytes")
    fields.must_be("rms_norm_eps", RMS_EPS, "the norms here have this epsilon")
    fields.must_be("tie_word_embeddings", False, "this package stores the output on its own")
    missing = [theirs for theirs in _FIELDS.values() if not fields.has(theirs)]
    if missing:
        raise fields.error(f"{missing[0]} is missing; export the model again")
    values: dict[str, Any] = {ours: fields.given(theirs) for ours, theirs in _FIELDS.items()}
    values["context_bytes"] = fields.context()
    for name in ("dim", "n_layers", "n_heads", "ffn_dim", "num_buckets"):
        values[name] = fields.whole(_FIELDS[name])
    if values["window"] is not None:
        values["window"] = fields.whole("sliding_window")
    for name in ("dropout", "rope_theta"):
        values[name] = fields.number(_FIELDS[name])
    values["ngram_sizes"] = fields.sizes("ngram_sizes", []) if values["ngram_sizes"] else ()
    fields.finish()
    try:
        return ByteGPTConfig(**values)
    except ValueError as error:
        raise fields.error(str(error)) from error
