"""NGAME: in-batch triplets over batches made of clusters of similar queries.

Source: Dahiya et al., "NGAME: Negative Mining-aware Mini-batching for Extreme Classification",
WSDM 2023, arXiv 2207.04452. The clusters are the sampler's (``cluster_size``); the loss is a
margin loss over the hardest labels of the other queries of the batch.
"""

from __future__ import annotations

from alc_kernels import Softmax, Triplet
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.methods.base import Method


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


# DEXML: a plain dual encoder trained with the decoupled softmax.
#
# Source: Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification", ICLR 2024, arXiv
# 2310.10636. A positive competes with the negatives only, not with the query's other positives.
# In the batch by default; ``all_labels`` compares with every label, those outside of the batch
# from a cache (there with a gradient to all of them, at the price of encoding all per step).


def decoupled_softmax(config: TrainConfig) -> Softmax:
    """Softmax of each positive against the query's negatives."""
    return Softmax(temperature=config.temperature, decoupled=True)


DEXML = Method(
    name="dexml",
    title="DEXML",
    source="arXiv 2310.10636",
    base_loss=decoupled_softmax,
)
