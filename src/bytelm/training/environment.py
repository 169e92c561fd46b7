"""Where a run happens: device, threads, determinism, and the record of all that can matter."""

import platform
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch.utils import deterministic

from bytelm.errors import ConfigError
from bytelm.training.settings import HardwareConfig

PACKAGES = ("bytelm", "torch", "numpy", "safetensors")


def resolve_device(name: str) -> torch.device:
    """The device that `hardware.device` means.

    Raises:
        ConfigError: Not a device, or not one of this machine.

    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"hardware.device: expected cpu, cuda or auto, got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"hardware.device: expected cpu, cuda or auto, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"hardware.device is {name!r}, but torch finds {torch.cuda.device_count()} GPUs here; "
            "use --device cpu, or install a torch with CUDA"
        )
    return device


@contextmanager
def hardware_session(
    config: HardwareConfig, device: torch.device, *, is_deterministic: bool
) -> Iterator[None]:
    """Set threads and determinism, and leave the caller's settings and random states as found."""
    threads = torch.get_num_threads()
    debug_mode = torch.get_deterministic_debug_mode()
    was_filling = _fills_memory()
    if config.threads != "auto":
        torch.set_num_threads(config.threads)
    if is_deterministic and device.type == "cpu":
        # as torch.use_deterministic_algorithms, which takes 3 s to import torch's compiler
        torch.set_deterministic_debug_mode("error")
        # filling is for finding reads of uninitialized memory, and costs time
        _fill_memory(False)
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(debug_mode)
        _fill_memory(was_filling)


def _fills_memory() -> bool:
    return deterministic.fill_uninitialized_memory  # pyright: ignore[reportAttributeAccessIssue]


def _fill_memory(wanted: bool) -> None:
    deterministic.fill_uninitialized_memory = wanted  # pyright: ignore[reportAttributeAccessIssue]


def describe(device: torch.device) -> dict[str, Any]:
    """Commit, versions and hardware, JSON-able."""
    return {
        "commit": commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processor": processor(),
        "device": str(device),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Commit of the source tree this runs from, "+changes" if it differs; None if installed."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    return f"{head}+changes" if head and _git(root, "status", "--porcelain") else head


def _git(root: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def processor() -> str:
    """Name of the CPU, as the system gives it."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
