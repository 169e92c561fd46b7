"""The Byte Latent Transformer: bytes in, patches through a large transformer, bytes out.

Source: BLT (Pagnoni et al. 2024, arXiv:2412.09871), section 3. The arithmetic is that of the
released models: the cross-attention residual is doubled, rotary pairs are interleaved, patch
queries start from a max-pool, n-gram hashes wrap in int64 over ids, ids 0 and 1 of a document
always start a patch.

    ids       BOS  T  h  e     c  a  t
    patch      0   1  1  1  2  3  3  3      the encoder sums a patch up from its own bytes
    decoded with   0  0  0  0  1  2  2  2   each byte is written from the last *closed* patch

Shape key: B rows, T bytes, N bytes of all rows, P patches of all rows, D local width, K vectors of
a patch, H heads, G key/value heads, C head width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from bytelm.config import (
    MAX_LAYERS,
    MAX_NGRAM_BYTES,
    MAX_PATCH_VECTORS,
    require_heads,
    require_positive,
)
from bytelm.models.entropy_lm import EntropyLM
from bytelm.models.ngram import Ngram
from bytelm.models.state import State, make_cache
from bytelm.nn.hash_ngrams import HashNgrams, IdHistory, ngram_windows
from bytelm.nn.kv_cache import SLACK, LayerCache
from bytelm.nn.layers import Layers
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.rows import Rows
from bytelm.nn.segments import (
    attend_to_segment,
    attend_to_vectors,
    attend_within_segments,
    segment_max,
)
from bytelm.nn.transformer import (
    TransformerLayer,
    ffn_width,
    initialize_,
    truncated_normal_,
)
from bytelm.patching import Patcher, batch_starts
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

    n_kv_heads: int | None = None
    """Their key and value heads, each shared by n_heads / n_kv_heads heads; absent: n_heads."""

    n_layers_encoder: int = 1
    """Layers of the local encoder."""

    n_layers_decoder: int = 3
    """Layers of the local decoder."""

    cross_attention_every_layer: bool = True
    """Every layer of the local decoder attends to the last closed patch; off: only the first."""

    n_heads_decoder: int | None = None
    """Heads of the local decoder; absent: as the encoder's."""

    n_kv_heads_decoder: int | None = None
    """Key and value heads of the local decoder; absent: as the encoder's."""

    ffn_dim_decoder: int | None = None
    """Feed-forward width of a decoder layer; absent: as the encoder's."""

    window: int = 128
    """How many bytes a local layer looks back, the current one included."""

    ffn_dim: int | None = None
    """Feed-forward width of a local layer; absent: 8/3 of dim, up to a multiple of 256."""

    dim_global: int = 256
    """Width of the global transformer over patches."""

    n_heads_global: int = 4
    """Heads of the global transformer."""

    n_kv_heads_global: int | None = None
    """Key and value heads of the global transformer; absent: n_heads_global."""

    n_layers_global: int = 3
    """Layers of the global transformer."""

    ffn_dim_global: int | None = None
    """Feed-forward width of a global layer; absent: 8/3 of dim_global, as above."""

    cross_attn_k: int = 2
    """Vectors per patch in the cross-attentions."""

    ngram_sizes: tuple[int, ...] = (3, 4, 5, 6, 7, 8)
    """Lengths in bytes of the hashed n-grams; empty: none."""

    num_buckets: int = 32_768
    """Rows of the table of one hash function and n-gram size."""

    num_hash_functions: int = 1
    """Hash functions of each n-gram size, each with tables of its own."""

    rope_theta: float = 500_000.0
    """Base of the rotary positions of all three transformers."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "n_kv_heads", "window", "ffn_dim", "num_buckets")
        require_positive(self, "n_heads_decoder", "n_kv_heads_decoder", "ffn_dim_decoder")
        require_positive(self, "dim_global", "n_heads_global", "n_kv_heads_global")
        require_positive(self, "ffn_dim_global", "rope_theta")
        require_positive(self, "context_bytes", least=2)
        layers = ("n_layers_encoder", "n_layers_decoder", "n_layers_global")
        require_positive(self, *layers, most=MAX_LAYERS)
        require_positive(self, "ngram_sizes", most=MAX_NGRAM_BYTES)
        require_positive(self, "cross_attn_k", "num_hash_functions", most=MAX_PATCH_VECTORS)
        require_heads(self, "dim", "n_heads", "n_kv_heads")
        require_heads(self.decoder_sizes, "dim", "n_heads", "n_kv_heads")
        require_heads(self, "dim_global", "n_heads_global", "n_kv_heads_global")

    @property
    def encoder_sizes(self) -> "LocalSizes":
        """Of a layer of the local encoder."""
        ffn_dim = self.ffn_dim or ffn_width(self.dim)
        return LocalSizes(self.dim, self.n_heads, self.n_kv_heads or self.n_heads, ffn_dim)

    @property
    def decoder_sizes(self) -> "LocalSizes":
        """Of a layer of the local decoder."""
        own = self.encoder_sizes
        n_heads = self.n_heads_decoder or own.n_heads
        shared = own.n_kv_heads if self.n_heads_decoder in (None, own.n_heads) else n_heads
        n_kv_heads = self.n_kv_heads_decoder or shared
        return LocalSizes(self.dim, n_heads, n_kv_heads, self.ffn_dim_decoder or own.ffn_dim)


@dataclass(frozen=True)
class LocalSizes:
    """Of one local layer and its cross-attention, with nothing left to a default."""

    dim: int
    n_heads: int
    n_kv_heads: int
    ffn_dim: int


class CrossAttention(nn.Module):
    """Projections and norms of one byte-patch attention; who sees whom is the caller's."""

    def __init__(self, sizes: LocalSizes) -> None:
        super().__init__()
        dim, self.head_dim = sizes.dim, sizes.dim // sizes.n_heads
        self.n_heads, self.n_kv_heads = sizes.n_heads, sizes.n_kv_heads
        self.q_norm, self.kv_norm = RMSNorm(dim), RMSNorm(dim)
        self.q_proj = Linear(dim, dim)
        self.k_proj = Linear(dim, self.n_kv_heads * self.head_dim)
        self.v_proj = Linear(dim, self.n_kv_heads * self.head_dim)
        self.o_proj = Linear(dim, dim)

    def queries(self, x: Float[Tensor, "*N D"]) -> Float[Tensor, "*N H C"]:
        """Query heads of `x`."""
        return self.q_proj(self.q_norm(x)).view(*x.shape[:-1], self.n_heads, self.head_dim)

    def keys_values(
        self, x: Float[Tensor, "*N D"]
    ) -> tuple[Float[Tensor, "*N G C"], Float[Tensor, "*N G C"]]:
        """Key and value heads of `x`."""
        x = self.kv_norm(x)
        shape = (*x.shape[:-1], self.n_kv_heads, self.head_dim)
        return self.k_proj(x).view(shape), self.v_proj(x).view(shape)

    def residual(
        self, x: Float[Tensor, "*N D"], mixed: Float[Tensor, "*N H C"]
    ) -> Float[Tensor, "*N D"]:
        """`2 x + Wo mixed`: the released models add the residual twice."""
        return torch.add(self.o_proj(mixed.flatten(-2).to(x.dtype)), x, alpha=2)


