"""The configuration of a BLT as `BltForCausalLM` of transformers has it.

Source: transformers 5.23.0 (Apache-2.0), models/blt. What a configuration leaves out has the
default of transformers.
"""

from collections.abc import Mapping
from typing import Any

from bytelm.errors import ConfigError
from bytelm.interop.fields import Fields
from bytelm.models import BLT, BLTConfig, EntropyLM, EntropyLMConfig, Ngram
from bytelm.models.blt import LocalSizes
from bytelm.nn.norm import RMS_EPS
from bytelm.nn.transformer import ffn_width
from bytelm.patching import Entropy
from bytelm.vocab import BOE, BOS, EOS, VOCAB_SIZE

MODEL_TYPE = "blt"
MODE = "entropy"

LOCAL_THETA, ENTROPY_THETA = 500_000.0, 10_000.0
"""Rotary bases that a configuration means when it states none."""

RELEASED_WINDOW = 512
"""Of the local layers and of the entropy model, where a configuration states none."""

NGRAM_SIZES = [3, 4, 5, 6, 7, 8]

# --- out ---------------------------------------------------------------------------------------


def refuse_what_the_format_lacks(model: BLT) -> None:
    """Check that `BltForCausalLM` computes what `model` computes.

    Raises:
        ConfigError: Names the first thing that it does not.

    """
    patcher, source = model.patcher, model.entropy_model
    if not isinstance(patcher, Entropy):
        raise _inexpressible(
            f"a patcher of kind {patcher.kind!r}",
            "transformers has the entropy patcher alone, and takes every other for one byte a "
            "patch; train with --patching.kind entropy or calibrated",
        )
    if patcher.relative_threshold is not None:
        raise _inexpressible(
            "patching.relative_threshold",
            "transformers has the global threshold alone; train with --patching.threshold",
        )
    if patcher.min_patch_bytes != 1:
        raise _inexpressible(
            f"patching.min_patch_bytes = {patcher.min_patch_bytes}", "train with 1"
        )
    if patcher.max_patch_bytes is not None:
        raise _inexpressible(
            f"patching.max_patch_bytes = {patcher.max_patch_bytes}",
            "transformers has a max_patch_length, under which its logits depend on where a prompt "
            "ends; train without",
        )
    if isinstance(source, Ngram):
        raise _inexpressible(
            "an n-gram model as entropy model",
            "transformers holds a transformer there; train one with a recipe for an entropy-lm "
            "(`bytelm train entropy-full --data PATH --out runs/entropy`), then the blt with "
            "--entropy.kind run --entropy.path runs/entropy",
        )
    if not model.config.ngram_sizes:
        raise _inexpressible(
            "a blt without hash n-grams (model.ngram_sizes is empty)",
            "transformers takes an empty list for its default of six; train with one or more",
        )


def _inexpressible(what: str, advice: str) -> ConfigError:
    return ConfigError(f"the transformers format has no {what}: {advice}")


def to_transformers(model: BLT) -> dict[str, Any]:
    """The config.json of a model that `refuse_what_the_format_lacks` let pass."""
    config, patcher, source = model.config, model.patcher, model.entropy_model
    assert isinstance(patcher, Entropy), "another was refused"
    assert isinstance(source, EntropyLM), "another was refused"
    local = {
        "vocab_size": VOCAB_SIZE,
        "cross_attn_k": config.cross_attn_k,
        "hidden_size_global": config.dim_global,
    }
    encoder = _transformer(config.encoder_sizes, config.n_layers_encoder, config)
    decoder = _transformer(config.decoder_sizes, config.n_layers_decoder, config)
    global_sizes = LocalSizes(
        config.dim_global,
        config.n_heads_global,
        config.n_kv_heads_global or config.n_heads_global,
        config.ffn_dim_global or ffn_width(config.dim_global),
    )
    return {
        "architectures": ["BltForCausalLM"],
        "model_type": MODEL_TYPE,
        "dtype": "float32",
        "vocab_size": VOCAB_SIZE,
        "max_position_embeddings": config.context_bytes,
        "rope_parameters": _rope(config.rope_theta),
        "patch_in_forward": True,
        "patching_mode": MODE,
        "patching_threshold": patcher.threshold,
        # not read as a size, but must not be null
        "patch_size": 4,
        "patching_batch_size": 1,
        "max_patch_length": None,
        "local_attention_window_len": config.window,
        "cross_attn_k": config.cross_attn_k,
        "encoder_hash_byte_group_size": list(config.ngram_sizes),
        "encoder_hash_byte_group_vocab": config.num_buckets,
        "encoder_hash_byte_group_nb_functions": config.num_hash_functions,
        "encoder_config": {**local, **encoder, "cross_attn_all_layers": False},
        "decoder_config": {
            **local,
            **decoder,
            "cross_attn_all_layers": config.cross_attention_every_layer,
        },
        "global_config": _transformer(global_sizes, config.n_layers_global, config),
        "patcher_config": entropy_to_transformers(source.config),
        "tie_word_embeddings": False,
        # With a cache, transformers 5.23 raises an error, or writes wrong text without one.
        "use_cache": False,
        "bos_token_id": BOS,
        "eos_token_id": EOS,
        "pad_token_id": BOE,
    }


