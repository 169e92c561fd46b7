"""Names of the weights of Llama layers and of a BLT: ours, and those of transformers.

Source: transformers 5.23.0 (Apache-2.0), models/blt. The values are never touched, so every weight
is bit for bit the same on both sides.
"""

from collections.abc import Iterator

from bytelm.models import BLTConfig, EntropyLMConfig


def layer_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    """Our name and theirs of each weight of one Llama layer."""
    yield f"{ours}.attention_norm.weight", f"{theirs}.input_layernorm.weight"
    yield f"{ours}.ffn_norm.weight", f"{theirs}.post_attention_layernorm.weight"
    for part in ("q", "k", "v", "o"):
        yield f"{ours}.attention.{part}_proj.weight", f"{theirs}.self_attn.{part}_proj.weight"
    for part in ("gate", "up", "down"):
        yield f"{ours}.ffn.{part}_proj.weight", f"{theirs}.mlp.{part}_proj.weight"


def _cross_names(ours: str, theirs: str) -> Iterator[tuple[str, str]]:
    yield f"{ours}.q_norm.weight", f"{theirs}.q_norm.weight"
    yield f"{ours}.kv_norm.weight", f"{theirs}.k_norm.weight"
    for part in ("q", "k", "v", "o"):
        yield f"{ours}.{part}_proj.weight", f"{theirs}.{part}_proj.weight"


def blt_names(config: BLTConfig, entropy: EntropyLMConfig) -> dict[str, str]:
    """Our name of each weight to the one in a `BltForCausalLM`."""
    pairs = [
        ("embed.weight", "model.local_encoder.embed_tokens.weight"),
        ("hash_ngrams.weight", "model.encoder_hash_tok_embedding.weight"),
        ("pool_proj.weight", "model.local_encoder.patch_embedding_projection.weight"),
        ("global_out.weight", "model.local_decoder.patch_embedding_projection.weight"),
        ("norm.weight", "model.local_decoder.norm.weight"),
        ("head.weight", "lm_head.weight"),
        ("entropy_model.embed.weight", "model.patcher.embed_tokens.weight"),
        ("entropy_model.norm.weight", "model.patcher.norm.weight"),
        ("entropy_model.head.weight", "model.patcher.lm_head.weight"),
    ]
    if config.cross_attn_k * config.dim != config.dim_global:
        pairs.append(
            ("global_in.weight", "model.global_transformer.token_embedding_projection.weight")
        )
    pairs += _cross_names("encoder_cross", "model.local_encoder.cross_attn_layers.0")
    for index in range(config.n_layers_encoder):
        pairs += layer_names(f"encoder.{index}", f"model.local_encoder.layers.{index}")
    for index in range(config.n_layers_global):
        pairs += layer_names(f"global_layers.{index}", f"model.global_transformer.layers.{index}")
    for index in range(config.n_layers_decoder):
        pairs += layer_names(f"decoder.{index}.local", f"model.local_decoder.layers.{index}")
        if index == 0 or config.cross_attention_every_layer:
            theirs = f"model.local_decoder.cross_attn_layers.{index}"
            pairs += _cross_names(f"decoder.{index}.cross", theirs)
    for index in range(entropy.n_layers):
        pairs += layer_names(f"entropy_model.layers.{index}", f"model.patcher.layers.{index}")
    return dict(pairs)
