"""The layout of Meta's release of BLT, in the words of transformers.

    config.json                      sizes, in the table `args`
    model.safetensors                the model
    entropy_model/params.json        sizes of the entropy model, and the threshold
    entropy_model/consolidated.pth   the entropy model

Source: the converter of transformers (Apache-2.0), which names the fields and the weights.
"""

import re
from collections.abc import Mapping
from typing import Any

from bytelm.errors import ConfigError
from bytelm.interop.blt import ENTROPY_THETA, RELEASED_WINDOW
from bytelm.interop.fields import Fields
from bytelm.interop.weight_files import StackedTensor, StoredTensor, Weights
from bytelm.nn.norm import RMS_EPS

_RELEASED = {
    ".attention.": ".self_attn.",
    ".feed_forward.": ".mlp.",
    ".attention_norm.": ".input_layernorm.",
    ".ffn_norm.": ".post_attention_layernorm.",
    ".tok_embeddings.": ".embed_tokens.",
    ".cross_attn_norm_q.": ".q_norm.",
    ".cross_attn_norm_kv.": ".k_norm.",
    ".w1.": ".gate_proj.",
    ".w3.": ".up_proj.",
    ".w2.": ".down_proj.",
    ".wq.": ".q_proj.",
    ".wk.": ".k_proj.",
    ".wv.": ".v_proj.",
    ".wo.": ".o_proj.",
}
"""Parts of names in Meta's release to those of transformers."""

_HASH_TABLE = re.compile(r"encoder_hash_tok_embedding\.(\d+)\.weight")
_ROTARY = re.compile(r"(^|\.)(freqs_cis|inv_freq)$")


def is_released(names: Mapping[str, Any]) -> bool:
    """Whether weights have the names of Meta's release."""
    return "local_encoder.tok_embeddings.weight" in names


def from_released(
    main: Mapping[str, StoredTensor], entropy: Mapping[str, StoredTensor]
) -> dict[str, StoredTensor | StackedTensor]:
    """The tensors of Meta's release under the names of transformers.

    Args:
        main: Of the model.
        entropy: Of the entropy model, which is in a file of its own.

    """
    tables = {int(m[1]): main[name] for name in main if (m := _HASH_TABLE.fullmatch(name))}
    renamed: dict[str, StoredTensor | StackedTensor] = {}
    for name, tensor in main.items():
        if not _HASH_TABLE.fullmatch(name) and not _ROTARY.search(name):
            renamed[_renamed(f"model.{name}")] = tensor
    if head := renamed.pop("model.local_decoder.output.weight", None):
        renamed["lm_head.weight"] = head
    for name, tensor in entropy.items():
        if not _ROTARY.search(name):
            renamed[_renamed(f"model.patcher.{name}").replace(".output.", ".lm_head.")] = tensor
    if tables:
        stacked = StackedTensor([tables[index] for index in sorted(tables)])
        renamed["model.encoder_hash_tok_embedding.weight"] = stacked
    return renamed


def _renamed(name: str) -> str:
    for theirs, ours in _RELEASED.items():
        name = name.replace(theirs, ours)
    return name