def entropy_to_transformers(config: EntropyLMConfig) -> dict[str, Any]:
    """The sizes of an entropy LM in the words of transformers."""
    sizes = LocalSizes(
        config.dim, config.n_heads, config.n_kv_heads or config.n_heads, config.hidden_dim
    )
    return {
        "vocab_size": VOCAB_SIZE,
        **_transformer(sizes, config.n_layers, config),
        "sliding_window": config.window,
    }


def _transformer(
    sizes: LocalSizes, n_layers: int, config: BLTConfig | EntropyLMConfig
) -> dict[str, Any]:
    return {
        "hidden_size": sizes.dim,
        "num_hidden_layers": n_layers,
        "num_attention_heads": sizes.n_heads,
        "num_key_value_heads": sizes.n_kv_heads,
        "intermediate_size": sizes.ffn_dim,
        "max_position_embeddings": config.context_bytes,
        "rms_norm_eps": RMS_EPS,
        "hidden_act": "silu",
        "rope_parameters": _rope(config.rope_theta),
    }


def _rope(theta: float) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": theta}


# --- in ----------------------------------------------------------------------------------------


def from_transformers(
    config: Mapping[str, Any], where: str
) -> tuple[BLTConfig, Entropy, EntropyLMConfig]:
    """The model, the patcher and the entropy model that a config.json describes.

    Raises:
        ConfigError: It describes something that this package has not, by name.

    """
    top = Fields(config, where)
    _refuse_other_patching(top)
    parts = {name: top.table(f"{name}_config") for name in ("encoder", "decoder", "global")}
    encoder, decoder, wide = parts.values()
    patcher = top.table("patcher_config")
    _refuse_other_blt(top, encoder, decoder, wide)
    thetas = {name: part.rope_theta(LOCAL_THETA) for name, part in parts.items()}
    if len(set(thetas.values())) > 1:
        raise top.error(f"the rotary bases differ, {thetas}; expected one for all three")
    top.rope_theta(LOCAL_THETA)
    top.context(4096)
    dim, dim_global = encoder.whole("hidden_size", 1024), wide.whole("hidden_size", 2048)
    # not rounded, other than in the released models
    unset = int(8 * dim / 3)
    context = encoder.context(24576)
    decoder.context(24576)
    wide.context(4096)
    is_open = top.has("local_attention_window_len") and (
        top.given("local_attention_window_len") is None
    )
    encoder_heads, decoder_heads, global_heads = map(_heads, (encoder, decoder, wide))
    try:
        blt = BLTConfig(
            context_bytes=context,
            dim=dim,
            n_heads=encoder_heads[0],
            n_kv_heads=encoder_heads[1],
            ffn_dim=encoder.whole("intermediate_size", unset, null=unset),
            n_layers_encoder=encoder.whole("num_hidden_layers", 1),
            n_heads_decoder=decoder_heads[0],
            n_kv_heads_decoder=decoder_heads[1],
            ffn_dim_decoder=decoder.whole("intermediate_size", 2816),
            n_layers_decoder=decoder.whole("num_hidden_layers", 9),
            cross_attention_every_layer=decoder.flag("cross_attn_all_layers", True),
            # Without a window the model sees all of a context, and no more.
            window=context if is_open else top.whole("local_attention_window_len", RELEASED_WINDOW),
            dim_global=dim_global,
            n_heads_global=global_heads[0],
            n_kv_heads_global=global_heads[1],
            n_layers_global=wide.whole("num_hidden_layers", 25),
            ffn_dim_global=wide.whole("intermediate_size", 5632),
            cross_attn_k=top.whole("cross_attn_k", 2),
            ngram_sizes=top.sizes("encoder_hash_byte_group_size", NGRAM_SIZES),
            num_buckets=top.whole("encoder_hash_byte_group_vocab", 500_002),
            num_hash_functions=top.whole("encoder_hash_byte_group_nb_functions", 1),
            rope_theta=thetas["encoder"],
        )
        threshold = Entropy(threshold=top.number("patching_threshold", 1.335442066192627))
    except ValueError as error:
        raise top.error(str(error)) from error
    entropy = entropy_from_transformers(patcher)
    for table in (top, *parts.values()):
        table.finish()
    return blt, threshold, entropy


