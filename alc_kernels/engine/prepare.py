"""From an operator's arguments to a prepared problem."""

from __future__ import annotations

from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.both_sides import poison_unless
from alc_kernels.engine.choose import choose_backend
from alc_kernels.engine.interface import Backend, Problem, accumulation_dtype, add_by_label
from alc_kernels.engine.operator import define
from alc_kernels.positives import OVER_ALL_LABELS, Positives, _check_range


@dataclass
class Prepared:
    """A problem with what is needed to take its gradients back to the inputs."""

    backend: Backend
    problem: Problem
    inverse_queries: Tensor  # (B,) acc inverse norms; empty without normalisation
    inverse_labels: Tensor  # (M,)
    poison: Tensor  # 0-d acc: 1, or NaN when an input is not finite or an index out of range


def plain_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """No autograd and no autocast: the operator decides on every dtype itself."""
    if not torch.is_autocast_enabled(device.type):
        return torch.no_grad() if torch.is_grad_enabled() else nullcontext()
    both = ExitStack()
    both.enter_context(torch.no_grad())
    both.enter_context(torch.autocast(device.type, enabled=False))
    return both


def relation(
    name: str, kind: str, tensors: list[Tensor], num_queries: int, num_labels: int
) -> tuple[Positives, Tensor | None]:
    """Rebuild a relation from an operator's arguments.

    An index on the CPU is checked here; one on a GPU is clamped, and the second result, a 0-d
    bool tensor, says whether it was in range: looking would make the host wait.
    """
    if kind != "index":
        return Positives(kind, num_queries, num_labels, tuple(tensors)), None
    index = tensors[0]
    if not index.is_cuda:
        _check_range(name, index, num_labels, "number of labels")
        return Positives(kind, num_queries, num_labels, (index,)), None
    inside = ((index >= 0) & (index < num_labels)).all()
    if num_labels == 0:
        return Positives._empty(num_queries, 0), inside
    clamped = index.clamp(0, num_labels - 1)
    return Positives(kind, num_queries, num_labels, (clamped,)), inside


def prepare(
    queries: Tensor,
    labels: Tensor,
    positives: tuple[str, list[Tensor]],
    exclude: tuple[str, list[Tensor]],
    compute_dtype: torch.dtype,
    normalize: bool,
    backend: str,
    num_columns: int | None = None,
) -> Prepared:
    """Choose the backend, normalise the rows and rebuild the relations.

    ``num_columns``: of relations over the labels of all processes.
    """
    chosen = choose_backend(backend, queries, compute_dtype)
    rows, columns = queries.shape[0], labels.shape[0]

    def rebuilt(name: str, kind: str, tensors: list[Tensor]) -> tuple[Positives, Tensor | None]:
        if num_columns is not None and kind in OVER_ALL_LABELS:
            return relation(name, kind, tensors, rows, num_columns)
        return relation(name, kind, tensors, rows, columns)

    positive, positive_inside = rebuilt("positives", *positives)
    excluded, excluded_inside = rebuilt("exclude", *exclude)
    unit_queries, inverse_queries, unit_labels, inverse_labels, poison = chosen.normalize_both(
        queries, labels, compute_dtype, normalize
    )
    acc = accumulation_dtype(compute_dtype)
    for inside in (positive_inside, excluded_inside):
        if inside is not None:
            poison = poison * poison_unless(acc, inside)
    if inverse_queries is None or inverse_labels is None:
        inverse_queries, inverse_labels = (queries.new_empty(0, dtype=acc) for _ in range(2))
    return Prepared(
        backend=chosen,
        problem=Problem(unit_queries, unit_labels, positive, excluded, None),
        inverse_queries=inverse_queries,
        inverse_labels=inverse_labels,
        poison=poison,
    )


# The last step of every backward: un-normalise, apply the upstream gradient, round once.


def _finish_gradient(
    grad: Tensor,
    x: Tensor,
    inverse_norm: Tensor,
    upstream: Tensor,
    more: Tensor | None,
    index: Tensor | None,
    normalize: bool,
    deterministic: bool,
    backend: str,
) -> Tensor:
    """Gradient of the raw rows ``x`` (n, d), in x.dtype.

    Args:
        grad: (n, d) acc, by the prepared rows, for an upstream gradient of 1.
        inverse_norm: (n,) acc; empty without normalisation.
        upstream: 0-d acc.
        more: a further gradient by the prepared rows, acc, added as it is: (n, d), or with
            ``index`` (B, t), the rows it belongs to, (B, t, d).
    """
    with plain_arithmetic(x.device):
        chosen = choose_backend(backend, x, x.dtype)
        inverse = inverse_norm if normalize else None
        if more is not None:
            if index is None:
                grad = torch.addcmul(more, grad, upstream)
            else:
                grad = grad * upstream
                if grad.shape[0] > 0:
                    more = torch.where((index < 0)[..., None], 0.0, more)
                    add_by_label(grad, index, more, deterministic)
            upstream = torch.ones_like(upstream)
        return chosen.normalize_rows_backward(grad, x, inverse, upstream)


def _finish_gradient_fake(x: Tensor, **_: Any) -> Tensor:
    return torch.empty(x.shape, dtype=x.dtype, device=x.device)


finish_gradient = define("finish_gradient", _finish_gradient, _finish_gradient_fake, 5)
