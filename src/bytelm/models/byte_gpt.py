"""A plain byte transformer with what is known to pay at small scale: the baseline to beat.

Over GPT-2: RMSNorm before each branch, rotary positions, normalized queries and keys (Henry et al.
2020, arXiv:2010.04245), squared ReLU (So et al. 2021, arXiv:2109.08668), output projections that
begin at zero, a sliding window, and hash n-gram embeddings (BLT, arXiv:2412.09871, section 3.2.1).
Shape key: B rows, T bytes, N bytes of all rows, D width, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.config import MAX_LAYERS, MAX_NGRAM_BYTES, require_heads, require_positive
from bytelm.models.state import StackState, make_cache
from bytelm.nn.attention import Attention, LayerMemory
from bytelm.nn.hash_ngrams import HashNgrams, IdHistory, ngram_windows
from bytelm.nn.kv_cache import SLACK, LayerCache
from bytelm.nn.layers import Layers
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.rows import Rows
from bytelm.nn.transformer import initialize_, truncated_normal_
from bytelm.vocab import VOCAB_SIZE


@dataclass(frozen=True, kw_only=True)
class ByteGPTConfig:
    """A causal byte transformer."""

    kind: ClassVar[str] = "byte-gpt"

    context_bytes: int = 256
    """Length of a training row, bytes; without a window also how far back the model sees."""

    dim: int = 128
    """Width."""

    n_layers: int = 4
    """Number of transformer layers."""

    n_heads: int = 2
    """Attention heads; the head width is dim / n_heads."""

    window: int | None = 64
    """How many bytes a layer looks back, the current one included. None: the whole context."""

    ffn_dim: int | None = None
    """Feed-forward width; absent: 4 dim."""

    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Lengths in bytes of the hashed n-grams; empty: none."""

    num_buckets: int = 32_768
    """Rows of the table of one n-gram size."""

    dropout: float = 0.0
    """Probability that a branch's output is dropped in training; for many epochs on little data."""

    rope_theta: float = 10_000.0
    """Base of the rotary positions."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "window", "ffn_dim", "num_buckets", "rope_theta")
        require_positive(self, "context_bytes", least=2)
        require_positive(self, "n_layers", most=MAX_LAYERS)
        require_positive(self, "ngram_sizes", most=MAX_NGRAM_BYTES)
        require_heads(self, "dim", "n_heads")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be in [0, 1), got {self.dropout}")

    @property
    def hidden_dim(self) -> int:
        """Feed-forward width, derived when `ffn_dim` is absent."""
        return self.ffn_dim or 4 * self.dim


class SquaredReLU(nn.Module):
    """Feed-forward `down(relu(up x)^2)`."""

    def __init__(self, dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.up_proj = Linear(dim, hidden_dim)
        self.down_proj = Linear(hidden_dim, dim)

    def forward(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N D"]:
        """Apply to every position alone."""
        return self.down_proj(F.relu(self.up_proj(x)).square())


class ByteGPTLayer(nn.Module):
    """`x + attention(norm x)`, then `x + feed-forward(norm x)`."""

    def __init__(self, config: ByteGPTConfig) -> None:
        super().__init__()
        self.attention_norm, self.ffn_norm = RMSNorm(config.dim), RMSNorm(config.dim)
        self.attention = Attention(
            config.dim,
            n_heads=config.n_heads,
            n_kv_heads=config.n_heads,
            head_dim=config.dim // config.n_heads,
            window=config.window,
            rope_theta=config.rope_theta,
            qk_norm=True,
        )
        self.ffn = SquaredReLU(config.dim, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self, x: Float[Tensor, "N D"], rows: Rows, memory: LayerMemory | None = None
    ) -> Float[Tensor, "N D"]:
        """Both residual branches."""
        x = x + self.dropout(self.attention(self.attention_norm(x), rows, memory))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class ByteGPT(nn.Module):
    """A causal byte language model without patches."""

    def __init__(self, config: ByteGPTConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.hash_ngrams = (
            HashNgrams(config.dim, ngram_sizes=config.ngram_sizes, num_buckets=config.num_buckets)
            if config.ngram_sizes
            else None
        )
        self.embed_norm = RMSNorm(config.dim)
        self.layers = Layers(ByteGPTLayer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim)
        self.head = Linear(config.dim, VOCAB_SIZE)
        self._initialize_()

    def _initialize_(self) -> None:
        """Every branch and the output begin at zero: the first prediction is uniform."""
        initialize_(self, n_layers=self.config.n_layers)
        truncated_normal_(self.embed.weight, 1.0)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "head.weight")):
                nn.init.zeros_(parameter)
        if self.hash_ngrams is not None:
            nn.init.zeros_(self.hash_ngrams.weight)

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits, at least float32, of the id after each position."""
        rows, windows = Rows.full(*ids.shape), None
        if self.hash_ngrams is not None:
            windows = ngram_windows(ids, self.hash_ngrams.width)
        return self._logits(ids.flatten(), windows, rows, None).unflatten(0, ids.shape)

    def begin(self, rows: int = 1) -> StackState:
        """The state of rows of which nothing is read."""
        cache = make_cache(rows, [layer.attention for layer in self.layers])
        if self.hash_ngrams is None:
            return StackState(cache)
        return StackState(cache, IdHistory(rows, width=self.hash_ngrams.width, spare=SLACK))

    def read(
        self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray, state: StackState
    ) -> Float[Tensor, "N V"]:
        """Read more of some rows, as `EntropyLM.read`."""
        rows, device = state.cache.rows(counts, slots), self.embed.weight.device
        windows = None if state.ids is None else state.ids.windows(ids, rows).to(device)
        state.cache.begin(rows)
        return self._logits(torch.from_numpy(ids).to(device), windows, rows, state)

    def _logits(
        self, ids: Tensor, windows: Tensor | None, rows: Rows, state: StackState | None
    ) -> Tensor:
        x = self.embed(ids)
        if self.hash_ngrams is not None:
            x = x + self.hash_ngrams(windows)
        x = self.embed_norm(x)
        for index, layer in enumerate(self.layers):
            x = layer(x, rows, None if state is None else LayerCache(state.cache, index))
        return full_precision(self.head(self.norm(x)))
