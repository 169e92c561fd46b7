"""Oracle: the words for hand-made rows."""

import io

import pytest
from rich.console import Console
from test_metrics import row

from bytelm.training import progress
from bytelm.training.progress import ProgressDisplay, clock


def display(*, terminal: bool, total_steps: int = 4) -> tuple[ProgressDisplay, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=terminal, width=120)
    return ProgressDisplay("toy", total_steps=total_steps, console=console), stream


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0:00"), (59.6, "1:00"), (75.0, "1:15"), (3725.0, "1:02:05")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_status_says_rate_loss_and_time_left() -> None:
    shown, _ = display(terminal=False, total_steps=100)
    text = shown.status(row(10), elapsed=20.0)
    assert text == "train 3.000 bits/byte, 10.0 kB/s, 3:00 left"
    assert shown.status(row(10), elapsed=0.0).endswith("0:00 left")


def test_outside_a_terminal_there_are_few_plain_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    shown, stream = display(terminal=False)
    with shown:
        for step, moment in ((1, 1.0), (2, 11.0), (3, 12.0), (4, 13.0)):
            now[0] = moment
            shown(row(step, valid_bpb=2.5 if step == 2 else None))
    assert stream.getvalue().splitlines() == [
        "toy: step 2/4, train 3.000, valid 2.500 bits/byte, 10.0 kB/s, 0:11 left",
        "toy: step 4/4, train 3.000, valid 2.500 bits/byte, 10.0 kB/s, 0:00 left",
    ]


def test_in_a_terminal_there_is_a_bar() -> None:
    shown, stream = display(terminal=True)
    with shown:
        shown(row(4))
    assert "100%" in stream.getvalue()
    assert stream.getvalue().endswith(
        "toy: step 4/4, train 3.000 bits/byte, 10.0 kB/s, 0:00 left\n"
    )
