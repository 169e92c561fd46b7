"""Keys and values of rows that are read piece by piece, each row at its own pace.

`WindowCache` is for windowed attention: a row keeps the last `window - 1` positions, so its memory
does not grow. `GrowingCache` is for full attention: a row keeps every position, in buffers of its
own, so a row's memory grows with that row alone. Both serve the layers of one stack, which all
hold the same positions.
Shape key: B rows read now, S slots, N new positions, H heads, G key/value heads, K head width,
L stored positions.
"""

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from bytelm.nn.attention import causal_attention
from bytelm.nn.rows import Rows
from bytelm.nn.steps import softmax

SLACK = 64
"""Positions that a windowed row may add before its window is moved to the front; and how many can
be forgotten again after `reserve`."""

SMALLEST = 64
"""Positions that a growing row makes room for at first; the room doubles."""


@dataclass(frozen=True)
class SavedRow:
    """One row of a cache, apart from it."""

    position: int
    """How many positions were read."""

    keys: list[Tensor]
    """Of each layer, `[G, L, K]`."""

    values: list[Tensor]
    """As the keys."""


class _Positions:
    """How much of each row was read."""

    def __init__(self, rows: int) -> None:
        self.positions = np.zeros(rows, np.int64)
        self._fill = np.zeros(rows, np.int64)

    def rows(self, counts: np.ndarray, slots: np.ndarray) -> Rows:
        """The next `counts` positions, int64 `[B]` each at least 1, of the rows `slots`."""
        return Rows(counts, begins=self.positions[slots], slots=slots)

    def rewind(self, slot: int, count: int) -> None:
        """Forget the last `count` positions of a row; a window must have reserved them."""
        self._fill[slot] -= count
        self.positions[slot] -= count


