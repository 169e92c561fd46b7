"""Oracle: curves written out by hand."""

import pytest

from bytelm.training.schedules import (
    WSD,
    Constant,
    Cosine,
    Linear,
    Plateau,
    Schedule,
    Step,
    lr_scale,
)


def curve(schedule: Schedule, total_steps: int) -> list[float]:
    return [
        lr_scale(schedule, step=step, total_steps=total_steps, history=())
        for step in range(total_steps)
    ]


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        (Constant(), [1, 1, 1, 1]),
        (Constant(warmup_steps=4), [0.25, 0.5, 0.75, 1]),
        (Linear(), [1, 0.75, 0.5, 0.25]),
        (Linear(warmup_steps=2, final=0.5), [0.5, 1, 1, 0.75]),
        (Cosine(), [1, 0.8535533905932737, 0.5, 0.14644660940672627]),
        (Cosine(warmup_steps=2, final=0.2), [0.5, 1, 1, 0.6]),
        (Step(every_steps=2, gamma=0.1), [1, 1, 0.1, 0.1]),
        (WSD(), [1, 1, 1, 0.5]),
        (WSD(warmup_steps=2, decay_fraction=0.25, final=0.1), [0.5, 1, 1, 1]),
        (WSD(decay_fraction=1.0, final=0.2), [1, 0.8, 0.6, 0.4]),
        (WSD(decay_fraction=0.0), [1, 1, 1, 1]),
    ],
)
def test_curve(schedule: Schedule, expected: list[float]) -> None:
    assert curve(schedule, 4) == pytest.approx(expected, abs=1e-12)


def test_plateau_drops_once_for_each_patience_without_improvement() -> None:
    schedule = Plateau(gamma=0.5, patience=2, warmup_steps=2)
    history = [3.0, 2.0, 2.0, 2.5, 1.9, 1.95, 1.9, 1.9]
    factors = [schedule.scale(10, history[:n]) for n in range(len(history) + 1)]
    assert factors == [1, 1, 1, 1, 0.5, 0.5, 0.5, 0.25, 0.25]
    assert schedule.scale(0, history) == 0.125


def test_plateau_counts_less_than_min_delta_as_no_improvement() -> None:
    assert Plateau(gamma=0.1, patience=1, min_delta=0.2).scale(0, [3.0, 2.9]) == 0.1


@pytest.mark.parametrize(
    "build",
    [
        lambda: Constant(warmup_steps=-1),
        lambda: Linear(final=-0.1),
        lambda: Cosine(final=1.5),
        lambda: Step(every_steps=0),
        lambda: Plateau(patience=0),
        lambda: WSD(decay_fraction=2.0),
    ],
)
def test_bad_settings_are_refused(build) -> None:
    with pytest.raises(ValueError, match="got"):
        build()
