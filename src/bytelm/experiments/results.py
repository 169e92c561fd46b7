"""The record of a study: one JSON file with everything its report is made of.

`results/comprehensive_results.json` holds the resolved plan, what the data were, and for each stage
its values or why there are none. What another run of the same study measures differently stands
apart, under `timing` and `environment`. The report is a pure function of this file.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import Any, get_args

from bytelm.errors import CheckpointError, RunError
from bytelm.experiments.runner import StageResult, State
from bytelm.experiments.store import RESULTS, make_folder
from bytelm.training.checkpoints import read_json
from bytelm.training.run_directory import write_json

FILE = "comprehensive_results.json"
FORMAT, VERSION = "bytelm-study", 1

ADVICE = "run `bytelm study` again with the same --out, which makes it anew"

_HALF = re.compile("[\ud800-\udfff]")
"""Halves of UTF-16 pairs, which JSON can name, have no UTF-8."""

_DEEPEST = 50
"""Tables in tables: no study writes a tenth of it, and deeper ones exhaust the stack."""


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
    tables = read_json(file, advice=ADVICE)
    if tables.get("format") == FORMAT and tables.get("version") != VERSION:
        raise RunError(
            f"{file} has version {tables.get('version')}, this bytelm reads {VERSION}; install the "
            "bytelm that wrote it"
        )
    try:
        return _record(tables)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"{file} is not what bytelm writes there ({error}); {ADVICE}"
        ) from error


def _record(tables: dict[str, Any]) -> Record:
    if tables.get("format") != FORMAT:
        raise ValueError(f"format is {tables.get('format')!r}, expected {FORMAT!r}")
    parts = {name: tables.get(name) for name in ("plan", "data", "environment", "timing")}
    for name, part in parts.items():
        if not isinstance(part, dict):
            raise TypeError(f"{name} must be a table")
        if name != "timing":
            _require_plain(part, name)
    if not isinstance(tables.get("stages"), list):
        raise TypeError("stages must be a list")
    plan, data, environment, timing = (part or {} for part in parts.values())
    if not isinstance(plan.get("kind"), str):
        raise TypeError("the plan's kind must be a text")
    stages = tuple(_stage(stage, timing) for stage in tables["stages"])
    if len({stage.name for stage in stages}) < len(stages):
        raise ValueError("two stages have one name")
    return Record(plan=plan, data=data, environment=environment, stages=stages)


def _stage(table: Any, timing: dict[str, Any]) -> StageResult:
    if not isinstance(table, dict):
        raise TypeError("each of the stages must be a table")
    name = f"stage {table.get('name')!r}"
    stage = StageResult(**table, timing=timing.get(table["name"]))
    _require_plain([table, stage.timing], name)
    if not all(isinstance(text, str) for text in (stage.name, stage.task, stage.key)):
        raise TypeError(f"{name}: name, task and key must be texts")
    if not isinstance(stage.error, str | None):
        raise TypeError(f"{name}: error must be a text or null")
    is_done = stage.state == "done"
    kind = dict if is_done else NoneType
    if stage.state not in get_args(State) or not (
        isinstance(stage.values, kind) and isinstance(stage.timing, kind)
    ):
        raise ValueError(f"{name} has no state, values and timing that fit")
    if is_done and not isinstance((stage.timing or {}).get("stage_seconds"), int | float):
        raise TypeError(f"{name}: stage_seconds must be a number")
    return stage


def _require_plain(value: Any, where: str, depth: int = 0) -> None:
    """Refuse what JSON can say and no study does: it cannot be written, drawn or added up."""
    match value:
        case str() if _HALF.search(value):
            raise ValueError(f"{where} holds a text that is no Unicode")
        case float() if not math.isfinite(value):
            raise ValueError(f"{where} holds {value}")
        case int() if abs(value) >= 2**64:
            raise ValueError(f"{where} holds a whole number of more than 64 bits")
        case dict() | list() if depth == _DEEPEST:
            raise ValueError(f"{where} holds tables nested too deeply")
        case dict():
            for key, item in value.items():
                _require_plain(key, where, depth + 1)
                _require_plain(item, where, depth + 1)
        case list():
            for item in value:
                _require_plain(item, where, depth + 1)
