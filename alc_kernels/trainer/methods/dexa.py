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

from alc_kernels.functional import topk_similarity
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.methods.base import LabelSide, Method, Snapshot, triplet
from alc_kernels.trainer.negatives.clusters import balanced_clusters

# Learned vectors shared by clusters of labels (DEXA's auxiliary vectors, PRIME's free vectors).


class FreeVectors(nn.Module):
    """One learned vector per cluster of similar labels, zero at the start.

    Clusters are made of the labels with a training query. Every other label takes the vector of
    the nearest cluster: what is fitted then depends on no name that training may not see, and
    each vector is trained by as many labels.

    Row-wise Adagrad moves each entry of a fresh row by the learning rate, thus the row by the
    learning rate times sqrt(d). ``scale`` divides that by sqrt(d), so that one step moves a vector
    of length 1 as far at any width.

    Args:
        num_labels: L.
        dim: width d.
        labels_per_vector: trained labels of a cluster, at least 1; 1 gives every label its own.
    """

    cluster: Tensor
    assigned: Tensor

    def __init__(self, num_labels: int, dim: int, labels_per_vector: int) -> None:
        super().__init__()
        self.labels_per_vector = labels_per_vector
        self.scale = dim**-0.5
        rows = -(-num_labels // labels_per_vector)
        self.table = nn.Parameter(torch.zeros(rows, dim))
        self.register_buffer("cluster", torch.arange(num_labels) // labels_per_vector)
        self.register_buffer("assigned", torch.tensor(labels_per_vector == 1))

    def forward(self, label_ids: Tensor) -> Tensor:
        """(m, d) vectors of the labels (m,); the gradient is sparse along the table's rows.

        -1 stands for a label that the data set does not have; its vector is 0.
        """
        rows = F.embedding(self.cluster[label_ids.clamp(min=0)], self.table, sparse=True)
        return rows * (self.scale * (label_ids >= 0)[:, None])

    @torch.no_grad()
    def assign(self, snapshot: Snapshot, generator: torch.Generator) -> None:
        """Cluster the labels, the first time only: later it would swap trained vectors."""
        if bool(self.assigned):
            return
        seen = torch.from_numpy(snapshot.relation.getnnz(axis=0) > 0)
        vectors = snapshot.labels[seen]  # (S, d)
        number = balanced_clusters(vectors, self.labels_per_vector, generator)
        cluster = torch.empty_like(self.cluster, device="cpu")
        cluster[seen] = number
        if not bool(seen.all()):
            means = torch.zeros(int(number.max()) + 1, vectors.shape[1])
            means.index_add_(0, number, F.normalize(vectors, dim=1))
            _, nearest = topk_similarity(snapshot.labels[~seen], means, 1, backend="torch")
            cluster[~seen] = nearest[:, 0]
        self.cluster.copy_(cluster)
        self.assigned.fill_(True)


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
