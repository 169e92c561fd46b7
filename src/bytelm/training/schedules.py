"""Learning-rate schedules: a factor on every learning rate, in optimizer steps.

`schedule.scale(step, total_steps)` is for the update after `step` updates, so a warm-up of one
step does nothing, and the last update of a decay to zero still moves.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar


@dataclass(frozen=True, kw_only=True)
class _Warmup:
    """What all schedules share."""

    warmup_steps: int = 0
    """Optimizer steps over which the learning rates rise linearly from 0."""

    def __post_init__(self) -> None:
        if self.warmup_steps < 0:
            raise ValueError(f"warmup_steps must be >= 0, got {self.warmup_steps}")

    def _warmup(self, step: int) -> float:
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def _progress(self, step: int, total_steps: int) -> float:
        """Part of the steps after the warm-up that are behind, 0 to 1."""
        span = max(1, total_steps - self.warmup_steps)
        return min(1.0, max(0, step - self.warmup_steps) / span)


def _require_fraction(name: str, value: float) -> None:
    if not 0 <= value <= 1:
        raise ValueError(f"{name} must be between 0 and 1, got {value}")


@dataclass(frozen=True, kw_only=True)
class Constant(_Warmup):
    """The same rate throughout."""

    kind: ClassVar[str] = "constant"

    def scale(self, step: int, total_steps: int) -> float:  # noqa: ARG002
        """Factor on the learning rates."""
        return self._warmup(step)


@dataclass(frozen=True, kw_only=True)
class Linear(_Warmup):
    """A straight line from 1 to `final` over all steps after the warm-up."""

    kind: ClassVar[str] = "linear"

    final: float = 0.0
    """Factor at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("final", self.final)

    def scale(self, step: int, total_steps: int) -> float:
        """Factor on the learning rates."""
        progress = self._progress(step, total_steps)
        return self._warmup(step) * (1 - (1 - self.final) * progress)


@dataclass(frozen=True, kw_only=True)
class Cosine(_Warmup):
    """Half a cosine from 1 to `final` over all steps after the warm-up.

    Source: SGDR (Loshchilov and Hutter 2017, arXiv:1608.03983), one period.
    """

    kind: ClassVar[str] = "cosine"

    final: float = 0.0
    """Factor at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("final", self.final)

    def scale(self, step: int, total_steps: int) -> float:
        """Factor on the learning rates."""
        cosine = (1 + math.cos(math.pi * self._progress(step, total_steps))) / 2
        return self._warmup(step) * (self.final + (1 - self.final) * cosine)


@dataclass(frozen=True, kw_only=True)
class Step(_Warmup):
    """A factor `gamma` after every `every_steps` updates."""

    kind: ClassVar[str] = "step"

    every_steps: int = 1000
    """Optimizer steps between two drops."""

    gamma: float = 0.5
    """Factor of each drop."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("gamma", self.gamma)
        if self.every_steps < 1:
            raise ValueError(f"every_steps must be >= 1, got {self.every_steps}")

    def scale(self, step: int, total_steps: int) -> float:  # noqa: ARG002
        """Factor on the learning rates."""
        return self._warmup(step) * self.gamma ** (step // self.every_steps)


@dataclass(frozen=True, kw_only=True)
class Plateau(_Warmup):
    """A factor `gamma` whenever `patience` evaluations in a row were no better than the best."""

    kind: ClassVar[str] = "plateau"

    gamma: float = 0.5
    """Factor of each drop."""

    patience: int = 3
    """Evaluations without improvement before a drop; the count then starts again."""

    min_delta: float = 0.0
    """Bits per byte by which an evaluation must beat the best to count as better."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("gamma", self.gamma)
        if self.patience < 1:
            raise ValueError(f"patience must be >= 1, got {self.patience}")

    def scale(self, step: int, history: Sequence[float]) -> float:
        """Factor on the learning rates; `history` holds all validation values so far."""
        best, waited, drops = math.inf, 0, 0
        for value in history:
            if value < best - self.min_delta:
                best, waited = value, 0
                continue
            waited += 1
            if waited == self.patience:
                waited, drops = 0, drops + 1
        return self._warmup(step) * self.gamma**drops


@dataclass(frozen=True, kw_only=True)
class WSD(_Warmup):
    """Warm-up, stable, decay: full rate, then a straight line to `final` over the last part.

    Source: MiniCPM (Hu et al. 2024, arXiv:2404.06395), section 4; the long linear decay follows
    nanochat and modded-nanogpt.
    """

    kind: ClassVar[str] = "wsd"

    decay_fraction: float = 0.5
    """Part of all steps, at the end, over which the rate falls."""

    final: float = 0.0
    """Factor at the end."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_fraction("decay_fraction", self.decay_fraction)
        _require_fraction("final", self.final)

    def scale(self, step: int, total_steps: int) -> float:
        """Factor on the learning rates."""
        decay_steps = max(1.0, self.decay_fraction * total_steps)
        left = min(1.0, max(0.0, (total_steps - step) / decay_steps))
        return self._warmup(step) * (self.final + (1 - self.final) * left)


Schedule = Constant | Linear | Cosine | Step | Plateau | WSD
"""A tagged union: `kind` names the member in a recipe."""


def lr_scale(schedule: Schedule, *, step: int, total_steps: int, history: Sequence[float]) -> float:
    """Factor on the learning rates of the update after `step` updates.

    Args:
        schedule: Any member of the union.
        step: Updates made so far.
        total_steps: Updates of the whole run.
        history: Validation values so far, in bits per byte; only `Plateau` looks at them.

    """
    if isinstance(schedule, Plateau):
        return schedule.scale(step, history)
    return schedule.scale(step, total_steps)
