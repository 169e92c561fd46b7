"""Oracle: torch's own settings, before, inside and after."""

import pytest
import torch

from bytelm.errors import ConfigError
from bytelm.training import environment
from bytelm.training.environment import describe, hardware_session, resolve_device
from bytelm.training.settings import HardwareConfig

CPU = torch.device("cpu")


def test_auto_is_a_gpu_if_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert resolve_device("auto") == torch.device("cuda")


@pytest.mark.parametrize(
    ("name", "message"),
    [("gpu", "expected cpu, cuda or auto"), ("meta", "expected cpu"), ("cuda:7", "finds 0 GPUs")],
)
def test_other_devices_are_refused(name, message, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ConfigError, match=message):
        resolve_device(name)


@pytest.mark.parametrize("is_deterministic", [True, False])
def test_a_session_sets_and_restores(is_deterministic: bool) -> None:
    threads, random = torch.get_num_threads(), torch.get_rng_state()
    with hardware_session(
        HardwareConfig(threads=threads + 1), CPU, is_deterministic=is_deterministic
    ):
        assert torch.get_num_threads() == threads + 1
        assert torch.are_deterministic_algorithms_enabled() == is_deterministic
        torch.rand(3)
    assert torch.get_num_threads() == threads
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.equal(torch.get_rng_state(), random)


def test_description_names_what_can_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        environment, "_git", lambda root, *words: {"status": ""}.get(words[0], "c0")
    )
    found = describe(CPU)
    assert found["packages"]["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["device"] == "cpu"
    assert found["processor"]
    assert found["commit"] in ("c0", None)
