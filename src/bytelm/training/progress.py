"""Live progress on stderr: a bar in a terminal, now and then a line anywhere else."""

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from bytelm.training.metrics import Row, rate

SECONDS_BETWEEN_LINES = 10.0
"""Outside a terminal, at most one line in this time; the last step always has one."""


class ProgressDisplay:
    """Shows each row of a run. A context manager; outside it nothing is shown.

    Args:
        title: What is being trained.
        total_steps: Of the whole run.
        first_step: Steps that were made before, by the run that is resumed.
        console: Where to write; stderr unless given.

    """

    def __init__(
        self, title: str, *, total_steps: int, first_step: int = 0, console: Console | None = None
    ) -> None:
        self.title, self.total_steps, self.first_step = title, total_steps, first_step
        self._console = console or Console(stderr=True)
        self._started = self._shown = time.monotonic()
        self._valid_bpb: float | None = None
        self._last = ""
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TaskProgressColumn(),
            TextColumn("{task.fields[status]}"),
            console=self._console,
            transient=True,
        )
        self._task = self._bar.add_task(title, total=total_steps, completed=first_step, status="")

    def __enter__(self) -> "ProgressDisplay":
        self._started = self._shown = time.monotonic()
        if self._console.is_terminal:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()
            if self._last:
                self._print(self._last)

    def __call__(self, row: Row) -> None:
        """Show a row."""
        if row.valid_bpb is not None:
            self._valid_bpb = row.valid_bpb
        now = time.monotonic()
        status = self.status(row, elapsed=now - self._started)
        self._last = f"{self.title}: step {row.step}/{self.total_steps}, {status}"
        if self._console.is_terminal:
            self._bar.update(self._task, completed=row.step, status=status)
        elif now - self._shown >= SECONDS_BETWEEN_LINES or row.step == self.total_steps:
            self._shown = now
            self._print(self._last)

    def _print(self, line: str) -> None:
        self._console.print(line, highlight=False, markup=False, soft_wrap=True)

    def status(self, row: Row, *, elapsed: float) -> str:
        """The numbers of a row in words; `elapsed` seconds went by since the display began."""
        per_second = rate(row.step - self.first_step, elapsed)
        left = rate(self.total_steps - row.step, per_second)
        valid = "" if self._valid_bpb is None else f", valid {self._valid_bpb:.3f}"
        return (
            f"train {row.train_bpb:.3f}{valid} bits/byte, "
            f"{row.bytes_per_second / 1000:.1f} kB/s, {clock(left)} left"
        )


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss.

    >>> clock(75.2)
    '1:15'
    """
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
