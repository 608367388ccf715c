"""The losses as functions. Arguments mean the same wherever they occur.

Args:
    queries: (B, d) float64, float32, float16 or bfloat16.
    labels: (M, d), same dtype (any half/single mix under autocast), device and width.
    positives: None (query i matches label i, B = M), a LongTensor (B,) with the label column of
        each query, or :class:`Positives` of shape (B, M).
    exclude: pairs that are neither positive nor negative: None, a LongTensor (B,) or
        :class:`Positives`. A pair in both is positive.
    normalize: cosine similarity (True) or plain inner product (False).
    backend: "auto", "triton", "native" or "torch"; an explicit choice that cannot run raises.
    deterministic: bitwise repeatable on the same device.
    process_group: a torch.distributed group, or :class:`GlobalBatch` with options for it: the
        queries and labels of all its processes form one batch, in rank order. Every process must
        make the call. Label columns (index, csr, pairs, dense, and returned indices) are those of
        all labels together; None and from_ids take what is local. Scalar losses are the same on
        all, gradients those of the own rows; temperature, scale and bias get each process's
        share. See docs/large-batches.md.
    exclude_above: false-negative guard: negatives that score more than s_first - exclude_above,
        s_first the row's first positive, are excluded as well, and so are those that rounding
        alone may have lifted over that or kept from it: an exact copy of the positive at 0.
    label_offset: (M,) floating point, added to the logits of the softmax losses.
    row_weight: (B,) floating point; the loss becomes a weighted mean over rows.
    reduction: "mean", or "none" for (B,) weighted values, 0 for rows that do not take part.

Losses come back as 0-d tensors in float32 (float64 for float64 inputs). Similarities are in
[-1, 1] with ``normalize=True``. All raise TypeError or ValueError naming the argument, IndexError
for an index out of range on the CPU (on a GPU it makes the loss NaN), and BackendUnavailableError.
An input element that is not finite makes the loss and all gradients NaN.
"""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from alc_kernels.checks import Batch
from alc_kernels.distributed.settings import membership
from alc_kernels.engine.specification import Objective
from alc_kernels.ops import catalogue
from alc_kernels.ops.catalogue import Catalogue
from alc_kernels.ops.loss import similarity_loss
from alc_kernels.ops.mining import Options, mine
from alc_kernels.positives import Positives
from alc_kernels.settings import (
    Base,
    DynamicTriplet,
    Scalar,
    Sigmoid,
    Softmax,
    Symmetric,
    ThresholdMargin,
    Triplet,
)

__all__ = [
    "Catalogue",
    "hardest_negatives",
    "prepare",
    "sigmoid_loss",
    "softmax_loss",
    "threshold_margin_loss",
    "topk_similarity",
    "triplet_loss",
]

Relation = Positives | Tensor | None
Reduction = Literal["mean", "none"]


