"""What the softmax needs of the positives alone, and the counts of pairs, before any tile.

The positives are few: each is one dot product of two rows, with no tile of S around it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, join_exp_sums
from alc_kernels.backends.triton.tile.relation import (
    NO_COLUMN,
    any_row,
    first_entry,
    next_entry,
    open_rows,
    walk_arguments,
)
from alc_kernels.engine.interface import Problem

ROWS = 16  # per program: its time is that of the row with the most positives
MAX_DEPTH = 256
NUM_WARPS = 4


@triton.jit
def pair_products(queries_ptr, labels_ptr, b_rows, b_label, b_here, d, DEPTH: tl.constexpr):
    """(R,) float32: query b_rows times label b_label, 0 where not b_here."""
    b_depth = tl.arange(0, DEPTH)
    b_s = tl.zeros(b_rows.shape, tl.float32)
    for at in range(0, d, DEPTH):
        b_in = b_here[:, None] & (at + b_depth < d)[None, :]
        b_at = (at + b_depth)[None, :]
        b_q = tl.load(queries_ptr + b_rows[:, None] * d + b_at, mask=b_in, other=0.0)
        b_k = tl.load(labels_ptr + b_label[:, None] * d + b_at, mask=b_in, other=0.0)
        b_s += tl.sum(b_q.to(tl.float32) * b_k.to(tl.float32), 1)
    return b_s


@triton.jit
def _holds(KIND: tl.constexpr, col_ptr, b_key, b_end, b_column, b_here):
    """(R,) bool: the row holds b_column; key and end as ``open_rows`` leaves them at column 0."""
    if KIND == "csr" or KIND == "ranges":
        b_entry = first_entry(col_ptr, tl.where(b_here, b_key, b_end), b_end, b_column)
        b_found = tl.load(col_ptr + b_entry, mask=b_here & (b_entry < b_end), other=NO_COLUMN)
        b_held = b_here & (b_found == b_column)
    else:
        b_held = b_here & (b_key == b_column)
    return b_held


@triton.jit(do_not_specialize=["num_queries", "num_labels"])
def positive_logits_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    positive_row_ptr,  # see relation.py
    positive_col_ptr,
    exclude_row_ptr,
    exclude_col_ptr,
    slope_ptr,  # 0-d float32
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    count_ptr,  # (2, B) int64: positives, negatives
    stats_ptr,  # (3, B) float32, LOGITS only: maximum and sum of 2^(z - maximum), sum of z
    num_queries,
    num_labels,
    d,
    POSITIVES: tl.constexpr,
    EXCLUDE: tl.constexpr,
    LOGITS: tl.constexpr,
    HAS_OFFSET: tl.constexpr,
    ROWS: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Per row: counts, and over the positives the log-sum-exp (in base 2) and the sum of z."""
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    b_rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    b_row_in = b_rows < num_queries
    zero = tl.zeros((), tl.int64)
    b_key, b_end, b_next, _next = open_rows(
        POSITIVES, positive_row_ptr, positive_col_ptr, b_rows, b_row_in, zero
    )
    b_exc_key, b_exc_end, _exc_next, _exc = open_rows(
        EXCLUDE, exclude_row_ptr, exclude_col_ptr, b_rows, b_row_in, zero
    )
    b_excluded = tl.zeros((ROWS,), tl.int64)
    if EXCLUDE == "csr" or EXCLUDE == "ranges":
        b_excluded = b_exc_end - b_exc_key
    elif EXCLUDE != "empty":
        b_excluded += 1
    slope = 1.0
    if LOGITS:
        slope = tl.load(slope_ptr)
    b_count = tl.zeros((ROWS,), tl.int64)
    b_max = tl.zeros((ROWS,), tl.float32) - float("inf")
    b_sum = tl.zeros((ROWS,), tl.float32)
    b_total = b_sum
    b_here = b_next < NO_COLUMN
    more = any_row(b_here)
    while more:
        b_label = tl.where(b_here, b_next, 0)
        b_count += b_here.to(tl.int64)
        if EXCLUDE != "empty":  # a pair in both relations is a positive
            b_both = _holds(EXCLUDE, exclude_col_ptr, b_exc_key, b_exc_end, b_label, b_here)
            b_excluded -= b_both.to(tl.int64)
        if LOGITS:
            b_z = slope * pair_products(queries_ptr, labels_ptr, b_rows, b_label, b_here, d, DEPTH)
            if HAS_OFFSET:
                b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0)
            b_total += tl.where(b_here, b_z, 0.0)
            b_z = tl.where(b_here, b_z * LOG2_E, float("-inf"))
            b_max, b_sum = join_exp_sums(b_max, b_sum, b_z, b_here.to(tl.float32))
        b_key, b_next = next_entry(POSITIVES, positive_col_ptr, b_key, b_end, b_next, b_here)
        b_here = b_next < NO_COLUMN
        more = any_row(b_here)
    b_negatives = num_labels - b_count - b_excluded
    tl.store(count_ptr + b_rows, b_count, mask=b_row_in)
    tl.store(count_ptr + num_queries + b_rows, b_negatives, mask=b_row_in)
    if LOGITS:
        tl.store(stats_ptr + b_rows, b_max, mask=b_row_in)
        tl.store(stats_ptr + num_queries + b_rows, b_sum, mask=b_row_in)
        tl.store(stats_ptr + 2 * num_queries + b_rows, b_total, mask=b_row_in)


@dataclass(frozen=True)
class PositiveLogits:
    """Per row, before the walk. The last three only when there is a softmax."""

    num_positives: Tensor  # (B,) int64
    num_negatives: Tensor  # (B,) int64: labels that are neither positive nor excluded
    maximum: Tensor  # (B,) float32: largest z of a positive in base 2, -inf where there is none
    sum: Tensor  # (B,) float32: sum over the positives of 2^(z - maximum)
    logit_sum: Tensor  # (B,) float32: sum of z over the positives


def positive_logits(
    problem: Problem, slope: Tensor | None = None, label_offset: Tensor | None = None
) -> PositiveLogits:
    """Counts of pairs and, with ``slope`` (0-d), the positives' share of the softmax.

    There is at least one query, and no guard.
    """
    queries, labels = problem.queries, problem.labels
    b, d = queries.shape
    device = queries.device
    counts = torch.empty((2, b), dtype=torch.int64, device=device)
    stats = torch.empty((3, b), dtype=torch.float32, device=device)
    positives = walk_arguments(problem.positives, device)
    exclude = walk_arguments(problem.exclude, device)
    with on_device_of(queries):
        positive_logits_kernel[(triton.cdiv(b, ROWS),)](
            queries, labels, positives.row_ptr, positives.col_ptr, exclude.row_ptr,
            exclude.col_ptr, stats if slope is None else slope,
            stats if label_offset is None else label_offset.contiguous(), counts, stats, b,
            labels.shape[0], d, POSITIVES=positives.kind, EXCLUDE=exclude.kind,
            LOGITS=slope is not None, HAS_OFFSET=label_offset is not None, ROWS=ROWS,
            DEPTH=depth_for(d), num_warps=NUM_WARPS,
        )  # fmt: skip
    return PositiveLogits(counts[0], counts[1], stats[0], stats[1], stats[2])


def depth_for(d: int) -> int:
    """Elements of two rows that are multiplied at a time."""
    return min(MAX_DEPTH, max(16, triton.next_power_of_2(d)))
