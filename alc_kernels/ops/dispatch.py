"""The dispatch that every similarity loss goes through: arguments to operator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from alc_kernels import checks
from alc_kernels.distributed.control import refusing
from alc_kernels.distributed.settings import for_call, scalar_text
from alc_kernels.engine.choose import check_backend
from alc_kernels.engine.interface import accumulation_dtype
from alc_kernels.engine.specification import Objective
from alc_kernels.ops.loss import SimilarityLoss, similarity_loss_op
from alc_kernels.ops.matryoshka import MatryoshkaResult, matryoshka_loss_op
from alc_kernels.positives import Positives
from alc_kernels.settings import Sigmoid, Softmax


def wants_gradient(x: Tensor) -> bool:
    """Whether a backward could ask for the gradient of ``x``."""
    return x.requires_grad and torch.is_grad_enabled()


def similarity_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None,
    exclude: Positives | Tensor | None,
    objective: Objective,
    *,
    label_offset: Tensor | None = None,
    row_weight: Tensor | None = None,
    pair_head: tuple[Tensor, Tensor] | None = None,
    backend: str = "auto",
    group: str = "",
) -> SimilarityLoss:
    """Check the arguments and call the operator.

    ``pair_head`` is the weight (4d,) and bias (0-d) of the pair part, for ``objective.mine``.
    ``group`` is what ``distributed.membership`` made of a process group.
    """
    given = queries, labels, positives, exclude, objective
    more = label_offset, row_weight, pair_head, backend
    if not group or torch.compiler.is_compiling():
        return SimilarityLoss(*similarity_loss_op(*_arguments(*given, *more, group)))
    with refusing(group):
        arguments = _arguments(*given, *more, group)
    return SimilarityLoss(*similarity_loss_op(*arguments))


def matryoshka_loss(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None,
    exclude: Positives | Tensor | None,
    objective: Objective,
    widths: list[int],
    weights: list[float],
    *,
    label_offset: Tensor | None = None,
    row_weight: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, Tensor]:
    """Check the arguments and call the operator: the weighted sum, and each width's loss (W,)."""
    (
        queries, labels, scalars, _, _, related, excluded, offset, weight, kind, excluded_kind,
        encoded, dtype, backend, _, *wants, _,
    ) = _arguments(
        queries, labels, positives, exclude, objective, label_offset, row_weight, None, backend, ""
    )  # fmt: skip
    result = MatryoshkaResult(
        *matryoshka_loss_op(
            queries, labels, scalars, related, excluded, offset, weight, kind, excluded_kind,
            encoded, widths, weights, dtype, backend, *wants,
        )
    )  # fmt: skip
    return result.loss, result.losses


def _arguments(
    queries: Tensor,
    labels: Tensor,
    positives: Positives | Tensor | None,
    exclude: Positives | Tensor | None,
    objective: Objective,
    label_offset: Tensor | None,
    row_weight: Tensor | None,
    pair_head: tuple[Tensor, Tensor] | None,
    backend: str,
    group: str,
) -> tuple[Any, ...]:
    """The operator's arguments."""
    compute_dtype = checks.check_embeddings(queries, labels)
    check_backend(backend)
    guard = checks.check_exclude_above(objective.exclude_above)
    if guard is not None:
        objective = replace(objective, exclude_above=guard)
    checks.check_flag("normalize", objective.normalize)
    checks.check_flag("deterministic", objective.deterministic)
    across = bool(group)
    relation = checks.check_relation("positives", positives, queries, labels, across)
    excluded = checks.check_relation("exclude", exclude, queries, labels, across)
    acc, base = accumulation_dtype(compute_dtype), objective.base
    if objective.reduction not in ("mean", "none"):
        raise ValueError(f"reduction={objective.reduction!r}: expected 'mean' or 'none'")
    if objective.reduction == "none" and getattr(base, "symmetric", False):
        raise ValueError("reduction='none': a symmetric loss has no value per row; use 'mean'")
    if label_offset is not None and not isinstance(base, Softmax):
        raise ValueError("label_offset: only the softmax losses take one")
    if row_weight is not None and base is None:
        raise ValueError("row_weight: weights the rows of a base loss, and there is none")
    offset = checks.check_vector(
        "label_offset", label_offset, labels.shape[0], "label", queries, acc
    )
    weight = checks.check_vector("row_weight", row_weight, queries.shape[0], "query", queries, acc)
    scalars = _scalars(base, queries, compute_dtype)
    head_weight, head_bias = pair_head if pair_head is not None else (None, None)
    now = objective.reduction == "mean"  # a gradient per row is evaluated in the backward
    return (
        queries,
        labels,
        scalars,
        head_weight,
        head_bias,
        list(relation.tensors),
        list(excluded.tensors),
        offset,
        weight,
        relation.kind,
        excluded.kind,
        objective.encode(),
        compute_dtype,
        backend,
        for_call(group, relation, excluded, scalar_text(base)),
        now and wants_gradient(queries),
        now and wants_gradient(labels),
        now and wants_gradient(scalars),
        head_weight is not None and wants_gradient(head_weight),
    )


def _scalars(base: object, queries: Tensor, compute_dtype: torch.dtype) -> Tensor:
    """(2,) acc: what of the base loss may receive a gradient."""
    first: float | Tensor = 0.0
    second: float | Tensor = 0.0
    if isinstance(base, Softmax):
        first = base.temperature
    elif isinstance(base, Sigmoid):
        first, second = base.scale, base.bias
    if not isinstance(first, Tensor) and not isinstance(base, Sigmoid):
        # The second is not used.
        acc = accumulation_dtype(compute_dtype)
        return torch.full((2,), first, dtype=acc, device=queries.device)
    names = ("temperature", "") if isinstance(base, Softmax) else ("scale", "bias")
    parts = [
        checks.scalar_tensor(name, value, queries, compute_dtype)
        for name, value in zip(names, (first, second), strict=True)
    ]
    return torch.stack(parts)