class DecoderLayer(nn.Module):
    """Attend to the vectors of the last closed patch, then be a local transformer layer."""

    def __init__(self, cross: CrossAttention | None, local: TransformerLayer) -> None:
        super().__init__()
        self.cross, self.local = cross, local


@dataclass(eq=False)
class Closing:
    """The patches that a reading closed, and which patch each of its bytes is decoded with."""

    rows: Rows
    """Of the bytes that were read."""

    counts: np.ndarray
    """int64 `[N]`, patches of its row that were closed up to and with each byte."""

    keys: list[Tensor]
    """Of each cross-attention: `[slots + P, K, G, C]`, the last closed patch of every slot of the
    state, then the patches closed now."""

    values: list[Tensor]
    """As the keys."""

    index: np.ndarray
    """int64 `[N]`, which of these each byte is decoded with."""

    def part(self, begin: int, end: int, *, begins: np.ndarray | None = None) -> "Closing":
        """The same for the bytes [begin, end) of the one row that was read.

        Args:
            begin: The first byte.
            end: After the last byte.
            begins: int64 `[1]`, bytes of the row before `begin`; needed to decode the part.

        """
        rows = Rows(np.array([end - begin]), begins=begins, slots=self.rows.slots)
        counts, index = self.counts[begin:end], self.index[begin:end]
        return Closing(rows, counts, self.keys, self.values, index)


