"""The plan of a compression study: what is varied, one thing at a time, and on which bytes."""

from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Literal

from bytelm import config
from bytelm.errors import ConfigError
from bytelm.training.settings import DataConfig, HardwareConfig, RunConfig

MAX_LANES = 256


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """One setting of the recipe at several values, all others as they are."""

    name: str
    """One word, for the names of stages and figures."""

    title: str
    """Heading of its section."""

    key: str
    """The setting, dotted, as `training.steps`."""

    values: tuple[int | float | str, ...]
    """In the order of the table."""

    axis: Literal["parameters", "bytes_seen"]
    """What its figure has along x: the model's size, or the bytes that it learned from."""

    def __post_init__(self) -> None:
        if len(set(self.values)) < len(self.values) or not self.values:
            raise ValueError(f"values must be different and at least one, got {self.values}")

    def arm(self, value: float | str) -> str:
        """Name of the model that has one of the values."""
        return f"{self.name} {self.key.rpartition('.')[2]}={value}"


@dataclass(frozen=True, kw_only=True)
class PatchRule:
    """One way to cut bytes into patches."""

    name: str
    """In tables and figures."""

    settings: tuple[str, ...]
    """Keys of the patched recipe that make it, as `patching.kind=space`."""


@dataclass(frozen=True, kw_only=True)
class Patches:
    """Patched models as codecs: any model can be one, in the float profile."""

    recipe: str = "blt-tiny"
    """A TOML file, or the name of a shipped recipe."""

    settings: tuple[str, ...] = ()
    """Keys of the recipe that differ from it, as `training.steps=200`."""

    rules: tuple[PatchRule, ...] = ()
    """Compared with each other; none leaves the section out."""

    num_bytes: int = 16_384
    """Of the test bytes, the first so many go through the float codec, which is slow; bits per byte
    are measured on all of them."""

    lanes: int = 64
    """Of the float codec."""

    def __post_init__(self) -> None:
        config.require_positive(self, "num_bytes")
        config.require_positive(self, "lanes", most=MAX_LANES)


@dataclass(frozen=True, kw_only=True)
class CompressionPlan:
    """What a model, its size, its training, its lanes, its patches and its integers are worth."""

    kind: ClassVar[str] = "compression"

    title: str
    """Of the report."""

    question: str
    """What the study asks, one or two sentences."""

    data: DataConfig = field(default_factory=DataConfig)
    """What is learned and, from its test split, what is compressed."""

    test_bytes: int = 1_000_000
    """At most so many bytes of the test split are compressed, the first."""

    recipe: str = "codec-small"
    """Of the model that goes into the codec; every sweep starts from it."""

    settings: tuple[str, ...] = ()
    """Keys of the recipe that differ from it, as `training.steps=500`."""

    sweeps: tuple[Sweep, ...] = ()
    """What is varied, one at a time."""

    lanes: tuple[int, ...] = (1, 16, 256)
    """Lanes that the recipe's model and the mixer are measured with; 1 is always among them."""

    patches: Patches = field(default_factory=Patches)
    """Patched models as codecs."""

    seeds: int = 1
    """Every training is done so many times, with seeds 0, 1, ..."""

    hardware: HardwareConfig = field(default_factory=HardwareConfig)
    """Device and threads of the trainings."""

    def __post_init__(self) -> None:
        config.require_positive(self, "test_bytes", "seeds")
        config.require_positive(self, "lanes", most=MAX_LANES)
        if 1 not in self.lanes or len(set(self.lanes)) < len(self.lanes):
            raise ValueError(f"lanes must be different and 1 among them, got {self.lanes}")
        names = [sweep.name for sweep in self.sweeps]
        names += [rule.name for rule in self.patches.rules]
        if len(set(names)) < len(names):
            raise ValueError(f"sweeps and patch rules must have names of their own, got {names}")
        if not self.data.test_fraction:
            raise ValueError("data.test_fraction is 0, but the test split is what is compressed")

    def resolved(self) -> "CompressionPlan":
        """The same plan with absolute paths to its data."""
        return replace(self, data=self.data.resolved())

    def arms(self) -> dict[str, RunConfig]:
        """Models by name: the recipe as it is, under `base`, and one for each value of a sweep.

        Raises:
            ConfigError: A recipe or a key does not exist, or a value is refused.

        """
        arms = {"base": _run_config(self.recipe, self.settings)}
        for sweep in self.sweeps:
            for value in sweep.values:
                arms[sweep.arm(value)] = _run_config(self.recipe, self.settings, {sweep.key: value})
        return arms

    def patch_arms(self) -> dict[str, RunConfig]:
        """Patched models by the name of their rule.

        Raises:
            ConfigError: As of `arms`.

        """
        shared = self.patches.settings
        return {
            rule.name: _run_config(self.patches.recipe, shared + rule.settings)
            for rule in self.patches.rules
        }


def _run_config(
    recipe: str, settings: tuple[str, ...], varied: dict[str, Any] | None = None
) -> RunConfig:
    """A recipe with keys of it set, the last one of a name counting."""
    overrides: dict[str, Any] = {}
    for setting in settings:
        overrides |= config.parse_overrides([f"--{setting}"])
    for name in overrides:
        if name.partition(".")[0] in ("data", "hardware"):
            raise ConfigError(f"{name}: what is learned and where is set for the whole plan")
    # Text is read as the type of the key, as it is on the command line.
    overrides |= {key: str(value) for key, value in (varied or {}).items()}
    return config.load(RunConfig, recipe, overrides)
