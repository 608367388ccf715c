"""The whole loss and its terms."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alc_kernels.positives import Positives
from alc_kernels.reference.auxiliary import batch_value, pair_value
from alc_kernels.reference.bases import sigmoid_value, softmax_value, triplet_value
from alc_kernels.reference.batch import Batch, Relation, outside_autocast, pick, prepare, resolve
from alc_kernels.reference.mining import hardest_positive, largest, rows_in_loss, threshold_parts
from alc_kernels.settings import (
    Auxiliary,
    Base,
    DynamicTriplet,
    LossTerms,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
)


def base_value(
    batch: Batch,
    relation: Relation,
    base: Base,
    *,
    exclude_above: float | None,
    label_offset: Tensor | None,
    row_weight: Tensor | None,
) -> Tensor:
    """The base loss of a prepared batch, 0-d."""
    if isinstance(base, Softmax):
        return softmax_value(
            batch,
            relation,
            base,
            label_offset=label_offset,
            exclude_above=exclude_above,
            row_weight=row_weight,
        )
    if isinstance(base, Triplet | DynamicTriplet):
        return triplet_value(
            batch, relation, base, exclude_above=exclude_above, row_weight=row_weight
        )
    if isinstance(base, Sigmoid):
        return sigmoid_value(
            batch, relation, base, exclude_above=exclude_above, row_weight=row_weight
        )
    raise TypeError(
        "base: expected Triplet, DynamicTriplet, Softmax, Sigmoid or None, "
        f"got {type(base).__name__}"
    )


@outside_autocast
def alc_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None = None,
    exclude: Positives | Tensor | None = None,
    *,
    base: Base | None = None,
    auxiliary: Auxiliary | None = None,
    heads: Any = None,
    threshold: ThresholdMargin | None = None,
    base_weight: float = 1.0,
    normalize: bool = True,
    exclude_above: float | None = None,
    label_offset: Tensor | None = None,
    row_weight: Tensor | None = None,
    compute_dtype: torch.dtype | None = None,
) -> LossTerms:
    """base_weight L_base + pair_weight L_pair + batch_weight L_batch + L_TCM.

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        positives: None (diagonal, B == M), (B,) integers or Positives (B, M).
        exclude: None, (B,) integers or Positives.
        base: settings of the base loss, or None for none.
        auxiliary: settings of the auxiliary parts, or None for none.
        heads: anything with the attributes ``pair_head``, ``context_in``, ``context_layer`` and
            ``context_head`` (those of parts with weight 0 are not looked at).
        threshold: settings of the threshold-consistent margin, or None for none.
        base_weight: weight of the base loss.
        normalize: compare directions only.
        exclude_above: false-negative guard, see ``reference.batch.Relation.negatives``.
        label_offset: (M,), for a Softmax base only.
        row_weight: (B,) weights of the base loss's mean over rows.
        compute_dtype: dtype the unit rows are rounded to, as under autocast.

    Raises:
        ValueError, TypeError, IndexError: an argument does not fit, named in the message.
    """
    if label_offset is not None and not isinstance(base, Softmax):
        raise ValueError(
            f"label_offset: only a Softmax base has logits to add it to, got {type(base).__name__}"
        )
    if row_weight is not None and base is None:
        raise ValueError("row_weight: weighs the rows of the base loss, but base is None")
    batch = prepare(queries, labels, normalize=normalize, compute_dtype=compute_dtype)
    s = batch.similarity
    relation = resolve(batch, positives, exclude)
    negative = relation.negatives(s, exclude_above)
    n = largest(s, negative, 1)[:, 0]  # (B,) hardest negative
    p = hardest_positive(s, relation.positive)  # (B,)
    rows = rows_in_loss(relation.positive, negative)

    none, count = s.new_zeros(()), torch.zeros((), dtype=torch.int64, device=s.device)
    base_part = pair_part = batch_part = positive_part = negative_part = none
    active_positives = active_negatives = count
    total = batch.attach(none, valid=relation.valid)
    if base is not None:
        base_part = base_value(
            batch,
            relation,
            base,
            exclude_above=exclude_above,
            label_offset=label_offset,
            row_weight=row_weight,
        )
        total = total + base_weight * base_part
    if auxiliary is not None and auxiliary.pair_weight > 0:
        pair_part = pair_value(batch, p, n, rows, heads.pair_head)
        total = total + auxiliary.pair_weight * pair_part
    if auxiliary is not None and auxiliary.batch_weight > 0:
        batch_part = batch_value(
            batch,
            p,
            n,
            rows,
            heads.context_in,
            heads.context_layer,
            heads.context_head,
            (auxiliary.context_size, auxiliary.context_rows),
        )
        total = total + auxiliary.batch_weight * batch_part
    if threshold is not None:
        positive_part, negative_part, active_positives, active_negatives = threshold_parts(
            batch, relation, threshold, exclude_above=exclude_above
        )
        total = total + threshold.positive_weight * positive_part
        total = total + threshold.negative_weight * negative_part

    score = torch.where(n < 0, -torch.inf, pick(s, n[:, None])[:, 0])
    return LossTerms(
        total=total,
        base=base_part.detach(),
        pair=pair_part.detach(),
        batch=batch_part.detach(),
        tcm_positive=positive_part.detach(),
        tcm_negative=negative_part.detach(),
        hardest_score=batch.attach(score, valid=relation.valid).detach(),
        hardest_index=n,
        active_positives=active_positives,
        active_negatives=active_negatives,
    )


# The loss at several prefix widths, as the definition reads.


def matryoshka_loss(
    queries: Tensor,
    labels: Tensor,
    *arguments: Any,
    widths: Sequence[int],
    weights: Sequence[float] | None = None,
    **settings: Any,
) -> Tensor:
    """Sum over ``widths`` of weight times :func:`alc_loss` of the prefixes ``x[:, :width]``.

    Each prefix is normalised by its own norm. Source: Matryoshka representation learning,
    arXiv 2205.13147.

    Args:
        queries: (B, d) floating point.
        labels: (M, d).
        arguments, settings: those of :func:`alc_loss`. ``auxiliary`` is evaluated at the width
            that ``heads`` fit, d, alone.
        widths: ascending, each in 1 .. d.
        weights: one per width; None: all 1.

    Returns:
        0-d float32 (float64 for float64 inputs).
    """
    weights = [1.0] * len(widths) if weights is None else weights
    finite = torch.isfinite(queries).all() & torch.isfinite(labels).all()
    zero = torch.where(finite, 0.0, torch.nan)
    total = sum(((x * zero).sum() for x in (queries, labels)), start=queries.new_zeros(()))
    parts = dict(settings)
    for width, weight in zip(widths, weights, strict=True):
        if width != queries.shape[1]:
            parts["auxiliary"] = None
        else:
            parts["auxiliary"] = settings.get("auxiliary")
        prefixes = queries[:, :width], labels[:, :width]
        total = total + weight * alc_loss(*prefixes, *arguments, **parts).total
    return total
