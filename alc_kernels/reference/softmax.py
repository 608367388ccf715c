"""The softmax loss and its decoupled form."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.mining import rows_in_loss
from alc_kernels.reference.reduction import check_reduction, ratio, reduce_rows
from alc_kernels.reference.relation import Relation, resolve
from alc_kernels.reference.similarity import Batch, outside_autocast, prepare
from alc_kernels.settings import Scalar, Softmax


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
        exclude_above: false-negative guard, see ``reference.relation.Relation.negatives``.
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
