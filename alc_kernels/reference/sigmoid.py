"""The sigmoid loss."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.reduction import check_reduction, reduce_rows
from alc_kernels.reference.relation import Relation, resolve
from alc_kernels.reference.similarity import Batch, outside_autocast, prepare
from alc_kernels.reference.softmax import softplus
from alc_kernels.settings import Scalar, Sigmoid


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
        exclude_above: false-negative guard, see ``reference.relation.Relation.negatives``.
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
