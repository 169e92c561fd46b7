"""What each update measured: one JSON object a line, cut back when a run resumes.

`metrics.jsonl` has an object for each optimizer step; `valid_bpb` is null where none was measured.
"""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bytelm.errors import RunError

METRICS = "metrics.jsonl"


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of `metrics.jsonl`."""

    step: int
    """Updates made, this one included."""

    bytes_seen: int
    """Bytes scored since the start of the run."""

    epoch: int
    """Passes over the training split begun before this one."""

    lr: float
    """AdamW's learning rate in this update."""

    train_bpb: float
    """Bits per byte of this update's batch, before the update."""

    valid_bpb: float | None
    """Bits per byte of the validation split after the update."""

    valid_exact_match: float | None = None
    """Share of its targets predicted without a mistake, where a model has targets of their own."""

    grad_norm: float
    """Before clipping."""

    bytes_per_second: float
    """Scored bytes of this update over its time; 0 if the clock did not move."""

    seconds: float
    """Time spent training and evaluating since the start of the run, interruptions left out."""


Record = Callable[[Row], None]
"""Takes each row as it is made."""


def rate(amount: int | float, seconds: float) -> float:
    """`amount` per second; 0 when no time passed."""
    return amount / seconds if seconds > 0 else 0.0


class MetricsFile:
    """Appends rows to `metrics.jsonl`, after dropping the rows past `resume_step`.

    Rows that an interrupted run wrote after its last checkpoint are made again by the resumed
    run, so they are not kept twice.
    """

    def __init__(self, run_dir: Path, *, resume_step: int) -> None:
        path = run_dir / METRICS
        _cut(path, resume_step)
        self._file = path.open("a", encoding="utf-8")

    def __call__(self, row: Row) -> None:
        """Append a row."""
        try:
            self._file.write(json.dumps(asdict(row)) + "\n")
            self._file.flush()
        except OSError as error:
            raise RunError(
                f"{self._file.name} cannot be written ({error.strerror}); earlier checkpoints are "
                "as they were; free some space, then run this again"
            ) from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read(run_dir: Path) -> list[dict[str, Any]]:
    """All complete lines of a run's `metrics.jsonl`, in order; none if there is no file."""
    path = run_dir / METRICS
    if not path.exists():
        return []
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            # the last line of a killed run may be half a line
            break
    return rows


def _cut(path: Path, resume_step: int) -> None:
    kept = [row for row in read(path.parent) if row["step"] <= resume_step]
    aside = path.with_name(f".tmp-{path.name}")
    aside.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
    aside.replace(path)


class TensorBoard:
    """Writes the same rows as TensorBoard curves under `tensorboard/` of the run."""

    def __init__(self, run_dir: Path, *, resume_step: int) -> None:
        try:
            from torch.utils.tensorboard.writer import SummaryWriter
        except ImportError as error:
            raise RunError(
                "training.tensorboard needs the package tensorboard; "
                "install bytelm[report], or use --no-training.tensorboard"
            ) from error
        self._writer = SummaryWriter(run_dir / "tensorboard", purge_step=resume_step + 1)

    def __call__(self, row: Row) -> None:
        """Add a point to each curve."""
        for name, value in asdict(row).items():
            if name != "step" and value is not None:
                self._writer.add_scalar(name, value, row.step)

    def close(self) -> None:
        """Write what is still buffered."""
        self._writer.close()
