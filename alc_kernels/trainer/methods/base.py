"""What a method is: a base loss, and what it adds on the label side; NGAME, DEXML and DEXA."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import DynamicTriplet, Positives, Sigmoid, Softmax, Triplet
from alc_kernels.functional import topk_similarity
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.negatives.clusters import balanced_clusters
from alc_kernels.trainer.parallel.processes import ALONE, Processes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from alc_kernels.trainer.config import TrainConfig

Base = Triplet | DynamicTriplet | Softmax | Sigmoid


class Snapshot(NamedTuple):
    """All training vectors at one moment, from the encoder alone, in evaluation mode.

    Attributes:
        queries: (N, d) float32 on the CPU, one row per training query in use.
        labels: (L, d) float32 on the CPU.
        relation: (N, L) CSR of those queries.
    """

    queries: Tensor
    labels: Tensor
    relation: csr_matrix


class LabelSide(nn.Module):
    """From the encoder's vectors of label texts to the vectors that queries are compared with.

    This one leaves them as they are. Everything a subclass learns or collects is a parameter or
    a buffer, so that checkpoints hold it.
    """

    @property
    def needs_snapshot(self) -> bool:
        """Whether :meth:`refresh` has something to learn; may change after a call."""
        return False

    def forward(self, text: Tensor, label_ids: Tensor) -> Tensor:
        """Label vectors (m, d) from text vectors (m, d) and label numbers (m,) int64.

        Of the dtype of ``text``; unit length, as the text vectors are. The number -1 stands for a
        label that the data set does not have.
        """
        return text

    def penalty(
        self,
        queries: Tensor,
        text: Tensor,
        labels: Tensor,
        positives: Positives,
        exclude: Positives | None = None,
        exclude_above: float | None = None,
        processes: Processes = ALONE,
    ) -> Tensor | None:
        """What the method adds to the loss beside its base loss, 0-d, or None.

        Args:
            queries: (B, d).
            text: (M, d) the encoder's vectors of the labels.
            labels: (M, d) what :meth:`forward` made of them.
            positives: the relation B x M.
            exclude: pairs that are neither positive nor negative, B x M.
            exclude_above: false-negative guard, as in :mod:`alc_kernels.functional`.
            processes: with several, ``queries``, ``text`` and ``labels`` are this one's and the
                relations have a column for each label of all. The result is the term of the whole
                batch everywhere; the gradients are shares that add up to its own.
        """
        return None

    def refresh(self, snapshot: Snapshot, generator: torch.Generator) -> None:
        """Take new statistics of the training data; called where ``needs_snapshot`` is true.

        Args:
            snapshot: current vectors.
            generator: on the CPU, the only source of randomness.
        """

    def table_parameters(self) -> list[nn.Parameter]:
        """Parameters with sparse gradients, which go to the table optimizer."""
        return []


def plain_label_side(config: TrainConfig, dim: int, num_labels: int) -> LabelSide:
    """Labels are their texts."""
    return LabelSide()


@dataclass(frozen=True)
class Method:
    """One way to train for extreme multi-label classification.

    Attributes:
        name: as ``--method`` takes it.
        title: as reports write it.
        source: the paper.
        base_loss: the loss that ``--loss base`` trains alone.
        label_side: builds the module between label texts and label vectors.
    """

    name: str
    title: str
    source: str
    base_loss: Callable[[TrainConfig], Base]
    label_side: Callable[[TrainConfig, int, int], LabelSide] = plain_label_side


# NGAME: in-batch triplets over batches made of clusters of similar queries.
#
# Source: Dahiya et al., "NGAME: Negative Mining-aware Mini-batching for Extreme Classification",
# WSDM 2023, arXiv 2207.04452. The clusters are the sampler's (``cluster_size``); the loss is a
# margin loss over the hardest labels of the other queries of the batch.


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


# DEXA: label texts helped by vectors that clusters of labels share.
#
# Source: Dahiya et al., "Deep Encoders with Auxiliary Parameters for Extreme Classification", KDD
# 2023. A label's vector is its text vector plus the auxiliary vector of its cluster, normalised;
# loss and batches are NGAME's. The published code clusters once, on the encoder before training.
#
# Different here: auxiliary vectors start at zero (there at small random values), so that training
# starts where NGAME does; labels without a training query take no part in the clustering. PRIME's
# free vectors are the same ones.


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


def auxiliary_vectors(config: TrainConfig, dim: int, num_labels: int) -> LabelSide:
    return AuxiliaryVectors(num_labels, dim, config.label_cluster_size)


DEXA = Method(
    name="dexa",
    title="DEXA",
    source="Dahiya et al., KDD 2023",
    base_loss=triplet,
    label_side=auxiliary_vectors,
)
