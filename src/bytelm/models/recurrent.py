"""A recurrent byte model: the memory of a row is one vector a layer, however long the row is.

Each layer is a minimal gated recurrent unit (minGRU, Feng et al. 2024, arXiv:2410.01201) with a
bounded candidate, whose gates look at the input alone, so that only an elementwise recurrence runs
byte by byte, then a squared ReLU feed-forward (So et al. 2021, arXiv:2109.08668). Hashed n-grams
(BLT, arXiv:2412.09871, section 3.2.1) add to the embedding. It is small and cheap to step, and all
its activations are bounded: the model of the codec, which computes it again in integers.

    u = norm(x);  z = sigmoid(Wz u + bz);  c = tanh(Wc u + bc)
    h = h + z (c - h);  x = x + r h;  x = x + Wdown relu(Wup norm(x))^2

Shape key: B rows, T positions of a row, N packed positions, D width, L layers, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from bytelm.config import MAX_LAYERS, MAX_NGRAM_BYTES, require_positive
from bytelm.models.byte_gpt import SquaredReLU
from bytelm.models.state import State
from bytelm.nn.hash_ngrams import HashNgrams, IdHistory, ngram_windows
from bytelm.nn.layers import Layers
from bytelm.nn.linear import Linear, cast_for_products
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.rows import Rows
from bytelm.nn.transformer import initialize_, truncated_normal_
from bytelm.vocab import BOS, VOCAB_SIZE

SHORTEST_MEMORY, LONGEST_MEMORY = 1.1, 64.0
"""Bytes that the fastest and the slowest channel of a fresh layer remember; the others are between,
evenly in the logarithm from 1 on."""


@dataclass(frozen=True, kw_only=True)
class RecurrentConfig:
    """A recurrent byte model."""

    kind: ClassVar[str] = "recurrent"

    context_bytes: int = 256
    """Length of a training row, bytes. Reading runs on without end."""

    dim: int = 192
    """Width, and the size of the memory of a layer."""

    n_layers: int = 3
    """Number of recurrent layers."""

    ffn_dim: int | None = None
    """Feed-forward width; absent: dim."""

    ngram_sizes: tuple[int, ...] = (2, 3, 4, 5, 6)
    """Lengths in bytes of the hashed n-grams; empty: none."""

    num_buckets: int = 32_768
    """Rows of the table of one n-gram size."""

    dropout: float = 0.0
    """Probability that a branch's output is dropped in training; for many epochs on little data."""

    ngram_dropout: float = 0.0
    """Probability that an n-gram's row is dropped in training: rows of rare n-grams learn by heart
    what followed, and must not be trusted on new text."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "ffn_dim", "num_buckets")
        require_positive(self, "context_bytes", least=2)
        require_positive(self, "n_layers", most=MAX_LAYERS)
        require_positive(self, "ngram_sizes", most=MAX_NGRAM_BYTES)
        for name in ("dropout", "ngram_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    @property
    def hidden_dim(self) -> int:
        """Feed-forward width, derived when `ffn_dim` is absent."""
        return self.ffn_dim or self.dim


class BiasedLinear(Linear):
    """`Linear` and a bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features)
        self.bias = nn.Parameter(torch.zeros(out_features))

    def forward(self, input: Float[Tensor, "*N D"]) -> Float[Tensor, "*N F"]:
        """Multiply every position with the weight, and add the bias in full precision."""
        return full_precision(super().forward(input)) + self.bias


