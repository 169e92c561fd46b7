"""Our CPU kernels against torch's own, forward and backward, in turn: median times and ratios.

python benchmarks/kernels.py [--threads 1]
"""

import argparse
import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bytelm.nn.attention import causal_attention
from bytelm.nn.linear import linear
from bytelm.nn.norm import RMS_EPS, RMSNorm
from bytelm.nn.rope import rotate, rotations

ROUNDS = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    for width in (128, 256):
        x, norm = torch.randn(2048, width).requires_grad_(), RMSNorm(width)
        compare(
            f"RMSNorm 2048 x {width}",
            lambda x=x, norm=norm: F.rms_norm(x, (x.shape[1],), norm.weight, RMS_EPS),
            lambda x=x, norm=norm: norm(x),
        )
    for shape in ((2048, 128, 512), (2048, 384, 1024), (460, 256, 768)):
        positions, width, out = shape
        x, weight = torch.randn(positions, width), torch.randn(out, width)
        pair = (x.requires_grad_(), weight.requires_grad_())
        compare(
            f"linear {positions} x {width} to {out}, float32",
            lambda pair=pair: F.linear(*pair),
            lambda pair=pair: linear(*pair),
        )
    for dtype in (torch.bfloat16, torch.float32):
        q = torch.randn(2048, 2, 64, dtype=dtype).requires_grad_()
        turns = rotations(np.tile(np.arange(256), 8), 64, 1e4, q)
        cos, sin = turns.real.to(dtype)[:, None], turns.imag.to(dtype)[:, None]
        compare(
            f"rotary 2048 x 2 x 64 {dtype}",
            lambda q=q, cos=cos, sin=sin: rotate_real(q, cos, sin),
            lambda q=q, turns=turns: rotate(q, turns),
        )
        for shape, windows in (((8, 2, 256, 64), (None, 64)), ((4, 4, 512, 32), (512, 128))):
            q, k, v = (torch.randn(shape, dtype=dtype).requires_grad_() for _ in range(3))
            fused = lambda q=q, k=k, v=v: F.scaled_dot_product_attention(q, k, v, is_causal=True)  # noqa: E731
            for window in windows:
                compare(
                    f"attention {' x '.join(map(str, shape))} {dtype}, window {window}",
                    fused,
                    lambda q=q, k=k, v=v, window=window: causal_attention(q, k, v, window=window),
                )


def rotate_real(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((even * cos - odd * sin, even * sin + odd * cos), dim=-1).flatten(-2)


def compare(name: str, theirs: Callable[[], Tensor], ours: Callable[[], Tensor]) -> None:
    times: dict[Callable[[], Tensor], list[float]] = {theirs: [], ours: []}
    grad = torch.randn_like(theirs())
    for _ in range(ROUNDS):
        for function, seconds in times.items():
            begun = time.perf_counter()
            function().backward(grad)
            seconds.append(time.perf_counter() - begun)
    slow, fast = (1000 * statistics.median(values) for values in times.values())
    print(f"{name:60} torch {slow:6.2f} ms  ours {fast:6.2f} ms  {slow / fast:5.1f} times")


if __name__ == "__main__":
    main()
