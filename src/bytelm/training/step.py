"""One optimizer update: gradients over a batch in pieces, guarded, clipped, applied.

The gradient is that of nats summed over the batch and divided by its scored bytes, so it does not
depend on how the batch is cut. A batch that does not fit into memory is cut finer and repeated.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from bytelm.errors import RunError
from bytelm.training.optimizers import Optimizer
from bytelm.training.precision import autocast
from bytelm.vocab import IGNORE

log = logging.getLogger(__name__)

CPU_OUT_OF_MEMORY = ("can't allocate memory", "DefaultCPUAllocator")
"""What torch's CPU allocator says; it raises a plain RuntimeError."""

SMALLEST_LOSS_SCALE = 1.0
"""An fp16 gradient that overflows even at this scale is broken, not just scaled too far."""


@dataclass(frozen=True, kw_only=True)
class Update:
    """What one update measured."""

    nll_nats: float
    """Summed over the scored bytes, before the update."""

    scored: int
    """Bytes scored."""

    grad_norm: float
    """Before clipping."""

    micro_rows: int
    """Rows of one forward pass, after any halving."""

    @property
    def bpb(self) -> float:
        """Bits per byte of the batch."""
        return self.nll_nats / math.log(2) / max(1, self.scored)


class NotFiniteError(RunError):
    """A loss or gradient is NaN or infinite; the weights were not touched."""


def cross_entropy_nats(
    logits: Float[Tensor, "B T V"], targets: Int[Tensor, "B T"]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of the targets, summed, in nats; ignored targets count nothing."""
    return F.cross_entropy(
        logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE, reduction="sum"
    )


@runtime_checkable
class Trainable(Protocol):
    """A batch of rows that a model can learn from."""

    @property
    def targets(self) -> Int[Tensor, "B T"]:
        """The ids to predict, IGNORE where nothing is scored."""
        ...

    @property
    def scored(self) -> int:
        """Targets that count."""
        ...

    def rows(self, chosen: slice) -> "Trainable":
        """Some of the rows."""
        ...

    def to(self, device: torch.device | str) -> "Trainable":
        """Copy to a device."""
        ...

    def logits(self, model: nn.Module) -> Float[Tensor, "B T V"]:
        """What a model predicts of the targets."""
        ...


class Stepper:
    """Updates one model.

    Args:
        model: What the `logits` of the batches take.
        optimizer: Of the model's parameters.
        scaler: Scales the loss in fp16, disabled otherwise.
        dtype: Dtype to autocast to; None is float32.
        device: Where the model is.

    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: Optimizer,
        *,
        scaler: torch.amp.GradScaler,
        dtype: torch.dtype | None,
        device: torch.device,
    ) -> None:
        self.model, self.optimizer, self.scaler = model, optimizer, scaler
        self.dtype, self.device = dtype, device

    def update(self, batch: Trainable, *, micro_rows: int, lr_scale: float) -> Update:
        """Make one update from a batch.

        Args:
            batch: All rows of the update.
            micro_rows: Most rows in one forward pass.
            lr_scale: Factor on all learning rates.

        Raises:
            NotFiniteError: The loss or the gradient is NaN or infinite.

        """
        nats, micro_rows = self._gradients(batch, micro_rows)
        self.scaler.unscale_(self.optimizer)  # pyright: ignore[reportArgumentType]
        norm = self.optimizer.clip_grad_norm_()
        overflowed = not math.isfinite(norm) and self._may_overflow()
        if not math.isfinite(nats) or (not math.isfinite(norm) and not overflowed):
            self.optimizer.zero_grad()
            raise NotFiniteError(
                f"the loss is {nats / max(1, batch.scored):.3g} nats a byte and the norm of the "
                f"gradient {norm:.3g}"
            )
        if not overflowed:
            self.optimizer.step(lr_scale)
        self.scaler.update()
        self.optimizer.zero_grad()
        return Update(nll_nats=nats, scored=batch.scored, grad_norm=norm, micro_rows=micro_rows)

    def try_out(self, batch: Trainable, *, micro_rows: int) -> int:
        """Find how many rows of a batch fit into memory at once, and leave everything as it was.

        Args:
            batch: The largest there is.
            micro_rows: Rows to begin with; halved while they do not fit.

        Raises:
            RuntimeError: A single row does not fit.

        """
        generators = random_states(self.device)
        _, micro_rows = self._gradients(batch, micro_rows)
        self.optimizer.zero_grad()
        set_random_states(generators, self.device)
        return micro_rows

    def _may_overflow(self) -> bool:
        """Whether a smaller loss scale may still help: then the update is only left out."""
        return self.scaler.is_enabled() and self.scaler.get_scale() > SMALLEST_LOSS_SCALE

    def _gradients(self, batch: Trainable, micro_rows: int) -> tuple[float, int]:
        """Accumulate the gradient of a batch, with fewer rows at a time if memory runs out."""
        generators = random_states(self.device)
        while True:
            try:
                return self._accumulate(batch, micro_rows), micro_rows
            except (torch.OutOfMemoryError, RuntimeError) as error:
                if micro_rows == 1 or not is_out_of_memory(error):
                    raise
            # outside the handler, whose traceback would keep the activations alive
            self.optimizer.zero_grad()
            set_random_states(generators, self.device)
            micro_rows = -(-micro_rows // 2)
            log.warning("out of memory: repeating the batch with %d rows at a time", micro_rows)
            if self.device.type == "cuda":
                torch.cuda.empty_cache()

    def _accumulate(self, batch: Trainable, micro_rows: int) -> float:
        total, scored = 0.0, max(1, batch.scored)
        for start in range(0, len(batch.targets), micro_rows):
            rows = batch.rows(slice(start, start + micro_rows)).to(self.device)
            with autocast(self.dtype, self.device):
                logits = rows.logits(self.model)
            nats = cross_entropy_nats(logits, rows.targets)
            self.scaler.scale(nats / scored).backward()
            total += nats.item()
        return total


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on any device."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    return any(text in str(error) for text in CPU_OUT_OF_MEMORY)


def random_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's generators that a training on `device` draws from, uint8."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def set_random_states(states: Mapping[str, Tensor], device: torch.device) -> None:
    """Put the generators back to what `random_states` gave."""
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(states["cuda"], device)
