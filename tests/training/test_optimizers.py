"""Oracles: torch.optim.AdamW, torch's clipping, and an optimizer that was never saved."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from bytelm.errors import CheckpointError
from bytelm.training.optimizers import OptimConfig, Optimizer


class Tiny(nn.Module):
    """One parameter of each role, and one that is not trained."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Parameter(torch.randn(50, 6))
        self.first = nn.Linear(6, 8)
        self.second = nn.Linear(8, 6)
        self.norm = nn.RMSNorm(6)
        self.frozen = nn.Parameter(torch.randn(3, 3), requires_grad=False)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        h = F.embedding_bag(ids, self.table, mode="sum", sparse=True)
        return self.norm(h + self.second(torch.tanh(self.first(h))))


def role(name: str, parameter: nn.Parameter) -> str:
    if name == "table":
        return "hash_table"
    return "matrix" if parameter.ndim == 2 else "other"


def optimizer_of(model: nn.Module, config: OptimConfig) -> Optimizer:
    return Optimizer(config, model.named_parameters(), role=role)


def backward(model: nn.Module, seed: int) -> None:
    ids = torch.randint(0, 50, (7, 3), generator=torch.Generator().manual_seed(seed))
    target = torch.randn(7, 6, generator=torch.Generator().manual_seed(seed))
    (model(ids) - target).square().mean().backward()


def train(model: nn.Module, optimizer: Optimizer, seeds: range) -> None:
    for seed in seeds:
        optimizer.zero_grad()
        backward(model, seed)
        optimizer.clip_grad_norm_()
        optimizer.step(1.0 - seed / 100)


def test_adamw_equals_torch_with_decay_on_matrices_only() -> None:
    model, oracle = Tiny(), Tiny()
    config = OptimConfig(matrices="adamw", lr=0.01, weight_decay=0.1, clip_norm=None)
    decayed = [p for n, p in oracle.named_parameters() if role(n, p) == "matrix" and n != "frozen"]
    plain = [p for n, p in oracle.named_parameters() if role(n, p) == "other"]
    torch_optimizer = torch.optim.AdamW(
        [{"params": decayed, "weight_decay": 0.1}, {"params": plain, "weight_decay": 0.0}],
        lr=0.01,
        betas=config.betas,
        fused=False,
    )
    optimizer = optimizer_of(model, config)
    for seed in range(4):
        optimizer.zero_grad()
        torch_optimizer.zero_grad()
        backward(model, seed)
        backward(oracle, seed)
        with torch.no_grad():
            optimizer.step()
            torch_optimizer.step()
            oracle.table.copy_(model.table)
        oracle.table.grad = None
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, oracle.get_parameter(name), atol=1e-6, rtol=1e-5)


def test_every_trainable_parameter_moves_and_frozen_ones_do_not() -> None:
    model = Tiny()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    train(model, optimizer_of(model, OptimConfig()), range(1))
    moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
    assert moved == before.keys() - {"frozen"}


def test_clipping_is_torchs_with_the_table_dense() -> None:
    model, oracle = Tiny(), Tiny()
    backward(model, 0)
    backward(oracle, 0)
    oracle.table.grad = oracle.table.grad.to_dense()
    expected = nn.utils.clip_grad_norm_(oracle.parameters(), 0.01).item()
    assert optimizer_of(model, OptimConfig(clip_norm=0.01)).clip_grad_norm_() == pytest.approx(
        expected, rel=1e-6
    )
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            grad = parameter.grad.to_dense() if parameter.grad.is_sparse else parameter.grad
            torch.testing.assert_close(grad, oracle.get_parameter(name).grad)


@pytest.mark.parametrize("matrices", ["muon", "adamw"])
def test_a_loaded_state_goes_on_bit_for_bit(matrices) -> None:
    config = OptimConfig(matrices=matrices)
    straight = Tiny()
    train(straight, optimizer_of(straight, config), range(6))
    first = Tiny()
    optimizer = optimizer_of(first, config)
    train(first, optimizer, range(3))
    second = Tiny()
    second.load_state_dict(first.state_dict())
    resumed = optimizer_of(second, config)
    resumed.load_state_dict({name: t.clone() for name, t in optimizer.state_dict().items()})
    train(second, resumed, range(3, 6))
    for name, parameter in second.named_parameters():
        assert torch.equal(parameter, straight.get_parameter(name)), name


def test_a_state_of_other_settings_is_refused_by_name() -> None:
    adamw = optimizer_of(Tiny(), OptimConfig(matrices="adamw")).state_dict()
    optimizer = optimizer_of(Tiny(), OptimConfig())
    with pytest.raises(CheckpointError, match=r"first is 'exp_avg\.first\.weight'"):
        optimizer.load_state_dict(adamw)
    state = optimizer.state_dict()
    state["row_square.table"] = torch.zeros(2, 2)
    with pytest.raises(CheckpointError, match=r"row_square.table.*\(2, 2\), expected \(50,\)"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    "bad",
    [
        {"lr": 0.0},
        {"matrix_lr": -1.0},
        {"hash_lr": float("nan")},
        {"betas": (0.9, 1.0)},
        {"betas": (-0.1, 0.9)},
        {"momentum": 1.0},
        {"weight_decay": -1.0},
        {"clip_norm": 0.0},
    ],
)
def test_bad_settings_are_refused(bad) -> None:
    with pytest.raises(ValueError, match="got"):
        OptimConfig(**bad)


def test_auto_matrix_lr() -> None:
    assert OptimConfig(lr=1e-3).resolved_matrix_lr == 0.02
    assert OptimConfig(lr=1e-3, matrices="adamw").resolved_matrix_lr == 1e-3
    assert OptimConfig(matrix_lr=0.5).resolved_matrix_lr == 0.5
