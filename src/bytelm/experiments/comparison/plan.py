"""The plan of a comparison: a patched model and its twin without patches, on one task."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from bytelm import config
from bytelm.data.tasks import find_task
from bytelm.decoding.beam import MAX_BEAMS, MAX_LENGTH_PENALTY
from bytelm.errors import ConfigError, DataError
from bytelm.experiments.comparison.space import Dimension, SearchConfig, Value, without_password
from bytelm.models import NgramConfig, Seq2SeqConfig
from bytelm.training.matching import Match
from bytelm.training.optimizers import OptimConfig
from bytelm.training.pair_settings import PairRunConfig, PairTraining
from bytelm.training.schedules import WSD, Schedule
from bytelm.training.settings import Calibrated, HardwareConfig, PatchingConfig

Model = Literal["blt", "baseline"]
"""The patched model, and its twin."""

_OF_PATCHES = ("patching.", "entropy.", "model.patches.", "optim.hash_lr")
"""Begins of the settings that the baseline does not have."""

_NOT_SEARCHED = ("hardware.", "training.epochs", "training.seed")
"""Begins of the settings that the plan gives to every trial."""

_NO_SIZES = ("model.dropout", "model.positions", "model.rope_theta", "model.n_heads")
"""Settings of the model that may be searched where the models are matched."""

_LENGTHS = ("patching.kind", "patching.mean_patch_bytes", "patching.patch_size")
"""Settings that a match of FLOPs depends on too."""

MAX_SEEDS = 1000
"""A study trains both models once for each."""


@dataclass(frozen=True, kw_only=True)
class PairData:
    """Rows to learn from, and rows to be judged on: from files, or drawn by the task."""

    train_csv: str | None = None
    """A CSV file with the columns `input` and `target`; None: rows are drawn."""

    test_csv: str | None = None
    """Another, which is opened once, after all trainings; None: rows are drawn, or cut from
    `train_csv` before anything is learned."""

    num_train: int = 10_000
    """Rows that are drawn for training, validation included."""

    num_test: int = 2_000
    """Rows that are drawn for the test."""

    seed: int = 0
    """Of the rows that are drawn, and of the division; the same for all models and seeds."""

    valid_fraction: float = 0.05
    """Part of the training rows that steers: the best epoch, the best settings, the threshold."""

    test_fraction: float = 0.1
    """Part of `train_csv` that becomes the test where there is no `test_csv`."""

    def __post_init__(self) -> None:
        config.require_positive(self, "num_train", "num_test")
        for name in ("train_csv", "test_csv"):
            if getattr(self, name) == "":
                raise ValueError(f"{name} is empty; name a file, or leave it out")
        if self.seed < 0:
            raise ValueError(f"seed must be >= 0, got {self.seed}")
        fractions = (self.valid_fraction, self.test_fraction)
        if not (min(fractions) > 0 and sum(fractions) < 1):
            raise ValueError(
                "valid_fraction and test_fraction must be above 0 and their sum below 1, got "
                f"{self.valid_fraction} and {self.test_fraction}"
            )
        if self.test_csv is not None and self.train_csv is None:
            raise ValueError("test_csv needs a train_csv: rows like those it is to be judged on")

    def resolved(self) -> "PairData":
        """The same rows, from absolute paths."""
        return replace(self, train_csv=_absolute(self.train_csv), test_csv=_absolute(self.test_csv))


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How outputs are searched for; greedy ones are always made too."""

    beam_width: int = 5
    """Hypotheses that are kept at each byte; 1: greedy ones only."""

    length_penalty: float = 1.0
    """Exponent of the length that divides a log-probability."""

    def __post_init__(self) -> None:
        config.require_positive(self, "beam_width", most=MAX_BEAMS)
        # Written so that it refuses what is no number, too.
        if not abs(self.length_penalty) <= MAX_LENGTH_PENALTY:
            raise ValueError(
                f"length_penalty must be from {-MAX_LENGTH_PENALTY} to {MAX_LENGTH_PENALTY}, got "
                f"{self.length_penalty}"
            )


