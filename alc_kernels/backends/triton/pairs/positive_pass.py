"""Sums over the positives that need the finished log-sum-exp of their row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.tile.arithmetic import sigmoid, softplus
from alc_kernels.backends.triton.tile.relation import (
    NO_COLUMN,
    any_row,
    next_entry,
    open_rows,
    walk_arguments,
)
from alc_kernels.engine.interface import Problem

ROWS = 16  # per program: its time is that of the row with the most positives
MAX_DEPTH = 256
NUM_WARPS = 4


@triton.jit(do_not_specialize=["num_queries"])
def positive_pass_kernel(
    queries_ptr,
    labels_ptr,
    row_ptr,
    col_ptr,
    lse_ptr,
    inverse_temperature_ptr,
    offset_ptr,
    softplus_ptr,
    sigmoid_ptr,
    num_queries,
    d,
    KIND: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Per row, over its positives: sums of softplus(lse - z) and sigmoid(lse - z), in float32.

    The positives are few, so each is one dot product of two rows, with no tile of S around it.
    """
    b_rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b_row_in = b_rows < num_queries
    b_depth = tl.arange(0, DEPTH)
    inverse_temperature = tl.load(inverse_temperature_ptr)
    b_lse = tl.load(lse_ptr + b_rows, mask=b_row_in, other=0.0)
    b_softplus = tl.zeros((ROWS,), tl.float32)
    b_sigmoid = tl.zeros((ROWS,), tl.float32)
    b_key, b_end, b_next, _next = open_rows(
        KIND, row_ptr, col_ptr, b_rows, b_row_in, tl.zeros((), tl.int64)
    )
    b_here = b_next < NO_COLUMN
    more = any_row(b_here)
    while more:
        b_s = tl.zeros((ROWS,), tl.float32)
        b_label = tl.where(b_here, b_next, 0)
        for at in range(0, d, DEPTH):
            b_in = b_here[:, None] & (at + b_depth < d)[None, :]
            b_at = (at + b_depth)[None, :]
            b_q = tl.load(queries_ptr + b_rows[:, None] * d + b_at, mask=b_in, other=0.0)
            b_k = tl.load(labels_ptr + b_label[:, None] * d + b_at, mask=b_in, other=0.0)
            b_s += tl.sum(b_q.to(tl.float32) * b_k.to(tl.float32), 1)
        b_z = b_s * inverse_temperature
        if HAS_OFFSET:
            b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0)
        b_softplus += tl.where(b_here, softplus(b_lse - b_z), 0.0)
        b_sigmoid += tl.where(b_here, sigmoid(b_lse - b_z), 0.0)
        b_key, b_next = next_entry(KIND, col_ptr, b_key, b_end, b_next, b_here)
        b_here = b_next < NO_COLUMN
        more = any_row(b_here)
    tl.store(softplus_ptr + b_rows, b_softplus, mask=b_row_in)
    tl.store(sigmoid_ptr + b_rows, b_sigmoid, mask=b_row_in)


def positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``Backend.positive_pass``."""
    queries, labels = problem.queries, problem.labels
    b, d = queries.shape
    if b == 0 or labels.shape[0] == 0 or problem.positives.kind == "empty":
        return torch.zeros_like(log_sum_exp), torch.zeros_like(log_sum_exp)
    positives = walk_arguments(problem.positives, queries.device)
    softplus_sum, sigmoid_sum = torch.empty_like(log_sum_exp), torch.empty_like(log_sum_exp)
    offset = log_sum_exp if label_offset is None else label_offset.contiguous()
    with on_device_of(queries):
        positive_pass_kernel[(triton.cdiv(b, ROWS),)](
            queries, labels, positives.row_ptr, positives.col_ptr, log_sum_exp.contiguous(),
            inverse_temperature, offset, softplus_sum, sigmoid_sum, b, d,
            KIND=positives.kind, HAS_OFFSET=label_offset is not None, ROWS=ROWS,
            DEPTH=min(MAX_DEPTH, max(16, triton.next_power_of_2(d))), num_warps=NUM_WARPS,
        )  # fmt: skip
    return softplus_sum, sigmoid_sum
