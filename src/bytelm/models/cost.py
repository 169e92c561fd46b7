"""Parameters, FLOPs per byte and memory of a model, from its configuration alone.

The model is built on the meta device, so parameters are counted on the real thing and nothing is
allocated. FLOPs are those of the matrix products of one forward pass, 2 per multiply-add
(Kaplan et al. 2020, arXiv:2001.08361, table 1); BLT's are divided over bytes and patches as in
arXiv:2412.09871, appendix B. Norms, activations and table look-ups are not counted.
"""

from dataclasses import dataclass

import torch
from torch import nn

from bytelm.models import ModelConfig, build
from bytelm.models.blt import BLT, BLTConfig, CrossAttention
from bytelm.models.byte_gpt import ByteGPT
from bytelm.models.entropy_lm import EntropyLM
from bytelm.models.ngram import NgramConfig
from bytelm.models.recurrent import Recurrent
from bytelm.models.seq2seq import PatchEncoder, Seq2Seq
from bytelm.nn.attention import Attention
from bytelm.patching import Static

BYTES_PER_FLOAT = 4
"""Weights, gradients and optimizer state are float32."""

ADAM_STATES = 2
"""Moments the size of the weight; Muon keeps one and is counted as two."""


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What a model takes."""

    parameters: int
    """All trained numbers, tables included."""

    parts: dict[str, int]
    """Parameters of each part of the model."""

    table_parameters: int
    """Of these, in hash n-gram tables: a byte touches only a few rows of them."""

    flops_per_byte: float
    """Forward pass, one byte, the entropy model included; training takes three times as much."""

    patches_per_byte: float
    """Share of bytes that start a patch; 1 for a model without patches."""

    training_bytes: int
    """Weights, dense gradients and optimizer state; activations are not counted."""


def cost(
    config: ModelConfig,
    *,
    mean_patch_bytes: float = 1.0,
    entropy_config: ModelConfig | None = None,
) -> Cost:
    """Count a model without building it.

    Args:
        config: Of the model.
        mean_patch_bytes: Bytes per patch (BLT only), as its patcher is calibrated to.
        entropy_config: Of the model that gives a BLT's entropies.

    Raises:
        ValueError: `mean_patch_bytes` is below 1.

    """
    if mean_patch_bytes < 1:
        raise ValueError(f"mean_patch_bytes must be at least 1, got {mean_patch_bytes}")
    blt = isinstance(config, BLTConfig)
    with torch.device("meta"):
        # Any patcher without entropies: the weights do not depend on it.
        model = build(config, patcher=Static(patch_size=1) if blt else None)
    tables = sum(p.numel() for p in model.parameters() if getattr(p, "is_hash_table", False))
    dense = sum(p.numel() for p in model.parameters()) - tables
    flops = flops_per_byte(model, mean_patch_bytes=mean_patch_bytes)
    if entropy_config is not None:
        flops += cost(entropy_config).flops_per_byte
    weights_gradients_states = 2 + ADAM_STATES
    return Cost(
        parameters=dense + tables,
        parts=_parts(model),
        table_parameters=tables,
        flops_per_byte=flops,
        patches_per_byte=1 / mean_patch_bytes if blt else 1.0,
        training_bytes=BYTES_PER_FLOAT * (weights_gradients_states * dense + tables)
        + (0 if isinstance(config, NgramConfig) else _row_state_bytes(model)),
    )


def flops_per_byte(model: nn.Module, *, mean_patch_bytes: float = 1.0) -> float:
    """FLOPs of one forward pass for one byte, without a BLT's entropy model.

    Args:
        model: Any model; it may be on the meta device.
        mean_patch_bytes: Bytes per patch (BLT only).

    """
    match model:
        case ByteGPT() | EntropyLM():
            return _linear_flops(model) + _attention_flops(model, float(model.config.context_bytes))
        case BLT():
            return _blt_flops(model, mean_patch_bytes)
        case Recurrent():
            return _linear_flops(model)
    return 0.0


def total_flops_per_byte(model: nn.Module, *, mean_patch_bytes: float = 1.0) -> float:
    """FLOPs of one forward pass for one byte, as `flops_per_byte`, a BLT's entropy model included.

    Args:
        model: Any model; it may be on the meta device.
        mean_patch_bytes: Bytes per patch (BLT only).

    """
    flops = flops_per_byte(model, mean_patch_bytes=mean_patch_bytes)
    if isinstance(model, BLT) and model.entropy_model is not None:
        flops += flops_per_byte(model.entropy_model)
    return flops


def flops_per_pair(
    model: Seq2Seq, *, input_bytes: float, target_bytes: float, mean_patch_bytes: float = 1.0
) -> float:
    """FLOPs of an encoder-decoder's forward pass for one pair; training takes three times as many.

    Args:
        model: It may be on the meta device.
        input_bytes: Of the input.
        target_bytes: Of the target; its end is one position more.
        mean_patch_bytes: Bytes per patch, for a model with patches.

    """
    config, own = model.config, model.config.patches
    units = input_bytes / (1.0 if own is None else mean_patch_bytes)
    vectors = 1 if own is None else own.cross_attn_k
    written, flops = target_bytes + 1, 0.0
    if isinstance(model.encoder, PatchEncoder):
        flops += input_bytes * _linear_flops(model.encoder.layers)
        flops += units * _linear_flops(model.encoder.pool_proj)
        flops += len(model.encoder.layers) * _mixing_flops(
            input_bytes, input_bytes, model.encoder.config.dim
        )
    flops += units * _linear_flops(model.encoder_layers)
    flops += config.n_layers_encoder * _mixing_flops(units, units, config.dim)
    if model.vectors_proj is not None:
        flops += units * _linear_flops(model.vectors_proj)
    asked = sum(
        _linear_flops(layer.cross.k_proj) + _linear_flops(layer.cross.v_proj)
        for layer in model.decoder
    )
    flops += units * vectors * asked
    flops += written * (_linear_flops(model.decoder) - asked + _linear_flops(model.head))
    # Half of the written positions are seen on average.
    seen = units * vectors + (written + 1) / 2
    return flops + config.n_layers_decoder * _mixing_flops(written, seen, config.dim)


def _mixing_flops(queries: float, keys: float, dim: int) -> float:
    """Scores and mixing of an attention in which each query sees so many keys."""
    return 4.0 * queries * keys * dim


def _blt_flops(model: BLT, mean_patch_bytes: float) -> float:
    """Per byte: encoder, decoder and their cross-attentions, and a share of the global part."""
    config, k = model.config, model.config.cross_attn_k
    length = float(config.context_bytes)
    # Queries and outputs of a cross-attention are of one side, keys and values of the other: in
    # the decoder a byte asks and a patch answers with k vectors, in the encoder the reverse.
    asking, asked = _asking_flops(model.encoder_cross), _asked_flops(model.encoder_cross)
    crosses = [layer.cross for layer in model.decoder if layer.cross is not None]
    cross_by_byte = asked + sum(map(_asking_flops, crosses))
    cross_by_patch = k * (asking + sum(map(_asked_flops, crosses)))
    by_byte = nn.ModuleList([model.encoder, model.head, *(x.local for x in model.decoder)])
    by_patch = nn.ModuleList(
        [model.pool_proj, model.global_in, model.global_layers, model.global_out]
    )
    mixing = 4.0 * k * config.dim * (1 + len(crosses))
    per_byte = _linear_flops(by_byte) + _attention_flops(by_byte, length) + cross_by_byte + mixing
    per_patch = (
        _linear_flops(by_patch)
        + _attention_flops(model.global_layers, length / mean_patch_bytes)
        + cross_by_patch
    )
    return per_byte + per_patch / mean_patch_bytes


def _asking_flops(cross: CrossAttention) -> float:
    return _linear_flops(cross.q_proj) + _linear_flops(cross.o_proj)


def _asked_flops(cross: CrossAttention) -> float:
    return _linear_flops(cross.k_proj) + _linear_flops(cross.v_proj)


def _linear_flops(module: nn.Module) -> float:
    return sum(2.0 * m.weight.numel() for m in module.modules() if isinstance(m, nn.Linear))


def _attention_flops(module: nn.Module, length: float) -> float:
    """Scores and mixing of self-attention, at the mean number of keys a query sees."""
    total = 0.0
    for layer in module.modules():
        if isinstance(layer, Attention):
            seen = length if layer.window is None else min(length, layer.window)
            # Queries at the row's beginning see fewer keys than `seen`.
            mean_keys = seen - seen * seen / (2 * length)
            total += 4.0 * mean_keys * layer.n_heads * layer.head_dim
    return total


def _parts(model: nn.Module) -> dict[str, int]:
    sizes = {
        name: sum(p.numel() for p in part.parameters()) for name, part in model.named_children()
    }
    return {name: size for name, size in sizes.items() if size}


def _row_state_bytes(model: nn.Module) -> int:
    """State of the row-sparse optimizer: a second moment and a count for each row."""
    rows = sum(len(p) for p in model.parameters() if getattr(p, "is_hash_table", False))
    return 2 * BYTES_PER_FLOAT * rows