def hardest_negatives(
    queries: Tensor,
    labels: Tensor,
    positives: Relation = None,
    exclude: Relation = None,
    k: int = 1,
    *,
    normalize: bool = True,
    exclude_above: float | None = None,
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` hardest negatives of each query.

    Returns:
        scores (B, k), float32 or float64, descending, equal scores by smaller label; and indices
        (B, k) int64. Where a row has fewer than k negatives: -inf and -1. Gradients flow through
        the scores at the chosen labels, not through the choice.
    """
    return mine(
        Batch(queries, labels, positives, exclude), k,
        Options(normalize, exclude_above, backend, deterministic, membership(process_group)),
    )  # fmt: skip


def prepare(labels: Tensor, *, normalize: bool = True, backend: str = "auto") -> Catalogue:
    """Labels (M, d) for many calls of :func:`topk_similarity`: normalised and packed once.

    Without ``normalize`` and where ``labels`` are contiguous their memory is shared: they must not
    change afterwards. What is packed takes a quarter of their memory more (half with AVX2).

    Raises:
        ValueError: an element is not finite.
    """
    return catalogue.prepare(labels, normalize, backend)


def topk_similarity(
    queries: Tensor,
    labels: Tensor | Catalogue,
    k: int,
    exclude: Relation = None,
    *,
    normalize: bool = True,
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> tuple[Tensor, Tensor]:
    """The ``k`` most similar labels of each query: exact search without the B x M matrix.

    Args:
        labels: (M, d), or what :func:`prepare` made of them: the scores then carry no gradient,
            ``normalize`` must be that of ``prepare``, and there is no process group.

    Returns:
        As :func:`hardest_negatives`, over all labels that are not excluded.
    """
    if isinstance(labels, Catalogue):
        given = {"normalize": normalize, "backend": backend, "process_group": process_group}
        usual = {"normalize": labels.normalize, "backend": labels.backend, "process_group": None}
        for name, value in given.items():
            if value not in (usual[name], "auto"):
                raise ValueError(f"{name}={value!r}: the prepared labels have {usual[name]!r}")
        return catalogue.search(queries, labels, k, exclude)
    return mine(
        Batch(queries, labels, None, exclude), k,
        Options(normalize, None, backend, deterministic, membership(process_group)),
        positives=False,
    )  # fmt: skip


def triplet_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Relation = None,
    exclude: Relation = None,
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
    reduction: Reduction = "mean",
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> Tensor:
    """Margin loss over hardest negatives; see :class:`Triplet`.

    ``dynamic_margin=(min, max)`` takes the form of :class:`DynamicTriplet` instead, with its
    ``band_gradient``; ``margin`` is then not used.
    """
    shared = (num_negatives, weight_temperature, positive, symmetric)
    base: Base
    if dynamic_margin is None:
        base = Triplet(margin, *shared)
    else:
        if not isinstance(dynamic_margin, tuple | list) or len(dynamic_margin) != 2:
            raise ValueError(f"dynamic_margin={dynamic_margin!r}: expected (min, max) or None")
        base = DynamicTriplet(dynamic_margin[0], dynamic_margin[1], *shared, band_gradient)
    objective = Objective(
        base=base,
        exclude_above=exclude_above,
        normalize=normalize,
        reduction=reduction,
        deterministic=deterministic,
    )
    return similarity_loss(
        Batch(queries, labels, positives, exclude, row_weight=row_weight), objective,
        backend=backend, group=membership(process_group),
    ).loss  # fmt: skip


def softmax_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Relation = None,
    exclude: Relation = None,
    *,
    temperature: Scalar = 0.05,
    decoupled: bool = False,
    symmetric: bool = False,
    normalize: bool = True,
    exclude_above: float | None = None,
    label_offset: Tensor | None = None,
    row_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> Tensor:
    """Softmax cross-entropy over the labels; see :class:`Softmax`."""
    objective = Objective(
        base=Softmax(temperature, decoupled, symmetric),
        exclude_above=exclude_above,
        normalize=normalize,
        reduction=reduction,
        deterministic=deterministic,
    )
    return similarity_loss(
        Batch(queries, labels, positives, exclude, label_offset, row_weight), objective,
        backend=backend, group=membership(process_group),
    ).loss  # fmt: skip


def sigmoid_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Relation = None,
    exclude: Relation = None,
    *,
    scale: Scalar = 10.0,
    bias: Scalar = -10.0,
    normalize: bool = True,
    exclude_above: float | None = None,
    row_weight: Tensor | None = None,
    reduction: Reduction = "mean",
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> Tensor:
    """Pairwise sigmoid loss, mean over all B rows; see :class:`Sigmoid`.

    To learn scale and bias pass 0-d tensors that require gradients.
    """
    objective = Objective(
        base=Sigmoid(scale, bias),
        exclude_above=exclude_above,
        normalize=normalize,
        reduction=reduction,
        deterministic=deterministic,
    )
    return similarity_loss(
        Batch(queries, labels, positives, exclude, row_weight=row_weight), objective,
        backend=backend, group=membership(process_group),
    ).loss  # fmt: skip


def threshold_margin_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Relation = None,
    exclude: Relation = None,
    *,
    positive_margin: float = 0.9,
    negative_margin: float = 0.5,
    positive_weight: float = 1.0,
    negative_weight: float = 1.0,
    negative_scope: Literal["all", "hardest"] = "all",
    reduction: Literal["active", "rows"] = "active",
    normalize: bool = True,
    exclude_above: float | None = None,
    backend: str = "auto",
    deterministic: bool = False,
    process_group: object | None = None,
) -> Tensor:
    """Threshold-consistent margin loss; see :class:`ThresholdMargin` (``reduction`` is its own)."""
    threshold = ThresholdMargin(
        positive_margin,
        negative_margin,
        positive_weight,
        negative_weight,
        negative_scope,
        reduction,
    )
    objective = Objective(
        threshold=threshold,
        exclude_above=exclude_above,
        normalize=normalize,
        deterministic=deterministic,
    )
    return similarity_loss(
        Batch(queries, labels, positives, exclude), objective,
        backend=backend, group=membership(process_group),
    ).loss  # fmt: skip
