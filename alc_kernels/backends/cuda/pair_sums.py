"""The gradient of listed pairs: pairs without effect dropped, each sum by one owner, repeatable."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.cuda import operators
from alc_kernels.engine.interface import Problem


def add_pair_gradients(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> None:
    """See ``interface.Backend.pair_gradient``; always bitwise repeatable.

    A triplet's inactive negatives have coefficient 0: compaction takes them, and the missing
    labels, out before anything is gathered. Their number is known to the device only, so the
    sort by label runs over all places; unused ones sort behind the last label.
    """
    num_labels, d = problem.labels.shape
    if index.numel() == 0 or num_labels == 0 or d == 0:
        return
    index, coefficient = index.contiguous(), coefficient.contiguous()
    offsets, row, label, value = operators.compact_pairs(index, coefficient, num_labels)
    if grad_queries is not None:
        operators.segment_sum(offsets, None, label, value, problem.labels, grad_queries, False)
    if grad_labels is not None:
        used = torch.arange(index.numel(), device=index.device) < offsets[-1]
        # Half the radix passes when the labels fit 32 bits.
        dtype = torch.int32 if num_labels < 2**31 - 1 else torch.int64
        by_label, order = torch.sort(torch.where(used, label, num_labels).to(dtype), stable=True)
        starts = torch.arange(num_labels + 1, device=index.device, dtype=dtype)
        begins = torch.searchsorted(by_label, starts)
        operators.segment_sum(begins, order, row, value, problem.queries, grad_labels, True)
