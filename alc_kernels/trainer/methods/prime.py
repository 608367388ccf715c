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
from torch.utils.checkpoint import checkpoint

from alc_kernels import DynamicTriplet, Positives
from alc_kernels.functional import hardest_negatives, triplet_loss
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.methods.base import FreeVectors, LabelSide, Method, Snapshot
from alc_kernels.trainer.parallel.processes import ALONE, Processes, all_rows, sum_of

# PRIME's regulariser: a prototype must serve a query better than the label's text does.


CHUNK = 2**24  # similarities at a time


def prototype_margin_loss(
    queries: Tensor,
    text: Tensor,
    prototypes: Tensor,
    positives: Positives,
    exclude: Positives | None,
    config: TrainConfig,
    exclude_above: float | None = None,
    processes: Processes = ALONE,
) -> Tensor:
    """Half of: mean max(0, t_p - s_p + margin) + mean max(0, s_n - t_n + margin), 0-d float32.

    s are a query's similarities with prototypes and t those with texts; p is its first positive,
    n runs over the ``num_negatives`` hardest negatives among the prototypes. Each mean is over
    the terms above 0 and 0 where there are none.

    Source: the authors' code of PRIME (github.com/kunaldahiya/prime), ``RegLoss``, where an empty
    mean is NaN.

    Args:
        queries: (B, d) of unit length (or zero), like the two others.
        text, prototypes: (M, d) two vectors of each label.
        positives, exclude: B x M.
        config: ``prototype_margin``, in units of similarity, ``num_negatives``, ``backend``.
        exclude_above: false-negative guard.
        processes: with several, vectors are this one's and relations have columns for all labels.
    """
    if processes.size > 1:
        counts = processes.counts(len(text))
        text = all_rows(text, processes, counts)
        prototypes = all_rows(prototypes, processes, counts)
    scores, index = hardest_negatives(
        queries, prototypes, positives, exclude, config.num_negatives,
        normalize=False, exclude_above=exclude_above, backend=config.backend,
    )  # (B, k), (B, k)  # fmt: skip
    margin = config.prototype_margin
    first = positives.first(queries.device)[:, None]  # (B, 1)
    good = first >= 0
    own = (queries * prototypes[first.clamp(min=0)[:, 0]]).sum(1, keepdim=True).float()
    at_text = similarities_at(queries, text, torch.cat([first, index], 1).clamp(min=0))
    shortfall = torch.where(good, at_text[:, :1] - own + margin, 0.0)
    excess = torch.where(index >= 0, scores - at_text[:, 1:] + margin, 0.0)
    return (_mean_above_zero(shortfall, processes) + _mean_above_zero(excess, processes)) / 2


def similarities_at(queries: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    """(B, k) float32: inner products of queries (B, d) with labels (M, d) at ``index`` (B, k).

    In chunks of rows that are computed again in the backward pass: a plain matrix product is
    faster than gathering (B, k, d), and B x M is never held.
    """
    rows = max(1, CHUNK // max(1, len(labels)))
    if len(queries) <= rows:
        return _at(queries, labels, index)
    parts = [
        checkpoint(_at, *part, use_reentrant=False)
        for part in zip(
            queries.split(rows), [labels] * -(-len(queries) // rows), index.split(rows), strict=True
        )
    ]
    return torch.cat(parts)


def _at(queries: Tensor, labels: Tensor, index: Tensor) -> Tensor:
    return (queries @ labels.T).gather(1, index).float()


def _mean_above_zero(values: Tensor, processes: Processes) -> Tensor:
    active = values > 0
    total = sum_of(torch.where(active, values, 0.0).sum(), processes)
    return total / sum_of(active.sum(), processes).clamp(min=1)


# The shallow transformer that makes a label's prototype of three vectors (PRIME).


DROPOUT = 0.1  # the published value


class PrototypeNetwork(nn.Module):
    """Attention over [text vector, centroid, free vector], pooled and added to the text vector.

    The last linear layer starts at zero, so that a prototype starts as the text vector.

    Args:
        dim: width d, a multiple of ``heads``.
        layers: transformer layers.
        heads: attention heads.
        hide: share of labels, drawn anew in each training step, that the network sees as a label
            without training queries. Without it the text of a seen label would never be looked
            at: a centroid contains the very query that is compared with it.
    """

    def __init__(self, dim: int, layers: int, heads: int, hide: float) -> None:
        super().__init__()
        self.hide = hide
        layer = nn.TransformerEncoderLayer(
            dim, heads, dim, DROPOUT, activation="gelu", batch_first=True
        )
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        # Attention has no order: these tell the three tokens apart.
        self.kind = nn.Parameter(torch.randn(3, dim) * dim**-0.5)
        self.absent = nn.Parameter(torch.zeros(2, dim))  # instead of centroid and free vector
        self.output = nn.Linear(dim, dim)
        nn.init.zeros_(self.output.weight)
        nn.init.zeros_(self.output.bias)

    def forward(self, text: Tensor, centroid: Tensor, free: Tensor, seen: Tensor) -> Tensor:
        """Prototypes (m, d) of unit length, in the dtype of ``text``.

        Args:
            text: (m, d) text vectors.
            centroid: (m, d) means of the labels' queries.
            free: (m, d) free vectors.
            seen: (m,) bool; False: centroid and free vector are replaced by learned ones.
        """
        if self.training and self.hide > 0:
            seen = seen & (torch.rand(len(seen), device=seen.device) >= self.hide)
        present = seen[:, None]
        tokens = torch.stack(
            [
                text,
                torch.where(present, centroid, self.absent[0]).to(text.dtype),
                torch.where(present, free, self.absent[1]).to(text.dtype),
            ],
            dim=1,
        )  # (m, 3, d)
        pooled = self.layers(tokens + self.kind).mean(1)  # (m, d)
        return F.normalize(text + self.output(pooled), dim=1).to(text.dtype)


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
                queries, text, labels, positives, exclude, config, exclude_above, processes
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
