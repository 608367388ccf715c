"""The base losses: softmax, sigmoid, triplet and dynamic triplet."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.batch import (
    Batch,
    Relation,
    check_reduction,
    outside_autocast,
    pick,
    prepare,
    ratio,
    reduce_rows,
    resolve,
)
from alc_kernels.reference.mining import hardest_positive, largest, rows_in_loss
from alc_kernels.settings import DynamicTriplet, Scalar, Sigmoid, Softmax, Symmetric, Triplet


def softplus(x: Tensor) -> Tensor:
    """log(1 + e^x), exact to rounding everywhere (torch's own is cut off above 20)."""
    return -torch.nn.functional.logsigmoid(-x)


def masked_logsumexp(z: Tensor, mask: Tensor) -> Tensor:
    """(B,): log of the sum of e^z over ``mask``; 0 for a row without any."""
    z = torch.nn.functional.pad(z.masked_fill(~mask, -torch.inf), (0, 1), value=-torch.inf)
    some = mask.any(dim=1)  # (B,)
    top = torch.where(some, z.detach().amax(dim=1), 0.0)
    total = torch.exp(z - top[:, None]).sum(dim=1)
    return torch.log(torch.where(some, total, 1.0)) + top


def softmax_rows(
    z: Tensor, relation: Relation, negative: Tensor, settings: Softmax
) -> tuple[Tensor, Tensor]:
    """Row values (B,) and R (B,) of one side: mean over positives p of -log(e^z_p / D_p)."""
    y = relation.positive
    rows = rows_in_loss(y, negative)
    if settings.decoupled:  # D_p = e^z_p + sum over N
        pairs = softplus(masked_logsumexp(z, negative)[:, None] - z)  # (B, M)
    else:  # D_p = sum over Y and N
        pairs = masked_logsumexp(z, y | negative)[:, None] - z  # (B, M)
    keep = y & rows[:, None]
    count = keep.sum(dim=1).to(z.dtype)
    return ratio(torch.where(keep, pairs, 0.0).sum(dim=1), count), rows


def softmax_value(
    batch: Batch,
    relation: Relation,
    settings: Softmax,
    *,
    label_offset: Tensor | None = None,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of a prepared batch, both sides where symmetric."""
    check_reduction(batch, reduction, settings.symmetric, row_weight)
    s = batch.similarity
    z = s / settings.temperature  # (B, M)
    if label_offset is not None:
        if not isinstance(label_offset, Tensor) or label_offset.shape != (s.shape[1],):
            got = getattr(label_offset, "shape", type(label_offset).__name__)
            raise ValueError(f"label_offset: expected a tensor of shape ({s.shape[1]},), got {got}")
        if label_offset.device != s.device:
            raise ValueError(f"label_offset: expected device {s.device}, got {label_offset.device}")
        z = z + label_offset.to(s.dtype)
    z = z.to(s.dtype)
    side = softmax_rows(z, relation, relation.negatives(s, exclude_above), settings)
    loss = reduce_rows(*side, row_weight, reduction)
    if settings.symmetric:
        columns = relation.transpose()
        side = softmax_rows(z.T, columns, columns.negatives(s.T, exclude_above), settings)
        loss = 0.5 * (loss + reduce_rows(*side))
    others = (settings.temperature, label_offset, row_weight)
    return batch.attach(loss, *others, valid=relation.valid)


@outside_autocast
def softmax_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    *,
    temperature: Scalar = 0.05,
    decoupled: bool = False,
    symmetric: bool = False,
    label_offset: Tensor | None = None,
    normalize: bool = True,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Cross-entropy over each row (decoupled: DEXML).

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives.
        temperature, decoupled, symmetric: see :class:`alc_kernels.Softmax`.
        label_offset: (M,) added to each label's logit, on both sides of a symmetric loss.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
        row_weight: (B,) weights of the rows' mean; the column side is a plain mean.
        reduction: "mean" (0-d) or "none" ((B,), 0 outside R; not with ``symmetric``).
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        float32 (float64 for float64 inputs).

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    settings = Softmax(temperature, decoupled, symmetric)
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    return softmax_value(
        batch,
        resolve(batch, positives, exclude),
        settings,
        label_offset=label_offset,
        exclude_above=exclude_above,
        row_weight=row_weight,
        reduction=reduction,
    )


# The sigmoid loss.


def sigmoid_value(
    batch: Batch,
    relation: Relation,
    settings: Sigmoid,
    *,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: str = "mean",
) -> Tensor:
    """The loss of a prepared batch: rows without positives take part."""
    check_reduction(batch, reduction, False, row_weight)
    s, y = batch.similarity, relation.positive
    x = (settings.scale * s + settings.bias).to(s.dtype)  # (B, M)
    pairs = softplus(torch.where(y, -x, x))  # (B, M)
    keep = y | relation.negatives(s, exclude_above)
    values = torch.where(keep, pairs, 0.0).sum(dim=1)  # (B,)
    every_row = torch.ones_like(values, dtype=torch.bool)
    loss = reduce_rows(values, every_row, row_weight, reduction)
    others = (settings.scale, settings.bias, row_weight)
    return batch.attach(loss, *others, valid=relation.valid)


@outside_autocast
def sigmoid_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    *,
    scale: Scalar = 10.0,
    bias: Scalar = -10.0,
    normalize: bool = True,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: Literal["mean", "none"] = "mean",
    compute_dtype: torch.dtype | None = None,
) -> Tensor:
    """Pairwise logistic loss, summed over each row, mean over all B rows (SigLIP).

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives.
        scale, bias: see :class:`alc_kernels.Sigmoid`; 0-d tensors receive gradients.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
        row_weight: (B,) weights of the mean.
        reduction: "mean" (0-d) or "none" ((B,)).
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Returns:
        float32 (float64 for float64 inputs).

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    settings = Sigmoid(scale, bias)
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    return sigmoid_value(
        batch,
        resolve(batch, positives, exclude),
        settings,
        exclude_above=exclude_above,
        row_weight=row_weight,
        reduction=reduction,
    )


# The triplet losses, with a fixed and with a dynamic margin.


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
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
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
