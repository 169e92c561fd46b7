"""Oracles: hand-computed values, and the rows that were written."""

import json
from pathlib import Path

import pytest

from bytelm.training.metrics import METRICS, MetricsFile, Row, TensorBoard, rate, read
from bytelm.training.step import Update


def row(step: int, **changes) -> Row:
    values = {
        "step": step,
        "bytes_seen": 100 * step,
        "epoch": 0,
        "lr": 0.01,
        "train_bpb": 3.0,
        "valid_bpb": None,
        "grad_norm": 0.5,
        "bytes_per_second": 1e4,
        "seconds": 0.1 * step,
    }
    return Row(**{**values, **changes})


def test_bits_per_byte_by_hand() -> None:
    # 8 bytes at 2 bits each: 16 bits, 11.0904 nats
    update = Update(nll_nats=11.090354888959125, scored=8, grad_norm=1.0, micro_rows=1)
    assert update.bpb == pytest.approx(2.0, abs=1e-12)
    assert Update(nll_nats=0.0, scored=0, grad_norm=0.0, micro_rows=1).bpb == 0.0


def test_rate_is_safe_when_no_time_passed() -> None:
    assert rate(500, 0.25) == 2000.0
    assert rate(500, 0.0) == 0.0


def test_a_line_holds_these_keys(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resume_step=0)
    file(row(1, valid_bpb=2.5))
    file.close()
    (line,) = (tmp_path / METRICS).read_text().splitlines()
    assert json.loads(line) == {
        "step": 1,
        "bytes_seen": 100,
        "epoch": 0,
        "lr": 0.01,
        "train_bpb": 3.0,
        "valid_bpb": 2.5,
        "valid_exact_match": None,
        "grad_norm": 0.5,
        "bytes_per_second": 10000.0,
        "seconds": 0.1,
    }


def test_resuming_drops_rows_past_the_checkpoint_and_half_a_line(tmp_path: Path) -> None:
    file = MetricsFile(tmp_path, resume_step=0)
    for step in range(1, 6):
        file(row(step))
    file.close()
    with (tmp_path / METRICS).open("a") as stream:
        stream.write('{"step": 6, "bytes_se')
    assert [line["step"] for line in read(tmp_path)] == [1, 2, 3, 4, 5]
    file = MetricsFile(tmp_path, resume_step=3)
    file(row(4, train_bpb=2.0))
    file.close()
    assert [(line["step"], line["train_bpb"]) for line in read(tmp_path)] == [
        (1, 3.0),
        (2, 3.0),
        (3, 3.0),
        (4, 2.0),
    ]


def test_no_file_has_no_rows(tmp_path: Path) -> None:
    assert read(tmp_path) == []


@pytest.mark.filterwarnings("ignore")
def test_tensorboard_holds_the_same_values(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = TensorBoard(tmp_path, resume_step=0)
    board(row(1, valid_bpb=2.5))
    board(row(2))
    board.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("valid_bpb")] == [(1, 2.5)]
    assert [(e.step, e.value) for e in events.Scalars("train_bpb")] == [(1, 3.0), (2, 3.0)]
