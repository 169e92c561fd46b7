"""The record of a study: one JSON file with everything its report is made of.

`results/comprehensive_results.json` holds the resolved plan, what the data were, and for each stage
its values or why there are none. What another run of the same study measures differently stands
apart, under `timing` and `environment`. The report is a pure function of this file.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from bytelm.errors import CheckpointError, RunError
from bytelm.experiments.runner import StageResult, State
from bytelm.experiments.store import RESULTS, make_folder
from bytelm.training.checkpoints import read_json
from bytelm.training.run_directory import write_json

FILE = "comprehensive_results.json"
FORMAT, VERSION = "bytelm-study", 1

_ADVICE = "run `bytelm study` again with the same --out, which makes it anew"


@dataclass(frozen=True, kw_only=True)
class Record:
    """A study so far."""

    plan: dict[str, Any]
    """Resolved, as tables."""

    data: dict[str, Any]
    """What the data were: fingerprint and sizes."""

    stages: tuple[StageResult, ...]
    """In the order they run."""

    environment: dict[str, Any]
    """Versions and hardware of the last start."""

    def values(self, name: str) -> dict[str, Any] | None:
        """Values of a stage; None where it has none."""
        return next((stage.values for stage in self.stages if stage.name == name), None)

    def timing(self, name: str) -> dict[str, Any] | None:
        """What a stage measured of its own speed; None where it is not done."""
        return next((stage.timing for stage in self.stages if stage.name == name), None)

    @property
    def missing(self) -> list[StageResult]:
        """Stages without a result."""
        return [stage for stage in self.stages if stage.state != "done"]

    def as_json(self) -> dict[str, Any]:
        """Plain tables, from which `read` builds an equal record."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "plan": self.plan,
            "data": self.data,
            "stages": [
                {
                    "name": stage.name,
                    "task": stage.task,
                    "key": stage.key,
                    "state": stage.state,
                    "error": stage.error,
                    "values": stage.values,
                }
                for stage in self.stages
            ],
            "environment": self.environment,
            "timing": {stage.name: stage.timing for stage in self.stages},
        }


def write(folder: Path, record: Record) -> None:
    """Save the record of a study directory.

    Raises:
        RunError: It cannot be written.

    """
    make_folder(folder / RESULTS)
    write_json(folder / RESULTS / FILE, record.as_json())


def read(folder: Path) -> Record:
    """Read the record of a study directory.

    Raises:
        RunError: There is none, or one of a later version.
        CheckpointError: It is damaged.

    """
    file = folder / RESULTS / FILE
    if not file.is_file():
        raise RunError(
            f"{folder} holds no study (there is no {file}); expected the --out of `bytelm study`"
        )
    tables = read_json(file, advice=_ADVICE)
    if tables.get("format") == FORMAT and tables.get("version") != VERSION:
        raise RunError(
            f"{file} has version {tables.get('version')}, this bytelm reads {VERSION}; install the "
            "bytelm that wrote it"
        )
    try:
        return _record(tables)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{file} is not what bytelm writes there; {_ADVICE}") from error


def _record(tables: dict[str, Any]) -> Record:
    if tables["format"] != FORMAT:
        raise ValueError(f"format is {tables['format']!r}, expected {FORMAT!r}")
    parts = {name: tables[name] for name in ("plan", "data", "environment", "timing")}
    if not all(isinstance(part, dict) for part in parts.values()):
        raise TypeError("expected tables")
    timing = parts.pop("timing")
    stages = [StageResult(**stage, timing=timing[stage["name"]]) for stage in tables["stages"]]
    for stage in stages:
        is_done = stage.state == "done"
        if stage.state not in get_args(State) or is_done != isinstance(stage.values, dict):
            raise ValueError(f"stage {stage.name!r} has no state and values that fit")
    return Record(**parts, stages=tuple(stages))
