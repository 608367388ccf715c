"""Metrics of retrieval with many labels: ranking at k, coverage at a precision, certified
thresholds, intervals.

numpy arrays or torch tensors in, Python floats and numpy arrays out.
"""

from alc_kernels.metrics.bootstrap import Interval, bootstrap_interval, paired_bootstrap
from alc_kernels.metrics.certified import CertifiedThreshold, certified_threshold
from alc_kernels.metrics.coverage import (
    PrecisionCoverageCurve,
    Sweep,
    TransferredCoverage,
    aurc,
    coverage_at_precision,
    opis,
    precision_coverage_curve,
    sweep,
    threshold_at_precision,
    transferred_coverage,
)
from alc_kernels.metrics.monitor import PrecisionMonitor
from alc_kernels.metrics.ranking import (
    ideal_gains,
    inverse_propensity,
    ndcg_at_k,
    precision_at_k,
    psp_at_k,
    recall_at_k,
    topk_with_filter,
)

__all__ = [
    "CertifiedThreshold",
    "Interval",
    "PrecisionCoverageCurve",
    "PrecisionMonitor",
    "Sweep",
    "TransferredCoverage",
    "aurc",
    "bootstrap_interval",
    "certified_threshold",
    "coverage_at_precision",
    "ideal_gains",
    "inverse_propensity",
    "ndcg_at_k",
    "opis",
    "paired_bootstrap",
    "precision_at_k",
    "precision_coverage_curve",
    "psp_at_k",
    "recall_at_k",
    "sweep",
    "threshold_at_precision",
    "topk_with_filter",
    "transferred_coverage",
]
