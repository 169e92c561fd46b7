"""The entropy model: a small byte transformer whose surprise decides where patches start.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), sections 2.3 and 4.2; the layer and the
rotary base are those of the released entropy model.
Shape key: B rows, T bytes, N bytes of all rows, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.config import MAX_LAYERS, require_heads, require_positive
from bytelm.models.state import StackState, make_cache
from bytelm.nn.kv_cache import LayerCache
from bytelm.nn.layers import Layers
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.rows import Rows
from bytelm.nn.transformer import (
    TransformerLayer,
    ffn_width,
    initialize_,
    truncated_normal_,
)
from bytelm.vocab import VOCAB_SIZE


@dataclass(frozen=True, kw_only=True)
class EntropyLMConfig:
    """A causal byte transformer with a sliding window; the window is part of the model."""

    kind: ClassVar[str] = "entropy-lm"

    context_bytes: int = 512
    """Length of a training row, bytes. Scoring runs on without end: attention is windowed."""

    dim: int = 64
    """Width."""

    n_layers: int = 2
    """Number of transformer layers."""

    n_heads: int = 4
    """Attention heads; the head width is dim / n_heads."""

    n_kv_heads: int | None = None
    """Key and value heads, each shared by n_heads / n_kv_heads heads; absent: n_heads."""

    window: int = 128
    """How many bytes a layer looks back, the current one included."""

    ffn_dim: int | None = None
    """Feed-forward width; absent: 8/3 of dim, rounded up to a multiple of 256."""

    rope_theta: float = 10_000.0
    """Base of the rotary positions (10,000 in the released entropy model)."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "n_kv_heads", "window", "ffn_dim")
        require_positive(self, "rope_theta")
        require_positive(self, "context_bytes", least=2)
        require_positive(self, "n_layers", most=MAX_LAYERS)
        require_heads(self, "dim", "n_heads", "n_kv_heads")

    @property
    def hidden_dim(self) -> int:
        """Feed-forward width, derived when `ffn_dim` is absent."""
        return self.ffn_dim or ffn_width(self.dim)


class EntropyLM(nn.Module):
    """A causal byte language model in the Llama layout."""

    def __init__(self, config: EntropyLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.layers = Layers(
            TransformerLayer(
                config.dim,
                n_heads=config.n_heads,
                n_kv_heads=config.n_kv_heads or config.n_heads,
                ffn_dim=config.hidden_dim,
                window=config.window,
                rope_theta=config.rope_theta,
            )
            for _ in range(config.n_layers)
        )
        self.norm = RMSNorm(config.dim)
        self.head = Linear(config.dim, VOCAB_SIZE)
        initialize_(self, n_layers=config.n_layers)
        truncated_normal_(self.embed.weight, config.dim**-0.5)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits, at least float32, of the id after each position."""
        rows, x = Rows.full(*ids.shape), self.embed(ids.flatten())
        for layer in self.layers:
            x = layer(x, rows)
        return full_precision(self.head(self.norm(x))).unflatten(0, ids.shape)

    def begin(self, rows: int = 1) -> StackState:
        """The state of rows of which nothing is read."""
        return StackState(make_cache(rows, [layer.attention for layer in self.layers]))

    def read(
        self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray, state: StackState
    ) -> Float[Tensor, "N V"]:
        """Read more of some rows; logits of the id after each one.

        Args:
            ids: int64 `[N]`, the rows' new ids one row after the other.
            counts: int64 `[B]`, how many of them each row has, at least 1.
            slots: int64 `[B]`, which rows of `state` they go on.
            state: Of the rows; changed.

        """
        rows = state.cache.rows(counts, slots)
        state.cache.begin(rows)
        x = self.embed(torch.from_numpy(ids).to(self.embed.weight.device))
        for index, layer in enumerate(self.layers):
            x = layer(x, rows, LayerCache(state.cache, index))
        return full_precision(self.head(self.norm(x)))

    def entropies(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T"]:
        """Entropy in nats, over all 260 ids, of the prediction made after each position.

        Always in full precision: boundaries must not depend on the precision of training.
        """
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            return entropy_nats(self(ids))


def entropy_nats(logits: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """Entropy of the softmax of `logits` over the last axis, nats."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
