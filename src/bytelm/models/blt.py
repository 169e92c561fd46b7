"""The Byte Latent Transformer: bytes in, patches through a large transformer, bytes out.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), section 3. The arithmetic is that of the
released models: the cross-attention residual is doubled, rotary pairs are interleaved, patch
queries start from a max-pool, n-gram hashes wrap in int64 over ids, ids 0 and 1 of a document
always start a patch.

    ids       BOS  T  h  e     c  a  t
    patch      0   1  1  1  2  3  3  3      the encoder sums a patch up from its own bytes
    decoded with   0  0  0  0  1  2  2  2   each byte is written from the last *closed* patch

Shape key: B rows, T bytes, N = B * T, P patches, D local width, K cross_attn_k, V vocabulary.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bytelm.config import (
    MAX_LAYERS,
    MAX_NGRAM_BYTES,
    MAX_PATCH_VECTORS,
    require_positive,
)
from bytelm.models.entropy_lm import EntropyLM
from bytelm.models.ngram import Ngram
from bytelm.nn.attention import KVCache
from bytelm.nn.hash_ngrams import HashNgrams, IdHistory
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.segments import attend_to_segment, attend_within_segments, segment_max
from bytelm.nn.transformer import (
    TransformerLayer,
    ffn_width,
    initialize_,
    truncated_normal_,
)
from bytelm.patching import Patcher, Patches, batch_starts
from bytelm.vocab import VOCAB_SIZE


@dataclass(frozen=True, kw_only=True)
class BLTConfig:
    """Sizes of the three transformers and of what joins them."""

    kind: ClassVar[str] = "blt"

    context_bytes: int = 512
    """Longest row, bytes, BOS included; the global transformer sees no further back."""

    dim: int = 128
    """Width of the local encoder and decoder."""

    n_heads: int = 4
    """Heads of the local self-attention and of the cross-attention."""

    n_layers_encoder: int = 1
    """Layers of the local encoder."""

    n_layers_decoder: int = 3
    """Layers of the local decoder; each first attends to the last closed patch."""

    window: int = 128
    """How many bytes a local layer looks back, the current one included."""

    ffn_dim: int | None = None
    """Feed-forward width of a local layer; absent: 8/3 of dim, up to a multiple of 256."""

    dim_global: int = 256
    """Width of the global transformer over patches."""

    n_heads_global: int = 4
    """Heads of the global transformer."""

    n_layers_global: int = 3
    """Layers of the global transformer."""

    ffn_dim_global: int | None = None
    """Feed-forward width of a global layer; absent: 8/3 of dim_global, as above."""

    cross_attn_k: int = 2
    """Vectors per patch in the cross-attentions."""

    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Lengths in bytes of the hashed n-grams; empty: none."""

    num_buckets: int = 32_768
    """Rows of the table of one n-gram size."""

    rope_theta: float = 500_000.0
    """Base of the rotary positions of all three transformers."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "window", "ffn_dim", "num_buckets", "rope_theta")
        require_positive(self, "dim_global", "n_heads_global", "ffn_dim_global")
        require_positive(self, "context_bytes", least=2)
        layers = ("n_layers_encoder", "n_layers_decoder", "n_layers_global")
        require_positive(self, *layers, most=MAX_LAYERS)
        require_positive(self, "ngram_sizes", most=MAX_NGRAM_BYTES)
        require_positive(self, "cross_attn_k", most=MAX_PATCH_VECTORS)
        for dim, heads in (("dim", "n_heads"), ("dim_global", "n_heads_global")):
            if getattr(self, dim) % (2 * getattr(self, heads)):
                raise ValueError(
                    f"{dim} must be a multiple of 2 * {heads} (rotary pairs), got {dim} = "
                    f"{getattr(self, dim)}, {heads} = {getattr(self, heads)}"
                )


class CrossAttention(nn.Module):
    """Projections and norms of one byte-patch attention; who sees whom is the caller's."""

    def __init__(self, dim: int, n_heads: int) -> None:
        super().__init__()
        self.n_heads = n_heads
        self.q_norm, self.kv_norm = RMSNorm(dim), RMSNorm(dim)
        self.q_proj = nn.Linear(dim, dim, bias=False)
        self.k_proj = nn.Linear(dim, dim, bias=False)
        self.v_proj = nn.Linear(dim, dim, bias=False)
        self.o_proj = nn.Linear(dim, dim, bias=False)

    def queries(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... H C"]:
        """Query heads of `x`."""
        return self.q_proj(self.q_norm(x)).unflatten(-1, (self.n_heads, -1))

    def keys_values(
        self, x: Float[Tensor, "... D"]
    ) -> tuple[Float[Tensor, "... H C"], Float[Tensor, "... H C"]]:
        """Key and value heads of `x`."""
        x = self.kv_norm(x)
        keys, values = self.k_proj(x), self.v_proj(x)
        return keys.unflatten(-1, (self.n_heads, -1)), values.unflatten(-1, (self.n_heads, -1))

    def residual(
        self, x: Float[Tensor, "... D"], mixed: Float[Tensor, "... H C"]
    ) -> Float[Tensor, "... D"]:
        """`2 x + Wo mixed`: the released models add the residual twice."""
        return 2 * x + self.o_proj(mixed.flatten(-2).to(x.dtype))


class DecoderLayer(nn.Module):
    """Attend to the vectors of the last closed patch, then be a local transformer layer."""

    def __init__(self, cross: CrossAttention, local: TransformerLayer) -> None:
        super().__init__()
        self.cross, self.local = cross, local

    def forward(
        self,
        x: Float[Tensor, "B T D"],
        vectors: Float[Tensor, "P K D"],
        closed: Int[Tensor, " N"],
        *,
        cache: KVCache | None = None,
    ) -> Float[Tensor, "B T D"]:
        """Byte i of the flattened rows attends to `vectors[closed[i]]`."""
        mixed = attend_to_segment(
            self.cross.queries(x.flatten(0, 1)), *self.cross.keys_values(vectors), closed
        )
        x = self.cross.residual(x, mixed.unflatten(0, x.shape[:2]))
        return self.local(x, cache=cache)


@dataclass
class BLTState:
    """What a stream of one row keeps: windows of the local layers, one entry per closed patch."""

    encoder: list[KVCache]
    decoder: list[KVCache]
    patches: list[KVCache]
    ids: IdHistory
    open_patch: Tensor
    """Encoder states of the bytes of the open patch, [*, D]."""
    closed_patch: Tensor
    """Decoder vectors of the last closed patch, [0 or 1, K, D]."""


class BLT(nn.Module):
    """A byte language model whose global transformer runs once per patch."""

    def __init__(
        self,
        config: BLTConfig,
        patcher: Patcher,
        entropy_model: EntropyLM | Ngram | None = None,
    ) -> None:
        super().__init__()
        if patcher.needs_entropies != (entropy_model is not None):
            verb = "needs an" if patcher.needs_entropies else "takes no"
            raise ValueError(
                f"a {patcher.kind!r} patcher {verb} entropy model, "
                f"got {type(entropy_model).__name__}"
            )
        self.config, self.patcher = config, patcher
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.hash_ngrams = (
            HashNgrams(config.dim, ngram_sizes=config.ngram_sizes, num_buckets=config.num_buckets)
            if config.ngram_sizes
            else None
        )
        self.encoder = nn.ModuleList(self._local_layer() for _ in range(config.n_layers_encoder))
        self.pool_proj = nn.Linear(config.dim, config.cross_attn_k * config.dim, bias=False)
        self.encoder_cross = CrossAttention(config.dim, config.n_heads)

        joined = config.cross_attn_k * config.dim
        self.global_in = (
            nn.Linear(joined, config.dim_global, bias=False)
            if joined != config.dim_global
            else nn.Identity()
        )
        self.global_layers = nn.ModuleList(
            TransformerLayer(
                config.dim_global,
                n_heads=config.n_heads_global,
                n_kv_heads=config.n_heads_global,
                ffn_dim=config.ffn_dim_global or ffn_width(config.dim_global),
                window=None,
                rope_theta=config.rope_theta,
            )
            for _ in range(config.n_layers_global)
        )
        self.global_out = nn.Linear(config.dim_global, joined, bias=False)

        self.decoder = nn.ModuleList(
            DecoderLayer(CrossAttention(config.dim, config.n_heads), self._local_layer())
            for _ in range(config.n_layers_decoder)
        )
        self.norm = RMSNorm(config.dim)
        self.head = nn.Linear(config.dim, VOCAB_SIZE, bias=False)
        self._initialize_()

        # After the weights are drawn: those of the entropy model are trained already.
        self.entropy_model = entropy_model
        if entropy_model is not None:
            entropy_model.requires_grad_(False)

    def _local_layer(self) -> TransformerLayer:
        config = self.config
        return TransformerLayer(
            config.dim,
            n_heads=config.n_heads,
            n_kv_heads=config.n_heads,
            ffn_dim=config.ffn_dim or ffn_width(config.dim),
            window=config.window,
            rope_theta=config.rope_theta,
        )

    def _initialize_(self) -> None:
        """Every branch and the output begin at zero: the first prediction is uniform.

        Embeddings have unit size, so that the first steps of the hash tables do not drown them
        (measured: 1.930 to 1.910 bits per byte after a minute, docs/LOG.md).
        """
        initialize_(self, n_layers=1)
        truncated_normal_(self.embed.weight, 1.0)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "head.weight")):
                nn.init.zeros_(parameter)
        if self.hash_ngrams is not None:
            nn.init.zeros_(self.hash_ngrams.weight)

    @torch.no_grad()
    def patch(self, ids: Int[Tensor, "B T"]) -> Bool[Tensor, "B T+1"]:
        """Where patches start in rows of ids: flag T says whether the byte after the row would.

        Every BOS opens a document: it is a patch of its own. Padding (BOE) is patched as bytes.
        """
        entropies = None if self.entropy_model is None else self.entropy_model.entropies(ids)
        return batch_starts(self.patcher, ids, entropies)

    def forward(
        self, ids: Int[Tensor, "B T"], starts: Bool[Tensor, "B T+1"] | None = None
    ) -> Float[Tensor, "B T V"]:
        """Logits, at least float32, of the id after each position.

        Args:
            ids: Rows that begin with BOS.
            starts: Patch starts as `patch` gives them, when they are known already.
        """
        starts = self.patch(ids) if starts is None else starts
        patches = Patches.from_starts(starts[:, :-1])
        rows, width = len(ids), int(patches.num_patches.max())
        row = width * torch.arange(rows, device=ids.device)[:, None]
        inside = (patches.ids + row).flatten()
        # A byte is decoded with its own patch if it is the last of it, else with the one before.
        closed = inside + starts[:, 1:].flatten().long() - 1

        x = self._encode(ids, None)
        summaries = self._pool(x.flatten(0, 1), inside, rows * width)
        vectors = self._transform(summaries.unflatten(0, (rows, width)), None)
        x = self._decode(x, vectors.flatten(0, 1), closed, None)
        return full_precision(self.head(self.norm(x)))

    def begin(self) -> BLTState:
        """The state of one row before anything is read."""
        config, weight = self.config, self.embed.weight
        return BLTState(
            encoder=[KVCache() for _ in self.encoder],
            decoder=[KVCache() for _ in self.decoder],
            patches=[KVCache() for _ in self.global_layers],
            ids=IdHistory(),
            open_patch=weight.new_zeros(0, config.dim),
            closed_patch=weight.new_zeros(0, config.cross_attn_k, config.dim),
        )

    def extend(
        self, ids: Int[Tensor, "1 T"], next_starts: Bool[Tensor, " T"], state: BLTState
    ) -> Float[Tensor, "1 T V"]:
        """Read more ids of one row; `next_starts[i]` says whether the id after `ids[i]` starts one.

        The first id that a state reads is BOS, whose `next_starts` is true.
        """
        count = next_starts.long().cumsum(0)
        closing = int(count[-1])
        x = self._encode(ids, state)
        seen = torch.cat((state.open_patch, x[0]))
        inside = torch.zeros(len(seen), dtype=torch.int64, device=ids.device)
        inside[len(state.open_patch) + 1 :] = count[:-1]
        whole = inside < closing
        vectors = state.closed_patch
        if closing:
            patches = self._pool(seen[whole], inside[whole], closing)
            vectors = torch.cat((vectors, self._transform(patches[None], state)[0]))
        x = self._decode(x, vectors, count - 1 + len(state.closed_patch), state)
        state.open_patch, state.closed_patch = seen[~whole], vectors[-1:]
        return full_precision(self.head(self.norm(x)))

    def _encode(self, ids: Tensor, state: BLTState | None) -> Tensor:
        """Byte states `[B, T, D]` after the local encoder."""
        x = self.embed(ids)
        if self.hash_ngrams is not None:
            x = x + self.hash_ngrams(ids, history=None if state is None else state.ids)
        for index, layer in enumerate(self.encoder):
            x = layer(x, cache=None if state is None else state.encoder[index])
        return x

    def _pool(self, x: Tensor, inside: Tensor, num_patches: int) -> Tensor:
        """Sum each patch up, `[P, K * D]`, from the states `[N, D]` of its bytes."""
        config, cross = self.config, self.encoder_cross
        pooled = self.pool_proj(segment_max(x, inside, num_patches))
        queries = pooled.unflatten(-1, (config.cross_attn_k, config.dim))
        mixed = attend_within_segments(cross.queries(queries), *cross.keys_values(x), inside)
        return cross.residual(queries, mixed).flatten(1)

    def _transform(self, patches: Tensor, state: BLTState | None) -> Tensor:
        """Decoder vectors `[B, P, K, D]` of patches `[B, P, K * D]`."""
        z = self.global_in(patches)
        for index, layer in enumerate(self.global_layers):
            z = layer(z, cache=None if state is None else state.patches[index])
        return self.global_out(z).unflatten(-1, (self.config.cross_attn_k, self.config.dim))

    def _decode(self, x: Tensor, vectors: Tensor, closed: Tensor, state: BLTState | None) -> Tensor:
        """Byte states after the local decoder; byte i looks at `vectors[closed[i]]`."""
        for index, layer in enumerate(self.decoder):
            cache = None if state is None else state.decoder[index]
            x = layer(x, vectors, closed, cache=cache)
        return x