def _refuse_other_patching(top: Fields) -> None:
    top.must_be("patching_mode", MODE, "no other patching of transformers has a meaning here")
    top.must_be(
        "patch_in_forward",
        True,
        "without it the directory holds no patcher, and transformers takes every byte for a patch",
    )
    for name in ("patching_threshold_add", "monotonicity"):
        if value := top.given(name):
            raise top.error(
                f"{name} is {value!r}, which transformers ignores: its patches are not those of "
                f"the training; to import the model as transformers reads it, take {name} out"
            )
    if top.given("max_patch_length") is not None:
        raise top.error(
            f"max_patch_length is {top.given('max_patch_length')!r}, under which the logits of "
            "transformers depend on where a prompt ends; to import without it, set it to null"
        )
    if top.has("patch_size") and top.given("patch_size") is None:
        raise top.error("patch_size is null, which transformers cannot run; expected a number")


def _refuse_other_blt(top: Fields, encoder: Fields, decoder: Fields, wide: Fields) -> None:
    k = top.whole("cross_attn_k", 2)
    top.must_be("vocab_size", VOCAB_SIZE, "the vocabulary is 4 specials and 256 bytes")
    # written by hand into some copies, against an error of transformers
    top.given("num_hidden_layers")
    for part in (encoder, decoder, wide):
        _refuse_other_layers(part)
    for part in (encoder, decoder):
        part.must_be("vocab_size", VOCAB_SIZE, "the vocabulary is 4 specials and 256 bytes")
        part.given("sliding_window")
        for name, default, wanted in (
            ("cross_attn_k", 2, k),
            ("hidden_size_global", 2048, wide.whole("hidden_size", 2048)),
        ):
            if part.whole(name, default) != wanted:
                raise part.error(f"{name} is {part.whole(name, default)}, elsewhere it is {wanted}")
    why = "this package stores the output on its own"
    top.must_be("tie_word_embeddings", False, why, null=False)
    # computed from the sizes
    wide.given("encoder_cross_output_size")
    widths = encoder.whole("hidden_size", 1024), decoder.whole("hidden_size", 1024)
    if widths[0] != widths[1]:
        raise top.error(
            f"encoder_config.hidden_size is {widths[0]}, decoder_config.hidden_size {widths[1]}; "
            "the decoder goes on with the encoder's states, so they must be equal"
        )
    is_every_layer = encoder.flag("cross_attn_all_layers", False)
    if is_every_layer and encoder.whole("num_hidden_layers", 1) > 1:
        raise encoder.error(
            "cross_attn_all_layers is true with more than one layer: the public implementations "
            "disagree about what that computes"
        )


def _refuse_other_layers(part: Fields) -> None:
    part.must_be("hidden_act", "silu", "the feed-forward layers here are SwiGLU")
    part.must_be("dropout", 0.0, "this package trains these layers without dropout")
    part.must_be("rms_norm_eps", RMS_EPS, "the norms here have this epsilon")
    # the converter's spelling, which transformers does not read
    part.must_be("norm_eps", RMS_EPS, "the norms here have this epsilon", null=RMS_EPS)
    why = "this package stores the output on its own"
    part.must_be("tie_word_embeddings", False, why, null=False)
    part.given("pm_size")


def _heads(part: Fields, default: int = 16, width: int = 1024) -> tuple[int, int]:
    """Query heads and key/value heads; their width must be the usual one."""
    heads = part.whole("num_attention_heads", default)
    head_dim = part.given("head_dim")
    if head_dim is not None:
        part.must_be("head_dim", part.whole("hidden_size", width) // heads, "hidden size / heads")
    return heads, part.whole("num_key_value_heads", heads, null=heads)


def entropy_from_transformers(patcher: Fields) -> EntropyLMConfig:
    """The entropy LM of a `patcher_config`.

    Raises:
        ConfigError: It is none that this package has.

    """
    _refuse_other_layers(patcher)
    patcher.must_be("vocab_size", VOCAB_SIZE, "the vocabulary is 4 specials and 256 bytes")
    if patcher.has("sliding_window") and patcher.given("sliding_window") is None:
        raise patcher.error(
            "sliding_window is null: an entropy model without its window finds patches of one byte "
            "in long documents; expected the window that it was trained with, 512 for the released"
        )
    heads, kv_heads = _heads(patcher, 12, 768)
    try:
        config = EntropyLMConfig(
            context_bytes=patcher.context(8192),
            dim=patcher.whole("hidden_size", 768),
            n_layers=patcher.whole("num_hidden_layers", 14),
            n_heads=heads,
            n_kv_heads=kv_heads,
            window=patcher.whole("sliding_window", RELEASED_WINDOW),
            ffn_dim=patcher.whole("intermediate_size", 2048),
            rope_theta=patcher.rope_theta(ENTROPY_THETA),
        )
    except ValueError as error:
        raise patcher.error(str(error)) from error
    patcher.finish()
    return config
