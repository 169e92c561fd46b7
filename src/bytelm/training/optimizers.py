"""One optimizer for a model: Muon for matrices, sparse RMSprop for hash tables, AdamW for the rest.

Sources are in `muon.py`, `sparse_rmsprop.py` and `adamw.py`. Weight decay is decoupled and applies
to matrices only.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from bytelm.errors import CheckpointError
from bytelm.training.adamw import AdamW
from bytelm.training.muon import Muon
from bytelm.training.sparse_rmsprop import SparseRMSprop, coalesce_gradient_

MUON_LR = 0.02
"""Keller Jordan's rate for hidden matrices, at any width."""

ROLES = ("matrix", "hash_table", "other")
"""What an optimizer must know about a parameter (`models.parameter_role`)."""


@dataclass(frozen=True, kw_only=True)
class OptimConfig:
    """Learning rates (before the schedule) and settings of the optimizers."""

    lr: float = 6e-3
    """AdamW's learning rate: embeddings, output layer, norms and biases."""

    matrices: Literal["muon", "adamw"] = "muon"
    """Optimizer of the 2-D weights inside the blocks."""

    matrix_lr: float | Literal["auto"] = "auto"
    """Learning rate of those matrices; "auto" is 0.02 with Muon and `lr` with AdamW."""

    hash_lr: float = 0.02
    """Learning rate of the hash n-gram tables."""

    weight_decay: float = 0.01
    """Decoupled decay of matrices, per unit of learning rate; nothing else decays."""

    betas: tuple[float, float] = (0.9, 0.95)
    """Decay of the means of gradients and of squares; hash tables have the latter only."""

    eps: float = 1e-8
    """Added to the root of the mean squared gradient: AdamW and hash tables."""

    momentum: float = 0.95
    """Muon's decay of the mean of gradients."""

    clip_norm: float | None = 1.0
    """Largest norm of the gradient of all parameters together; None never clips."""

    def __post_init__(self) -> None:
        for name in ("lr", "hash_lr", "eps"):
            _require(name, getattr(self, name), low=0.0)
        if self.matrix_lr != "auto":
            _require("matrix_lr", self.matrix_lr, low=0.0)
        if self.clip_norm is not None:
            _require("clip_norm", self.clip_norm, low=0.0)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise ValueError(f"weight_decay must be a number >= 0, got {self.weight_decay}")
        for name, value in (("momentum", self.momentum), ("betas", max(self.betas))):
            if not 0 <= value < 1 or min(self.betas) < 0:
                raise ValueError(f"{name} must be in [0, 1), got {getattr(self, name)}")

    @property
    def resolved_matrix_lr(self) -> float:
        """Learning rate of the matrices, as a number."""
        if self.matrix_lr != "auto":
            return self.matrix_lr
        return MUON_LR if self.matrices == "muon" else self.lr


def _require(name: str, value: float, *, low: float) -> None:
    if not (math.isfinite(value) and value > low):
        raise ValueError(f"{name} must be a finite number > {low:g}, got {value}")


class Optimizer:
    """All parameters of a model, each updated by the optimizer of its role.

    Args:
        config: Rates and settings.
        named_parameters: As `nn.Module.named_parameters`; those without gradient are left out.
        role: Says for a name and a parameter "matrix", "hash_table" or "other".

    """

    def __init__(
        self,
        config: OptimConfig,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        role: Callable[[str, nn.Parameter], str],
    ) -> None:
        self.config = config
        by_role: dict[str, dict[str, nn.Parameter]] = {name: {} for name in ROLES}
        for name, parameter in named_parameters:
            if parameter.requires_grad:
                by_role[role(name, parameter)][name] = parameter
        self._parameters = {name: p for group in by_role.values() for name, p in group.items()}
        matrices, tables, others = by_role["matrix"], by_role["hash_table"], by_role["other"]
        uses_muon, decay = config.matrices == "muon", config.weight_decay
        adam = {"betas": config.betas, "eps": config.eps}
        self._matrices = (
            Muon(matrices, momentum=config.momentum, weight_decay=decay)
            if uses_muon
            else AdamW(matrices, weight_decay=decay, **adam)
        )
        self._tables = SparseRMSprop(tables, beta=config.betas[1], eps=config.eps)
        self._others = AdamW(others, weight_decay=0.0, **adam)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """The parameters as `torch.amp.GradScaler.unscale_` wants them."""
        return [{"params": list(self._parameters.values())}]

    def zero_grad(self) -> None:
        """Forget all gradients."""
        for parameter in self._parameters.values():
            parameter.grad = None

    @torch.no_grad()
    def clip_grad_norm_(self) -> float:
        """Scale the gradient down to `clip_norm`; the norm it had before."""
        for parameter in self._parameters.values():
            coalesce_gradient_(parameter)
        grads = [_values(p.grad) for p in self._parameters.values() if p.grad is not None]
        norm = nn.utils.get_total_norm(grads).item()
        if self.config.clip_norm is not None and norm > self.config.clip_norm:
            for grad in grads:
                grad.mul_(self.config.clip_norm / norm)
        return norm

    def step(self, lr_scale: float = 1.0) -> None:
        """Update every parameter; all learning rates are multiplied by `lr_scale`."""
        self._matrices.step(self.config.resolved_matrix_lr * lr_scale)
        self._tables.step(self.config.hash_lr * lr_scale)
        self._others.step(self.config.lr * lr_scale)

    def state_dict(self) -> dict[str, Tensor]:
        """Everything a resumed optimizer needs, as flat names and tensors; not copies."""
        parts = (self._matrices, self._tables, self._others)
        return {name: t for part in parts for name, t in part.state_dict().items()}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Take over a state of the same model and settings.

        Raises:
            CheckpointError: A name is missing or unknown, or a shape differs.

        """
        own = self.state_dict()
        if differing := sorted(own.keys() ^ state.keys()):
            raise CheckpointError(
                f"optimizer state does not belong to this model: {len(differing)} names differ, "
                f"the first is {differing[0]!r}; was `optim.matrices` or the model changed?"
            )
        for name, tensor in own.items():
            if tensor.shape != state[name].shape:
                raise CheckpointError(
                    f"optimizer state {name!r} has shape {tuple(state[name].shape)}, "
                    f"expected {tuple(tensor.shape)}"
                )
            tensor.copy_(state[name])


def _values(grad: Tensor) -> Tensor:
    return grad.values() if grad.is_sparse else grad
