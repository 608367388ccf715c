"""The triplet losses, with a fixed and with a dynamic margin."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.mining import hardest_positive, largest, rows_in_loss
from alc_kernels.reference.reduction import check_reduction, ratio, reduce_rows
from alc_kernels.reference.relation import Relation, resolve
from alc_kernels.reference.similarity import Batch, outside_autocast, pick, prepare
from alc_kernels.settings import DynamicTriplet, Symmetric, Triplet


def active_weights(scores: Tensor, active: Tensor, temperature: float) -> Tensor:
    """w = softmax of scores / temperature over the active entries, 0 elsewhere; (B, n).

    Rows without an active entry are 0.
    """
    x = (scores / temperature).masked_fill(~active, -torch.inf)
    top = x.detach().amax(dim=1, keepdim=True)
    e = torch.exp(x - torch.where(active.any(dim=1, keepdim=True), top, 0.0))
    return ratio(e, e.sum(dim=1, keepdim=True).expand_as(e))


def triplet_rows(
    similarity: Tensor,
    relation: Relation,
    settings: Triplet | DynamicTriplet,
    exclude_above: float | None,
) -> tuple[Tensor, Tensor]:
    """Row values (B,) and R (B,) of one side."""
    negative = relation.negatives(similarity, exclude_above)
    rows = rows_in_loss(relation.positive, negative)
    p = relation.first
    if settings.positive == "hardest":
        p = hardest_positive(similarity, relation.positive)
    n = largest(similarity, negative, settings.num_negatives)  # (B, k)
    exists = (n >= 0) & rows[:, None]

    s_n = pick(similarity, n)  # (B, k)
    delta = pick(similarity, p[:, None]) - s_n  # (B, k)
    if isinstance(settings, DynamicTriplet):
        low, high = settings.min_margin, settings.max_margin
        loss = delta.detach().abs().clamp(low, high) - delta
        active = exists & (delta < low)
        # exactly 0 in the band, with a part of the gradient
        band = settings.band_gradient * (delta.detach() - delta)
        loss = torch.where(exists & (delta >= low) & (delta <= high), band, loss)
        passing = exists & (delta <= high)
    else:
        loss = settings.margin - delta
        active = passing = exists & (loss > 0)
    loss = torch.where(passing, loss, 0.0)

    if settings.weight_temperature is None:
        return ratio(loss.sum(dim=1), exists.sum(dim=1).to(loss.dtype)), rows
    weight = active_weights(s_n, active, settings.weight_temperature)
    weighted = (weight * loss).sum(dim=1)
    equal = ratio(loss.sum(dim=1), exists.sum(dim=1).to(loss.dtype))
    return torch.where(active.any(dim=1), weighted, equal), rows


def triplet_value(
    batch: Batch,
    relation: Relation,
    settings: Triplet | DynamicTriplet,
    *,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of a prepared batch, both sides where symmetric."""
    check_reduction(batch, reduction, settings.symmetric, row_weight)
    s = batch.similarity
    loss = reduce_rows(*triplet_rows(s, relation, settings, exclude_above), row_weight, reduction)
    if settings.symmetric is not False:
        columns = triplet_rows(s.T, relation.transpose(), settings, exclude_above)
        loss = loss + reduce_rows(*columns)
    if settings.symmetric == "mean":
        loss = 0.5 * loss
    return batch.attach(loss, row_weight, valid=relation.valid)


@outside_autocast
def triplet_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    *,
    margin: float = 0.3,
    num_negatives: int = 10,
    weight_temperature: float | None = 0.1,
    positive: Literal["first", "hardest"] = "first",
    symmetric: Symmetric = False,
    dynamic_margin: tuple[float, float] | None = None,
    band_gradient: float = 0.5,
    normalize: bool = True,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Margin loss over each row's hardest negatives (PRIME's reduction, DEXA's mask).

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives.
        margin, num_negatives, weight_temperature, positive, symmetric: see
            :class:`alc_kernels.Triplet`.
        dynamic_margin: (min, max): the form of :class:`alc_kernels.DynamicTriplet`; ``margin``
            is then not used.
        band_gradient: of the dynamic form; see there.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.relation.Relation.negatives``.
        row_weight: (B,) weights of the rows' mean; the column side is a plain mean.
        reduction: "mean" (0-d) or "none" ((B,), 0 outside R; not with ``symmetric``).
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        float32 (float64 for float64 inputs).

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    settings: Triplet | DynamicTriplet
    if dynamic_margin is None:
        settings = Triplet(margin, num_negatives, weight_temperature, positive, symmetric)
    else:
        if not isinstance(dynamic_margin, tuple | list) or len(dynamic_margin) != 2:
            raise ValueError(f"dynamic_margin={dynamic_margin!r}: expected None or (min, max)")
        low, high = dynamic_margin
        settings = DynamicTriplet(
            low, high, num_negatives, weight_temperature, positive, symmetric, band_gradient
        )
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    relation = resolve(batch, positives, exclude)
    return triplet_value(
        batch,
        relation,
        settings,
        exclude_above=exclude_above,
        row_weight=row_weight,
        reduction=reduction,
    )
