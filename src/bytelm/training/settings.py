"""The whole of a training run as one value: what a recipe file says, nested by owner.

`RunConfig` is what `config.load` builds from a recipe and what `config.json` of a run holds.
"""

import os
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar, Literal

from bytelm.models import BLTConfig, EntropyLMConfig, ModelConfig, NgramConfig
from bytelm.patching import Entropy, Patcher
from bytelm.training.optimizers import OptimConfig
from bytelm.training.precision import Precision
from bytelm.training.schedules import WSD, Schedule

STDIN = "-"


@dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which bytes to learn from, and how they are divided."""

    paths: tuple[str, ...] = ()
    """Files and folders; "-" is standard input."""

    suffixes: tuple[str, ...] = ()
    """Endings of the file names to take from folders, as ".py"; empty: every file."""

    valid_fraction: float = 0.05
    """Part of the bytes, by whole document, that steers the training: best step, threshold."""

    test_fraction: float = 0.05
    """Part of the bytes, by whole document, that the training never sees."""

    split_seed: int = 0
    """Decides which documents are held out; runs of other seeds are judged on the same ones."""

    stride: int | None = None
    """Bytes from one training row's start to the next; None: the model's context_bytes."""

    def __post_init__(self) -> None:
        if wrong := [suffix for suffix in self.suffixes if not suffix.startswith(".")]:
            raise ValueError(f"suffixes must begin with a dot, like '.py'; got {wrong}")
        fractions = (self.valid_fraction, self.test_fraction)
        # stated as what is right, because every comparison with nan is false
        if not (all(fraction >= 0 for fraction in fractions) and sum(fractions) < 1):
            raise ValueError(
                "valid_fraction and test_fraction must be >= 0 and their sum below 1, got "
                f"{self.valid_fraction} and {self.test_fraction}"
            )
        if self.split_seed < 0:
            raise ValueError(f"split_seed must be >= 0, got {self.split_seed}")
        if self.stride is not None and self.stride < 1:
            raise ValueError(f"stride must be at least 1 or none, got {self.stride}")

    def resolved(self) -> "DataConfig":
        """The same data, named by absolute paths."""
        return replace(self, paths=tuple(_absolute(path) for path in self.paths))


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """How long and how to train; every count of steps is in optimizer steps."""

    steps: int = 1000
    """Updates. An n-gram model is counted in one pass instead."""

    batch_rows: int = 8
    """Rows of `model.context_bytes` bytes in one forward pass."""

    accumulate: int = 1
    """Forward passes per update; the update is that of one batch of all their rows."""

    seed: int = 0
    """Of the initial weights, the order of the rows and dropout."""

    precision: Precision = "auto"
    """What forward and backward compute in; "auto" is bf16 where the hardware has it."""

    eval_every: int = 250
    """Steps between evaluations on the validation split."""

    eval_bytes: int = 200_000
    """Most validation bytes in one evaluation, and in a calibration."""

    save_every: int = 500
    """Steps between checkpoints; the best evaluation so far is saved too."""

    patience: int | None = None
    """Evaluations without a better one before the run stops early; None never stops early."""

    keep_every: int | None = None
    """Keep the checkpoint of every so many steps, beside the best and the last."""

    tensorboard: bool = False
    """Write TensorBoard curves too."""

    deterministic: bool = True
    """On a CPU, refuse operations whose result depends on the order of threads."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_rows", "accumulate", "eval_every", "eval_bytes", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("patience", "keep_every"):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1 or none, got {getattr(self, name)}")
        if not 0 <= self.seed < 2**64:
            raise ValueError(f"seed must be >= 0 and below 2**64, got {self.seed}")


@dataclass(frozen=True, kw_only=True)
class HardwareConfig:
    """Where to run; a run may be resumed elsewhere."""

    device: str = "auto"
    """"cpu", "cuda", "cuda:1", or "auto": a GPU if there is one."""

    threads: int | Literal["auto"] = "auto"
    """Threads of CPU operations; "auto" leaves torch's choice."""

    def __post_init__(self) -> None:
        if self.threads != "auto" and self.threads < 1:
            raise ValueError(f"threads must be at least 1, got {self.threads}")


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """An entropy patcher whose threshold is found on the validation split, before training."""

    kind: ClassVar[str] = "calibrated"
    needs_entropies: ClassVar[bool] = True

    mean_patch_bytes: float = 4.5
    """Wanted bytes per patch."""

    relative: bool = False
    """Cut where the entropy rises (relative_threshold), not where it is high (threshold)."""

    min_patch_bytes: int = 1
    """A start that would leave a shorter patch behind it is ignored."""

    max_patch_bytes: int | None = None
    """A patch this long ends. None: no limit."""

    def __post_init__(self) -> None:
        if not self.mean_patch_bytes >= 1:
            raise ValueError(f"mean_patch_bytes must be at least 1, got {self.mean_patch_bytes}")
        self.start()

    def start(self) -> Entropy:
        """The patcher whose threshold is to be found."""
        return Entropy(
            threshold=None if self.relative else 0.0,
            relative_threshold=0.0 if self.relative else None,
            min_patch_bytes=self.min_patch_bytes,
            max_patch_bytes=self.max_patch_bytes,
        )


PatchingConfig = Patcher | Calibrated
"""How a BLT's bytes are cut into patches."""


