"""Where negatives come from: clusters of similar vectors, label indexes, hard negatives."""

from alc_kernels.xmc.negatives.clusters import balanced_clusters
from alc_kernels.xmc.negatives.library import MissingFaiss

__all__ = ["MissingFaiss", "balanced_clusters"]
