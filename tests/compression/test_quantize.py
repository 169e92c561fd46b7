"""Floats become integers. Oracles: the float model, a golden fingerprint, weights by hand."""

import numpy as np
import pytest
import torch

from bytelm.compression.integer_model import IntegerModel, NumpyModel, known_answers
from bytelm.compression.quantize import quantize
from bytelm.errors import CompressionError
from bytelm.models import Recurrent, RecurrentConfig
from bytelm.vocab import BOS, OFFSET

SMALL = RecurrentConfig(dim=24, n_layers=2, ffn_dim=20, ngram_sizes=(2, 4), num_buckets=50)

GOLDEN = "77a36939810a52e0287c0d2e44498662"
"""Fingerprint of the weights of `countable`: another value is another format."""

GOLDEN_ANSWERS = "3fea8f759c7a23e00b1bd63621faeab0"
"""And its known answers."""


def randomized(config: RecurrentConfig = SMALL, seed: int = 0) -> Recurrent:
    model, generator = Recurrent(config), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                rows = "embed" in name or "hash" in name
                parameter.normal_(
                    std=1.0 if rows else parameter.shape[1] ** -0.5, generator=generator
                )
    return model.eval()


def countable() -> Recurrent:
    """Weights that are sums of few powers of two: no library had a hand in them."""
    model, count = Recurrent(SMALL), 0
    with torch.no_grad():
        for _, parameter in sorted(model.named_parameters()):
            numbers = (np.arange(count, count + parameter.numel()) * 2654435761) % 2**16
            count += parameter.numel()
            values = torch.from_numpy(numbers / 2**16 - 0.5).view(parameter.shape)
            parameter.copy_(values + 1.5 if parameter.ndim == 1 else values)
    return model


def float_bits(model: Recurrent, data: np.ndarray) -> np.ndarray:
    """Cost of each byte, in bits, among the 256 bytes."""
    ids = torch.tensor([[BOS, *(data[:-1].astype(np.int64) + OFFSET).tolist()]])
    with torch.inference_mode():
        log_probs = model(ids)[0, :, OFFSET:].double().log_softmax(-1).numpy()
    return -log_probs[np.arange(len(data)), data] / np.log(2)


def integer_bits(model: IntegerModel, data: np.ndarray) -> np.ndarray:
    found, reader = [], NumpyModel(model, 1)
    for value in data:
        found.append(24 - np.log2(reader.frequencies()[0, value]))
        reader.push(np.array([value]))
    return np.array(found)


def text(size: int) -> np.ndarray:
    random = np.random.default_rng(5)
    return random.choice(np.frombuffer(b"the quick brown fox jumps, 0\x00\xff", np.uint8), size)


@pytest.mark.parametrize(
    "config",
    [
        SMALL,
        RecurrentConfig(dim=33, n_layers=1, ffn_dim=7, ngram_sizes=()),
        RecurrentConfig(dim=64, n_layers=3, ngram_sizes=(3,), num_buckets=16),
    ],
    ids=["small", "no-ngrams", "deep"],
)
def test_integers_cost_what_floats_cost(config):
    model, data = randomized(config), text(1000)
    difference = integer_bits(quantize(model), data) - float_bits(model, data)
    # Weights drawn at random are harder than learned ones: those lose 0.0002 bits (docs/LOG.md).
    assert abs(difference.mean()) < 0.005
    assert np.abs(difference).max() < 0.5


def test_a_fresh_model_knows_nothing():
    frequencies = NumpyModel(quantize(Recurrent(SMALL)), 1).frequencies()
    assert (frequencies == 2**16).all()


def test_the_same_weights_give_the_same_integers_in_any_type():
    model = randomized()
    once = quantize(model)
    assert quantize(model).fingerprint == once.fingerprint
    assert quantize(model.double()).fingerprint == once.fingerprint


def test_golden_fingerprint():
    assert quantize(countable()).fingerprint.hex() == GOLDEN


def test_golden_frequencies():
    assert known_answers(quantize(countable())).hex() == GOLDEN_ANSWERS


def test_a_row_of_weights_by_hand():
    model = randomized()
    with torch.no_grad():
        model.norm.weight.fill_(2.0)
        model.head.weight[OFFSET] = torch.linspace(-1, 1, SMALL.dim)
        model.head.weight[OFFSET + 1] = 0
        model.head.weight[:OFFSET] = 1e6  # specials take no part
    tensors = quantize(model).tensors
    expected = [round(127 * (-1 + 2 * i / 23)) for i in range(24)]
    assert tensors["head.weight"][0].tolist() == expected
    assert not tensors["head.weight"][1].any()
    # 2 / 127 for one in a row, log2(e) for bits, 2**11 for a logit, 2**32 for the multiplier.
    scale = 2 / 127 * 24**0.5 / 32766 * 1.4426950408889634 * 2**43
    assert tensors["head.multiplier"][0] == round(scale)


def test_rows_of_tables_come_back_within_half_a_step():
    model = randomized()
    integers = quantize(model)
    one = 2.0 ** (integers.architecture.residual_bits + 11)
    for ours, theirs in (("embed", "embed"), ("ngrams", "hash_ngrams")):
        steps = integers.tensors[f"{ours}.multiplier"][:, None] / one
        found = integers.tensors[f"{ours}.weight"] * steps
        weight = model.state_dict()[f"{theirs}.weight"].numpy()
        assert (np.abs(found - weight) <= 0.5001 * steps).all()


def test_a_weight_that_is_no_number_is_refused_by_name():
    model = randomized()
    with torch.no_grad():
        model.layers[1].ffn.up_proj.weight[3, 2] = torch.nan
    with pytest.raises(CompressionError, match=r"layers\.1\.ffn\.up_proj\.weight"):
        quantize(model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("embed.weight", "residual stream"),
        ("hash_ngrams.weight", "residual stream"),
        ("layers.0.recurrence.scale", "residual stream"),
        ("layers.0.recurrence.gate.weight", r"layers\.0\.gates"),
        ("layers.0.recurrence.candidate.bias", r"layers\.0\.recurrence"),
        ("layers.1.ffn.down_proj.weight", "residual stream"),
        ("head.weight", "head"),
    ],
)
def test_weights_that_are_too_large_are_refused_by_name(name, message):
    model = randomized()
    with torch.no_grad():
        model.get_parameter(name).mul_(1e12)
    with pytest.raises(CompressionError, match=message):
        quantize(model)


@pytest.mark.parametrize("factor", [1e-30, 1e-4, 30.0, 300.0])
def test_weights_of_other_sizes_are_taken(factor):
    model, data = randomized(), text(300)
    with torch.no_grad():
        for name in ("embed", "hash_ngrams", "layers.0.recurrence.scale", "layers.1.ffn.up_proj"):
            for own, parameter in model.named_parameters():
                if own.startswith(name):
                    parameter.mul_(factor)
    difference = integer_bits(quantize(model), data) - float_bits(model, data)
    assert abs(difference.mean()) < 0.1
