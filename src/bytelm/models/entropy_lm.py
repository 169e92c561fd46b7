"""The entropy model: a small byte transformer whose surprise decides where patches start.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), sections 2.3 and 4.2; the layer and the
rotary base are those of the released entropy model.
Shape key: B rows, T bytes, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.config import MAX_LAYERS, require_positive
from bytelm.nn.attention import KVCache
from bytelm.nn.norm import RMSNorm, full_precision
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

    window: int = 128
    """How many bytes a layer looks back, the current one included."""

    ffn_dim: int | None = None
    """Feed-forward width; absent: 8/3 of dim, rounded up to a multiple of 256."""

    rope_theta: float = 10_000.0
    """Base of the rotary positions (10,000 in the released entropy model)."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "window", "ffn_dim", "rope_theta")
        require_positive(self, "context_bytes", least=2)
        require_positive(self, "n_layers", most=MAX_LAYERS)
        if self.dim % (2 * self.n_heads):
            raise ValueError(
                f"dim must be a multiple of 2 * n_heads (rotary pairs), got dim = {self.dim}, "
                f"n_heads = {self.n_heads}"
            )

    @property
    def hidden_dim(self) -> int:
        """Feed-forward width, derived when `ffn_dim` is absent."""
        return self.ffn_dim or ffn_width(self.dim)


@dataclass
class EntropyLMState:
    """What a stream keeps of the bytes it has read."""

    caches: list[KVCache]


class EntropyLM(nn.Module):
    """A causal byte language model in the Llama layout."""

    def __init__(self, config: EntropyLMConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.layers = nn.ModuleList(
            TransformerLayer(
                config.dim,
                n_heads=config.n_heads,
                n_kv_heads=config.n_heads,
                ffn_dim=config.hidden_dim,
                window=config.window,
                rope_theta=config.rope_theta,
            )
            for _ in range(config.n_layers)
        )
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, VOCAB_SIZE, bias=False)
        initialize_(self, n_layers=config.n_layers)
        truncated_normal_(self.embed.weight, config.dim**-0.5)

    def forward(
        self, ids: Int[Tensor, "B T"], *, state: EntropyLMState | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits, at least float32, of the id after each position; a state continues a stream."""
        x = self.embed(ids)
        for index, layer in enumerate(self.layers):
            x = layer(x, cache=None if state is None else state.caches[index])
        return full_precision(self.head(self.norm(x)))

    def begin(self) -> EntropyLMState:
        """The state before anything is read."""
        return EntropyLMState(caches=[KVCache() for _ in self.layers])

    def entropies(
        self, ids: Int[Tensor, "B T"], *, state: EntropyLMState | None = None
    ) -> Float[Tensor, "B T"]:
        """Entropy in nats, over all 260 ids, of the prediction made after each position.

        Always in full precision: boundaries must not depend on the precision of training.
        """
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            return entropy_nats(self(ids, state=state))


def entropy_nats(logits: Float[Tensor, "... V"]) -> Float[Tensor, "..."]:
    """Entropy of the softmax of `logits` over the last axis, nats."""
    log_probs = logits.log_softmax(-1)
    return -(log_probs.exp() * log_probs).sum(-1)
