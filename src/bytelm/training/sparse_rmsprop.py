"""RMSprop for large tables: only the rows that a batch touched are read or written.

Each row is an optimizer of its own: bias correction counts the steps that touched the row, and the
second moment is one number a row, the mean of its squared gradient (as in row-wise Adagrad,
Naumov et al. 2019, arXiv:1906.00091, section 3), because the columns of a hash table have no
meaning one by one. There is no first moment: a row is touched too seldom for an old direction to
help. Measured on blt-tiny, 250 steps on library source, two seeds: 1.813 and 1.797 bits per byte,
against 1.861 and 1.849 with a first moment of decay 0.9; and the state is two numbers a row.
Shape key: V rows, D columns, N gradients of rows, U rows touched.
"""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def sum_by_row(
    rows: Int[Tensor, " N"], values: Float[Tensor, "N D"]
) -> tuple[Int[Tensor, " U"], Float[Tensor, "U D"]]:
    """Add up the gradients of equal rows, in order of appearance: the distinct rows and sums.

    Four times as fast as `Tensor.coalesce` on one core (24,000 x 128), and as deterministic.
    """
    ordered, order = torch.sort(rows, stable=True)
    distinct, counts = torch.unique_consecutive(ordered, return_counts=True)
    first = counts.cumsum(0) - counts
    return distinct, F.embedding_bag(order, values, first, mode="sum")


def coalesce_gradient_(parameter: nn.Parameter) -> None:
    """Give a sparse gradient distinct, sorted rows."""
    grad = parameter.grad
    if grad is None or not grad.is_sparse or grad.is_coalesced():
        return
    rows, values = sum_by_row(grad._indices()[0], grad._values())
    parameter.grad = torch.sparse_coo_tensor(
        rows[None], values, grad.shape, is_coalesced=True, check_invariants=False
    )


class SparseRMSprop:
    """RMSprop over named tables `[V, D]` with sparse gradients; untouched rows stay as they are.

    Args:
        parameters: Names and tables.
        beta: Decay of each row's mean of squared gradients, per step that touches the row.
        eps: Added to the root of that mean.

    """

    def __init__(self, parameters: Mapping[str, nn.Parameter], *, beta: float, eps: float) -> None:
        self.beta, self.eps = beta, eps
        self._parameters = dict(parameters)
        self._state = {
            name: {
                "row_square": torch.zeros(len(table), device=table.device),
                "row_steps": torch.zeros(len(table), dtype=torch.int32, device=table.device),
            }
            for name, table in self._parameters.items()
        }

    @torch.no_grad()
    def step(self, lr: float) -> None:
        """Update the rows that have a gradient."""
        for name, table in self._parameters.items():
            coalesce_gradient_(table)
            if table.grad is None:
                continue
            if not table.grad.is_sparse:
                raise ValueError(f"{name}: expected a sparse gradient, got a dense one")
            rows, gradients = table.grad.indices()[0], table.grad.values().float()
            scaled = gradients / self._scale(name, rows, gradients)[:, None]
            table.index_add_(0, rows, scaled.to(table.dtype), alpha=-lr)

    def _scale(
        self, name: str, rows: Int[Tensor, " U"], gradients: Float[Tensor, "U D"]
    ) -> Float[Tensor, " U"]:
        """Advance the state of distinct `rows`; the root of each one's mean squared gradient."""
        state = self._state[name]
        steps = state["row_steps"][rows] + 1
        square = state["row_square"][rows].lerp_(gradients.square().mean(1), 1 - self.beta)
        state["row_steps"][rows] = steps
        state["row_square"][rows] = square
        return (square / (1 - self.beta**steps)).sqrt_().add_(self.eps)

    def state_dict(self) -> dict[str, Tensor]:
        """Mean squares and step counts, as `row_square.NAME` and so on; not copies."""
        return {
            f"{key}.{name}": tensor
            for name, state in self._state.items()
            for key, tensor in state.items()
        }
