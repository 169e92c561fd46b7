"""How good a model is on held-out bytes, and what may be said of two models.

`likelihood` has bits per byte, `compressors` the reference figures, `strings` the metrics of
predicted strings, `statistics` the intervals, `paired` the comparison of two models.
"""

from bytelm.evaluation.compressors import CompressorResult, reference_compressors
from bytelm.evaluation.likelihood import DocumentScore, Evaluation, bits_per_byte, evaluate
from bytelm.evaluation.paired import (
    RightAndWrong,
    Verdict,
    clustered_interval,
    cohen_h,
    compare_right,
    hierarchical_bootstrap,
    judge,
    mcnemar_exact,
    odds_ratio,
    paired_bootstrap,
    wilson_interval,
)
from bytelm.evaluation.statistics import (
    PairedDifference,
    bootstrap_ratio,
    holm,
    paired_difference,
)
from bytelm.evaluation.strings import (
    Bin,
    EdgeAccuracy,
    Edit,
    ErrorKind,
    Place,
    RowScore,
    StringMetrics,
    by_length,
    by_word_count,
    edge_accuracy,
    edit_distance,
    edits,
    error_kind,
    error_kinds,
    position_accuracy,
    score_row,
    string_metrics,
)

__all__ = [
    "Bin",
    "CompressorResult",
    "DocumentScore",
    "EdgeAccuracy",
    "Edit",
    "ErrorKind",
    "Evaluation",
    "PairedDifference",
    "Place",
    "RightAndWrong",
    "RowScore",
    "StringMetrics",
    "Verdict",
    "bits_per_byte",
    "bootstrap_ratio",
    "by_length",
    "by_word_count",
    "clustered_interval",
    "cohen_h",
    "compare_right",
    "edge_accuracy",
    "edit_distance",
    "edits",
    "error_kind",
    "error_kinds",
    "evaluate",
    "hierarchical_bootstrap",
    "holm",
    "judge",
    "mcnemar_exact",
    "odds_ratio",
    "paired_bootstrap",
    "paired_difference",
    "position_accuracy",
    "reference_compressors",
    "score_row",
    "string_metrics",
    "wilson_interval",
]
