"""Byte-patch cross-attention as segments against a dense masked reference: time and memory.

    python benchmarks/cross_attention.py [--threads 1]

Both directions of the BLT (patches ask bytes, bytes ask patches), forward and backward, 4.5 bytes a
patch. The two are run in turn and the ratio of their medians is printed; memory is the largest
tensor storage that autograd keeps.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor

from bytelm.nn.segments import attend_to_segment, attend_within_segments

HEADS, HEAD_DIM, VECTORS, PATCH_BYTES = 4, 32, 2, 4.5
ROUNDS = 15


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    print(f"{'bytes':>6} {'direction':>10} {'dense ms':>9} {'segment ms':>10} {'times':>6}", end="")
    print(f" {'max |diff|':>10} {'dense MB':>9} {'segment MB':>10}")
    for length in (512, 1024, 2048, 4096, 8192):
        compare("patches", length, *patches_ask(length))
        compare("bytes", length, *bytes_ask(length))


def patches_ask(length: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    segment, mask = layout(length)
    count = int(segment.max()) + 1
    q = draw(count, VECTORS, HEADS, HEAD_DIM)
    k, v = draw(length, HEADS, HEAD_DIM), draw(length, HEADS, HEAD_DIM)
    return (
        lambda: dense(q.flatten(0, 1), k, v, mask).view_as(q),
        lambda: attend_within_segments(q, k, v, segment),
    )


def bytes_ask(length: int) -> tuple[Callable[[], Tensor], Callable[[], Tensor]]:
    segment, mask = layout(length)
    count = int(segment.max()) + 1
    q = draw(length, HEADS, HEAD_DIM)
    k, v = draw(count, VECTORS, HEADS, HEAD_DIM), draw(count, VECTORS, HEADS, HEAD_DIM)
    return (
        lambda: dense(q, k.flatten(0, 1), v.flatten(0, 1), mask.T),
        lambda: attend_to_segment(q, k, v, segment),
    )


def layout(length: int) -> tuple[Tensor, Tensor]:
    """The patch of each byte, and which of the patches' vectors may see which byte."""
    generator = torch.Generator().manual_seed(0)
    starts = torch.rand(length, generator=generator) < 1 / PATCH_BYTES
    starts[0] = True
    segment = starts.long().cumsum(0) - 1
    vectors = torch.arange(int(segment[-1]) + 1).repeat_interleave(VECTORS)
    return segment, vectors[:, None] == segment


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape).requires_grad_()


def dense(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Masked attention over all pairs, as a direct implementation has it."""
    out = torch.nn.functional.scaled_dot_product_attention(
        q.transpose(0, 1)[None], k.transpose(0, 1)[None], v.transpose(0, 1)[None], attn_mask=mask
    )
    return out[0].transpose(0, 1)


def compare(
    name: str, length: int, reference: Callable[[], Tensor], ours: Callable[[], Tensor]
) -> None:
    times: dict[Callable[[], Tensor], list[float]] = {reference: [], ours: []}
    for _ in range(ROUNDS):
        for function, seconds in times.items():
            begun = time.perf_counter()
            function().sum().backward()
            seconds.append(time.perf_counter() - begun)
    slow, fast = (1000 * statistics.median(values) for values in times.values())
    difference = (reference() - ours()).abs().max().item()
    print(
        f"{length:6} {name:>10} {slow:9.2f} {fast:10.2f} {slow / fast:6.1f} {difference:10.1e} "
        f"{kept_bytes(reference) / 1e6:9.2f} {kept_bytes(ours) / 1e6:10.2f}",
        flush=True,
    )


def kept_bytes(function: Callable[[], Tensor]) -> int:
    """Bytes of the distinct tensors that the backward pass keeps."""
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        function()
    return sum(kept.values())


if __name__ == "__main__":
    main()
