"""Oracles: torch's Adam without first moment on each row alone; a dense loop in float64."""

import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from bytelm.training.sparse_rmsprop import SparseRMSprop, sum_by_row

BETA, EPS, LR = 0.95, 1e-8, 0.1


def table(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(rows, columns, generator=torch.Generator().manual_seed(0)))


def backward(parameter: nn.Parameter, ids: list[int], weights: torch.Tensor) -> None:
    (F.embedding(torch.tensor(ids), parameter, sparse=True) * weights).sum().backward()


@given(st.lists(st.integers(0, 6), max_size=30))
def test_sum_by_row_is_a_dense_sum(ids: list[int]) -> None:
    rows = torch.tensor(ids, dtype=torch.int64)
    values = torch.randn(len(ids), 3, generator=torch.Generator().manual_seed(0))
    distinct, sums = sum_by_row(rows, values)
    assert distinct.tolist() == sorted(set(ids))
    dense = torch.zeros(7, 3).index_add_(0, rows, values)
    torch.testing.assert_close(sums, dense[distinct])


def test_each_row_of_one_column_is_an_optimizer_of_its_own() -> None:
    parameter = table(5, 1)
    rows = [nn.Parameter(parameter.detach()[i].clone()) for i in range(5)]
    oracles = [torch.optim.Adam([row], lr=LR, betas=(0.0, BETA), eps=EPS) for row in rows]
    optimizer = SparseRMSprop({"table": parameter}, beta=BETA, eps=EPS)
    for ids in ([0, 1, 1], [1, 2], [4], [1, 4, 4, 0]):
        weights = torch.randn(len(ids), 1, generator=torch.Generator().manual_seed(len(ids)))
        parameter.grad = None
        backward(parameter, ids, weights)
        optimizer.step(LR)
        for row in set(ids):
            picked = [i for i, touched in enumerate(ids) if touched == row]
            rows[row].grad = weights[picked].sum(0)
            oracles[row].step()
    torch.testing.assert_close(parameter.detach(), torch.stack([row.detach() for row in rows]))


def test_touched_rows_equal_a_dense_oracle_and_others_are_bitwise_untouched() -> None:
    parameter = table(6, 4)
    before, expected = parameter.detach().clone(), parameter.detach().double()
    square, steps = torch.zeros(6).double(), [0] * 6
    optimizer = SparseRMSprop({"table": parameter}, beta=BETA, eps=EPS)
    generator = torch.Generator().manual_seed(1)
    for ids in ([0, 3, 3], [3, 5], [0, 0, 0]):
        weights = torch.randn(len(ids), 4, generator=generator)
        parameter.grad = None
        backward(parameter, ids, weights)
        for row in set(ids):
            grad = weights[[i for i, touched in enumerate(ids) if touched == row]].double().sum(0)
            steps[row] += 1
            square[row] = 0.95 * square[row] + 0.05 * (grad**2).mean()
            root = (square[row] / (1 - 0.95 ** steps[row])).sqrt() + EPS
            expected[row] -= LR * grad / root
        optimizer.step(LR)
    torch.testing.assert_close(parameter.detach().double(), expected, atol=1e-6, rtol=0)
    assert torch.equal(parameter.detach()[[1, 2, 4]], before[[1, 2, 4]])
