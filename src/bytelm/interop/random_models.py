"""Random BLTs and rows of ids for comparisons with other implementations.

Shape key: B rows, T ids.
"""

from copy import deepcopy

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from bytelm.models import BLT, BLTConfig, EntropyLM, EntropyLMConfig
from bytelm.patching import Entropy
from bytelm.vocab import BOE, BOS, BPE, EOS, OFFSET

MARGIN = 1e-4
"""No entropy of a test row is closer than this, in nats, to the threshold: rounding cannot flip it.
"""


def random_blt(seed: int, *, window: int | None = None, context_bytes: int = 1024) -> BLT:
    """A BLT of random sizes and weights; 24 seeds in a row cover every combination that is named.

    Args:
        seed: Chooses sizes and weights.
        window: Of the local layers; None chooses one.
        context_bytes: How far back the model sees.

    """
    rng = np.random.default_rng(seed)
    k, is_joined, is_grouped = (1, 2, 4)[seed % 3], seed % 2 == 0, seed // 2 % 2 == 0
    dim = int(rng.choice([16, 32, 48]))
    config = BLTConfig(
        context_bytes=context_bytes,
        dim=dim,
        n_heads=4,
        n_kv_heads=int(rng.choice([1, 2])) if is_grouped else None,
        n_layers_encoder=int(rng.integers(1, 3)),
        n_layers_decoder=int(rng.integers(1, 4)),
        cross_attention_every_layer=seed // 4 % 2 == 0,
        n_heads_decoder=2 if seed // 8 % 2 else None,
        n_kv_heads_decoder=1 if seed // 8 % 2 else None,
        ffn_dim=int(rng.integers(24, 80)),
        ffn_dim_decoder=int(rng.integers(24, 80)),
        window=window or int(rng.choice([8, 17, 64, 512])),
        dim_global=k * dim if is_joined else 40,
        n_heads_global=4,
        n_kv_heads_global=2 if is_grouped else None,
        n_layers_global=int(rng.integers(1, 3)),
        ffn_dim_global=int(rng.integers(24, 80)),
        cross_attn_k=k,
        ngram_sizes=tuple(int(n) for n in rng.permutation([2, 3, 4, 5, 6, 7, 8])[: 1 + seed % 6]),
        num_buckets=int(rng.integers(50, 500)),
        num_hash_functions=1 + seed // 3 % 3,
    )
    source = EntropyLM(
        EntropyLMConfig(
            dim=16,
            n_layers=2,
            n_heads=2,
            n_kv_heads=1 if is_grouped else None,
            window=int(rng.choice([8, 32, 512])),
            ffn_dim=32,
        )
    )
    generator = torch.Generator().manual_seed(seed)
    _randomize_(source, generator)
    model = BLT(config, Entropy(threshold=1.0), source)
    _randomize_(model, generator)
    return model.eval()


@torch.no_grad()
def _randomize_(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Weights of the size that training starts from in the released models."""
    for parameter in model.parameters():
        if parameter.ndim == 1:
            parameter.uniform_(0.8, 1.2, generator=generator)
        else:
            parameter.normal_(std=parameter.shape[1] ** -0.5, generator=generator)


def random_ids(seed: int, rows: int, length: int) -> Int[Tensor, "B T"]:
    """Rows of a few repeated letters, so that n-grams repeat, with specials and rare bytes."""
    rng = np.random.default_rng([seed, length])
    letters = rng.choice(np.frombuffer(b"abcde \n", np.uint8), (rows, length)).astype(np.int64)
    ids = np.where(rng.random((rows, length)) < 0.3, rng.integers(0, 256, (rows, length)), letters)
    ids += OFFSET
    specials = rng.choice([BOE, EOS, BPE], (rows, length))
    ids = np.where(rng.random((rows, length)) < 0.03, specials, ids)
    ids[:, 0] = BOS
    ids[0, 1:4] = BOE, EOS, BPE
    return torch.from_numpy(ids)


def with_threshold(model: BLT, *rows: Int[Tensor, "_ _"], share: float = 0.25) -> BLT:
    """The model with a threshold that about `share` of the entropies of `rows` exceed.

    Raises:
        ValueError: Every such threshold has an entropy within `MARGIN` of it.

    """
    source = model.entropy_model
    assert isinstance(source, EntropyLM), "made by random_blt"
    known = np.sort(np.concatenate([source.entropies(ids).flatten().numpy() for ids in rows]))
    middle, reach = int(len(known) * (1 - share)), len(known) // 10
    near = np.diff(known[middle - reach : middle + reach].astype(np.float64))
    widest = int(near.argmax())
    if near[widest] <= 2 * MARGIN:
        raise ValueError(f"entropies are too close to each other, the widest gap is {near.max()}")
    at = middle - reach + widest
    chosen = deepcopy(model)
    chosen.patcher = Entropy(threshold=float(known[at] + near[widest] / 2))
    return chosen
