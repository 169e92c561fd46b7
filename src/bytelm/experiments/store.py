"""Where a study keeps its stages: one JSON file for each that is done, written whole or not at all.

studies/NAME/
  plan.json                 the plan, resolved; `bytelm study studies/NAME/plan.json` repeats it
  stages/TASK-KEY.json      values and timing of a stage that is done
  runs/TASK-KEY/            what a stage made: run directories
  results/                  comprehensive_results.json, the report and its figures
"""

from pathlib import Path
from typing import Any

from bytelm.errors import CheckpointError, RunError
from bytelm.training.checkpoints import read_json
from bytelm.training.run_directory import write_json

PLAN = "plan.json"
STAGES = "stages"
RUNS = "runs"
RESULTS = "results"


class Store:
    """The stages of one study directory."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def folder(self, task: str, key: str) -> Path:
        """Where a stage may keep large files; not made here."""
        return self._folder / RUNS / f"{task}-{key}"

    def read(self, task: str, key: str) -> dict[str, Any] | None:
        """What was saved of a stage; None where it is not done.

        Raises:
            CheckpointError: The file is damaged.

        """
        file = self._file(task, key)
        if not file.exists():
            return None
        advice = "remove it: the stage is then done again"
        saved = read_json(file, advice=advice)
        if not all(isinstance(saved.get(name), dict) for name in ("values", "timing")):
            raise CheckpointError(f"{file} holds no result of a stage; {advice}")
        return saved

    def write(self, task: str, key: str, saved: dict[str, Any]) -> None:
        """Save a stage that is done.

        Raises:
            RunError: It cannot be written.

        """
        file = self._file(task, key)
        make_folder(file.parent)
        write_json(file, saved)

    def _file(self, task: str, key: str) -> Path:
        return self._folder / STAGES / f"{task}-{key}.json"


def make_folder(folder: Path) -> None:
    """Make a folder of a study.

    Raises:
        RunError: It cannot be made.

    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"{folder} cannot be made: {error.strerror}") from error