class Recurrence(nn.Module):
    """The gated recurrence of one layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.norm = RMSNorm(dim)
        self.gate, self.candidate = BiasedLinear(dim, dim), BiasedLinear(dim, dim)
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(
        self,
        x: Float[Tensor, "T B D"],
        *,
        first: Float[Tensor, "B D"],
        begins: Bool[Tensor, "T B 1"] | None,
    ) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "T B D"]]:
        """What the layer adds to `x`, and its memory after each position.

        Args:
            x: Time first, so that the rows of one moment lie together.
            first: The memory before the first position.
            begins: Where a row begins inside: what was before it is forgotten. None: nowhere.

        """
        u = cast_for_products(self.norm(x))
        h = gated_scan(self.gate(u), self.candidate(u), first, begins)
        return self.scale * h, h


def gated_scan(
    gate: Float[Tensor, "T B D"],
    candidate: Float[Tensor, "T B D"],
    first: Float[Tensor, "B D"],
    begins: Bool[Tensor, "T B 1"] | None = None,
) -> Float[Tensor, "T B D"]:
    """Run `h = h + sigmoid(gate) (tanh(candidate) - h)` over time; every h.

    Args:
        gate: Before the sigmoid.
        candidate: Before the tanh.
        first: h before the first position; a constant, it gets no gradient.
        begins: Where h is 0 before the position. None: nowhere.

    """
    return _GatedScan.apply(gate, candidate, first, begins)


class _GatedScan(torch.autograd.Function):
    """One fused operation a moment forward and one backward; plain autograd needs a dozen."""

    @staticmethod
    def forward(
        ctx, gate: Tensor, candidate: Tensor, first: Tensor, begins: Tensor | None
    ) -> Tensor:
        z, c = gate.sigmoid(), candidate.tanh()
        keep = _kept(z, begins)
        h = torch.empty_like(z)
        before = first
        for kept, new, now in zip(keep.unbind(), (z * c).unbind(), h.unbind(), strict=True):
            before = torch.addcmul(new, kept, before, out=now)
        ctx.save_for_backward(z, c, h, first, begins)
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        z, c, h, first, begins = ctx.saved_tensors
        grads = grad.clone(memory_format=torch.contiguous_format)
        moments, keep = grads.unbind(), _kept(z, begins).unbind()
        for t in range(len(moments) - 2, -1, -1):
            moments[t].addcmul_(keep[t + 1], moments[t + 1])
        before = torch.cat((first[None], h[:-1]))
        if begins is not None:
            before.masked_fill_(begins, 0)
        grad_z = torch.sub(c, before, out=before).mul_(grads)
        grad_gate = torch.ops.aten.sigmoid_backward(grad_z, z)
        return grad_gate, torch.ops.aten.tanh_backward(grads.mul_(z), c), None, None


def _kept(z: Tensor, begins: Tensor | None) -> Tensor:
    """How much of the memory before each position is kept."""
    keep = 1 - z
    return keep if begins is None else keep.masked_fill_(begins, 0)


class RecurrentLayer(nn.Module):
    """`x + recurrence(norm x)`, then `x + feed-forward(norm x)`."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.recurrence = Recurrence(config.dim)
        self.ffn_norm = RMSNorm(config.dim)
        self.ffn = SquaredReLU(config.dim, config.hidden_dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(
        self,
        x: Float[Tensor, "T B D"],
        *,
        first: Float[Tensor, "B D"],
        begins: Bool[Tensor, "T B 1"] | None,
    ) -> tuple[Float[Tensor, "T B D"], Float[Tensor, "T B D"]]:
        """Both residual branches, and the recurrence's memory after each position."""
        added, h = self.recurrence(x, first=first, begins=begins)
        x = x + self.dropout(added)
        return x + self.dropout(self.ffn(self.ffn_norm(x))), h


class Memory:
    """The memory of each layer, of all rows, in at least float32."""

    def __init__(self, rows: int, n_layers: int, like: Tensor) -> None:
        self.h = full_precision(like).new_zeros(rows, n_layers, like.shape[-1])

    def clear(self, slot: int) -> None:
        """Forget all of a row."""
        self.h[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        self.h = self.h[list(sources)]

    def save(self, slot: int) -> Tensor:
        """A copy of one row."""
        return self.h[slot].clone()

    def restore(self, slot: int, saved: Tensor) -> None:
        """Make a row what was saved."""
        self.h[slot] = saved


class RecurrentState(State):
    """Of rows of a recurrent model."""

    def __init__(self, memory: Memory, ids: IdHistory | None) -> None:
        super().__init__(memory, ids)
        self.memory, self.ids = memory, ids


class Recurrent(nn.Module):
    """A causal byte language model without attention."""

    def __init__(self, config: RecurrentConfig) -> None:
        super().__init__()
        self.config = config
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.hash_ngrams = (
            HashNgrams(config.dim, ngram_sizes=config.ngram_sizes, num_buckets=config.num_buckets)
            if config.ngram_sizes
            else None
        )
        self.layers = Layers(RecurrentLayer(config) for _ in range(config.n_layers))
        self.norm = RMSNorm(config.dim)
        self.head = Linear(config.dim, VOCAB_SIZE)
        self._initialize_()

    def _initialize_(self) -> None:
        """Feed-forwards, tables and the output begin at zero; memories of all lengths."""
        initialize_(self, n_layers=self.config.n_layers)
        truncated_normal_(self.embed.weight, 1.0)
        for name, parameter in self.named_parameters():
            if name.endswith(("down_proj.weight", "head.weight")):
                nn.init.zeros_(parameter)
        if self.hash_ngrams is not None:
            nn.init.zeros_(self.hash_ngrams.weight)
        # A gate of bias -log(n - 1) forgets 1/n of the memory at each byte (Tallec and Ollivier
        # 2018, arXiv:1804.11188).
        lengths = torch.logspace(0, 1, self.config.dim, base=LONGEST_MEMORY)
        for layer in self.layers:
            with torch.no_grad():
                layer.recurrence.gate.bias.copy_(-lengths.clamp(min=SHORTEST_MEMORY).sub(1).log())

    def forward(self, ids: Int[Tensor, "B T"]) -> Float[Tensor, "B T V"]:
        """Logits, at least float32, of the id after each position; a BOS begins a row anew."""
        windows = None
        if self.hash_ngrams is not None:
            windows = ngram_windows(ids, self.hash_ngrams.width)
        x = self._embedded(ids.flatten(), windows).unflatten(0, ids.shape).transpose(0, 1)
        # Before the first position there is nothing to forget.
        begins = (ids == BOS).t()[..., None]
        x, _ = self._layers(x.contiguous(), None, begins if begins[1:].any() else None)
        return self._logits(x.transpose(0, 1))

    def begin(self, rows: int = 1) -> RecurrentState:
        """The state of rows of which nothing is read."""
        memory = Memory(rows, self.config.n_layers, self.embed.weight.detach())
        if self.hash_ngrams is None:
            return RecurrentState(memory, None)
        return RecurrentState(memory, IdHistory(rows, width=self.hash_ngrams.width, spare=0))

    def read(
        self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray, state: RecurrentState
    ) -> Float[Tensor, "N V"]:
        """Read more of some rows, as `EntropyLM.read`."""
        rows, device = Rows(counts, slots=slots), self.embed.weight.device
        windows = None if state.ids is None else state.ids.windows(ids, rows).to(device)
        packed, memory = self._embedded(torch.from_numpy(ids).to(device), windows), state.memory
        # After its end a short row reads zeros, and what it remembers of them is not looked at.
        x, memories = self._layers(rows.padded(packed).transpose(0, 1), memory.h[slots], None)
        last, batch = counts - 1, np.arange(len(slots))
        memory.h[slots] = torch.stack([h[last, batch] for h in memories], dim=1)
        return self._logits(rows.packed(x.transpose(0, 1)))

    def _embedded(self, ids: Tensor, windows: Tensor | None) -> Tensor:
        x = self.embed(ids)
        if self.hash_ngrams is None:
            return x
        dropout = self.config.ngram_dropout if self.training else 0.0
        return x + self.hash_ngrams(windows, dropout=dropout)

    def _layers(
        self, x: Tensor, first: Tensor | None, begins: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """All layers, time first; the memories of each after every position."""
        memories, nothing = [], full_precision(x).new_zeros(x.shape[1:])
        for index, layer in enumerate(self.layers):
            before = nothing if first is None else first[:, index]
            x, h = layer(x, first=before, begins=begins)
            memories.append(h)
        return x, memories

    def _logits(self, x: Tensor) -> Tensor:
        return full_precision(self.head(self.norm(x)))