@dataclass(frozen=True, kw_only=True)
class ComparisonPlan:
    """Is a model that reads patches as exact as one that reads bytes?"""

    kind: ClassVar[str] = "comparison"

    title: str
    """Of the report."""

    question: str
    """What the study asks, one or two sentences."""

    task: str | None = None
    """Name of the task that draws the rows, and that says where an output comes from; None: rows
    of `data.train_csv`, of which nothing is known."""

    data: PairData = field(default_factory=PairData)
    """Training and test rows."""

    model: Seq2SeqConfig
    """The patched model."""

    patching: PatchingConfig
    """How it cuts its input."""

    entropy: NgramConfig | None = None
    """The model whose entropies an entropy patcher goes by; it is counted on the training rows."""

    optim: OptimConfig = field(default_factory=OptimConfig)
    """Optimizers and learning rates, of both models unless there is a search."""

    schedule: Schedule = field(default_factory=WSD)
    """Course of the learning rates."""

    training: PairTraining = field(default_factory=PairTraining)
    """Length and batches; its seed is the plan's to choose."""

    match: Match = "parameters"
    """What the baseline has as much of as the patched model, by the width of its encoder."""

    patch_sizes: tuple[float, ...] = ()
    """Mean patch sizes that are tried beside the plan's own, in bytes, with one seed."""

    search: SearchConfig | None = None
    """Settings to search for, for each model, before it is trained; None: as they are here."""

    decoding: Decoding = field(default_factory=Decoding)
    """How outputs are made."""

    seeds: int = 1
    """Both models are trained so often, with seeds 0, 1, ..."""

    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """Device and threads."""

    def __post_init__(self) -> None:
        config.require_positive(self, "seeds", most=MAX_SEEDS)
        if self.model.patches is None:
            raise ValueError("model.patches is missing: the model of a plan is the patched one")
        if len(set(self.patch_sizes)) < len(self.patch_sizes):
            raise ValueError(f"patch_sizes must be different, got {list(self.patch_sizes)}")
        if self.patch_sizes and not isinstance(self.patching, Calibrated):
            raise ValueError(
                "patch_sizes need patching.kind 'calibrated', whose threshold is found for a mean "
                f"size; got {self.patching.kind!r}"
            )
        if isinstance(self.patching, Calibrated) and (
            self.patching.mean_patch_bytes in self.patch_sizes
        ):
            raise ValueError(
                f"patch_sizes holds the plan's own {self.patching.mean_patch_bytes:g} bytes, "
                "which are measured anyway; leave them out"
            )
        if self.patch_sizes and any(
            dimension.key in ("patching.kind", "patching.mean_patch_bytes")
            for dimension in (self.search.space if self.search else ())
        ):
            raise ValueError("the size of patches is searched for and in patch_sizes: choose one")
        if self.task is not None:
            try:
                find_task(self.task)
            except DataError as error:
                raise ValueError(f"task: {error}") from error
        self.runs()

    def resolved(self) -> "ComparisonPlan":
        """The same plan with absolute paths."""
        search = self.search
        if search is not None and search.storage is not None and "://" not in search.storage:
            search = replace(search, storage=_absolute(search.storage))
        return replace(self, data=self.data.resolved(), search=search)

    def for_record(self) -> dict[str, Any]:
        """The plan as tables; a password in the address of its storage is no part of it."""
        tables = config.to_dict(self)
        if self.search is not None and self.search.storage is not None:
            tables["search"]["storage"] = without_password(self.search.storage)
        return tables

    def runs(self) -> dict[str, PairRunConfig]:
        """Trainings of patched models by the name of their arm, `blt` first."""
        own = PairRunConfig(
            model=self.model,
            patching=self.patching,
            entropy=self.entropy,
            optim=self.optim,
            schedule=self.schedule,
            training=self.training,
        )
        found = {"blt": own}
        for size in self.patch_sizes:
            assert isinstance(self.patching, Calibrated)
            found[f"blt {size:g}"] = replace(
                own, patching=replace(self.patching, mean_patch_bytes=size)
            )
        return found

    def space(self, model: Model) -> tuple[Dimension, ...]:
        """What is searched for a model: the settings that it has.

        Raises:
            ConfigError: A setting does not exist or is none to search, or a value is refused.

        """
        assert self.search is not None
        for dimension in self.search.space:
            self._check(dimension)
        return tuple(
            dimension
            for dimension in self.search.space
            if model == "blt" or not dimension.key.startswith(_OF_PATCHES)
        )

    def _check(self, dimension: Dimension) -> None:
        """Refuse a dimension by name before anything runs."""
        where = "search.space"
        if dimension.key.startswith(_NOT_SEARCHED):
            raise ConfigError(
                f"{where}: {dimension.key} is the same for every trial; set it in the plan, or "
                "search.epochs and search.seed"
            )
        ends = (dimension.low, dimension.high)
        for value in dimension.values or [end for end in ends if end is not None]:
            with_settings(self.runs()["blt"], {dimension.key: value}, where=where)
        if "auto" in dimension.values and dimension.key == "training.precision":
            raise ConfigError(
                f"{where}: {dimension.key} 'auto' is not the same on every machine; expected fp32, "
                "bf16 or fp16"
            )
        if self._decides_sizes(dimension.key):
            raise ConfigError(
                f"{where}: {dimension.key} decides how large a model is, which match = "
                f"{self.match!r} keeps equal; set it in the plan, or use --match none"
            )

    def _decides_sizes(self, key: str) -> bool:
        """Tell whether models that are tuned in it, each on its own, would not match."""
        if self.match == "none":
            return False
        is_size = key.startswith("model.") and key not in _NO_SIZES
        return is_size or (self.match == "flops" and key in _LENGTHS)


def with_settings(
    run: PairRunConfig, settings: Mapping[str, Value], *, where: str = ""
) -> PairRunConfig:
    """Return a run with dotted settings changed; a changed `kind` leaves its table's others out.

    Args:
        run: What is changed.
        settings: Dotted name to value.
        where: Names the source in messages.

    Raises:
        ConfigError: A setting does not exist, or a value is refused.

    """
    tables = config.to_dict(run)
    for name in sorted(settings, key=lambda name: not name.endswith(".kind")):
        *path, key = name.split(".")
        table: dict[str, Any] = tables
        for part in path:
            below = table.get(part)
            table[part] = below if isinstance(below, dict) else {}
            table = table[part]
        if key == "kind" and table.get(key) != settings[name]:
            table.clear()
        table[key] = settings[name]
    return config.from_dict(PairRunConfig, tables, where=where)


def _absolute(path: str | None) -> str | None:
    # Not Path.resolve(): a folder of data may be a link that is meant to move.
    return None if path is None else os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111
