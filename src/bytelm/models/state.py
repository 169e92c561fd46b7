"""What a model keeps of rows that it reads piece by piece: caches and histories, row by row."""

from collections.abc import Sequence
from typing import Any, Protocol, runtime_checkable

import torch

from bytelm.nn.attention import Attention
from bytelm.nn.hash_ngrams import IdHistory
from bytelm.nn.kv_cache import Cache, GrowingCache, WindowCache


@runtime_checkable
class Part(Protocol):
    """Something of every row, which can be forgotten, copied, put aside and put back."""

    def clear(self, slot: int) -> None:
        """Forget all of a row."""
        ...

    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order."""
        ...

    def save(self, slot: int) -> Any:
        """A copy of one row, which later changes leave alone."""
        ...

    def restore(self, slot: int, saved: Any) -> None:
        """Make a row what was saved."""
        ...


class State:
    """All parts of what a model keeps."""

    def __init__(self, *parts: Part | None) -> None:
        self._parts = [part for part in parts if part is not None]

    def clear(self, slot: int) -> None:
        """Forget all of a row."""
        for part in self._parts:
            part.clear(slot)

    @torch.inference_mode()
    def select(self, sources: Sequence[int]) -> None:
        """Make the rows copies of the rows `sources`, in this order; one may occur many times."""
        for part in self._parts:
            part.select(sources)

    @torch.inference_mode()
    def save(self, slot: int) -> list[Any]:
        """A copy of one row, which later changes leave alone."""
        return [part.save(slot) for part in self._parts]

    @torch.inference_mode()
    def restore(self, slot: int, saved: list[Any]) -> None:
        """Make a row what was saved."""
        for part, value in zip(self._parts, saved, strict=True):
            part.restore(slot, value)


class StackState(State):
    """Of a model that is one stack of layers over bytes."""

    def __init__(self, cache: Cache, ids: IdHistory | None = None) -> None:
        super().__init__(cache, ids)
        self.cache, self.ids = cache, ids

    def rewind(self, slot: int, count: int) -> None:
        """Forget the last `count` ids of a row, which `cache.reserve` made room for."""
        self.cache.rewind(slot, count)
        if self.ids is not None:
            self.ids.rewind(slot, count)


def make_cache(rows: int, attentions: Sequence[Attention]) -> Cache:
    """An empty cache for a stack of layers that attend alike."""
    first = attentions[0]
    sizes: dict[str, Any] = {
        "n_layers": len(attentions),
        "n_kv_heads": first.n_kv_heads,
        "head_dim": first.head_dim,
        "like": first.k_proj.weight.detach(),
    }
    if first.window is None:
        return GrowingCache(rows, **sizes)
    return WindowCache(rows, window=first.window, **sizes)
