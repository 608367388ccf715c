"""PRIME: queries are compared with prototypes instead of label texts.

Source: Dahiya et al., "Prototypical Extreme Multi-label Classification with a Dynamic Margin
Loss", NAACL 2025, arXiv 2410.20401, and the settings in the authors' code
(github.com/kunaldahiya/prime). A prototype is made of the label's text vector, the centroid of
its training queries and a free vector by a shallow transformer. The loss is
    dynamic triplet (queries, prototypes)                                  the base loss
    + prototype_weight * dynamic triplet, both directions summed (queries, texts)
    + prototype_regularizer * margin by which prototypes must beat texts.

Reconstructed or changed here: the transformer's output is added to the text vector through a
layer that starts at zero (there its mean is the prototype), the three inputs are told apart by
learned vectors, free vectors start at zero, and a share of the labels is trained without
centroid and free vector, which is how labels without training queries are seen later. How often
the authors renew the centroids is not stated; here every ``refresh_every`` epochs.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import DynamicTriplet, Positives
from alc_kernels.losses.functional import triplet_loss
from alc_kernels.xmc.config import TrainConfig
from alc_kernels.xmc.errors import ConfigError
from alc_kernels.xmc.methods.base import LabelSide, Method, Snapshot
from alc_kernels.xmc.methods.free_vectors import FreeVectors
from alc_kernels.xmc.methods.prototype_margin import prototype_margin_loss
from alc_kernels.xmc.methods.prototype_network import PrototypeNetwork
from alc_kernels.xmc.parallel.processes import ALONE, Processes

LABELS_PER_PASS = 8192


class Prototypes(LabelSide):
    """From text vectors to prototypes.

    Args:
        config: sizes and weights.
        dim: width d.
        num_labels: L.

    Raises:
        ConfigError: ``prototype_heads`` does not divide ``dim``.
    """

    centroid: Tensor
    seen: Tensor

    def __init__(self, config: TrainConfig, dim: int, num_labels: int) -> None:
        super().__init__()
        if dim % config.prototype_heads:
            raise ConfigError(
                f"prototype_heads = {config.prototype_heads}: expected a divisor of the width "
                f"{dim} of the vectors"
            )
        self.config = config
        self.network = PrototypeNetwork(
            dim, config.prototype_layers, config.prototype_heads, config.prototype_dropout
        )
        self.free = FreeVectors(num_labels, dim, config.label_cluster_size)
        self.register_buffer("centroid", torch.zeros(num_labels, dim))
        self.register_buffer("seen", torch.zeros(num_labels, dtype=torch.bool))

    @property
    def needs_snapshot(self) -> bool:
        return True

    def forward(self, text: Tensor, label_ids: Tensor) -> Tensor:
        known = label_ids.clamp(min=0)  # -1 is no label of the data set: never seen
        seen = self.seen[known] & (label_ids >= 0)
        return self.network(text, self.centroid[known], self.free(label_ids), seen)

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
        config, made = self.config, None
        if config.prototype_weight > 0:
            made = config.prototype_weight * triplet_loss(
                queries,
                text,
                positives,
                exclude,
                dynamic_margin=(config.min_margin, config.max_margin),
                num_negatives=config.num_negatives,
                weight_temperature=config.weight_temperature,
                symmetric="sum",
                exclude_above=exclude_above,
                backend=config.backend,
                process_group=processes.loss_group,
            )
        if config.prototype_regularizer > 0:
            margin = config.prototype_regularizer * prototype_margin_loss(
                queries,
                text,
                labels,
                positives,
                exclude,
                margin=config.prototype_margin,
                num_negatives=config.num_negatives,
                exclude_above=exclude_above,
                backend=config.backend,
                processes=processes,
            )
            made = margin if made is None else made + margin
        return made

    @torch.no_grad()
    def refresh(self, snapshot: Snapshot, generator: torch.Generator) -> None:
        """Take the normalised means of the labels' queries; cluster the labels once."""
        self.free.assign(snapshot, generator)
        queries = snapshot.queries.numpy()
        by_label = snapshot.relation.T.tocsr()  # (L, N)
        for start in range(0, len(self.centroid), LABELS_PER_PASS):
            part = slice(start, start + LABELS_PER_PASS)
            total = torch.from_numpy(by_label[part] @ queries)
            self.centroid[part] = F.normalize(total, dim=1).to(self.centroid)
        self.seen.copy_(torch.from_numpy(by_label.getnnz(axis=1) > 0))

    def table_parameters(self) -> list[nn.Parameter]:
        return [self.free.table]


def dynamic_triplet(config: TrainConfig) -> DynamicTriplet:
    """The margin loss between queries and prototypes, whose margin follows the difference."""
    return DynamicTriplet(
        min_margin=config.min_margin,
        max_margin=config.max_margin,
        num_negatives=config.num_negatives,
        weight_temperature=config.weight_temperature,
    )


PRIME = Method(
    name="prime",
    title="PRIME",
    source="arXiv 2410.20401",
    base_loss=dynamic_triplet,
    label_side=Prototypes,
)
