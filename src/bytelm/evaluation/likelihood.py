"""Bits per raw byte on held-out documents, with an interval over documents.

The unit: `bits_per_byte` = nats over scored bytes / (ln 2 x raw bytes scored). Every byte of every
document is scored exactly once, the first one included; special ids and padding are never scored
and never counted, so models of any vocabulary, patch size or context are compared on one scale.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from bytelm.evaluation.compressors import CompressorResult, best_compressor
from bytelm.evaluation.statistics import bootstrap_ratio

_BLOCK_BYTES = 4096
"""Block of the bootstrap where there is one document: far longer than the reach of a local
burst of surprise, short enough that a test file of 100 kB has more than 20 blocks."""

_FEWEST_BLOCKS = 16
"""Blocks are made shorter until a short document has this many."""

_FEW_DOCUMENTS = 10
"""Below this the interval over documents is called rough."""

_IMPLAUSIBLE_FRACTION = 0.5
"""A model below this fraction of the best classical compressor is flagged as a possible leak."""


@runtime_checkable
class Scored(Protocol):
    """What a model says of one document, per byte."""

    @property
    def nll_nats(self) -> np.ndarray:
        """Negative log-likelihood of each byte, nats, float32 `[n]`."""
        ...

    @property
    def entropies(self) -> np.ndarray:
        """Nats, float32 `[n]`, of the prediction of each byte."""
        ...

    @property
    def starts(self) -> np.ndarray:
        """True where a patch starts, bool `[n]`."""
        ...


@runtime_checkable
class ScoringModel(Protocol):
    """Any model that scores a document byte by byte."""

    def score(
        self, data: np.ndarray, *, on_progress: Callable[[int], None] | None = None
    ) -> Scored:
        """Score one document, uint8 `[n]`; `on_progress` gets the bytes just scored."""
        ...


@dataclass(frozen=True, kw_only=True)
class DocumentScore:
    """One held-out document."""

    name: str
    """Path, or another name."""
    num_bytes: int
    """Raw bytes, all of them scored."""
    nll_nats: float
    """Negative log-likelihood of the document, nats."""
    num_patches: int
    """Patches the document was cut into; equal to `num_bytes` for a patchless model."""

    @property
    def bits_per_byte(self) -> float:
        """Bits per raw byte; 0.0 for an empty document."""
        return bits_per_byte(self.nll_nats, self.num_bytes)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a model pays for held-out bytes."""

    bits_per_byte: float
    """Bits per raw byte over all documents; 0.0 for no bytes."""
    bytes_scored: int
    """Equal to the sum of the document sizes."""
    mean_patch_bytes: float
    """Bytes / patches; 0.0 for no bytes."""
    interval: tuple[float, float] | None
    """95 % interval of `bits_per_byte`; None for fewer than 2 bytes."""
    interval_method: str
    """What was resampled, in words."""
    per_document: tuple[DocumentScore, ...]
    """In the order given."""
    flops_per_byte: float | None = None
    """Floating point operations of one forward per byte, entropy model included; as passed in."""
    warnings: tuple[str, ...] = ()
    """What a reader must know before believing the figure."""

    @property
    def patches_per_byte(self) -> float:
        """Steps of the global model per byte; 1.0 for a patchless model."""
        return 1 / self.mean_patch_bytes if self.mean_patch_bytes else 0.0


def bits_per_byte(total_nats: float, total_bytes: int) -> float:
    """Average code length, in bits, that a model needs for one byte of raw input.

    Args:
        total_nats: Negative log-likelihood summed over every scored byte, nats.
        total_bytes: Raw bytes scored.

    Returns:
        Bits per byte; 0.0 for no bytes.

    >>> bits_per_byte(total_nats=16 * math.log(2), total_bytes=2)
    8.0
    >>> bits_per_byte(total_nats=0.0, total_bytes=0)
    0.0
    """
    return total_nats / (math.log(2) * total_bytes) if total_bytes else 0.0


def _score_document(
    model: ScoringModel,
    name: str,
    data: np.ndarray,
    on_progress: Callable[[int], None] | None,
) -> tuple[DocumentScore, np.ndarray]:
    scored = model.score(data, on_progress=on_progress)
    # Law 5: anything but one score per byte would make the figure a figure of something else.
    assert scored.nll_nats.shape == data.shape == scored.starts.shape, (
        f"{name}: {len(data)} bytes, but {scored.nll_nats.shape} scores and "
        f"{scored.starts.shape} patch decisions"
    )
    document = DocumentScore(
        name=name,
        num_bytes=len(data),
        nll_nats=float(scored.nll_nats.sum(dtype=np.float64)),
        num_patches=int(np.count_nonzero(scored.starts)),
    )
    return document, scored.nll_nats


