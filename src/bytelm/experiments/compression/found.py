"""What a study of compression measured, by what was asked: each figure over all seeds."""

from collections.abc import Callable
from dataclasses import dataclass

from bytelm.experiments.compression.findings import Sample, sample
from bytelm.experiments.compression.plan import CompressionPlan
from bytelm.experiments.results import Record


@dataclass(frozen=True)
class Found:
    """What was measured, by what was asked."""

    record: Record
    plan: CompressionPlan

    def over_seeds(self, name: Callable[[int], str], key: str) -> Sample | None:
        """A value of a stage of each seed."""
        values = (self.record.values(name(seed)) for seed in range(self.plan.seeds))
        return sample([None if found is None else found[key] for found in values])

    def coded(
        self, mode: str, arm: str = "base", lanes: int = 1, key: str = "bits_per_byte"
    ) -> Sample | None:
        """A value of the codec, of the mixer alone or with a model."""
        if mode == "mixer":
            return self.over_seeds(lambda _: f"mixer lanes {lanes}", key)
        return self.over_seeds(lambda seed: f"{mode} {arm} seed {seed} lanes {lanes}", key)

    def trained(self, arm: str, key: str) -> Sample | None:
        """A value of a training."""
        return self.over_seeds(lambda seed: f"train {arm} seed {seed}", key)

    def scored(self, arm: str, key: str = "bits_per_byte") -> Sample | None:
        """A value of the model's own likelihood, in float arithmetic."""
        return self.over_seeds(lambda seed: f"score {arm} seed {seed}", key)

    def classics(self) -> dict[str, Sample]:
        """Bits per byte of the classical compressors that ran and decoded, best first."""
        rows = (self.record.values("classics") or {}).items()
        ran = {
            name: Sample((row["bits_per_byte"],))
            for name, row in rows
            if row["bits_per_byte"] is not None and not row["problem"]
        }
        return dict(sorted(ran.items(), key=lambda item: item[1].mean))
