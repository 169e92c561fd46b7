"""Oracles: the gradient of the whole batch at once, and an update that never failed."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from toy import CPU, ToyLM, batch, stepper

from bytelm.training.optimizers import OptimConfig
from bytelm.training.precision import gradient_scaler
from bytelm.training.step import (
    NotFiniteError,
    cross_entropy_nats,
    is_out_of_memory,
)
from bytelm.vocab import IGNORE


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def test_loss_is_summed_over_scored_targets() -> None:
    logits = torch.randn(2, 3, 260, generator=torch.Generator().manual_seed(0))
    targets = torch.tensor([[5, IGNORE, 7], [IGNORE, IGNORE, 259]])
    by_hand = sum(-logits[r, t].log_softmax(-1)[targets[r, t]] for r, t in [(0, 0), (0, 2), (1, 2)])
    torch.testing.assert_close(cross_entropy_nats(logits, targets), by_hand)


@pytest.mark.parametrize("micro_rows", [1, 2, 4, 5, 6, 100])
def test_accumulated_gradient_is_that_of_the_large_batch(micro_rows: int) -> None:
    model, oracle = ToyLM(), ToyLM()
    whole = batch(0)
    mean = F.cross_entropy(oracle(whole.ids).flatten(0, 1), whole.targets.flatten())
    mean.backward()
    nats, used = stepper(model)._gradients(whole, micro_rows)
    assert used == micro_rows
    assert nats / whole.scored == pytest.approx(mean.item(), rel=1e-6)
    for name, parameter in model.named_parameters():
        grad, expected = parameter.grad.to_dense(), oracle.get_parameter(name).grad.to_dense()
        torch.testing.assert_close(grad, expected, atol=1e-6, rtol=1e-5)


def test_accumulated_update_is_that_of_the_large_batch() -> None:
    # an AdamW step of a gradient near zero is a coin toss, hence the large eps
    config = OptimConfig(matrices="adamw", eps=1e-3)
    large, small = ToyLM(), ToyLM()
    large_step, small_step = stepper(large, config), stepper(small, config)
    for seed in range(3):
        expected = large_step.update(batch(seed), micro_rows=6, lr_scale=1.0)
        got = small_step.update(batch(seed), micro_rows=2, lr_scale=1.0)
        assert got.bpb == pytest.approx(expected.bpb, rel=1e-6)
        assert got.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    for name, parameter in small.named_parameters():
        torch.testing.assert_close(parameter, large.get_parameter(name), atol=1e-6, rtol=1e-6)


def test_update_measures_what_it_did() -> None:
    model = ToyLM()
    nn.init.zeros_(model.head.weight)
    nn.init.zeros_(model.head.bias)
    update = stepper(model).update(batch(0), micro_rows=4, lr_scale=1.0)
    assert update.scored == 6 * 10 - 3
    assert update.bpb == pytest.approx(math.log2(260), rel=1e-6)
    assert update.micro_rows == 4
    assert all(p.grad is None for p in model.parameters())


def test_a_learning_rate_of_zero_changes_nothing() -> None:
    model = ToyLM()
    before = weights(model)
    stepper(model).update(batch(0), micro_rows=6, lr_scale=0.0)
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())


class FailsAbove(nn.Module):
    """Runs out of memory, after drawing random numbers, on more than `rows` rows."""

    def __init__(self, inner: nn.Module, rows: int, error: Exception) -> None:
        super().__init__()
        self.inner, self.rows, self.error, self.calls = inner, rows, error, []

    def forward(self, ids: Tensor) -> Tensor:
        self.calls.append(len(ids))
        logits = self.inner(ids)
        if len(ids) > self.rows:
            raise self.error
        return logits


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: not enough memory"),
        RuntimeError("mmap: can't allocate memory"),
    ],
)
def test_out_of_memory_halves_the_rows_and_repeats_the_same_batch(error, caplog) -> None:
    torch.manual_seed(5)
    straight = ToyLM(dropout=0.5)
    expected = stepper(straight).update(batch(0), micro_rows=2, lr_scale=1.0)
    after = torch.rand(1)

    torch.manual_seed(5)
    inner = ToyLM(dropout=0.5)
    failing = FailsAbove(inner, 2, error)
    step = stepper(inner)
    step.model = failing
    got = step.update(batch(0), micro_rows=6, lr_scale=1.0)
    assert failing.calls == [6, 3, 2, 2, 2]
    assert got == expected
    assert torch.rand(1) == after
    for name, parameter in inner.named_parameters():
        assert torch.equal(parameter, straight.get_parameter(name)), name
    assert "2 rows at a time" in caplog.text


def test_one_row_that_does_not_fit_is_an_error() -> None:
    step = stepper(ToyLM())
    step.model = FailsAbove(step.model, 0, torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(torch.OutOfMemoryError):
        step.update(batch(0), micro_rows=4, lr_scale=1.0)


def test_other_errors_are_not_memory() -> None:
    assert not is_out_of_memory(RuntimeError("shapes cannot be multiplied"))


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_the_weights(bad: float) -> None:
    model = ToyLM()
    with torch.no_grad():
        model.head.bias[7] = bad
    before = weights(model)
    step = stepper(model)
    state = {name: tensor.clone() for name, tensor in step.optimizer.state_dict().items()}
    with pytest.raises(NotFiniteError, match="the loss is"):
        step.update(batch(0), micro_rows=6, lr_scale=1.0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter, before[name], equal_nan=True, rtol=0, atol=0)
    assert all(torch.equal(state[name], t) for name, t in step.optimizer.state_dict().items())


class InfiniteGradient(nn.Module):
    """A finite loss whose gradient is infinite."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(260))

    def forward(self, ids: Tensor) -> Tensor:
        return self.weight.sqrt().expand(*ids.shape, 260)


def test_a_gradient_that_is_no_number_leaves_the_weights() -> None:
    model = InfiniteGradient()
    with pytest.raises(NotFiniteError, match="gradient"):
        stepper(model).update(batch(0), micro_rows=6, lr_scale=1.0)
    assert model.weight.abs().max() == 0


def test_a_scaled_loss_gives_the_plain_update() -> None:
    plain, scaled = ToyLM(), ToyLM()
    expected = stepper(plain).update(batch(0), micro_rows=4, lr_scale=1.0)
    scaler = gradient_scaler(torch.float16, CPU)
    got = stepper(scaled, scaler=scaler).update(batch(0), micro_rows=4, lr_scale=1.0)
    assert got.grad_norm == pytest.approx(expected.grad_norm, rel=1e-5)
    torch.testing.assert_close(scaled.head.weight, plain.head.weight)


def test_an_overflow_of_the_scaled_loss_is_left_out_until_the_scale_is_one() -> None:
    model = InfiniteGradient()
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    step = stepper(model, scaler=scaler)
    for expected_scale in (2.0, 1.0):
        step.update(batch(0), micro_rows=6, lr_scale=1.0)
        assert scaler.get_scale() == expected_scale
    assert model.weight.abs().max() == 0
    with pytest.raises(NotFiniteError):
        step.update(batch(0), micro_rows=6, lr_scale=1.0)


def test_bf16_changes_the_loss_a_little_and_keeps_float32_weights() -> None:
    model, oracle = ToyLM(), ToyLM()
    expected = stepper(oracle).update(batch(0), micro_rows=6, lr_scale=1.0)
    got = stepper(model, dtype=torch.bfloat16).update(batch(0), micro_rows=6, lr_scale=1.0)
    assert got.bpb == pytest.approx(expected.bpb, rel=0.02)
    assert got.bpb != expected.bpb
    assert {p.dtype for p in model.parameters()} == {torch.float32}
