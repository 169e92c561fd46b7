"""Small models with random weights, one of each kind."""

import json
from pathlib import Path
from typing import Any

import torch

from bytelm.interop import parity
from bytelm.models import ByteGPT, ByteGPTConfig, EntropyLM, EntropyLMConfig
from conftest import randomize_


def byte_gpt(**changes: Any) -> ByteGPT:
    sizes: dict[str, Any] = {"dim": 16, "n_layers": 2, "n_heads": 2, "window": 16}
    model = ByteGPT(ByteGPTConfig(num_buckets=64, **sizes | changes))
    randomize_(model, 5)
    return model.eval()


def entropy_lm() -> EntropyLM:
    sizes = {"dim": 32, "n_layers": 2, "n_heads": 4, "n_kv_heads": 2, "window": 16}
    model = EntropyLM(EntropyLMConfig(**sizes))
    randomize_(model, 6)
    return model.eval()


MODELS = {
    "blt": lambda: parity.short_case(0)[0],
    "entropy-lm": entropy_lm,
    "byte-gpt": byte_gpt,
    "byte-gpt-full": lambda: byte_gpt(window=None, ngram_sizes=(), ffn_dim=24),
}


def edit_json(path: Path, change) -> None:
    value = json.loads(path.read_text())
    change(value)
    path.write_text(json.dumps(value))


def same_weights(one: torch.nn.Module, other: torch.nn.Module) -> bool:
    first, second = one.state_dict(), other.state_dict()
    return first.keys() == second.keys() and all(
        first[name].dtype == second[name].dtype and torch.equal(first[name], second[name])
        for name in first
    )
