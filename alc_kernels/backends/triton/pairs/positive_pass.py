"""Sums over the positives that need the finished log-sum-exp of their row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import given_or, on_device_of
from alc_kernels.backends.triton.tile.arithmetic import sigmoid, softplus
from alc_kernels.backends.triton.tile.product import Rows, depth_for, embeddings, pair_products
from alc_kernels.backends.triton.tile.relation import (
    NO_COLUMN,
    Relation,
    any_row,
    next_entry,
    open_rows,
    walk_arguments,
)
from alc_kernels.engine.interface import Problem

ROWS = 16  # per program: its time is that of the row with the most positives
NUM_WARPS = 4


@triton.jit(do_not_specialize=["num_queries"])
def positive_pass_kernel(
    rows: Rows,
    positives: Relation,
    lse_ptr,
    inverse_temperature_ptr,
    offset_ptr,
    softplus_ptr,
    sigmoid_ptr,
    num_queries,
    HAS_OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Per row, over its positives: sums of softplus(lse - z) and sigmoid(lse - z), in float32.

    The positives are few, so each is one dot product of two rows, with no tile of S around it.
    """
    b_rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b_row_in = b_rows < num_queries
    inverse_temperature = tl.load(inverse_temperature_ptr)
    b_lse = tl.load(lse_ptr + b_rows, mask=b_row_in, other=0.0)
    b_softplus = tl.zeros((ROWS,), tl.float32)
    b_sigmoid = tl.zeros((ROWS,), tl.float32)
    b_end, at = open_rows(positives, b_rows, b_row_in, tl.zeros((), tl.int64))
    b_key, b_next, _next = at
    b_here = b_next < NO_COLUMN
    more = any_row(b_here)
    while more:
        b_label = tl.where(b_here, b_next, 0)
        b_s = pair_products(rows, b_rows, b_label, b_here, DEPTH)
        b_z = b_s * inverse_temperature
        if HAS_OFFSET:
            b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0)
        b_softplus += tl.where(b_here, softplus(b_lse - b_z), 0.0)
        b_sigmoid += tl.where(b_here, sigmoid(b_lse - b_z), 0.0)
        b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
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
    b = queries.shape[0]
    if b == 0 or labels.shape[0] == 0 or problem.positives.kind == "empty":
        return torch.zeros_like(log_sum_exp), torch.zeros_like(log_sum_exp)
    positives = walk_arguments(problem.positives, queries.device)
    softplus_sum, sigmoid_sum = torch.empty_like(log_sum_exp), torch.empty_like(log_sum_exp)
    with on_device_of(queries):
        positive_pass_kernel[(triton.cdiv(b, ROWS),)](
            embeddings(queries, labels), positives, log_sum_exp.contiguous(), inverse_temperature,
            given_or(label_offset, log_sum_exp), softplus_sum, sigmoid_sum, b,
            HAS_OFFSET=label_offset is not None, ROWS=ROWS, DEPTH=depth_for(queries.shape[1]),
            num_warps=NUM_WARPS,
        )  # fmt: skip
    return softplus_sum, sigmoid_sum
