"""Oracles: the parameters of built models, and torch's own count of the products that run."""

from dataclasses import replace

import pytest
import torch
from tiny_pairs import PATCHED
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from bytelm.data.pair_batches import Source
from bytelm.errors import ConfigError
from bytelm.models import PatchEncoderConfig, Seq2Seq, Seq2SeqConfig
from bytelm.models.cost import flops_per_pair
from bytelm.patching import Patcher, Space, Static
from bytelm.training.matching import TOLERANCE, matched_baseline, outline
from bytelm.training.pair_settings import PairRunConfig
from bytelm.training.settings import Calibrated

INPUT, TARGET = 70.0, 71.0

FULL = replace(
    PATCHED,
    model=Seq2SeqConfig(patches=PatchEncoderConfig()),
    patching=Calibrated(mean_patch_bytes=3.2, max_patch_bytes=8),
)
"""The sizes that models have when nobody says otherwise."""


def match(blt: PairRunConfig, what: str) -> PairRunConfig:
    return matched_baseline(
        blt,
        match=what,  # pyright: ignore[reportArgumentType]
        mean_input_bytes=INPUT,
        mean_target_bytes=TARGET,
    )


def parameters(config: Seq2SeqConfig, patcher: Patcher | None = None) -> int:
    return sum(parameter.numel() for parameter in Seq2Seq(config, patcher).parameters())


def flops(config: PairRunConfig) -> float:
    mean = config.patching.mean_patch_bytes if isinstance(config.patching, Calibrated) else 1.0
    return flops_per_pair(
        outline(config.model), input_bytes=INPUT, target_bytes=TARGET, mean_patch_bytes=mean
    )


def shared(config: Seq2SeqConfig) -> Seq2SeqConfig:
    """Without what the baseline may have of its own."""
    return replace(config, patches=None, ffn_dim_encoder=1, n_layers_encoder=1)


@pytest.mark.parametrize("num_buckets", [1024, 4096])
def test_parameters_match(num_buckets: int) -> None:
    patches = PatchEncoderConfig(num_buckets=num_buckets)
    blt = replace(FULL, model=replace(FULL.model, patches=patches))
    found = match(blt, "parameters")
    wanted = parameters(blt.model, Static(patch_size=8))
    assert parameters(found.model) == pytest.approx(wanted, rel=TOLERANCE)
    assert (found.patching, found.entropy) == (None, None)
    assert shared(found.model) == shared(blt.model)
    assert found.model.n_layers_encoder == blt.model.n_layers_encoder
    assert replace(found, model=blt.model, patching=blt.patching, entropy=blt.entropy) == blt


@pytest.mark.parametrize(("mean", "layers"), [(2.0, 3), (3.2, 2), (6.0, 1)])
def test_flops_match(mean: float, layers: int) -> None:
    """With fewer layers over bytes where patches are long, and no fewer than must be."""
    blt = replace(FULL, patching=Calibrated(mean_patch_bytes=mean, max_patch_bytes=8))
    found = match(blt, "flops")
    assert flops(found) == pytest.approx(flops(blt), rel=TOLERANCE)
    assert found.model.n_layers_encoder == layers
    assert shared(found.model) == shared(blt.model)


def test_no_width_is_closer() -> None:
    found, wanted = match(FULL, "parameters").model, parameters(FULL.model, Static(patch_size=8))
    off = [
        abs(parameters(replace(found, ffn_dim_encoder=width)) - wanted)
        for width in range(found.ffn_dim_encoder - 16, found.ffn_dim_encoder + 24, 8)
    ]
    assert off.index(min(off)) == 2


def test_matching_nothing_keeps_every_size() -> None:
    found = match(FULL, "none")
    assert found.model == replace(FULL.model, patches=None)
    assert (found.patching, found.entropy) == (None, None)
    assert (found.optim, found.training) == (FULL.optim, FULL.training)


def test_flops_of_static_patches_are_known() -> None:
    blt = replace(FULL, patching=Static(patch_size=4), entropy=None)
    as_calibrated = replace(FULL, patching=Calibrated(mean_patch_bytes=4.0, max_patch_bytes=8))
    assert match(blt, "flops").model == match(as_calibrated, "flops").model


def test_patches_of_a_length_that_nobody_knows_are_refused() -> None:
    blt = replace(FULL, patching=Space(max_patch_bytes=8), entropy=None)
    with pytest.raises(ConfigError, match="how long patches are is not known"):
        match(blt, "flops")
    assert match(blt, "parameters").model == match(FULL, "parameters").model


@pytest.mark.parametrize("what", ["parameters", "flops"])
def test_a_match_that_no_width_makes_is_refused(what: str) -> None:
    blt = replace(FULL, model=replace(FULL.model, n_layers_encoder=0))
    with pytest.raises(
        ConfigError, match=rf"match is '{what}', but .* at most 0 layers .* --match none"
    ):
        match(blt, what)


# What a pair costs.


COUNTED = {
    "baseline": Seq2SeqConfig(),
    "rotary baseline of other depths": Seq2SeqConfig(
        positions="rotary", n_layers_encoder=1, n_layers_decoder=2, ffn_dim_encoder=200
    ),
    "patched": Seq2SeqConfig(patches=PatchEncoderConfig()),
    "patched, three vectors, two local layers": Seq2SeqConfig(
        patches=PatchEncoderConfig(cross_attn_k=3, n_layers=2, dim=32, max_patch_bytes=4)
    ),
    "patched, no local layers": Seq2SeqConfig(patches=PatchEncoderConfig(n_layers=0)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_flops_of_a_pair_are_those_that_run(name: str) -> None:
    config, length, target = COUNTED[name], 60, 50
    patcher = None if config.patches is None else Static(patch_size=4)
    # In float64: torch's counter knows the products of its own, not those of oneDNN.
    model = Seq2Seq(config, patcher).double().eval()
    text = [b"x" * length]
    source = Source.of(text, None if patcher is None else model.patch_starts(text))
    written = torch.ones(1, target + 1, dtype=torch.int64)
    with (
        torch.no_grad(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):
        model(source, written)
    found = flops_per_pair(
        model, input_bytes=length, target_bytes=target, mean_patch_bytes=4.0 if patcher else 1.0
    )
    # The counter sees the half of the decoder's scores that the mask throws away.
    hidden = 4 * (target + 1) * target / 2 * config.dim * config.n_layers_decoder
    assert counter.get_total_flops() - hidden == pytest.approx(found, rel=1e-9)
