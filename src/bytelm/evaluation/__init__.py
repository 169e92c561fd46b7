"""What a model pays for held-out bytes, beside classical compressors on the same bytes.

`likelihood` has bits per byte, `compressors` the reference figures, `statistics` the intervals.
"""

from bytelm.evaluation.compressors import CompressorResult, reference_compressors
from bytelm.evaluation.likelihood import DocumentScore, Evaluation, bits_per_byte, evaluate
from bytelm.evaluation.statistics import (
    PairedDifference,
    bootstrap_ratio,
    holm,
    paired_difference,
)

__all__ = [
    "CompressorResult",
    "DocumentScore",
    "Evaluation",
    "PairedDifference",
    "bits_per_byte",
    "bootstrap_ratio",
    "evaluate",
    "holm",
    "paired_difference",
    "reference_compressors",
]
