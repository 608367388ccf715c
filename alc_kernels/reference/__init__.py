"""The losses as their definition reads, in plain PyTorch that stores S.

Slow and memory-hungry on purpose: the yardstick that every faster backend is measured against.
Differentiable to any order. Under autocast the forward computes in full precision on rows rounded
to the autocast dtype; call backward outside the autocast block, as PyTorch advises, because
autocast would round the products of the backward as well. Shares no code with the backends.
"""

from alc_kernels.reference.auxiliary import batch_loss, pair_loss
from alc_kernels.reference.bases import sigmoid_loss, softmax_loss, triplet_loss
from alc_kernels.reference.mining import hardest_negatives, threshold_margin_loss, topk_similarity
from alc_kernels.reference.total import LossTerms, alc_loss, matryoshka_loss

__all__ = [
    "LossTerms",
    "alc_loss",
    "batch_loss",
    "hardest_negatives",
    "matryoshka_loss",
    "pair_loss",
    "sigmoid_loss",
    "softmax_loss",
    "threshold_margin_loss",
    "topk_similarity",
    "triplet_loss",
]
