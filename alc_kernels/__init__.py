"""Fused losses for large-batch retrieval: ALC, TCM, mined triplets, softmax, sigmoid."""

from alc_kernels import functional, reference
from alc_kernels.distributed import GlobalBatch
from alc_kernels.engine.prepare import BackendUnavailableError
from alc_kernels.losses.alc_loss import ALCLoss
from alc_kernels.losses.matryoshka import MatryoshkaLoss
from alc_kernels.positives import Positives
from alc_kernels.settings import (
    Auxiliary,
    DynamicTriplet,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
)
from alc_kernels.version import __version__

__all__ = [
    "ALCLoss",
    "Auxiliary",
    "BackendUnavailableError",
    "DynamicTriplet",
    "GlobalBatch",
    "MatryoshkaLoss",
    "Positives",
    "Sigmoid",
    "Softmax",
    "ThresholdMargin",
    "Triplet",
    "__version__",
    "functional",
    "reference",
]
