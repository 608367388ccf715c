"""The one pass, row by row: what it needs of the positives before, and what it finishes after.

The positives are few: each is one dot product of two rows, with no tile of S around it. Before:
counts of pairs and the positives' share of the softmax (``positive_logits``). After a chunk's
exponentials: row sums, the factor that makes them probabilities, positives (``row_factors``).

With E = 2^(z - reference), N = sum of a row's E over the negatives and A = N + the positives'
sum, the row's coefficients are a factor times what stands in the workspace:

    softmax    factor = row_scale / (T A)              positive: e_p - A / P
    decoupled  factor = row_scale sum_p sigma_p / (T P N)   positive: -N sigma_p / sum_p sigma_p
               sigma_p = N / (N + e_p) = sigmoid(lse_N - z_p)

With one positive both are factor = row_scale / (T A), positive: -N. That is the sum of the
others, so nothing cancels, however close to 1 the positive's probability is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.dense.kernel import Space
from alc_kernels.backends.triton.launch import given_or, on_device_of
from alc_kernels.backends.triton.one_pass.kernel import Logit
from alc_kernels.backends.triton.tile.arithmetic import (
    LN_2,
    LOG2_E,
    join_exp_sums,
    rounded,
    sigmoid,
    softplus,
)
from alc_kernels.backends.triton.tile.product import Rows, depth_for, embeddings, pair_products
from alc_kernels.backends.triton.tile.relation import (
    NO_COLUMN,
    Relation,
    any_row,
    first_entry,
    next_entry,
    open_rows,
    walk_arguments,
)
from alc_kernels.engine.interface import Problem

ROWS = 16  # per program: its time is that of the row with the most positives
TILES = 64  # partial sums that are added at a time
NUM_WARPS = 4


@triton.jit
def _holds(relation, b_key, b_end, b_column, b_here):
    """(R,) bool: the row holds b_column; key and end as ``open_rows`` leaves them at column 0."""
    if relation.kind == "csr" or relation.kind == "ranges":
        b_entry = first_entry(relation.col_ptr, tl.where(b_here, b_key, b_end), b_end, b_column)
        b_found = tl.load(
            relation.col_ptr + b_entry, mask=b_here & (b_entry < b_end), other=NO_COLUMN
        )
        b_held = b_here & (b_found == b_column)
    else:
        b_held = b_here & (b_key == b_column)
    return b_held


@triton.jit(do_not_specialize=["num_queries", "num_labels"])
def positive_logits_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    slope_ptr,  # 0-d float32
    offset_ptr,  # (M,) float32, HAS_OFFSET only
    count_ptr,  # (2, B) int64: positives, negatives
    stats_ptr,  # (3, B) float32, LOGITS only: maximum and sum of 2^(z - maximum), sum of z
    num_queries,
    num_labels,
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
    b_end, at = open_rows(positives, b_rows, b_row_in, zero)
    b_key, b_next, _next = at
    b_exc_end, exc_at = open_rows(exclude, b_rows, b_row_in, zero)
    b_exc_key, _exc_next, _next = exc_at
    b_excluded = tl.zeros((ROWS,), tl.int64)
    if exclude.kind == "csr" or exclude.kind == "ranges":
        b_excluded = b_exc_end - b_exc_key
    elif exclude.kind != "empty":
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
        if exclude.kind != "empty":  # a pair in both relations is a positive
            b_both = _holds(exclude, b_exc_key, b_exc_end, b_label, b_here)
            b_excluded -= b_both.to(tl.int64)
        if LOGITS:
            b_z = slope * pair_products(rows, b_rows, b_label, b_here, DEPTH)
            if HAS_OFFSET:
                b_z += tl.load(offset_ptr + b_label, mask=b_here, other=0.0)
            b_total += tl.where(b_here, b_z, 0.0)
            b_z = tl.where(b_here, b_z * LOG2_E, float("-inf"))
            b_max, b_sum = join_exp_sums(b_max, b_sum, b_z, b_here.to(tl.float32))
        b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
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
    b = queries.shape[0]
    device = queries.device
    counts = torch.empty((2, b), dtype=torch.int64, device=device)
    stats = torch.empty((3, b), dtype=torch.float32, device=device)
    positives = walk_arguments(problem.positives, device)
    exclude = walk_arguments(problem.exclude, device)
    with on_device_of(queries):
        positive_logits_kernel[(triton.cdiv(b, ROWS),)](
            embeddings(queries, labels), positives, exclude, given_or(slope, stats),
            given_or(label_offset, stats), counts, stats, b, labels.shape[0],
            LOGITS=slope is not None, HAS_OFFSET=label_offset is not None, ROWS=ROWS,
            DEPTH=depth_for(queries.shape[1]), num_warps=NUM_WARPS,
        )  # fmt: skip
    return PositiveLogits(counts[0], counts[1], stats[0], stats[1], stats[2])


class Found(NamedTuple):
    """What ``row_factors_kernel`` finds, as its argument."""

    SCALARS: tl.constexpr
    sum_ptr: Tensor  # (B,) float32: log-sum-exp, or the sigmoid's sum
    factor_ptr: Tensor  # (out_rows,) float32, softmax kinds
    weighted_ptr: Tensor  # (B,) float32: sum of g s, SCALARS only
    plain_ptr: Tensor  # (B,) float32: sum of g, SCALARS and sigmoid only


@triton.jit(do_not_specialize=["num_labels", "row_start", "row_stop", "num_col_tiles", "out_rows"])
def row_factors_kernel(
    rows: Rows,
    positives: Relation,
    logit: Logit,
    row_ptr,  # (B,) float32: as in exponentials_kernel
    reference_ptr,  # (out_rows,) float32: settled, softmax kinds
    own_sum_ptr,  # (B,) float32: sum over the positives of 2^(z - largest), softmax kinds
    num_positives_ptr,  # (B,) int64, softmax kinds
    row_scale_ptr,  # (B,) float32
    partial_ptr,  # (2 or with SCALARS 4, column tiles, out_rows) float32: of exponentials_kernel
    space: Space,  # its workspace; the positives are written
    found: Found,
    num_labels,
    row_start,
    row_stop,
    num_col_tiles,
    out_rows,
    ONE: tl.constexpr,  # every row has exactly one positive
    ROWS: tl.constexpr,
    TILES: tl.constexpr,
    DEPTH: tl.constexpr,
):
    """Finish the rows of one chunk. Rows of row_scale 0 get a factor and coefficients of 0."""
    b_local = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    b_rows = row_start + b_local.to(tl.int64)
    b_row_in = b_rows < row_stop
    b_sum = tl.zeros((ROWS,), tl.float32)
    b_weighted = b_sum
    b_plain = b_sum
    plane = num_col_tiles.to(tl.int64) * out_rows
    for first in range(0, num_col_tiles, TILES):
        b_tile = first + tl.arange(0, TILES)
        b_at = partial_ptr + b_tile.to(tl.int64)[:, None] * out_rows + b_local[None, :]
        b_in = (b_tile < num_col_tiles)[:, None] & b_row_in[None, :]
        b_sum += tl.sum(tl.load(b_at, mask=b_in, other=0.0), 0)
        if found.SCALARS:
            b_weighted += tl.sum(tl.load(b_at + 2 * plane, mask=b_in, other=0.0), 0)
            if logit.KIND == "sigmoid":
                b_plain += tl.sum(tl.load(b_at + 3 * plane, mask=b_in, other=0.0), 0)

    zero = tl.zeros((), tl.int64)
    slope = tl.load(logit.slope_ptr)
    bias = 0.0
    b_row_scale = tl.load(row_scale_ptr + b_rows, mask=b_row_in, other=0.0)
    b_counts = b_row_scale != 0
    b_factor_of_row = b_sum
    b_reference = b_sum
    b_own = b_sum
    b_share = b_sum
    b_one = b_counts
    if logit.KIND == "sigmoid":
        bias = tl.load(logit.bias_ptr)
        b_factor_of_row = tl.load(row_ptr + b_rows, mask=b_row_in, other=0.0)
    else:
        b_reference = tl.load(reference_ptr + b_local, mask=b_row_in, other=0.0)
        b_largest = tl.load(row_ptr + b_rows, mask=b_row_in, other=float("-inf"))
        b_own = tl.load(own_sum_ptr + b_rows, mask=b_row_in, other=0.0)
        b_own = tl.where(b_own > 0, b_own * tl.exp2(b_largest - b_reference), 0.0)
        b_number = tl.load(num_positives_ptr + b_rows, mask=b_row_in, other=1)
        b_share = 1.0 / tl.maximum(b_number, 1).to(tl.float32)
        b_one = b_number == 1
    b_total = b_sum + b_own
    b_open = b_sum > 0  # there is a negative that counts

    b_sigma_sum = tl.zeros((ROWS,), tl.float32)
    if logit.KIND == "decoupled" and not ONE:
        b_end, at = open_rows(positives, b_rows, b_row_in, zero)
        b_key, b_next, _next = at
        b_here = b_next < NO_COLUMN
        more = any_row(b_here)
        while more:
            b_label = tl.where(b_here, b_next, 0)
            b_s = pair_products(rows, b_rows, b_label, b_here, DEPTH)
            b_z = b_s * (slope * LOG2_E)
            if logit.HAS_OFFSET:
                b_z += tl.load(logit.offset_ptr + b_label, mask=b_here, other=0.0) * LOG2_E
            b_sigma = b_sum / (b_sum + tl.exp2(b_z - b_reference))
            b_sigma_sum += tl.where(b_here & b_open, b_sigma, 0.0)
            b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
            b_here = b_next < NO_COLUMN
            more = any_row(b_here)

    b_factor = b_row_scale
    if logit.KIND != "sigmoid":
        b_factor = tl.where(b_counts & (b_total > 0), b_row_scale / b_total, 0.0)
        if logit.KIND == "decoupled" and not ONE:
            b_several = tl.where(b_open, b_row_scale * (b_sigma_sum * b_share) / b_sum, 0.0)
            b_factor = tl.where(b_one, b_factor, tl.where(b_counts, b_several, 0.0))

    b_end, at = open_rows(positives, b_rows, b_row_in, zero)
    b_key, b_next, _next = at
    b_here = b_next < num_labels
    more = any_row(b_here)
    while more:
        b_label = tl.where(b_here, b_next, 0)
        b_entry = -b_sum
        b_s = b_sum
        if found.SCALARS or not ONE or logit.KIND == "sigmoid":
            b_s = pair_products(rows, b_rows, b_label, b_here, DEPTH)
        if logit.KIND == "sigmoid":
            b_x = slope * b_s + bias
            b_sum += tl.where(b_here, softplus(-b_x), 0.0)
            b_entry = -sigmoid(-b_x)
            if found.SCALARS:
                b_plain += tl.where(b_here, b_entry, 0.0)
        elif not ONE:
            b_z = b_s * (slope * LOG2_E)
            if logit.HAS_OFFSET:
                b_z += tl.load(logit.offset_ptr + b_label, mask=b_here, other=0.0) * LOG2_E
            b_e = tl.exp2(b_z - b_reference)
            if logit.KIND == "softmax":
                b_several = b_e - b_total * b_share
            else:
                b_several = -b_sum * (b_sum / (b_sum + b_e)) / b_sigma_sum
                b_several = tl.where(b_sigma_sum > 0, b_several, 0.0)
            b_entry = tl.where(b_one, b_entry, b_several)
        b_entry = tl.where(b_counts, b_entry, 0.0)
        if found.SCALARS:
            b_weighted += tl.where(b_here, b_entry * b_s, 0.0)
        b_value = b_entry
        if logit.KIND == "sigmoid":
            b_value = b_entry * b_factor_of_row
        b_at = space.ptr + b_local.to(tl.int64) * space.stride + b_label
        tl.store(b_at, rounded(b_value, space.ptr.dtype.element_ty), mask=b_here)
        b_key, b_next = next_entry(positives, b_key, b_end, b_next, b_here)
        b_here = b_next < num_labels
        more = any_row(b_here)

    if found.SCALARS:
        b_weighted = tl.where(b_factor != 0, b_factor * b_weighted, 0.0)
        tl.store(found.weighted_ptr + b_rows, b_weighted, mask=b_row_in)
        if logit.KIND == "sigmoid":
            tl.store(found.plain_ptr + b_rows, b_factor * b_plain, mask=b_row_in)
    if logit.KIND == "sigmoid":
        tl.store(found.sum_ptr + b_rows, b_sum, mask=b_row_in)
    else:
        b_found = b_sum
        if logit.KIND == "softmax":
            b_found = b_total
        b_lse = (b_reference + tl.log2(tl.where(b_found > 0, b_found, 1.0))) * LN_2
        b_lse = tl.where(b_found > 0, b_lse, float("-inf"))
        tl.store(found.sum_ptr + b_rows, b_lse, mask=b_row_in)
        tl.store(found.factor_ptr + b_local, b_factor * slope, mask=b_row_in)
