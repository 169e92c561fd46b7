"""Every kind of model with every patcher, with random and with trained weights."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import settings

from bytelm.models import (
    BLT,
    BLTConfig,
    ByteGPT,
    ByteGPTConfig,
    ByteModel,
    EntropyLM,
    EntropyLMConfig,
    Ngram,
    NgramConfig,
    Recurrent,
    RecurrentConfig,
)
from bytelm.patching import Entropy, Patcher, ShannonWindow, Space, Static
from bytelm.vocab import BOS, OFFSET

settings.register_profile("bytelm", deadline=None, max_examples=60)
settings.load_profile("bytelm")

CONTEXT = 48
"""Context of the full-attention models here, bytes: texts of these tests are several times it."""

MARGIN = 1e-4
"""No entropy of the test text is closer than this to a threshold, so rounding cannot flip one."""

TEXT = (
    (
        "Call me Ishmael. Some years ago - never mind how long precisely - having little or no "
        "money in my purse, and nothing particular,\n\tI thought: 12.5% more?! "
        "\u00fcber caf\u00e9 \u6f22\u5b57 \U0001f600 "
    ).encode()
    + bytes([0, 0, 0, 255, 254, 128, 10, 13, 0])
    + b"aaaaaaaaaaaaaaaaaaaaaaaa the end."
)


def as_array(data: bytes) -> np.ndarray:
    return np.frombuffer(data, np.uint8)


def as_ids(data: bytes) -> torch.Tensor:
    """int64 [1, n + 1]: BOS, then the bytes."""
    return torch.tensor([[BOS, *(byte + OFFSET for byte in data)]])


def randomize_(model: torch.nn.Module, seed: int = 0) -> None:
    """Give every weight a random value: fresh models begin with branches that are zero."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                parameter.uniform_(0.5, 1.5, generator=generator)
            else:
                std = (
                    1.0
                    if "embed" in name or "hash" in name
                    else 1.0 / math.sqrt(parameter.shape[1])
                )
                parameter.normal_(std=std, generator=generator)