class WindowCache(_Positions):
    """The last positions of each row, in one buffer for all rows."""

    def __init__(
        self,
        rows: int,
        *,
        n_layers: int,
        n_kv_heads: int,
        head_dim: int,
        window: int,
        like: Tensor,
    ) -> None:
        """Make empty rows.

        Args:
            rows: Number of rows.
            n_layers: Layers of the stack.
            n_kv_heads: Key and value heads of a layer.
            head_dim: Width of a head.
            window: Positions that a query sees, itself included.
            like: Keys are stored in its dtype, on its device.

        """
        super().__init__(rows)
        self.window, self._limit = window, window - 1 + SLACK
        self._keys = [like.new_zeros(rows, n_kv_heads, 0, head_dim) for _ in range(n_layers)]
        self._values = [like.new_zeros(rows, n_kv_heads, 0, head_dim) for _ in range(n_layers)]
        self._views: list[tuple[np.ndarray, np.ndarray]] | None = None

    def begin(self, rows: Rows) -> None:
        """Make room for the new positions of `rows`, whose layers then call `attend` in order."""
        self._advance(_slots(rows), rows.counts)
        if rows.is_step:
            self._plan_step(_slots(rows))

    def attend(
        self,
        layer: int,
        rows: Rows,
        q: Float[Tensor, "N H K"],
        k: Float[Tensor, "N G K"],
        v: Float[Tensor, "N G K"],
    ) -> Float[Tensor, "N H K"]:
        """Store the new keys and values of a layer; attend from the new positions."""
        if rows.is_step:
            return self._attend_together(layer, q, k, v)
        return _row_by_row(rows, q, k, v, functools.partial(self._attend_row, layer, rows))

    def begin_step(self, slots: np.ndarray) -> None:
        """As `begin` for one new position of each of `slots`, before `attend_step`."""
        self._advance(slots, np.ones(len(slots), np.int64))
        self._reach = _Reach.of(slots, self._base, self.window, len(self._fill))

    def attend_step(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """As `attend` for one position of each row in NumPy; gives `[B, H * K]`."""
        keys, values = self._arrays()[layer]
        reach, base = self._reach, self._base
        if reach.only is not None:
            keys[reach.only, :, reach.stop - 1], values[reach.only, :, reach.stop - 1] = k[0], v[0]
        else:
            keys[reach.slots, :, base], values[reach.slots, :, base] = k, v
        span = slice(reach.start, reach.stop)
        return _mix(q, keys[reach.chosen, :, span], values[reach.chosen, :, span], reach.bias)

    def begin_piece(self, slot: int, count: int) -> None:
        """As `begin` for `count` positions of one row, at most SLACK, before `attend_piece`."""
        self._advance(np.array([slot]), np.array([count]))
        base = int(self._base[0])
        self._piece = _Piece.of(slot, base, count, self.window)

    def attend_piece(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """As `attend` for some positions of one row in NumPy, `[T, heads, K]` to `[T, H * K]`."""
        keys, values = self._arrays()[layer]
        return self._piece.attend(q, k, v, keys[self._piece.slot], values[self._piece.slot])

    def _arrays(self) -> list[tuple[np.ndarray, np.ndarray]]:
        """Keys and values of each layer, the same memory."""
        if self._views is None:
            pairs = zip(self._keys, self._values, strict=True)
            self._views = [(keys.numpy(), values.numpy()) for keys, values in pairs]
        return self._views

    def reserve(self, slot: int, count: int) -> None:
        """Let `rewind` forget the next `count` positions of a row again, at most SLACK.

        No other row may be read in between: it could move the windows of all rows.
        """
        if count > SLACK:
            raise ValueError(f"at most {SLACK} positions can be reserved, got {count}")
        self._make_room(np.array([slot]), np.array([count]))

    def clear(self, slot: int) -> None:
        """Forget all of a row."""
        self._fill[slot] = self.positions[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        for tensors in (self._keys, self._values):
            index = torch.tensor(list(sources), dtype=torch.int64, device=tensors[0].device)
            tensors[:] = [tensor.index_select(0, index) for tensor in tensors]
        self._views = None
        self._fill, self.positions = self._fill[list(sources)], self.positions[list(sources)]

    def save(self, slot: int) -> SavedRow:
        """A copy of one row."""
        fill = int(self._fill[slot])
        return SavedRow(
            int(self.positions[slot]),
            [keys[slot, :, :fill].clone() for keys in self._keys],
            [values[slot, :, :fill].clone() for values in self._values],
        )

    def restore(self, slot: int, saved: SavedRow) -> None:
        """Make a row what was saved."""
        fill = saved.keys[0].shape[1]
        self._grow(fill)
        for keys, values, old_keys, old_values in zip(
            self._keys, self._values, saved.keys, saved.values, strict=True
        ):
            keys[slot, :, :fill], values[slot, :, :fill] = old_keys, old_values
        self._fill[slot], self.positions[slot] = fill, saved.position

    def _make_room(self, slots: np.ndarray, counts: np.ndarray) -> None:
        """Where the next positions do not fit, move every full window to the front at once."""
        keep, fill = self.window - 1, self._fill
        if not ((fill[slots] + counts > self._limit) & (fill[slots] > keep)).any():
            return
        for slot in np.flatnonzero(fill > keep).tolist():
            end = int(fill[slot])
            for tensor in (*self._keys, *self._values):
                tensor[slot, :, :keep] = tensor[slot, :, end - keep : end].clone()
            fill[slot] = keep

    def _grow(self, needed: int) -> None:
        capacity = self._keys[0].shape[2]
        if needed > capacity:
            more = min(max(needed, 2 * capacity, SMALLEST), self._limit) - capacity
            for tensors in (self._keys, self._values):
                tensors[:] = [F.pad(tensor, (0, 0, 0, more)) for tensor in tensors]
            self._views = None

    def _advance(self, slots: np.ndarray, counts: np.ndarray) -> None:
        """Count the new positions, and make room for them."""
        self._make_room(slots, counts)
        self._base = self._fill[slots]
        self.positions[slots] += counts
        after = self._base + counts
        # A piece longer than the room is attended to first; its last positions are then kept.
        kept = np.minimum(after, self.window - 1)
        self._fill[slots] = np.where(after <= self._limit, after, kept)
        self._grow(int(self._fill[slots].max()))

    def _plan_step(self, slots: np.ndarray) -> None:
        """What the layers share: where to write, what to read, what to mask."""
        keys, reach = self._keys[0], _Reach.of(slots, self._base, self.window, len(self._fill))
        _, heads, capacity, _ = keys.shape
        cells = (slots * heads)[:, None] + np.arange(heads)
        cells = (cells * capacity + self._base[:, None]).ravel()
        self._cells = torch.from_numpy(cells).to(keys.device)
        self._span = slice(reach.start, reach.stop)
        self._chosen = None if reach.is_whole else torch.from_numpy(slots).to(keys.device)
        bias = reach.bias
        self._bias = None if bias is None else torch.from_numpy(bias).to(keys.device, keys.dtype)

    def _attend_together(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        count, heads, width = q.shape
        groups = k.shape[1]
        keys, values = self._keys[layer], self._values[layer]
        keys.view(-1, width).index_copy_(0, self._cells, k.reshape(-1, width))
        values.view(-1, width).index_copy_(0, self._cells, v.reshape(-1, width))
        keys, values = keys[:, :, self._span], values[:, :, self._span]
        if self._chosen is not None:
            keys, values = keys.index_select(0, self._chosen), values.index_select(0, self._chosen)
        # The heads of a group ask the same keys: they stand where several queries would.
        q = q.view(count, groups, heads // groups, width)
        out = F.scaled_dot_product_attention(q, keys, values, attn_mask=self._bias)
        return out.reshape(count, heads, width)

    def _attend_row(
        self, layer: int, rows: Rows, index: int, q: Tensor, k: Tensor, v: Tensor
    ) -> Tensor:
        """Attend from the positions `[1, H, T, K]` of one row."""
        slot, base = int(_slots(rows)[index]), int(self._base[index])
        keys, values = self._keys[layer][slot], self._values[layer][slot]
        end, first = base + k.shape[2], max(0, base - (self.window - 1))
        fits = end <= self._limit
        if fits:
            keys[:, base:end], values[:, base:end] = k[0], v[0]
            k, v = keys[None, :, first:end], values[None, :, first:end]
        else:
            k = torch.cat((keys[None, :, first:base], k), dim=2)
            v = torch.cat((values[None, :, first:base], v), dim=2)
        out = causal_attention(q, k, v, window=self.window)
        if not fits:
            kept = int(self._fill[slot])
            keys[:, :kept] = k[0, :, k.shape[2] - kept :]
            values[:, :kept] = v[0, :, v.shape[2] - kept :]
        return out


@dataclass(frozen=True)
class _Piece:
    """New positions of one row, and which stored ones they attend to."""

    slot: int
    base: int
    end: int
    """Where the new positions begin and end among the stored ones."""

    first: int
    """The first stored position that any of them sees."""

    bias: np.ndarray
    """float32 `[T, L]`, minus infinity where a position does not see."""

    @classmethod
    def of(cls, slot: int, base: int, count: int, window: int | None) -> "_Piece":
        """The piece of `count` positions from `base` on."""
        first = 0 if window is None else max(0, base + 1 - window)
        distance = np.arange(base, base + count)[:, None] - np.arange(first, base + count)
        seen = distance >= 0
        if window is not None:
            seen &= distance < window
        bias = np.where(seen, np.float32(0), np.float32(-np.inf))
        return cls(slot, base, base + count, first, bias)

    def attend(
        self, q: np.ndarray, k: np.ndarray, v: np.ndarray, keys: np.ndarray, values: np.ndarray
    ) -> np.ndarray:
        """Store `[T, G, K]` in the row's `[G, capacity, K]`; attend from `[T, H, K]`."""
        count, heads, width = q.shape
        groups = k.shape[1]
        keys[:, self.base : self.end] = k.transpose(1, 0, 2)
        values[:, self.base : self.end] = v.transpose(1, 0, 2)
        keys, values = keys[:, None, self.first : self.end], values[:, None, self.first : self.end]
        q = (q * width**-0.5).reshape(count, groups, heads // groups, width).transpose(1, 2, 0, 3)
        scores = np.matmul(q, keys.swapaxes(-1, -2))
        scores += self.bias
        return np.matmul(softmax(scores), values).transpose(2, 0, 1, 3).reshape(count, -1)


@dataclass(frozen=True)
class _Reach:
    """Which stored positions the rows of a step attend to."""

    slots: np.ndarray
    start: int
    stop: int
    """From the first to after the last position that any row sees."""

    is_whole: bool
    """Whether the rows are all rows of the cache, in order."""

    chosen: slice | np.ndarray
    """Picks the rows out of the cache, as a view where it can be."""

    only: int | None
    """The slot, if there is one row."""

    bias: np.ndarray | None
    """`[B, 1, 1, L]`, minus infinity where a row does not see; None if all see all."""

    @classmethod
    def of(cls, slots: np.ndarray, base: np.ndarray, window: int, total: int) -> "_Reach":
        """The reach of rows whose new positions stand at `base`."""
        if len(slots) == 1:
            only, stop = int(slots[0]), int(base[0]) + 1
            chosen = slice(only, only + 1)
            return cls(slots, max(0, stop - window), stop, total == 1, chosen, only, None)
        last = base + 1
        first = np.maximum(last - window, 0)
        start, stop = int(first.min()), int(last.max())
        bias = None
        if start != first.max() or stop != last.min():
            at = np.arange(start, stop)
            seen = (at >= first[:, None]) & (at < last[:, None])
            bias = np.where(seen, np.float32(0), np.float32(-np.inf))[:, None, None]
        is_whole = len(slots) == total and bool((slots == np.arange(total)).all())
        chosen = slice(None) if is_whole else slots
        return cls(slots, start, stop, is_whole, chosen, None, bias)


def _mix(
    q: np.ndarray, keys: np.ndarray, values: np.ndarray, bias: np.ndarray | None
) -> np.ndarray:
    """Attend from `[B, H, K]` to `[B, G, L, K]`; `[B, H * K]`."""
    rows, heads, width = q.shape
    groups = keys.shape[1]
    # The heads of a group ask the same keys: they stand where several queries would.
    q = (q * width**-0.5).reshape(rows, groups, heads // groups, width)
    scores = np.matmul(q, keys.swapaxes(-1, -2))
    if bias is not None:
        scores += bias
    return np.matmul(softmax(scores), values).reshape(rows, heads * width)


class GrowingCache(_Positions):
    """All positions of each row, in buffers of its own."""

    def __init__(
        self, rows: int, *, n_layers: int, n_kv_heads: int, head_dim: int, like: Tensor
    ) -> None:
        """Make empty rows; the arguments are those of `WindowCache`."""
        super().__init__(rows)
        self._empty = like.new_zeros(2, n_kv_heads, 0, head_dim)
        self._n_layers = n_layers
        self._buffers = [[self._empty] * n_layers for _ in range(rows)]

    def begin(self, rows: Rows) -> None:
        """Make room for the new positions of `rows`, whose layers then call `attend` in order."""
        slots = _slots(rows)
        self._base = self._fill[slots]
        self.positions[slots] += rows.counts
        self._fill[slots] += rows.counts
        for slot in slots.tolist():
            self._grow(slot, int(self._fill[slot]))

    def attend(
        self,
        layer: int,
        rows: Rows,
        q: Float[Tensor, "N H K"],
        k: Float[Tensor, "N G K"],
        v: Float[Tensor, "N G K"],
    ) -> Float[Tensor, "N H K"]:
        """Store the new keys and values of a layer; attend from the new positions."""

        def attend_row(index: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            slot, base = int(_slots(rows)[index]), int(self._base[index])
            end = base + k.shape[2]
            buffer = self._buffers[slot][layer]
            buffer[0, :, base:end], buffer[1, :, base:end] = k[0], v[0]
            return causal_attention(q, buffer[0:1, :, :end], buffer[1:2, :, :end], window=None)

        return _row_by_row(rows, q, k, v, attend_row)

    def begin_step(self, slots: np.ndarray) -> None:
        """As `begin` for one new position of each of `slots`, before `attend_step`."""
        self._base = self._fill[slots]
        self.positions[slots] += 1
        self._fill[slots] += 1
        self._chosen = slots.tolist()
        for slot, end in zip(self._chosen, self._fill[slots].tolist(), strict=True):
            self._grow(slot, end)

    def attend_step(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """As `attend` for one position of each row in NumPy; gives `[B, H * K]`."""
        outs = []
        for row, (slot, base) in enumerate(zip(self._chosen, self._base.tolist(), strict=True)):
            buffer = self._buffers[slot][layer].numpy()
            buffer[0, :, base], buffer[1, :, base] = k[row], v[row]
            seen = buffer[:, None, :, : base + 1]
            outs.append(_mix(q[row : row + 1], seen[0], seen[1], None))
        return outs[0] if len(outs) == 1 else np.concatenate(outs)

    def begin_piece(self, slot: int, count: int) -> None:
        """As `begin` for `count` positions of one row, before `attend_piece`."""
        base = int(self._fill[slot])
        self.positions[slot] += count
        self._fill[slot] += count
        self._grow(slot, base + count)
        self._piece = _Piece.of(slot, base, count, None)

    def attend_piece(self, layer: int, q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        """As `attend` for some positions of one row in NumPy, `[T, heads, K]` to `[T, H * K]`."""
        buffer = self._buffers[self._piece.slot][layer].numpy()
        return self._piece.attend(q, k, v, buffer[0], buffer[1])

    def clear(self, slot: int) -> None:
        """Forget all of a row, and free its memory."""
        self._buffers[slot] = [self._empty] * self._n_layers
        self._fill[slot] = self.positions[slot] = 0

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        buffers, taken = [], set()
        for source in sources:
            own = self._buffers[source]
            buffers.append([buffer.clone() for buffer in own] if source in taken else list(own))
            taken.add(source)
        self._buffers = buffers
        self._fill, self.positions = self._fill[list(sources)], self.positions[list(sources)]

    def save(self, slot: int) -> SavedRow:
        """A copy of one row."""
        fill = int(self._fill[slot])
        copies = [buffer[:, :, :fill].clone() for buffer in self._buffers[slot]]
        keys, values = [copy[0] for copy in copies], [copy[1] for copy in copies]
        return SavedRow(int(self.positions[slot]), keys, values)

    def restore(self, slot: int, saved: SavedRow) -> None:
        """Make a row what was saved."""
        pairs = zip(saved.keys, saved.values, strict=True)
        self._buffers[slot] = [torch.stack(pair) for pair in pairs]
        self._fill[slot], self.positions[slot] = saved.keys[0].shape[1], saved.position

    def _grow(self, slot: int, needed: int) -> None:
        capacity = self._buffers[slot][0].shape[2]
        if needed > capacity:
            more = max(needed, 2 * capacity, SMALLEST) - capacity
            self._buffers[slot] = [F.pad(b, (0, 0, 0, more)) for b in self._buffers[slot]]


Cache = WindowCache | GrowingCache


@dataclass(frozen=True)
class LayerCache:
    """What one layer of a stack sees of a cache."""

    cache: Cache
    layer: int

    def attend(self, rows: Rows, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Store the new keys and values; attend from the new positions."""
        return self.cache.attend(self.layer, rows, q, k, v)


def _slots(rows: Rows) -> np.ndarray:
    assert rows.slots is not None, "rows without slots have no cache"
    return rows.slots


def _row_by_row(
    rows: Rows, q: Tensor, k: Tensor, v: Tensor, attend: Callable[..., Tensor]
) -> Tensor:
    """Concatenate `attend(index, q, k, v)` of each row, all `[1, heads, T, K]`."""
    counts = rows.counts.tolist()
    pieces = zip(q.split(counts), k.split(counts), v.split(counts), strict=True)
    outs = [
        attend(index, *(part.transpose(0, 1)[None] for part in piece))[0].transpose(0, 1)
        for index, piece in enumerate(pieces)
    ]
    return outs[0] if len(outs) == 1 else torch.cat(outs)