class _OpenPatches:
    """Encoder states of the bytes of each row's open patch, `[n, D]` each.

    Tensors, or arrays where a `BLTStepper` read the bytes.
    """

    def __init__(self, rows: int) -> None:
        self.pieces: list[list[Tensor | np.ndarray]] = [[] for _ in range(rows)]

    def clear(self, slot: int) -> None:
        self.pieces[slot] = []

    def select(self, sources: Sequence[int]) -> None:
        self.pieces = [list(self.pieces[source]) for source in sources]

    def save(self, slot: int) -> list[Tensor | np.ndarray]:
        return list(self.pieces[slot])

    def restore(self, slot: int, saved: list[Tensor | np.ndarray]) -> None:
        self.pieces[slot] = list(saved)


class _LastClosed:
    """Decoder keys and values of each row's last closed patch, `[rows, K, G, C]` for each layer."""

    def __init__(self, tensors: list[Tensor]) -> None:
        self.tensors = tensors

    def clear(self, slot: int) -> None:
        for tensor in self.tensors:
            tensor[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        self.tensors = [tensor[list(sources)] for tensor in self.tensors]

    def save(self, slot: int) -> list[Tensor]:
        return [tensor[slot].clone() for tensor in self.tensors]

    def restore(self, slot: int, saved: list[Tensor]) -> None:
        for tensor, value in zip(self.tensors, saved, strict=True):
            tensor[slot] = value


class BLTState(State):
    """Of rows that are read piece by piece: windows of the local layers, and closed patches.

    Memory grows with the closed patches alone (one entry in each global layer), beside the bytes
    of the patch that is open.
    """

    def __init__(self, model: "BLT", rows: int) -> None:
        width = 1 if model.hash_ngrams is None else model.hash_ngrams.width
        self.ids = IdHistory(rows, width=width, spare=SLACK)
        self.encoder = make_cache(rows, [layer.attention for layer in model.encoder])
        self.decoder = make_cache(rows, [layer.local.attention for layer in model.decoder])
        self.patches = make_cache(rows, [layer.attention for layer in model.global_layers])
        self.open = _OpenPatches(rows)
        sizes, like = model.config.decoder_sizes, model.embed.weight
        shape = (rows, model.config.cross_attn_k, sizes.n_kv_heads, sizes.dim // sizes.n_heads)
        crossing = sum(layer.cross is not None for layer in model.decoder)
        self.last = _LastClosed([like.new_zeros(shape) for _ in range(2 * crossing)])
        super().__init__(self.ids, self.encoder, self.decoder, self.patches, self.open, self.last)

    def begin(self, counts: np.ndarray, slots: np.ndarray) -> Rows:
        """Make room for more bytes of some rows in the encoder."""
        rows = self.encoder.rows(counts, slots)
        self.encoder.begin(rows)
        return rows


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
            HashNgrams(
                config.dim,
                ngram_sizes=config.ngram_sizes,
                num_buckets=config.num_buckets,
                num_functions=config.num_hash_functions,
            )
            if config.ngram_sizes
            else None
        )
        local, sizes = self._local_layer, config.encoder_sizes
        self.encoder = Layers(local(sizes) for _ in range(config.n_layers_encoder))
        self.pool_proj = Linear(config.dim, config.cross_attn_k * config.dim)
        self.encoder_cross = CrossAttention(sizes)

        joined = config.cross_attn_k * config.dim
        self.global_in = (
            Linear(joined, config.dim_global) if joined != config.dim_global else nn.Identity()
        )
        self.global_layers = Layers(
            TransformerLayer(
                config.dim_global,
                n_heads=config.n_heads_global,
                n_kv_heads=config.n_kv_heads_global or config.n_heads_global,
                ffn_dim=config.ffn_dim_global or ffn_width(config.dim_global),
                window=None,
                rope_theta=config.rope_theta,
            )
            for _ in range(config.n_layers_global)
        )
        self.global_out = Linear(config.dim_global, joined)

        sizes, every = config.decoder_sizes, config.cross_attention_every_layer
        self.decoder = Layers(
            DecoderLayer(CrossAttention(sizes) if every or index == 0 else None, local(sizes))
            for index in range(config.n_layers_decoder)
        )
        self.norm = RMSNorm(config.dim)
        self.head = Linear(config.dim, VOCAB_SIZE)
        self._initialize_()

        # After the weights are drawn: those of the entropy model are trained already.
        self.entropy_model = entropy_model
        if entropy_model is not None:
            entropy_model.requires_grad_(False)

    def _local_layer(self, sizes: LocalSizes) -> TransformerLayer:
        return TransformerLayer(
            sizes.dim,
            n_heads=sizes.n_heads,
            n_kv_heads=sizes.n_kv_heads,
            ffn_dim=sizes.ffn_dim,
            window=self.config.window,
            rope_theta=self.config.rope_theta,
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
            ids: Rows; the first id, BOS, is a patch of its own.
            starts: Patch starts as `patch` gives them, when they are known already.

        Raises:
            ValueError: A row does not begin with a patch of one id.

        """
        starts = self.patch(ids) if starts is None else starts
        if not starts[:, :2].all():
            raise ValueError("the first id of every row must be a patch of its own")
        rows = Rows.full(*ids.shape)
        patches = Rows(starts[:, :-1].sum(1).cpu().numpy())
        # Every row begins with a start, so counting on over the rows numbers the packed patches.
        inside = starts[:, :-1].flatten().long().cumsum(0) - 1
        # A byte is decoded with its own patch if it is the last of it, else with the one before.
        closed = inside + starts[:, 1:].flatten().long() - 1

        windows = None
        if self.hash_ngrams is not None:
            windows = ngram_windows(ids, self.hash_ngrams.width)
        x = self._encode(ids.flatten(), windows, rows, None)
        vectors = self._transform(self._pool(x, inside, int(patches.ends[-1])), patches, None)
        for layer in self.decoder:
            if layer.cross is not None:
                queries, (keys, values) = layer.cross.queries(x), layer.cross.keys_values(vectors)
                x = layer.cross.residual(x, attend_to_segment(queries, keys, values, closed))
            x = layer.local(x, rows)
        return full_precision(self.head(self.norm(x))).unflatten(0, ids.shape)

    def begin(self, rows: int = 1) -> BLTState:
        """The state of rows of which nothing is read."""
        return BLTState(self, rows)

    def read(
        self,
        ids: np.ndarray,
        next_starts: np.ndarray,
        counts: np.ndarray,
        slots: np.ndarray,
        state: BLTState,
    ) -> Float[Tensor, "N V"]:
        """Read more of some rows; logits, at least float32, of the id after each one.

        Args:
            ids: int64 `[N]`, the rows' new ids one row after the other. The first id that a row
                reads is BOS.
            next_starts: bool `[N]`, whether the id after each one starts a patch; true for BOS.
            counts: int64 `[B]`, how many of them each row has, at least 1.
            slots: int64 `[B]`, which rows of `state` they go on.
            state: Of the rows; changed.

        """
        x, rows = self.encode(ids, counts, slots, state)
        closing = self.close(x, rows, next_starts, state)
        logits = self.decode(x, closing, state)
        self.keep(x, closing, state)
        return logits

    def encode(
        self, ids: np.ndarray, counts: np.ndarray, slots: np.ndarray, state: BLTState
    ) -> tuple[Float[Tensor, "N D"], Rows]:
        """The first step of `read`: states of new bytes, which do not depend on patches."""
        rows, device = state.begin(counts, slots), self.embed.weight.device
        windows = state.ids.windows(ids, rows).to(device)
        return self._encode(torch.from_numpy(ids).to(device), windows, rows, state), rows

    def close(
        self, x: Float[Tensor, "N D"], rows: Rows, next_starts: np.ndarray, state: BLTState
    ) -> Closing:
        """The second step: transform the patches that the new bytes close."""
        slots = rows.slots
        assert slots is not None, "rows of a state have slots"
        counts = _running_counts(next_starts, rows)
        index = slots if rows.is_step else np.repeat(slots, rows.counts)
        closed = counts[rows.ends - 1]
        last = state.last.tensors
        if not closed.any():
            return Closing(rows, counts, last[0::2], last[1::2], index)
        pieces, lengths = _closed_bytes(x, rows, next_starts, closed, state)
        inside = torch.from_numpy(np.arange(len(lengths)).repeat(lengths)).to(x.device)
        chosen = closed > 0
        patches = state.patches.rows(closed[chosen], slots[chosen])
        state.patches.begin(patches)
        summaries = self._pool(torch.cat(pieces), inside, len(lengths))
        vectors = self._transform(summaries, patches, state)
        new = [
            part
            for layer in self.decoder
            if layer.cross is not None
            for part in layer.cross.keys_values(vectors)
        ]
        tables = [torch.cat(pair) for pair in zip(last, new, strict=True)]
        before = closed.cumsum() - closed
        newest = np.repeat(before, rows.counts) + counts - 1 + len(last[0])
        return Closing(rows, counts, tables[0::2], tables[1::2], np.where(counts, newest, index))

    def decode(
        self, x: Float[Tensor, "N D"], closing: Closing, state: BLTState
    ) -> Float[Tensor, "N V"]:
        """The third step: logits of the id after each new byte."""
        state.decoder.begin(closing.rows)
        index, crossed = torch.from_numpy(closing.index).to(x.device), 0
        for number, layer in enumerate(self.decoder):
            if layer.cross is not None:
                keys, values = closing.keys[crossed], closing.values[crossed]
                x = _cross(
                    layer.cross, x, keys.index_select(0, index), values.index_select(0, index)
                )
                crossed += 1
            x = layer.local(x, closing.rows, LayerCache(state.decoder, number))
        return full_precision(self.head(self.norm(x)))

    def keep(self, x: Float[Tensor, "N D"], closing: Closing, state: BLTState) -> None:
        """The last step: remember the open patch and the last closed one of each row."""
        rows, slots = closing.rows, closing.rows.slots
        assert slots is not None, "rows of a state have slots"
        closed, begin = closing.counts[rows.ends - 1], 0
        for slot, count, end in zip(
            slots.tolist(), closed.tolist(), rows.ends.tolist(), strict=True
        ):
            open_patch = state.open.pieces[slot]
            if count:
                open_patch.clear()
                # What came after the byte that closed the last patch.
                begin += int(np.searchsorted(closing.counts[begin:end], count)) + 1
            if begin < end:
                open_patch.append(x[begin:end])
            begin = end
        chosen = closed > 0
        if chosen.any():
            newest = torch.from_numpy(closing.index[rows.ends - 1][chosen]).to(x.device)
            target = torch.from_numpy(slots[chosen]).to(x.device)
            for position, tables in enumerate((closing.keys, closing.values)):
                for tensor, table in zip(state.last.tensors[position::2], tables, strict=True):
                    tensor.index_copy_(0, target, table.index_select(0, newest))

    def _encode(
        self, ids: Tensor, windows: Tensor | None, rows: Rows, state: BLTState | None
    ) -> Tensor:
        """Byte states `[N, D]` after the local encoder."""
        x = self.embed(ids)
        if self.hash_ngrams is not None:
            x = x + self.hash_ngrams(windows)
        for index, layer in enumerate(self.encoder):
            x = layer(x, rows, None if state is None else LayerCache(state.encoder, index))
        return x

    def _pool(self, x: Tensor, inside: Tensor, num_patches: int) -> Tensor:
        """Sum each patch up, `[P, K * D]`, from the states `[N, D]` of its bytes."""
        config, cross = self.config, self.encoder_cross
        pooled = self.pool_proj(segment_max(x, inside, num_patches))
        queries = pooled.view(num_patches, config.cross_attn_k, config.dim)
        mixed = attend_within_segments(cross.queries(queries), *cross.keys_values(x), inside)
        return cross.residual(queries, mixed).flatten(1)

    def _transform(self, patches: Tensor, rows: Rows, state: BLTState | None) -> Tensor:
        """Decoder vectors `[P, K, D]` of patches `[P, K * D]`."""
        z = self.global_in(patches)
        for index, layer in enumerate(self.global_layers):
            z = layer(z, rows, None if state is None else LayerCache(state.patches, index))
        return self.global_out(z).view(len(z), self.config.cross_attn_k, self.config.dim)


def _cross(cross: CrossAttention, x: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Let each byte `[N, D]` attend to the vectors of its patch, `[N, K, G, C]`."""
    return cross.residual(x, attend_to_vectors(cross.queries(x), keys, values))


def _running_counts(flags: np.ndarray, rows: Rows) -> np.ndarray:
    """How many flags of its row are set up to and with each position."""
    if rows.is_step:
        return flags.astype(np.int64)
    total = flags.cumsum()
    before = np.concatenate(([0], total))[rows.ends - rows.counts]
    return total - before.repeat(rows.counts)


def _closed_bytes(
    x: Tensor, rows: Rows, next_starts: np.ndarray, closed: np.ndarray, state: BLTState
) -> tuple[list[Tensor], np.ndarray]:
    """Encoder states of the bytes of all patches that close, and how many bytes each has."""
    assert rows.slots is not None, "rows of a state have slots"
    pieces, lengths, begin = [], [], 0
    for slot, end, count in zip(
        rows.slots.tolist(), rows.ends.tolist(), closed.tolist(), strict=True
    ):
        if count:
            before = state.open.pieces[slot]
            ends = np.flatnonzero(next_starts[begin:end]) + 1
            pieces += [*map(torch.as_tensor, before), x[begin : begin + int(ends[-1])]]
            sizes = np.diff(ends, prepend=0)
            sizes[0] += sum(map(len, before))
            lengths.append(sizes)
        begin = end
    return pieces, np.concatenate(lengths)
