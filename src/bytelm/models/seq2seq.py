"""An encoder-decoder over bytes, and its patched twin: the same decoder looks at patches.

    baseline   bytes -> layers over bytes                                        -> memory
    patched    bytes + hashed n-grams -> local layers -> patches -> layers over patches -> memory
    both       memory, bytes written so far -> decoder layers -> next byte, or the end

A patch keeps the order of its bytes: the local states of its first, second, ... byte each have a
projection of their own (MEGABYTE, Yu et al. 2023, arXiv:2305.07185, section 2.1, whose patches have
one length). The rest is the encoder-decoder of Vaswani et al. 2017 (arXiv:1706.03762), with the
hashed n-grams and entropy patches of BLT (Pagnoni et al. 2024, arXiv:2412.09871, section 3.2).

Positions of the input are counted from its start and from its end: an encoder has read all of it.

Shape key: R rows, S bytes of the longest input, P patches of the row that has most, M positions of
the memory, T positions of the longest target, D width, L local width, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

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
from bytelm.data.pair_batches import Source
from bytelm.models.ngram import Ngram
from bytelm.nn.encoder_decoder import (
    DecoderLayer,
    DecoderTurns,
    EncoderLayer,
    Groups,
    KeysValues,
    Turns,
)
from bytelm.nn.hash_ngrams import HashNgrams, ngram_windows
from bytelm.nn.layers import Layers
from bytelm.nn.linear import Linear
from bytelm.nn.norm import RMSNorm, full_precision
from bytelm.nn.rope import rotations
from bytelm.nn.transformer import initialize_, truncated_normal_
from bytelm.patching import Patcher, patch_starts
from bytelm.vocab import EOS, OFFSET, VOCAB_SIZE

MAX_PATCH_BYTES = 64
"""Bytes of one patch: each has a projection of its own."""

MAX_TEXT_BYTES = 1 << 16
"""Of an input or a target: attention is quadratic, and learned positions are a table."""


@dataclass(frozen=True, kw_only=True)
class PatchEncoderConfig:
    """From bytes to patches, before the layers over patches."""

    dim: int = 64
    """Width of the local encoder."""

    n_layers: int = 1
    """Layers of the local encoder; 0: patches are made of embeddings."""

    n_heads: int = 4
    """Their attention heads."""

    ffn_dim: int = 128
    """Their feed-forward width."""

    ngram_sizes: tuple[int, ...] = (1, 2, 3)
    """Lengths in bytes of the hashed n-grams; empty: none."""

    num_buckets: int = 4096
    """Rows of the table of one n-gram size."""

    max_patch_bytes: int = 8
    """Longest patch; the patcher must have this limit or a lower one."""

    cross_attn_k: int = 2
    """Vectors of a patch that the decoder attends to; they stand evenly from its first byte to its
    last."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "ffn_dim", "num_buckets")
        require_positive(self, "n_layers", least=0, most=MAX_LAYERS)
        require_positive(self, "ngram_sizes", most=MAX_NGRAM_BYTES)
        require_positive(self, "max_patch_bytes", most=MAX_PATCH_BYTES)
        require_positive(self, "cross_attn_k", most=MAX_PATCH_VECTORS)
        require_heads(self, "dim", "n_heads")


