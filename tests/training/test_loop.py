"""Oracle: a diary of what the loop called, written out by hand."""

import os
import signal

import pytest

from bytelm.training import loop
from bytelm.training.loop import Cadence, Evaluation, Hooks, RunState, run_loop
from bytelm.training.step import Update


class Diary:
    """Hooks that write down what happens; evaluation values come from a list."""

    def __init__(self, valid: list[float] | None = None, on_update=lambda step: None) -> None:
        self.entries: list[str] = []
        self.rows = []
        self.valid = iter(valid or [])
        self.on_update = on_update
        self.hooks = Hooks(
            update=self.update,
            epoch=lambda step: step // 4,
            evaluate=None if valid is None else self.evaluate,
            record=[self.rows.append],
            save=lambda state: self.entries.append(f"save {state.step} best {state.best_step}"),
        )

    def update(self, state: RunState) -> tuple[Update, float]:
        self.on_update(state.step)
        self.entries.append(f"update {state.step}")
        return Update(nll_nats=10.0, scored=20, grad_norm=1.0, micro_rows=3), 0.5

    def evaluate(self, state: RunState) -> Evaluation:
        self.entries.append("evaluate")
        return Evaluation(bpb=next(self.valid))


def cadence(**changes) -> Cadence:
    values = {"total_steps": 5, "eval_every": 2, "save_every": 3, "patience": None}
    return Cadence(**{**values, **changes})


def test_events_fire_after_the_right_steps() -> None:
    diary, state = Diary([3.0, 2.0, 2.5]), RunState(micro_rows=4)
    run_loop(state, cadence(), diary.hooks)
    assert diary.entries == [
        "update 0",
        "update 1",
        "evaluate",
        "save 2 best 2",
        "update 2",
        "save 3 best 2",
        "update 3",
        "evaluate",
        "save 4 best 4",
        "update 4",
        "evaluate",
        "save 5 best 4",
    ]
    assert [(r.step, r.bytes_seen, r.epoch, r.valid_bpb, r.lr) for r in diary.rows] == [
        (1, 20, 0, None, 0.5),
        (2, 40, 0, 3.0, 0.5),
        (3, 60, 0, None, 0.5),
        (4, 80, 0, 2.0, 0.5),
        (5, 100, 1, 2.5, 0.5),
    ]
    assert (state.best_valid_bpb, state.micro_rows) == (2.0, 3)
    assert RunState(**state.to_dict()) == state


def test_patience_ends_the_run_and_is_carried_over() -> None:
    diary, state = Diary([2.0, 2.5, 2.5, 1.0]), RunState(micro_rows=1)
    stops = cadence(total_steps=20, eval_every=1, save_every=100, patience=2)
    run_loop(state, stops, diary.hooks)
    assert state.step == 3
    assert diary.entries[-1] == "save 3 best 1"
    resumed = RunState(**state.to_dict())
    assert stops.is_finished(resumed)
    assert not cadence(total_steps=20, patience=3).is_finished(resumed)
    run_loop(resumed, stops, diary.hooks)
    assert resumed.step == 3


def test_without_validation_only_the_last_is_saved() -> None:
    diary = Diary(None)
    run_loop(RunState(micro_rows=1), cadence(save_every=100, patience=1), diary.hooks)
    assert [entry for entry in diary.entries if "save" in entry] == ["save 5 best None"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    diary = Diary([9.0] * 9, lambda step: os.kill(os.getpid(), number) if step == 2 else None)
    state = RunState(micro_rows=1)
    with pytest.raises(KeyboardInterrupt):
        run_loop(state, cadence(save_every=100), diary.hooks)
    assert diary.entries[-2:] == ["update 2", "save 3 best 2"]
    assert signal.getsignal(number) is before


def test_a_second_signal_ends_the_step_at_once() -> None:
    def twice(step: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    diary = Diary(None, twice)
    with pytest.raises(KeyboardInterrupt):
        run_loop(RunState(micro_rows=1), cadence(), diary.hooks)
    assert diary.entries == []


def test_nothing_numeric_reads_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.time, "perf_counter", lambda: 0.0)
    diary = Diary([3.0, 2.0, 2.5])
    run_loop(RunState(micro_rows=1), cadence(), diary.hooks)
    assert {(row.bytes_per_second, row.seconds) for row in diary.rows} == {(0.0, 0.0)}