def train_(model: torch.nn.Module, steps: int = 12) -> None:
    """Fit the test text a little, so that weights are no longer random."""
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    ids = as_ids(TEXT)[:, : CONTEXT + 1]
    for _ in range(steps):
        loss = F.cross_entropy(model(ids[:, :-1])[0], ids[0, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def threshold_between(values: np.ndarray, share: float) -> float:
    """A threshold that about `share` of the values exceed, as far from all of them as can be."""
    ordered = np.sort(values.astype(np.float64))
    middle = int(len(ordered) * (1 - share))
    near = range(max(0, middle - 8), min(len(ordered) - 1, middle + 8))
    best = max(near, key=lambda i: ordered[i + 1] - ordered[i])
    assert ordered[best + 1] - ordered[best] > 2 * MARGIN
    return float((ordered[best] + ordered[best + 1]) / 2)


def entropy_lm(trained: bool) -> EntropyLM:
    model = EntropyLM(
        EntropyLMConfig(context_bytes=CONTEXT, dim=16, n_layers=2, n_heads=2, window=16, ffn_dim=32)
    )
    randomize_(model, 3)
    if trained:
        train_(model)
    return model.eval()


def ngram() -> Ngram:
    return Ngram.fit(NgramConfig(order=3), [as_array(TEXT * 2), as_array(TEXT[::-1])])


def byte_gpt(trained: bool, window: int | None) -> ByteGPT:
    config = ByteGPTConfig(
        context_bytes=CONTEXT, dim=16, n_layers=2, n_heads=2, window=window, num_buckets=64
    )
    model = ByteGPT(config)
    randomize_(model)
    if trained:
        train_(model)
    return model.eval()


def recurrent(trained: bool, ngram_sizes: tuple[int, ...] = (2, 3, 5)) -> Recurrent:
    config = RecurrentConfig(
        context_bytes=CONTEXT,
        dim=16,
        n_layers=2,
        ffn_dim=24,
        ngram_sizes=ngram_sizes,
        num_buckets=64,
    )
    model = Recurrent(config)
    randomize_(model, 4)
    if trained:
        train_(model)
    return model.eval()


def blt(trained: bool, patcher: Patcher, source: EntropyLM | Ngram | None) -> BLT:
    config = BLTConfig(
        context_bytes=CONTEXT,
        dim=16,
        n_heads=2,
        n_layers_encoder=1,
        n_layers_decoder=2,
        window=16,
        ffn_dim=32,
        dim_global=24,
        n_heads_global=2,
        n_layers_global=2,
        ffn_dim_global=32,
        num_buckets=64,
    )
    model = BLT(config, patcher, source)
    for part in (model.encoder, model.decoder, model.global_layers, model.embed, model.head):
        randomize_(part, 1)
    for part in (model.hash_ngrams, model.pool_proj, model.encoder_cross):
        randomize_(part, 2)
    if trained:
        train_(model)
    return model.eval()


def entropy_patcher(source: EntropyLM | Ngram, **limits: int) -> Entropy:
    from bytelm.language_model import LanguageModel

    entropies = LanguageModel(source).entropies(TEXT)
    return Entropy(threshold=threshold_between(entropies[1:], 0.3), **limits)


def rise_patcher(source: EntropyLM | Ngram, *, both: bool) -> Entropy:
    from bytelm.language_model import LanguageModel

    rises = np.diff(LanguageModel(source).entropies(TEXT))
    patcher = Entropy(relative_threshold=threshold_between(rises[rises > 0], 0.5))
    if not both:
        return patcher
    return dataclasses.replace(patcher, threshold=entropy_patcher(source).threshold)


def _entropy_blt(trained: bool, source: EntropyLM | Ngram, **limits: int) -> BLT:
    return blt(trained, entropy_patcher(source, **limits), source)


MODELS: dict[str, Callable[[bool], ByteModel]] = {
    "byte-gpt": lambda trained: byte_gpt(trained, window=16),
    "byte-gpt-full": lambda trained: byte_gpt(trained, window=None),
    "entropy-lm": entropy_lm,
    "ngram": lambda trained: ngram(),
    "recurrent": recurrent,
    "recurrent-plain": lambda trained: recurrent(trained, ngram_sizes=()),
    "blt-static": lambda trained: blt(trained, Static(patch_size=3), None),
    "blt-space": lambda trained: blt(trained, Space(max_patch_bytes=6), None),
    "blt-shannon": lambda trained: blt(trained, ShannonWindow(window=5, threshold=1.2), None),
    "blt-entropy": lambda trained: _entropy_blt(trained, entropy_lm(True)),
    "blt-ngram": lambda trained: _entropy_blt(trained, ngram()),
    "blt-limits": lambda trained: _entropy_blt(
        trained, entropy_lm(True), min_patch_bytes=2, max_patch_bytes=5
    ),
    "blt-rise": lambda trained: blt(
        trained, rise_patcher(entropy_lm(True), both=False), entropy_lm(True)
    ),
    "blt-both": lambda trained: blt(
        trained, rise_patcher(entropy_lm(True), both=True), entropy_lm(True)
    ),
}
"""Name -> the model, trained a little or with random weights."""


@functools.cache
def _model(name: str, trained: bool) -> ByteModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MODELS[name](trained)


def _fixture(kinds: Callable[[str], bool]) -> Any:
    """A fixture over the models whose name is wanted, each with random and trained weights."""
    names = [name for name in MODELS if kinds(name)]

    @pytest.fixture(
        params=[f"{name}/{weights}" for weights in ("random", "trained") for name in names]
    )
    def model(request: pytest.FixtureRequest) -> ByteModel:
        """Shared between tests: do not change it."""
        name, weights = request.param.split("/")
        return _model(name, weights == "trained")

    return model


any_model = _fixture(lambda _: True)
neural_model = _fixture(lambda name: name != "ngram")
patched_model = _fixture(lambda name: name.startswith("blt"))
full_attention_model = _fixture(lambda name: name.startswith("blt") or name == "byte-gpt-full")
