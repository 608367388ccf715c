"""The embeddings of each row's mined pairs, for the batch part of ALC."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.interface import accumulation_dtype
from alc_kernels.ops.finish import no_second_derivative
from alc_kernels.ops.prepare import plain_arithmetic, prepare


@torch.library.custom_op("alc_kernels::gather_pairs", mutates_args=())
def gather_pairs_op(
    queries: Tensor,
    labels: Tensor,
    index: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    """Prepared queries (B, d) and their labels (B, t, d), both acc; zeros where the index is -1."""
    with plain_arithmetic(queries.device):
        none = ("empty", [])
        prepared = prepare(queries, labels, none, none, compute_dtype, normalize, backend)
        problem = prepared.problem
        a = problem.queries.to(problem.acc, copy=True)
        if problem.labels.shape[0] == 0:
            return a, a.new_zeros(*index.shape, a.shape[1])
        b = problem.labels[index.clamp(min=0)].to(problem.acc)
        return a, torch.where((index < 0)[..., None], 0.0, b)


@gather_pairs_op.register_fake
def _(
    queries: Tensor,
    labels: Tensor,
    index: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
) -> tuple[Tensor, Tensor]:
    acc, device = accumulation_dtype(compute_dtype), queries.device
    shape = (*index.shape, queries.shape[1])
    return (
        torch.empty(queries.shape, dtype=acc, device=device),
        torch.empty(shape, dtype=acc, device=device),
    )


@torch.library.custom_op("alc_kernels::gather_pairs_backward", mutates_args=())
def gather_pairs_backward_op(
    queries: Tensor,
    labels: Tensor,
    index: Tensor,
    upstream_queries: Tensor,
    upstream_labels: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    want_queries: bool,
    want_labels: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients by queries and labels in their dtypes; empty where not wanted."""
    with plain_arithmetic(queries.device):
        none = ("empty", [])
        prepared = prepare(queries, labels, none, none, compute_dtype, normalize, backend)
        one = torch.ones((), dtype=prepared.problem.acc, device=queries.device)
        grad_queries, grad_labels = queries.new_empty(0), labels.new_empty(0)
        finish = prepared.backend.normalize_rows_backward
        if want_queries:
            inverse = prepared.inverse_queries if normalize else None
            grad_queries = finish(upstream_queries.contiguous(), queries, inverse, one)
        if want_labels:
            rows = torch.zeros(labels.shape, dtype=one.dtype, device=labels.device)
            if labels.shape[0]:
                values = torch.where((index < 0)[..., None], 0.0, upstream_labels).flatten(0, 1)
                flat = index.clamp(min=0).flatten()
                if deterministic and rows.is_cuda:
                    rows.index_put_((flat,), values, accumulate=True)
                else:
                    rows.index_add_(0, flat, values)
            inverse = prepared.inverse_labels if normalize else None
            grad_labels = finish(rows, labels, inverse, one)
        return grad_queries, grad_labels


@gather_pairs_backward_op.register_fake
def _(
    queries: Tensor,
    labels: Tensor,
    index: Tensor,
    upstream_queries: Tensor,
    upstream_labels: Tensor,
    normalize: bool,
    compute_dtype: torch.dtype,
    backend: str,
    deterministic: bool,
    want_queries: bool,
    want_labels: bool,
) -> tuple[Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape if want_queries else (0,)),
        labels.new_empty(labels.shape if want_labels else (0,)),
    )


gather_pairs_backward_op.register_autograd(no_second_derivative)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    queries, labels, index, *ctx.plain = inputs
    ctx.save_for_backward(queries, labels, index)


def _backward(ctx: Any, upstream_queries: Tensor, upstream_labels: Tensor) -> tuple[Any, ...]:
    want = ctx.needs_input_grad[:2]
    grads = gather_pairs_backward_op(
        *ctx.saved_tensors, upstream_queries, upstream_labels, *ctx.plain, *want
    )
    return (grads[0] if want[0] else None, grads[1] if want[1] else None, *(None,) * 5)


gather_pairs_op.register_autograd(_backward, setup_context=_setup_context)