@dataclass(frozen=True, kw_only=True)
class Seq2SeqConfig:
    """Sizes of encoder and decoder."""

    kind: ClassVar[str] = "seq2seq"

    max_bytes: int = 192
    """Longest input and longest target, bytes."""

    dim: int = 128
    """Width of the decoder and of the layers over bytes (baseline) or patches (patched)."""

    n_heads: int = 8
    """Attention heads of both."""

    n_layers_encoder: int = 3
    """Layers over bytes (baseline) or over patches (patched)."""

    n_layers_decoder: int = 3
    """Layers of the decoder."""

    ffn_dim_encoder: int = 384
    """Feed-forward width of an encoder layer."""

    ffn_dim: int = 384
    """Feed-forward width of a decoder layer."""

    positions: Literal["learned", "rotary"] = "rotary"
    """How positions are told: rotations, or tables that are added to the embeddings."""

    rope_theta: float = 10_000.0
    """Base of the rotary positions."""

    dropout: float = 0.0
    """Share of the values of each residual branch that is left out in training."""

    patches: PatchEncoderConfig | None = None
    """How bytes become patches; absent: the baseline, where each byte is a position."""

    def __post_init__(self) -> None:
        require_positive(self, "dim", "n_heads", "ffn_dim_encoder", "ffn_dim", "rope_theta")
        require_positive(self, "max_bytes", most=MAX_TEXT_BYTES)
        require_positive(self, "n_layers_encoder", least=0, most=MAX_LAYERS)
        require_positive(self, "n_layers_decoder", most=MAX_LAYERS)
        require_heads(self, "dim", "n_heads")
        if self.positions == "rotary" and self.n_heads < 2:
            raise ValueError(
                f"n_heads must be at least 2 with rotary positions, got {self.n_heads}: some count "
                "the input from its start, the others from its end"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must be at least 0 and below 1, got {self.dropout}")


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the bytes or patches of a batch of inputs stand, counted in bytes."""

    from_start: Int[Tensor, "R M"]
    """int64. Any value at padding."""

    lengths: Int[Tensor, " R"]
    """int64, bytes of each input."""

    mask: Bool[Tensor, "R M"]
    """False at padding."""

    @property
    def from_end(self) -> Int[Tensor, "R M"]:
        """int64; 0 is the input's last byte."""
        return (self.lengths[:, None] - 1 - self.from_start).clamp(min=0)

    @property
    def seen(self) -> Bool[Tensor, "R 1 1 M"]:
        """The mask as attention takes it."""
        return self.mask[:, None, None]


class PositionEmbedding(nn.Module):
    """Tables of positions from the start and from the end; nothing where positions are rotary."""

    def __init__(self, config: Seq2SeqConfig, dim: int) -> None:
        super().__init__()
        learned = config.positions == "learned"
        self._longest = config.max_bytes
        # `embed` in its name tells the optimizers what a table is (models.parameter_role).
        self.embed = nn.ModuleList(
            nn.Embedding(config.max_bytes, dim) for _ in range(2 if learned else 0)
        )

    def forward(self, x: Float[Tensor, "R M D"], at: Positions) -> Float[Tensor, "R M D"]:
        """Add to `x` what its positions are."""
        if not self.embed:
            return x
        from_start, from_end = self.embed
        # Padding may reach past the longest input.
        places = at.from_start.clamp(max=self._longest - 1)
        return x + from_start(places) + from_end(at.from_end)


@dataclass(frozen=True, eq=False)
class Encoded:
    """What an encoder made of the bytes, before the layers that see the whole input."""

    x: Float[Tensor, "R M D"]
    """Vectors of bytes or patches."""

    at: Positions
    """Where they stand."""

    memory_at: Positions
    """Where the vectors stand that the decoder attends to, one or more of each."""


class BytesEncoder(nn.Module):
    """Every byte is a position of its own."""

    def __init__(self, config: Seq2SeqConfig) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCAB_SIZE, config.dim)
        self.positions = PositionEmbedding(config, config.dim)

    def forward(self, source: Source, at: Positions) -> Encoded:
        """Vectors of the bytes."""
        return Encoded(self.positions(self.embed(source.ids), at), at, at)


