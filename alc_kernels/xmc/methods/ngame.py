"""NGAME: in-batch triplets over batches made of clusters of similar queries.

Source: Dahiya et al., "NGAME: Negative Mining-aware Mini-batching for Extreme Classification",
WSDM 2023, arXiv 2207.04452. The clusters are the sampler's (``cluster_size``); the loss is a
margin loss over the hardest labels of the other queries of the batch.
"""

from __future__ import annotations

from alc_kernels import Triplet
from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.methods.base import Method


def triplet(config: TrainConfig) -> Triplet:
    """The margin loss over each query's hardest labels."""
    return Triplet(
        margin=config.margin,
        num_negatives=config.num_negatives,
        weight_temperature=config.weight_temperature,
    )


NGAME = Method(
    name="ngame",
    title="NGAME",
    source="arXiv 2207.04452",
    base_loss=triplet,
)
