"""Oracles: the table of which dtype belongs to which wish, and dtypes that autocast gives."""

import re
from pathlib import Path

import pytest
import torch

import bytelm
from bytelm.errors import ConfigError
from bytelm.training import precision
from bytelm.training.precision import autocast, autocast_dtype, gradient_scaler

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("wish", "hardware", "expected"),
    [
        ("fp32", True, None),
        ("auto", True, torch.bfloat16),
        ("auto", False, None),
        ("bf16", True, torch.bfloat16),
        ("bf16", False, torch.bfloat16),
    ],
)
def test_dtype(wish, hardware, expected, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "supports_bf16", lambda device: hardware)
    assert autocast_dtype(wish, CPU) == expected


def test_emulated_bf16_warns(monkeypatch: pytest.MonkeyPatch, caplog) -> None:
    monkeypatch.setattr(precision, "supports_bf16", lambda device: False)
    autocast_dtype("bf16", CPU)
    assert "slower than fp32" in caplog.text


def test_fp16_on_a_cpu_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"fp16 on a CPU.*precision auto"):
        autocast_dtype("fp16", CPU)


def test_autocast_sets_the_dtype_of_products_and_nothing_else() -> None:
    a = torch.ones(2, 2)
    with autocast(torch.bfloat16, CPU):
        assert (a @ a).dtype == torch.bfloat16
    with autocast(None, CPU):
        assert (a @ a).dtype == torch.float32
    assert not torch.is_autocast_enabled("cpu")


def test_only_fp16_is_scaled() -> None:
    assert gradient_scaler(torch.float16, CPU).is_enabled()
    for dtype in (None, torch.bfloat16):
        assert not gradient_scaler(dtype, CPU).is_enabled()


def test_no_deprecated_mixed_precision_call() -> None:
    source = Path(bytelm.__file__).parent
    deprecated = re.compile(r"torch\.(cuda|cpu)\.amp\b")
    assert [p for p in source.rglob("*.py") if deprecated.search(p.read_text())] == []
