"""DEXA: label texts helped by vectors that clusters of labels share.

Source: Dahiya et al., "Deep Encoders with Auxiliary Parameters for Extreme Classification", KDD
2023. A label's vector is its text vector plus the auxiliary vector of its cluster, normalised;
loss and batches are NGAME's. The published code clusters once, on the encoder before training.

Different here: auxiliary vectors start at zero (there at small random values), so that training
starts where NGAME does; labels without a training query take no part in the clustering.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.methods.base import LabelSide, Method, Snapshot
from alc_kernels.xmc.methods.free_vectors import FreeVectors
from alc_kernels.xmc.methods.ngame import triplet


class AuxiliaryVectors(LabelSide):
    """Text vector plus the shared vector of the label's cluster, unit length.

    Args:
        num_labels: L.
        dim: width d.
        labels_per_vector: labels of a cluster, at least 1.
    """

    def __init__(self, num_labels: int, dim: int, labels_per_vector: int) -> None:
        super().__init__()
        self.free = FreeVectors(num_labels, dim, labels_per_vector)

    @property
    def needs_snapshot(self) -> bool:
        """Until the labels are clustered."""
        return not bool(self.free.assigned)

    def forward(self, text: Tensor, label_ids: Tensor) -> Tensor:
        return F.normalize(text + self.free(label_ids), dim=1).to(text.dtype)

    def refresh(self, snapshot: Snapshot, generator: torch.Generator) -> None:
        self.free.assign(snapshot, generator)

    def table_parameters(self) -> list[nn.Parameter]:
        return [self.free.table]


def label_side(config: TrainConfig, dim: int, num_labels: int) -> LabelSide:
    return AuxiliaryVectors(num_labels, dim, config.label_cluster_size)


DEXA = Method(
    name="dexa",
    title="DEXA",
    source="Dahiya et al., KDD 2023",
    base_loss=triplet,
    label_side=label_side,
)
