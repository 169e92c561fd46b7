"""A baseline that has as much of something as the patched model it is compared with.

Both have the same decoder. What the baseline may have more or less of is the width of the
feed-forwards in its encoder, which changes nothing that the patched model shares with it. Where the
narrowest ones are too much it has fewer layers there: a layer over bytes costs a multiple of a
layer over patches.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

import torch

from bytelm.errors import ConfigError
from bytelm.models import Seq2Seq, Seq2SeqConfig
from bytelm.models.cost import flops_per_pair
from bytelm.patching import Static
from bytelm.training.pair_settings import PairRunConfig
from bytelm.training.settings import Calibrated

Match = Literal["parameters", "flops", "none"]

_STEP = 8
"""Feed-forward widths are multiples of this."""

_WIDEST = 1 << 14

TOLERANCE = 0.02
"""How far the baseline may be from the patched model before it is no match."""


def matched_baseline(
    blt: PairRunConfig,
    *,
    match: Match,
    mean_input_bytes: float,
    mean_target_bytes: float,
) -> PairRunConfig:
    """The patched model's twin without patches.

    Args:
        blt: Of the patched model.
        match: What both have as much of: parameters, hash tables included; FLOPs of a pair; or
            the same widths.
        mean_input_bytes: Of the pairs.
        mean_target_bytes: Of the pairs.

    Raises:
        ConfigError: No encoder of at most as many layers makes a match, or FLOPs are to match and
            nothing says how long the patches will be.

    """
    config = replace(blt.model, patches=None)
    if match == "none":
        return replace(blt, model=config, patching=None, entropy=None)

    def size(config: Seq2SeqConfig) -> float:
        model = outline(config)
        if match == "parameters":
            return sum(parameter.numel() for parameter in model.parameters())
        return flops_per_pair(
            model,
            input_bytes=mean_input_bytes,
            target_bytes=mean_target_bytes,
            mean_patch_bytes=_patch_bytes(blt),
        )

    wanted = size(blt.model)
    nearest = config
    for layers in range(config.n_layers_encoder, 0, -1):
        nearest = _nearest(replace(config, n_layers_encoder=layers), size, wanted)
        if abs(size(nearest) / wanted - 1) <= TOLERANCE:
            return replace(blt, model=nearest, patching=None, entropy=None)
    raise ConfigError(
        f"match is {match!r}, but the patched model has {wanted:,.0f} and no encoder of at most "
        f"{config.n_layers_encoder} layers makes a baseline with as many (nearest: "
        f"{size(nearest):,.0f}); change model.n_layers_encoder or model.dim, or use --match none"
    )


def _patch_bytes(blt: PairRunConfig) -> float:
    """Bytes per patch that a training is set to have."""
    match blt.patching:
        case Calibrated(mean_patch_bytes=wanted):
            return wanted
        case Static(patch_size=size):
            return size
    raise ConfigError(
        "match is 'flops', but how long patches are is not known before they are cut; expected "
        "patching.kind calibrated or static"
    )


def outline(config: Seq2SeqConfig) -> Seq2Seq:
    """A model of this configuration that holds no numbers, to be counted."""
    patches = config.patches
    patcher = None if patches is None else Static(patch_size=patches.max_patch_bytes)
    with torch.device("meta"):
        return Seq2Seq(config, patcher)


def _nearest(
    config: Seq2SeqConfig, size: Callable[[Seq2SeqConfig], float], wanted: float
) -> Seq2SeqConfig:
    """The width of the encoder's feed-forwards that comes closest: the size grows with it."""

    def of_width(width: int) -> Seq2SeqConfig:
        return replace(config, ffn_dim_encoder=width)

    low, high = 1, _WIDEST // _STEP
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(of_width(middle * _STEP)) <= wanted else (low, middle)
    both = of_width(low * _STEP), of_width(high * _STEP)
    return min(both, key=lambda config: abs(size(config) - wanted))