def _block_interval(nll_nats: np.ndarray, *, seed: int) -> tuple[tuple[float, float] | None, str]:
    block_bytes = max(1, min(_BLOCK_BYTES, len(nll_nats) // _FEWEST_BLOCKS))
    edges = np.arange(0, len(nll_nats), block_bytes)
    if len(edges) < 2:
        return None, "none: fewer than 2 bytes"
    bits = np.add.reduceat(nll_nats.astype(np.float64), edges) / math.log(2)
    sizes = np.diff(np.append(edges, len(nll_nats)))
    method = (
        f"bootstrap over {len(edges)} blocks of {block_bytes} bytes of one document: "
        "says nothing about other documents"
    )
    return bootstrap_ratio(bits, sizes, seed=seed), method


def _document_interval(
    documents: Sequence[DocumentScore], *, seed: int
) -> tuple[tuple[float, float], str]:
    bits = np.array([document.nll_nats for document in documents]) / math.log(2)
    sizes = np.array([document.num_bytes for document in documents])
    rough = ", so few that it is rough" if len(documents) < _FEW_DOCUMENTS else ""
    method = f"bootstrap over {len(documents)} documents{rough}"
    return bootstrap_ratio(bits, sizes, seed=seed), method


def sanity_warnings(
    model_bits_per_byte: float, compressors: Sequence[CompressorResult]
) -> tuple[str, ...]:
    """Flag a figure that is too good: less than half of the best classical compressor's.

    It is not proof of a leak (a model that saw much more of the same text can do it), but every
    leak looks like this: padding or specials scored, a model that sees the byte it predicts,
    held-out text that is also in the training text.
    """
    best = best_compressor(compressors)
    if best is None or best.bits_per_byte is None:
        return ()
    if model_bits_per_byte >= _IMPLAUSIBLE_FRACTION * best.bits_per_byte:
        return ()
    return (
        f"{model_bits_per_byte:.3f} bits per byte is below half of {best.name} "
        f"({best.bits_per_byte:.3f}) on the same bytes: was this text, or a copy of it, in the "
        "training data? To know, run `bytelm evaluate` on files that the model cannot have seen",
    )


def evaluate(
    model: ScoringModel,
    documents: Sequence[tuple[str, np.ndarray]],
    *,
    flops_per_byte: float | None = None,
    compressors: Sequence[CompressorResult] = (),
    seed: int = 0,
    on_progress: Callable[[int], None] | None = None,
) -> Evaluation:
    """Score every byte of every document once.

    Args:
        model: Anything with `score`, for example `bytelm.load(...)`.
        documents: Name and bytes (uint8 `[n]`) of each held-out document; empty ones count as
            0 bytes and are left out of the interval.
        flops_per_byte: Passed on to the result.
        compressors: Rows of `reference_compressors` on the same documents, for the sanity gate.
        seed: Of the bootstrap.
        on_progress: Called with the number of bytes that were just scored.

    Returns:
        The figure, its interval and one row per document. With one document the interval is
        over blocks of it, and `interval_method` says so.

    """
    rows: list[DocumentScore] = []
    blocks = np.empty(0, dtype=np.float32)
    done = 0
    for name, data in documents:
        row, nll_nats = _score_document(model, name, data, on_progress)
        rows.append(row)
        # Only a lone document needs its bytes apart; kept for no more than one at a time.
        blocks = nll_nats if row.num_bytes else blocks
        done += row.num_bytes

    scored = [row for row in rows if row.num_bytes]
    assert done == sum(len(data) for _, data in documents)
    value = bits_per_byte(math.fsum(row.nll_nats for row in scored), done)
    interval, method = (
        _document_interval(scored, seed=seed)
        if len(scored) > 1
        else _block_interval(blocks, seed=seed)
    )
    num_patches = sum(row.num_patches for row in scored)
    return Evaluation(
        bits_per_byte=value,
        bytes_scored=done,
        mean_patch_bytes=done / num_patches if num_patches else 0.0,
        interval=interval,
        interval_method=method,
        per_document=tuple(rows),
        flops_per_byte=flops_per_byte,
        warnings=sanity_warnings(value, compressors) if done else (),
    )
