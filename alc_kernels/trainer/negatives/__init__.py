"""Where negatives come from: clusters of similar vectors, label indexes, hard negatives."""

from alc_kernels.trainer.negatives.clusters import (
    balanced_clusters,
    draw_hard_negatives,
    mine_hard_negatives,
)
from alc_kernels.trainer.negatives.index import (
    ApproximateIndex,
    ExactIndex,
    LabelIndex,
    MissingFaiss,
    build_index,
)

__all__ = [
    "ApproximateIndex",
    "ExactIndex",
    "LabelIndex",
    "MissingFaiss",
    "balanced_clusters",
    "build_index",
    "draw_hard_negatives",
    "mine_hard_negatives",
]