@dataclass(frozen=True, kw_only=True)
class EntropyRun:
    """Entropies from a model that is trained already."""

    kind: ClassVar[str] = "run"

    path: str
    """Run directory or checkpoint folder of an entropy model or an n-gram model."""


@dataclass(frozen=True, kw_only=True)
class EntropyRecipe:
    """Entropies from a model that is trained first and kept in the cache."""

    kind: ClassVar[str] = "train"

    recipe: "RunConfig"
    """Its recipe. Without `data.paths` of its own it learns from this run's training split, and
    its table `data` must be left out: files, suffixes and division are this run's."""


@dataclass(frozen=True, kw_only=True)
class EntropyOfInit:
    """Entropies from the entropy model that came with the weights of `init`."""

    kind: ClassVar[str] = "init"


EntropyConfig = EntropyRun | EntropyRecipe | EntropyOfInit
"""Where an entropy patcher's entropies come from."""


@dataclass(frozen=True, kw_only=True)
class Init:
    """A trained model to go on from: its sizes, patcher and entropy model are the run's."""

    path: str
    """Run directory or checkpoint folder, or a directory of `transformers` to import."""

    fingerprint: str | None = None
    """SHA-256 of its weights, found at the first start: other weights are refused at the next."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """One training run."""

    model: ModelConfig
    """What to train."""

    data: DataConfig = field(default_factory=DataConfig)
    """What to learn from."""

    patching: PatchingConfig | None = None
    """How a BLT cuts bytes into patches; no other model has it."""

    entropy: EntropyConfig | None = None
    """Where the entropies of an entropy patcher come from."""

    init: Init | None = None
    """Weights to begin with, for fine-tuning. `model`, `patching` and `entropy` are then those that
    belong to the weights, whatever the recipe says."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and learning rates."""

    schedule: Schedule = field(default_factory=WSD)
    """Course of the learning rates."""

    training: TrainingConfig = field(default_factory=TrainingConfig)
    """Length, batches, evaluation, checkpoints."""

    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """Device and threads."""

    def __post_init__(self) -> None:
        has_patches = isinstance(self.model, BLTConfig)
        if has_patches != (self.patching is not None):
            raise ValueError(
                f"a model of kind {self.model.kind!r} "
                + ("needs a table `patching`" if has_patches else "takes no table `patching`")
            )
        needs_entropies = self.patching is not None and self.patching.needs_entropies
        if needs_entropies != (self.entropy is not None):
            kind = "this model" if self.patching is None else f"a {self.patching.kind!r} patcher"
            raise ValueError(
                f"{kind} "
                + ("needs a table `entropy`" if needs_entropies else "takes no `entropy`")
            )
        if isinstance(self.entropy, EntropyOfInit) and self.init is None:
            raise ValueError("entropy.kind is 'init', but there is no table `init`")
        if isinstance(self.entropy, EntropyRecipe):
            if self.entropy.recipe.init is not None:
                raise ValueError(
                    "entropy.recipe takes no table `init`: train the entropy model by itself, and "
                    "name its run with entropy.kind run and entropy.path"
                )
            require_entropy_model(self.entropy.recipe.model)
            _require_paths_or_nothing(self.entropy.recipe.data)
        if self.data.stride is not None and not isinstance(self.model, NgramConfig):
            _require_stride_in_row(self.data.stride, self.model.context_bytes)

    def resolved(self) -> "RunConfig":
        """The same run with nothing left to the place it is started from: paths are absolute.

        An entropy recipe without `data.paths` stays without them. It means this run's data whatever
        they are, so the same settings with other data have an entropy model of those data.
        """
        data = self.data.resolved()
        entropy = self.entropy
        if isinstance(entropy, EntropyRun):
            entropy = replace(entropy, path=_absolute(entropy.path))
        if isinstance(entropy, EntropyRecipe):
            entropy = replace(entropy, recipe=entropy.recipe.resolved())
        init = self.init
        if init is not None:
            init = replace(init, path=_absolute(init.path))
        return replace(self, data=data, entropy=entropy, init=init)


def require_entropy_model(config: ModelConfig) -> None:
    """Raise ValueError for a model that no patcher takes entropies from."""
    if not isinstance(config, EntropyLMConfig | NgramConfig):
        raise ValueError(
            f"a model of kind {config.kind!r} gives no entropies for patches; expected "
            f"{EntropyLMConfig.kind!r} or {NgramConfig.kind!r}"
        )


def _require_paths_or_nothing(data: DataConfig) -> None:
    if data.paths or data == DataConfig():
        return
    default = DataConfig()
    names = [f.name for f in fields(data) if getattr(data, f.name) != getattr(default, f.name)]
    raise ValueError(
        f"entropy.recipe.data has {', '.join(names)} but no paths; an entropy recipe without paths "
        "learns from this run's data, divided as this run divides them: leave entropy.recipe.data "
        "out, or give it paths"
    )


def _require_stride_in_row(stride: int, context_bytes: int) -> None:
    if stride > context_bytes:
        raise ValueError(
            f"data.stride is {stride}, more than model.context_bytes ({context_bytes}): the bytes "
            "between two rows would never be learned; use a smaller one, or none"
        )


def _absolute(path: str) -> str:
    # not Path.resolve(): a data folder may be a link that is meant to move
    return path if path == STDIN else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