class PatchEncoder(nn.Module):
    """Bytes to patches: embeddings, hashed n-grams, local layers, a projection for each place."""

    def __init__(self, config: Seq2SeqConfig, own: PatchEncoderConfig) -> None:
        super().__init__()
        self.config = own
        self.embed = nn.Embedding(VOCAB_SIZE, own.dim)
        self.hash_ngrams = (
            HashNgrams(own.dim, ngram_sizes=own.ngram_sizes, num_buckets=own.num_buckets)
            if own.ngram_sizes
            else None
        )
        self.positions = PositionEmbedding(config, own.dim)
        self._turns = _Turns(config, own.dim // own.n_heads)
        self.layers = Layers(
            EncoderLayer(own.dim, n_heads=own.n_heads, ffn_dim=own.ffn_dim, dropout=config.dropout)
            for _ in range(own.n_layers)
        )
        self.norm = RMSNorm(own.dim)
        self.pool_proj = Linear(own.max_patch_bytes * own.dim, config.dim)
        self.patch_positions = PositionEmbedding(config, config.dim)

    def forward(self, source: Source, at: Positions) -> Encoded:
        """Vectors of the patches."""
        x = self.positions(self.embed(source.ids), at)
        if self.hash_ngrams is not None:
            windows = ngram_windows(source.ids, self.hash_ngrams.width)
            x = x + self.hash_ngrams(windows).view(x.shape)
        turns = self._turns.of_encoder(at, x)
        for layer in self.layers:
            x = layer(x, at.seen, turns)
        own = self.config
        layout = Layout.of(source, at, max_patch_bytes=own.max_patch_bytes)
        x = self.norm(x).flatten(0, 1)
        is_byte = at.mask.flatten().nonzero()[:, 0]
        room = x.new_zeros(layout.first.numel() * own.max_patch_bytes, x.shape[1])
        joined = room.index_copy(0, layout.places, x.index_select(0, is_byte))
        pooled = self.pool_proj(joined.view(*layout.first.shape, -1))
        pooled = self.patch_positions(pooled, layout.at)
        return Encoded(pooled, layout.at, layout.spread(own.cross_attn_k))


@dataclass(frozen=True, eq=False)
class Layout:
    """How the bytes of a batch of inputs lie in patches."""

    places: Int[Tensor, " N"]
    """int64; of each byte, its place in a rectangle `[R, P, max_patch_bytes]`."""

    first: Int[Tensor, "R P"]
    """int64; where each patch begins."""

    at: Positions
    """Where each patch ends: that is where it stands."""

    @classmethod
    def of(cls, source: Source, at: Positions, *, max_patch_bytes: int) -> "Layout":
        """Lay out inputs that have patch starts."""
        assert source.starts is not None, "a patched model is given patch starts"
        patch = source.starts.long().cumsum(1) - 1
        counts = patch.amax(1) + 1
        num_rows, most = len(counts), int(counts.max())
        begin = torch.where(source.starts, at.from_start, 0).cummax(1).values
        row = torch.arange(num_rows, device=patch.device)[:, None]
        places = (row * most + patch) * max_patch_bytes + at.from_start - begin
        room = torch.zeros(num_rows, most, dtype=torch.int64, device=patch.device)
        # Padding goes on with the last patch: it must not move its end.
        ends = torch.where(at.mask, at.from_start, 0)
        last = room.scatter_reduce(1, patch, ends, reduce="amax")
        first = room.scatter_reduce(1, patch, begin, reduce="amax")
        mask = torch.arange(most, device=patch.device) < counts[:, None]
        return cls(places[at.mask], first, Positions(last, at.lengths, mask))

    def spread(self, vectors: int) -> Positions:
        """Where the vectors of a patch stand: evenly from its first byte to its last."""
        if vectors == 1:
            return self.at
        steps = torch.arange(vectors, device=self.first.device)
        length = (self.at.from_start - self.first)[:, :, None]
        places = self.first[:, :, None] + length * steps // (vectors - 1)
        mask = self.at.mask.repeat_interleave(vectors, 1)
        return Positions(places.flatten(1), self.at.lengths, mask)


@dataclass(frozen=True, eq=False)
class Memory:
    """What a decoder sees of a batch of inputs."""

    layers: list[KeysValues]
    """Keys and values of each decoder layer's attention to the memory."""

    mask: Bool[Tensor, "R 1 1 M"]
    """False at padding."""

    def select(self, index: Int[Tensor, " Q"]) -> "Memory":
        """Rows of it, in another order, some several times."""
        layers = [KeysValues(one.keys[index], one.values[index]) for one in self.layers]
        return Memory(layers, self.mask[index])


class DecoderState:
    """Outputs that are being written, all of them as far as the others.

    Rows may be dropped, reordered and forked; each remembers which input it is of.
    """

    def __init__(self, memory: Memory, n_layers: int) -> None:
        self._all, self.memory = memory, memory
        self._input = np.arange(len(memory.mask))
        self._kept = self._input
        self.groups = _groups(self._input, memory.mask.device)
        """Rows of one input look at the same part of `memory`."""
        self._room: list[KeysValues | None] = [None] * n_layers
        self.length = 0
        """Positions written."""

    def select(self, index: np.ndarray) -> None:
        """Make the rows copies of the rows `index`, int64 `[Q]`, in this order."""
        inputs = self._input[index]
        if not np.array_equal(inputs, self._input):
            kept, group = np.unique(inputs, return_inverse=True)
            if not np.array_equal(kept, self._kept):
                self.memory, self._kept = self._all.select(torch.from_numpy(kept)), kept
            self.groups = _groups(group, self.memory.mask.device)
        self._input = inputs
        rows = torch.from_numpy(index)
        self._room = [
            None if one is None else KeysValues(_moved(one.keys, rows), _moved(one.values, rows))
            for one in self._room
        ]

    def room(self, layer: int, rows: int, like: Float[Tensor, "R H M C"]) -> KeysValues:
        """Keys and values of a layer: those written, and one place more at the end."""
        one = self._room[layer]
        if one is None or one.keys.shape[2] == self.length:
            more = (rows, like.shape[1], max(_LEAST_ROOM, self.length), like.shape[3])
            new = [like.new_zeros(more), like.new_zeros(more)]
            if one is not None:
                new = [torch.cat((one.keys, new[0]), 2), torch.cat((one.values, new[1]), 2)]
            one = self._room[layer] = KeysValues(*new)
        written = slice(0, self.length + 1)
        return KeysValues(one.keys[:, :, written], one.values[:, :, written])


_LEAST_ROOM = 16
"""Positions of a new cache; it doubles when it is full."""


def _groups(group: np.ndarray, device: torch.device) -> Groups:
    """Rows by their group, int64 `[Q]`, in the order in which they come."""
    order = np.argsort(group, kind="stable")
    counts = np.bincount(group)
    place = np.empty(len(group), np.int64)
    place[order] = np.arange(len(group)) - np.repeat(counts.cumsum() - counts, counts)
    widest = int(counts.max())
    return Groups(torch.from_numpy(group * widest + place).to(device), widest)


def _moved(x: Tensor, rows: Tensor) -> Tensor:
    return x.index_select(0, rows.to(x.device))


class Seq2Seq(nn.Module):
    """Reads an input whole, then writes a target byte by byte."""

    def __init__(
        self,
        config: Seq2SeqConfig,
        patcher: Patcher | None = None,
        entropy_model: Ngram | None = None,
    ) -> None:
        """Build with fresh weights.

        Raises:
            ValueError: Patcher, entropy model and configuration do not fit together.

        """
        super().__init__()
        _require_fitting(config, patcher, entropy_model)
        self.config, self.patcher = config, patcher
        dim = config.dim
        self.encoder = (
            BytesEncoder(config) if config.patches is None else PatchEncoder(config, config.patches)
        )
        self.encoder_layers = Layers(
            EncoderLayer(
                dim,
                n_heads=config.n_heads,
                ffn_dim=config.ffn_dim_encoder,
                dropout=config.dropout,
            )
            for _ in range(config.n_layers_encoder)
        )
        vectors = 1 if config.patches is None else config.patches.cross_attn_k
        self.vectors_proj = Linear(dim, vectors * dim) if vectors > 1 else None
        self.memory_norm = RMSNorm(dim)
        self.embed = nn.Embedding(VOCAB_SIZE, dim)
        learned = config.positions == "learned"
        self.position_embed = nn.Embedding(config.max_bytes + 1, dim) if learned else None
        self.decoder = Layers(
            DecoderLayer(
                dim, n_heads=config.n_heads, ffn_dim=config.ffn_dim, dropout=config.dropout
            )
            for _ in range(config.n_layers_decoder)
        )
        self.norm = RMSNorm(dim)
        self.head = Linear(dim, VOCAB_SIZE)
        self._turns = _Turns(config, dim // config.n_heads)
        self._initialize_()
        # After the weights are drawn: it is fitted already.
        self.entropy_model = entropy_model

    def _initialize_(self) -> None:
        """Every branch and the output begin at zero, so that the first prediction is uniform."""
        initialize_(self, n_layers=1)
        for name, parameter in self.named_parameters():
            if name.endswith(("o_proj.weight", "down_proj.weight", "head.weight")):
                nn.init.zeros_(parameter)
        for module in self.modules():
            if isinstance(module, nn.Embedding):
                truncated_normal_(module.weight, 1.0)
            if isinstance(module, HashNgrams):
                nn.init.zeros_(module.weight)

    # --- training ------------------------------------------------------------------------------

    def forward(self, source: Source, written: Int[Tensor, "R T"]) -> Float[Tensor, "R T V"]:
        """Logits, at least float32, of the id after each of those written.

        Args:
            source: The inputs.
            written: BOS and the target's ids; what follows a row's end may be anything.

        """
        memory = self._read(source)
        rows, length = written.shape
        x = self.embed(written)
        at = torch.arange(length, device=x.device)
        if self.position_embed is not None:
            # Padding may reach past the longest target.
            x = x + self.position_embed(at.clamp(max=self.config.max_bytes))
        turns = self._turns.of_decoder(at.expand(rows, length), x)
        for layer, seen in zip(self.decoder, memory.layers, strict=True):
            x = layer(x, seen, memory.mask, turns)
        return full_precision(self.head(self.norm(x)))

    def _read(self, source: Source) -> Memory:
        length = source.ids.shape[1]
        at = torch.arange(length, device=source.ids.device)
        mask = at < source.lengths[:, None]
        found = self.encoder(source, Positions(at.expand(mask.shape), source.lengths, mask))
        x, turns = found.x, self._turns.of_encoder(found.at, found.x)
        for layer in self.encoder_layers:
            x = layer(x, found.at.seen, turns)
        if self.vectors_proj is not None:
            x = self.vectors_proj(x).unflatten(2, (-1, self.config.dim)).flatten(1, 2)
        x, at = self.memory_norm(x), found.memory_at
        turns = self._turns.of_memory(at, x)
        return Memory([layer.cross.keys_values(x, turns) for layer in self.decoder], at.seen)

    # --- use -----------------------------------------------------------------------------------

    def patch_starts(self, inputs: Sequence[bytes]) -> list[np.ndarray]:
        """Where patches start in each input, bool `[n]`; without patches at every byte."""
        arrays = [np.frombuffer(one, np.uint8) for one in inputs]
        if self.patcher is None:
            return [np.ones(len(one), bool) for one in arrays]
        source, empty = self.entropy_model, np.zeros(0, np.uint8)
        found = []
        for one in arrays:
            entropies = None if source is None else source.document_entropies(one, empty)[:-1]
            found.append(patch_starts(self.patcher, one, entropies))
        return found

    @torch.inference_mode()
    def read(self, inputs: Sequence[bytes]) -> Memory:
        """Read inputs, each of 1 to `config.max_bytes` bytes.

        Raises:
            ValueError: One is empty or too long.

        """
        for one in inputs:
            if not 1 <= len(one) <= self.config.max_bytes:
                raise ValueError(
                    f"expected inputs of 1 to {self.config.max_bytes} bytes (model.max_bytes), got "
                    f"one of {len(one)}"
                )
        starts = None if self.patcher is None else self.patch_starts(inputs)
        return self._read(Source.of(inputs, starts).to(self.embed.weight.device))

    def begin(self, memory: Memory) -> DecoderState:
        """Begin an output for each input of a memory."""
        return DecoderState(memory, len(self.decoder))

    @torch.inference_mode()
    def step(self, ids: np.ndarray, state: DecoderState) -> np.ndarray:
        """Write an id more in every row: natural log-probabilities float32 `[Q, V]` of the next.

        Specials other than the end (EOS) have none, and a row's other ids sum up to 1.

        Args:
            ids: int64 `[Q]`; BOS at first.
            state: Of the rows; changed.

        """
        x = self.embed(torch.from_numpy(ids)[:, None].to(self.embed.weight.device))
        at = torch.full((1,), state.length, device=x.device)
        if self.position_embed is not None:
            x = x + self.position_embed(at)
        turns = self._turns.of_decoder(at.expand(len(ids), 1), x)
        memory = state.memory
        for index, (layer, seen) in enumerate(zip(self.decoder, memory.layers, strict=True)):
            room = state.room(index, len(ids), seen.keys)
            x = layer.step(x, room, seen, memory.mask, state.groups, turns)
        state.length += 1
        logits = full_precision(self.head(self.norm(x)))[:, 0]
        return possible(logits).log_softmax(-1).cpu().numpy()


def possible(logits: Float[Tensor, "... V"]) -> Float[Tensor, "... V"]:
    """Logits with those of the ids that no target has, minus infinity."""
    logits = logits.clone()
    logits[..., _IMPOSSIBLE] = -torch.inf
    return logits


_IMPOSSIBLE = [one for one in range(OFFSET) if one != EOS]


class _Turns:
    """Rotary positions of encoder, decoder and memory; none where positions are learned.

    A decoder's heads attend to the memory in two groups: one counts the input from its start, the
    other from its end.
    """

    def __init__(self, config: Seq2SeqConfig, head_dim: int) -> None:
        self._is_rotary = config.positions == "rotary"
        self._head_dim, self._theta = head_dim, config.rope_theta

    def of_encoder(self, at: Positions, like: Tensor) -> Turns:
        return (self._of(at.from_start, like),) if self._is_rotary else ()

    def of_memory(self, at: Positions, like: Tensor) -> Turns:
        if not self._is_rotary:
            return ()
        return self._of(at.from_start, like), self._of(at.from_end, like)

    def of_decoder(self, at: Int[Tensor, "R T"], like: Tensor) -> DecoderTurns:
        if not self._is_rotary:
            return DecoderTurns()
        turns = self._of(at, like)
        return DecoderTurns(own=(turns,), cross=(turns, turns))

    def _of(self, positions: Tensor, like: Tensor) -> Tensor:
        return rotations(positions.flatten().cpu().numpy(), self._head_dim, self._theta, like)


def _require_fitting(
    config: Seq2SeqConfig, patcher: Patcher | None, entropy_model: Ngram | None
) -> None:
    if (patcher is None) != (config.patches is None):
        raise ValueError(
            "a seq2seq model with a table `patches` needs a patcher"
            if patcher is None
            else "a seq2seq model without a table `patches` takes no patcher"
        )
    needs = patcher is not None and patcher.needs_entropies
    if needs != (entropy_model is not None):
        raise ValueError(
            f"{'no' if patcher is None else f'a {patcher.kind!r}'} patcher "
            f"{'needs an' if needs else 'takes no'} entropy model"
        )
    if patcher is not None and config.patches is not None:
        longest, most = patcher.limits[1], config.patches.max_patch_bytes
        if longest is None or longest > most:
            raise ValueError(
                f"the longest patch of the patcher is {longest or 'not limited'}, expected at most "
                f"model.patches.max_patch_bytes ({most}): set patching.max_patch_bytes"
            )
