"""The byte GPT of bytelm for transformers: this file travels with its weights and stands alone.

A plain byte transformer over ids (byte + 4; BOE 0, BOS 1, EOS 2): embeddings of hashed n-grams,
RMSNorm before each branch, rotary positions on interleaved pairs, normalized queries and keys, an
optional sliding window, squared ReLU. Rows padded on the left with id 0 and masked by
`attention_mask` compute what they compute alone. There is no cache of keys and values: the whole
row is read for every new byte, so load the run with bytelm where speed matters.
Shape key: B rows, T positions, D width, H heads, K head width, F = K / 2 frequencies.
"""

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutput

HASH_PRIME = 1_000_000_007


class BytelmByteGPTConfig(PreTrainedConfig):
    """Sizes of a byte GPT."""

    model_type = "bytelm_byte_gpt"

    vocab_size: int = 260
    hidden_size: int = 128
    num_hidden_layers: int = 4
    num_attention_heads: int = 2
    intermediate_size: int = 512
    max_position_embeddings: int = 256
    sliding_window: int | None = None
    ngram_sizes: list[int] | None = None
    num_buckets: int = 32_768
    dropout: float = 0.0
    rotary_base: float = 10_000.0
    rms_norm_eps: float = 1e-5
    tie_word_embeddings: bool = False
    use_cache: bool = False
    bos_token_id: int | None = 1
    eos_token_id: int | None = 2
    pad_token_id: int | None = 0


class RMSNorm(nn.Module):
    """Divide by the root mean square, then scale each channel."""

    def __init__(self, dim, eps):
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(dim)), eps

    def forward(self, x):
        """Normalize the last axis."""
        return F.rms_norm(x.to(self.weight.dtype), self.weight.shape, self.weight, self.eps)


class HashNgrams(nn.Module):
    """Sum of one table row for each n-gram size."""

    def __init__(self, config):
        super().__init__()
        self.sizes, self.num_buckets = tuple(config.ngram_sizes), config.num_buckets
        self.weight = nn.Parameter(
            torch.empty(len(self.sizes) * config.num_buckets, config.hidden_size)
        )

    def forward(self, ids):
        """Embedding of the n-grams that end at each position; left of a row is id 0."""
        hashes, total = torch.zeros_like(ids), 0
        for size in range(1, max(self.sizes) + 1):
            # int64 wraps around: the oldest id has exponent 0
            hashes = F.pad(ids, (size - 1, 0))[:, : ids.shape[1]] + HASH_PRIME * hashes
            for place in (i for i, own in enumerate(self.sizes) if own == size):
                rows = torch.remainder(hashes, self.num_buckets) + place * self.num_buckets
                total = total + F.embedding(rows, self.weight)
        return total


class Attention(nn.Module):
    """Multi-head self-attention with normalized queries and keys."""

    def __init__(self, config):
        super().__init__()
        dim, self.heads = config.hidden_size, config.num_attention_heads
        self.q_norm = RMSNorm(dim // self.heads, config.rms_norm_eps)
        self.k_norm = RMSNorm(dim // self.heads, config.rms_norm_eps)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def forward(self, x, turns, mask):
        """Attend where `mask` [B, 1, T, T] is true."""
        q, k, v = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        q = rotate(self.q_norm(q), turns).to(v.dtype)
        k = rotate(self.k_norm(k), turns).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.o_proj(mixed.transpose(1, 2).flatten(-2))


def rotate(x, turns):
    """Turn each interleaved pair by the angle of its position."""
    exact = x if turns[0].dtype == torch.float64 else x.float()
    even, odd, cos, sin = exact[..., 0::2], exact[..., 1::2], *turns
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), -1).flatten(-2)


class SquaredReLU(nn.Module):
    """Feed-forward `down(relu(up x)^2)`."""

    def __init__(self, config):
        super().__init__()
        self.up_proj = nn.Linear(config.hidden_size, config.intermediate_size, bias=False)
        self.down_proj = nn.Linear(config.intermediate_size, config.hidden_size, bias=False)

    def forward(self, x):
        """Apply to every position alone."""
        return self.down_proj(F.relu(self.up_proj(x)).square())


class Layer(nn.Module):
    """`x + attention(norm x)`, then `x + feed-forward(norm x)`."""

    def __init__(self, config):
        super().__init__()
        self.attention_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.ffn_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.attention, self.ffn = Attention(config), SquaredReLU(config)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x, turns, mask):
        """Both residual branches."""
        x = x + self.dropout(self.attention(self.attention_norm(x), turns, mask))
        return x + self.dropout(self.ffn(self.ffn_norm(x)))


class BytelmByteGPTForCausalLM(PreTrainedModel, GenerationMixin):
    """A causal byte language model without patches."""

    config_class = BytelmByteGPTConfig
    _no_split_modules = ["Layer"]  # noqa: RUF012

    def __init__(self, config):
        super().__init__(config)
        self.embed = nn.Embedding(config.vocab_size, config.hidden_size)
        self.hash_ngrams = HashNgrams(config) if config.ngram_sizes else None
        self.embed_norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_input_embeddings(self):
        """The byte embedding."""
        return self.embed

    def set_input_embeddings(self, value):
        """Replace the byte embedding."""
        self.embed = value

    def get_output_embeddings(self):
        """The output projection."""
        return self.head

    def forward(self, input_ids, attention_mask=None, labels=None, logits_to_keep=0, **kwargs):
        """Logits of the id after each position, and the mean loss in nats where labels are given.

        Args:
            input_ids: int64 [B, T]; a document begins with BOS.
            attention_mask: 0 where a row is padded; without one no position is padding.
            labels: As input_ids; -100 is not scored.
            logits_to_keep: Give the logits of so many last positions only; 0 gives all.
            kwargs: Passed on to the loss.

        """
        kwargs.pop("use_cache", None)
        for name in ("past_key_values", "inputs_embeds"):
            if kwargs.pop(name, None) is not None:
                raise ValueError(f"{name} has no meaning here: this model reads whole rows of ids")
        kwargs.pop("position_ids", None)
        real = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        real = real.bool()
        ids = input_ids.where(real, 0)
        x = self.embed(ids)
        if self.hash_ngrams is not None:
            x = x + self.hash_ngrams(ids)
        x = self.embed_norm(x)
        turns, mask = self._turns(ids.shape[1], x), self._mask(real)
        for layer in self.layers:
            x = layer(x, turns, mask)
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.head(self.norm(x[:, kept]))
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, self.config.vocab_size, **kwargs)
        return CausalLMOutput(loss=loss, logits=logits)

    def _turns(self, length, like):
        """Cosines and sines [T, F]; angles are taken in float64."""
        width = self.config.hidden_size // self.config.num_attention_heads
        half = torch.arange(0, width, 2, dtype=torch.float64)
        rates = self.config.rotary_base ** (-half / width)
        angles = torch.arange(length, dtype=torch.float64)[:, None] * rates
        dtype = torch.promote_types(like.dtype, torch.float32)
        return tuple(turn.to(like.device, dtype) for turn in (angles.cos(), angles.sin()))

    def _mask(self, real):
        """Where each position may look, [B, 1, T, T]; padding looks at itself."""
        position = torch.arange(real.shape[1], device=real.device)
        distance = position[:, None] - position
        band = distance >= 0
        if self.config.sliding_window is not None:
            band = band & (distance < self.config.sliding_window)
        return (band & real[:, None, :]).logical_or(distance == 0)[:, None]