def released_config(
    stored: Mapping[str, Any], entropy: Mapping[str, Any], weights: Weights, where: str
) -> dict[str, Any]:
    """The config.json of Meta's release in the words of transformers.

    Args:
        stored: The release's config.json; its sizes are in the table `args`.
        entropy: The params.json of the entropy model.
        weights: Under the names of transformers; the feed-forward widths are theirs.
        where: Names the release in messages.

    Raises:
        ConfigError: Something is missing, or is another architecture.

    """
    args = Fields(stored.get("args"), f"{where}: args")
    for name, wanted in _RELEASED_CHOICES.items():
        why = "the key map of the release holds for this choice alone"
        args.must_be(name, wanted, why, null=wanted)
    cross_heads = args.given("cross_attn_nheads")
    for name in ("n_heads_local_encoder", "n_heads_local_decoder"):
        if cross_heads not in (None, args.whole(name)):
            raise args.error(
                f"cross_attn_nheads is {cross_heads}, expected {name} ({args.whole(name)})"
            )
    own = Fields(entropy.get("entropy_model"), "entropy_model: entropy_model")
    data = Fields(entropy.get("data", {}), "entropy_model: data").table("patcher_args")
    context = args.given("max_encoder_seq_length") or args.given("max_seqlen")
    theta = args.number("rope_theta")
    shared = {"rope_theta": theta, "norm_eps": args.number("norm_eps", RMS_EPS)}
    shared |= {"max_position_embeddings": context, "dropout": args.number("dropout", 0.0)}
    local = {"cross_attn_k": args.whole("cross_attn_k"), "vocab_size": args.whole("vocab_size")}
    local |= {"hidden_size_global": args.whole("dim_global")} | shared
    threshold = data.given("threshold") or args.given("patching_threshold")
    if threshold is None or not args.has("local_attention_window_len"):
        what = "patching threshold" if threshold is None else "local_attention_window_len"
        raise args.error(f"the release states no {what}, without which the model is another")

    def part(name: str, module: str, kv_heads: str) -> dict[str, Any]:
        return {
            "hidden_size": args.whole(f"dim_{name}"),
            "num_attention_heads": args.whole(f"n_heads_{name}"),
            "num_key_value_heads": args.given(kv_heads),
            "num_hidden_layers": args.whole(f"n_layers_{name}"),
            "intermediate_size": _feed_forward(weights, module),
        }

    encoder = part("local_encoder", "model.local_encoder", "n_kv_heads") | local
    decoder = part("local_decoder", "model.local_decoder", "n_kv_heads") | local
    return {
        "patching_threshold": threshold,
        "patching_threshold_add": data.given("threshold_add"),
        "monotonicity": data.given("monotonicity"),
        "max_patch_length": data.given("max_patch_length"),
        "local_attention_window_len": args.given("local_attention_window_len"),
        "cross_attn_k": local["cross_attn_k"],
        "vocab_size": local["vocab_size"],
        "encoder_hash_byte_group_size": args.given("encoder_hash_byte_group_size"),
        "encoder_hash_byte_group_vocab": args.whole("encoder_hash_byte_group_vocab"),
        "encoder_hash_byte_group_nb_functions": args.whole("encoder_hash_byte_group_nb_functions"),
        "encoder_config": encoder
        | {"cross_attn_all_layers": args.flag("cross_attn_all_layers_encoder", False)},
        "decoder_config": decoder
        | {"cross_attn_all_layers": args.flag("cross_attn_all_layers_decoder", False)},
        "global_config": part("global", "model.global_transformer", "n_kv_heads_global") | shared,
        "patcher_config": {
            "hidden_size": own.whole("dim"),
            "num_hidden_layers": own.whole("n_layers"),
            "num_attention_heads": own.whole("n_heads"),
            "num_key_value_heads": own.given("n_kv_heads"),
            "max_position_embeddings": own.whole("max_seqlen"),
            "vocab_size": own.whole("vocab_size"),
            "intermediate_size": _feed_forward(weights, "model.patcher"),
            "norm_eps": own.number("norm_eps", RMS_EPS),
            "rope_theta": own.number("rope_theta", ENTROPY_THETA),
            "dropout": own.number("dropout", 0.0),
            # the release does not state it, and its own loader sets it so
            "sliding_window": own.given("sliding_window") or RELEASED_WINDOW,
        },
    }


_RELEASED_CHOICES = {
    "cross_attn_encoder": True,
    "cross_attn_decoder": True,
    "cross_attn_init_by_pooling": True,
    "downsampling_by_pooling": "max",
    "encoder_enable_byte_ngrams": False,
    "pm_size": 0,
    "weight_tying": False,
    "tie_local_encoder_decoder_logits": False,
}
"""What the released models chose; another choice is another architecture."""


def _feed_forward(weights: Weights, module: str) -> int:
    name = f"{module}.layers.0.mlp.gate_proj.weight"
    if name not in weights:
        raise ConfigError(f"the release has no weight {name!r} (in the names of transformers)")
    return weights[name].shape[0]
