"""Mixed precision on any device: one place that decides dtype, autocast and loss scaling."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch

from bytelm.errors import ConfigError

Precision = Literal["auto", "fp32", "bf16", "fp16"]
"""How forward and backward passes compute; weights and optimizer states are float32 always."""

log = logging.getLogger(__name__)


def supports_bf16(device: torch.device) -> bool:
    """Whether bfloat16 matrix products are hardware there, not an emulation."""
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast_dtype(precision: Precision, device: torch.device) -> torch.dtype | None:
    """Dtype to autocast to, None for plain float32.

    "auto" is bf16 where the device has it in hardware, else fp32.

    Raises:
        ConfigError: fp16 on a CPU, where its small gradients vanish and nothing gets faster.

    """
    match precision:
        case "fp32":
            return None
        case "auto":
            return torch.bfloat16 if supports_bf16(device) else None
        case "fp16":
            if device.type == "cpu":
                raise ConfigError(
                    "training.precision is fp16 on a CPU, expected a GPU; "
                    "use --training.precision auto (or bf16, fp32)"
                )
            return torch.float16
        case "bf16":
            if not supports_bf16(device):
                log.warning("bf16 is emulated on this %s: slower than fp32", device.type)
            return torch.bfloat16


def autocast(dtype: torch.dtype | None, device: torch.device) -> AbstractContextManager[object]:
    """Context in which forward passes compute in `dtype`; None is plain float32."""
    if dtype is None:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def gradient_scaler(dtype: torch.dtype | None, device: torch.device) -> torch.amp.GradScaler:
    """Loss scaling, which only fp16 needs; a disabled scaler does nothing."""
    return torch.amp.GradScaler(device.type, enabled=dtype is torch.float16)
