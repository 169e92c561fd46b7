"""The whole of a training on pairs of texts as one value, nested by owner."""

from dataclasses import dataclass, field
from typing import Literal

from bytelm.models import NgramConfig, Seq2SeqConfig
from bytelm.training.optimizers import OptimConfig
from bytelm.training.precision import Precision
from bytelm.training.schedules import WSD, Schedule
from bytelm.training.settings import HardwareConfig, PatchingConfig


@dataclass(frozen=True, kw_only=True)
class PairTraining:
    """How long and how to train on pairs."""

    epochs: int = 10
    """Passes over the training pairs; the validation pairs are measured after each."""

    batch_rows: int = 32
    """Pairs of one update."""

    micro_rows: int | Literal["auto"] = "auto"
    """Pairs of one forward pass; the update is the same. "auto": as many as fit into memory, tried
    out with the longest pairs."""

    seed: int = 0
    """Of the initial weights, the order of the pairs and dropout."""

    precision: Precision = "fp32"
    """What forward and backward compute in; "auto" is bf16 where the hardware has it."""

    save_every: int = 200
    """Steps between checkpoints; each epoch is saved too."""

    patience: int | None = None
    """Epochs without a better one before the run stops early; None never stops early."""

    tensorboard: bool = False
    """Write TensorBoard curves too."""

    deterministic: bool = True
    """On a CPU, refuse operations whose result depends on the order of threads."""

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_rows", "micro_rows", "save_every", "patience"):
            value = getattr(self, name)
            if value not in (None, "auto") and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be >= 0 and below 2**64, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class PairRunConfig:
    """One training of an encoder-decoder on pairs of texts."""

    model: Seq2SeqConfig
    """What to train."""

    patching: PatchingConfig | None = None
    """How inputs are cut into patches; for a model with `patches`, and no other."""

    entropy: NgramConfig | None = None
    """The model of the inputs whose entropies an entropy patcher takes."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and learning rates."""

    schedule: Schedule = field(default_factory=WSD)
    """Course of the learning rates."""

    training: PairTraining = field(default_factory=PairTraining)
    """Length, batches, checkpoints."""

    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """Device and threads."""

    def __post_init__(self) -> None:
        has_patches = self.model.patches is not None
        if has_patches != (self.patching is not None):
            raise ValueError(
                f"a model {'with' if has_patches else 'without'} a table `patches` "
                f"{'needs' if has_patches else 'takes no'} table `patching`"
            )
        needs_entropies = self.patching is not None and self.patching.needs_entropies
        if needs_entropies != (self.entropy is not None):
            kind = "this model" if self.patching is None else f"a {self.patching.kind!r} patcher"
            raise ValueError(
                f"{kind} {'needs a' if needs_entropies else 'takes no'} table `entropy`"
            )
