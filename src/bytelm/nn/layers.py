"""Layers of one kind, in order."""

from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar, cast

from torch import nn

Layer = TypeVar("Layer", bound=nn.Module)


class Layers(nn.ModuleList, Generic[Layer]):
    """`nn.ModuleList` that knows what it holds; its state dict is the same."""

    def __init__(self, layers: Iterable[Layer]) -> None:
        super().__init__(layers)

    def __iter__(self) -> Iterator[Layer]:
        """Each layer, the first one first."""
        return cast("Iterator[Layer]", super().__iter__())
