"""The training loop: update, evaluate, record, save, and stop where it should.

It knows nothing of models, files or devices: those are the callables of `Hooks`. Nothing numeric
depends on the clock, so a run that was killed and resumed goes the way it would have gone.
"""

import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from types import FrameType
from typing import Any

from bytelm.training.metrics import Record, Row, rate
from bytelm.training.step import Update


@dataclass(kw_only=True)
class RunState:
    """Where a run is: what a checkpoint must hold beside tensors."""

    micro_rows: int
    """Rows of one forward pass; falls when memory runs out."""

    step: int = 0
    """Updates made."""

    bytes_seen: int = 0
    """Bytes scored in those updates."""

    seconds: float = 0.0
    """Time spent on them and on evaluation."""

    valid_history: list[float] = field(default_factory=list)
    """Bits per byte of every evaluation."""

    best_step: int | None = None
    """Step of the best evaluation; None before the first."""

    @property
    def best_valid_bpb(self) -> float | None:
        """The lowest evaluation so far."""
        return min(self.valid_history, default=None)

    @property
    def evaluations_since_best(self) -> int:
        """How many evaluations came after the best one."""
        if not self.valid_history:
            return 0
        return len(self.valid_history) - 1 - self.valid_history.index(min(self.valid_history))

    def note_evaluation(self, valid_bpb: float) -> bool:
        """Remember an evaluation of the current step; whether it is the best so far."""
        improved = self.best_valid_bpb is None or valid_bpb < self.best_valid_bpb
        self.valid_history.append(valid_bpb)
        if improved:
            self.best_step = self.step
        return improved

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Cadence:
    """When the loop ends, evaluates and saves; all in optimizer steps."""

    total_steps: int
    """Updates of the whole run."""

    eval_every: int
    """Updates between evaluations; the last step is always evaluated."""

    save_every: int
    """Updates between checkpoints; the last step is always saved."""

    patience: int | None = None
    """Evaluations without a better one before the run stops early; None never stops early."""

    def is_finished(self, state: RunState) -> bool:
        """Whether all steps are made or patience is at its end."""
        return state.step >= self.total_steps or self.is_out_of_patience(state)

    def is_out_of_patience(self, state: RunState) -> bool:
        """Whether the run should stop early."""
        return self.patience is not None and state.evaluations_since_best >= self.patience


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How good a model is on the validation split."""

    bpb: float
    """Bits per byte: what decides which step is the best."""

    exact_match: float | None = None
    """Share of the targets that are predicted without a mistake; None where there are no targets
    of their own."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls."""

    update: Callable[[RunState], tuple[Update, float]]
    """Makes the update after `state.step` updates; what it measured, and its learning rate."""

    epoch: Callable[[int], int]
    """The epoch in which an update's first row lies."""

    evaluate: Callable[[RunState], Evaluation] | None
    """Measures the validation split; None where there is none."""

    record: Sequence[Record]
    """Each is given every row: the file, the display, a sampler."""

    save: Callable[[RunState], None]
    """Writes a checkpoint; the step is the best one if it is `state.best_step`."""


def run_loop(state: RunState, cadence: Cadence, hooks: Hooks) -> None:
    """Train from `state` to the end, changing `state`.

    Raises:
        KeyboardInterrupt: SIGINT or SIGTERM came; the step was finished and saved before.

    """
    with _Interruption() as interruption:
        while not cadence.is_finished(state):
            improved = _step(state, cadence, hooks)
            due = state.step % cadence.save_every == 0 or cadence.is_finished(state)
            if improved or due or interruption.requested:
                hooks.save(state)
            if interruption.requested:
                raise KeyboardInterrupt


def _step(state: RunState, cadence: Cadence, hooks: Hooks) -> bool:
    """Make one update, and an evaluation if it is time; whether that was the best so far."""
    started = time.perf_counter()
    epoch = hooks.epoch(state.step)
    update, lr = hooks.update(state)
    update_seconds = time.perf_counter() - started
    state.step += 1
    state.bytes_seen += update.scored
    state.micro_rows = update.micro_rows

    evaluation, improved = None, False
    due = state.step % cadence.eval_every == 0 or state.step == cadence.total_steps
    if due and hooks.evaluate is not None:
        evaluation = hooks.evaluate(state)
        improved = state.note_evaluation(evaluation.bpb)
    state.seconds += time.perf_counter() - started

    row = Row(
        step=state.step,
        bytes_seen=state.bytes_seen,
        epoch=epoch,
        lr=lr,
        train_bpb=update.bpb,
        valid_bpb=None if evaluation is None else evaluation.bpb,
        valid_exact_match=None if evaluation is None else evaluation.exact_match,
        grad_norm=update.grad_norm,
        bytes_per_second=rate(update.scored, update_seconds),
        seconds=state.seconds,
    )
    for record in hooks.record:
        record(row)
    return improved


class _Interruption:
    """Turns the first SIGINT or SIGTERM into a request; a second one ends the step at once.

    Signals reach Python's main thread only, so in another thread this does nothing.
    """

    SIGNALS = (signal.SIGINT, signal.SIGTERM)

    def __init__(self) -> None:
        self.requested = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "_Interruption":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
