"""Gradients of listed pairs, summed into the rows of queries and labels.

A pair (a, b) with coefficient c adds to its query's gradient c b, and to its label's c a. With
FEATURES, for the logit weight . [a; b; |a-b|; a*b], it adds c (w_own + sign(own - other)
w_distance + other w_product), where own is the row that the gradient belongs to.

A query's pairs lie side by side, so its program sums them alone. A label's pairs are anywhere:
the quick way adds each with an atomic, whose order (hence rounding) varies; the repeatable way
sorts the pairs by label and gives each label one program. There a label of very many pairs is cut
into runs of ``RUN`` pairs, which other programs have summed before.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import given_or, on_device_of
from alc_kernels.engine.interface import Problem

BLOCK_ROWS = 16
BLOCK_D = 128
NUM_WARPS = 4
RUN = 128  # pairs; a multiple of BLOCK_ROWS


class Pairs(NamedTuple):
    """Listed pairs as a kernel argument."""

    FEATURES: tl.constexpr  # of the pair head, else scores
    queries_ptr: Tensor  # (B, d)
    labels_ptr: Tensor  # (M, d)
    d: int
    index_ptr: Tensor  # (B * per_row,) int64 label of each pair; outside of 0 .. M: none
    coefficient_ptr: Tensor  # (B * per_row,) float32
    weight_ptr: Tensor  # (4d,) float32, FEATURES only


def pairs_argument(
    problem: Problem, index: Tensor, coefficient: Tensor, weight: Tensor | None
) -> Pairs:
    """The argument for (B, t) labels and coefficients; ``weight`` None: scores."""
    rows = problem.queries, problem.labels, problem.queries.shape[1]
    coefficient = coefficient.contiguous()
    return Pairs(
        tl.constexpr(weight is not None), *rows, index.contiguous(), coefficient,
        given_or(weight, coefficient),
    )  # fmt: skip


@triton.jit
def pair_labels(pairs, b_pair, b_in, num_labels):
    """(R,) the labels of pairs, and which of them are one."""
    b_label = tl.load(pairs.index_ptr + b_pair, mask=b_in, other=-1)
    return b_label, (b_label >= 0) & (b_label < num_labels)


@triton.jit
def load_part(ptr, b_row, b_d, d, b_mask):
    """(R, D) float32: the coordinates b_d of the rows b_row."""
    b_x = tl.load(ptr + (b_row[:, None] * d + b_d[None, :]), mask=b_mask, other=0.0)
    return b_x.to(tl.float32)


@triton.jit
def _contribution(
    pairs,
    b_coefficient,  # (R,)
    b_own,  # (R or 1, D), FEATURES only
    b_other,  # (R, D)
    own_weight,  # which quarter of weight belongs to own: 0 query, 1 label
    b_d,
):
    """(R, D) what pairs add to the gradient of their own rows."""
    if pairs.FEATURES:
        b_weight_ptr = pairs.weight_ptr + b_d
        b_in = b_d < pairs.d
        b_on_own = tl.load(b_weight_ptr + own_weight * pairs.d, mask=b_in, other=0.0)
        b_on_distance = tl.load(b_weight_ptr + 2 * pairs.d, mask=b_in, other=0.0)
        b_on_product = tl.load(b_weight_ptr + 3 * pairs.d, mask=b_in, other=0.0)
        b_signed = tl.where(b_own > b_other, b_on_distance[None, :], 0.0)
        b_signed = tl.where(b_own < b_other, -b_on_distance[None, :], b_signed)
        b_slope = b_on_own[None, :] + b_signed + b_other * b_on_product[None, :]
    else:
        b_slope = b_other
    return b_coefficient[:, None] * b_slope


@triton.jit(do_not_specialize=["num_queries", "per_row", "num_labels"])
def pair_queries_kernel(
    pairs: Pairs,
    grad_ptr,  # (B, d) float32, added to
    num_queries,
    per_row,
    num_labels,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Each query sums its own pairs."""
    d = pairs.d
    b_row = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    b_row_in = b_row < num_queries
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_mask = b_row_in[:, None] & (b_d < d)[None, :]
    b_at = b_row[:, None] * d + b_d[None, :]
    b_own = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    if pairs.FEATURES:
        b_own = load_part(pairs.queries_ptr, b_row, b_d, d, b_mask)
    b_sum = tl.load(grad_ptr + b_at, mask=b_mask, other=0.0)
    for place in range(per_row):
        b_pair = b_row * per_row + place
        b_label, b_valid = pair_labels(pairs, b_pair, b_row_in, num_labels)
        b_coefficient = tl.load(pairs.coefficient_ptr + b_pair, mask=b_valid, other=0.0)
        b_other_mask = b_valid[:, None] & (b_d < d)[None, :]
        b_other = load_part(pairs.labels_ptr, b_label, b_d, d, b_other_mask)
        b_sum += _contribution(pairs, b_coefficient, b_own, b_other, 0, b_d)
    tl.store(grad_ptr + b_at, b_sum, mask=b_mask)


@triton.jit(do_not_specialize=["num_pairs", "per_row", "num_labels"])
def pair_labels_kernel(
    pairs: Pairs,
    grad_ptr,  # (M, d) float32, added to
    num_pairs,
    per_row,
    num_labels,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Each pair is added to its label's row, in any order."""
    d = pairs.d
    b_pair = tl.program_id(0).to(tl.int64) * BLOCK_ROWS + tl.arange(0, BLOCK_ROWS)
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_label, b_valid = pair_labels(pairs, b_pair, b_pair < num_pairs, num_labels)
    b_coefficient = tl.load(pairs.coefficient_ptr + b_pair, mask=b_valid, other=0.0)
    b_mask = b_valid[:, None] & (b_d < d)[None, :]
    b_other = load_part(pairs.queries_ptr, b_pair // per_row, b_d, d, b_mask)
    b_own = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    if pairs.FEATURES:
        b_own = load_part(pairs.labels_ptr, b_label, b_d, d, b_mask)
    b_value = _contribution(pairs, b_coefficient, b_own, b_other, 1, b_d)
    b_at = b_label[:, None] * d + b_d[None, :]
    tl.atomic_add(grad_ptr + b_at, b_value, mask=b_mask, sem="relaxed")


@triton.jit
def _label_row(pairs, label, b_d, BLOCK_D: tl.constexpr):
    """(1, D) float32; zeros without FEATURES, which alone read it."""
    b_own = tl.zeros((1, BLOCK_D), tl.float32)
    if pairs.FEATURES:
        b_at = pairs.labels_ptr + label * pairs.d + b_d
        b_own = tl.load(b_at, mask=b_d < pairs.d, other=0.0)[None, :].to(tl.float32)
    return b_own


@triton.jit
def _run_sum(
    pairs,
    begin,
    end,
    order_ptr,
    b_own,  # (1, D) the label's row, FEATURES only
    per_row,
    b_d,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """(D,) what the sorted pairs begin .. end, all of one label, add to its gradient."""
    b_sum = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
    for start in range(begin, end, BLOCK_ROWS):
        b_entry = start + tl.arange(0, BLOCK_ROWS)
        b_in = b_entry < end
        b_pair = tl.load(order_ptr + b_entry, mask=b_in, other=0)
        b_coefficient = tl.load(pairs.coefficient_ptr + b_pair, mask=b_in, other=0.0)
        b_mask = b_in[:, None] & (b_d < pairs.d)[None, :]
        b_other = load_part(pairs.queries_ptr, b_pair // per_row, b_d, pairs.d, b_mask)
        b_sum += _contribution(pairs, b_coefficient, b_own, b_other, 1, b_d)
    return tl.sum(b_sum, 0)


@triton.jit(do_not_specialize=["per_row", "num_labels"])
def label_runs_kernel(
    pairs: Pairs,
    sorted_ptr,  # (num_pairs,) int32 or int64: labels in ascending order
    order_ptr,  # (num_pairs,) int64: the pair behind each
    runs_ptr,  # (num_pairs // RUN, d) float32
    per_row,
    num_labels,
    RUN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum each aligned run of RUN sorted pairs that lies within one label; leave the others."""
    run = tl.program_id(0).to(tl.int64)
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = run * RUN
    label = tl.load(sorted_ptr + begin).to(tl.int64)
    last = tl.load(sorted_ptr + begin + (RUN - 1)).to(tl.int64)
    if (label == last) & (label >= 0) & (label < num_labels):
        b_own = _label_row(pairs, label, b_d, BLOCK_D)
        b_sum = _run_sum(
            pairs, begin, begin + RUN, order_ptr, b_own, per_row, b_d, BLOCK_ROWS, BLOCK_D
        )
        tl.store(runs_ptr + run * pairs.d + b_d, b_sum, mask=b_d < pairs.d)


@triton.jit(do_not_specialize=["per_row"])
def label_owners_kernel(
    pairs: Pairs,
    offsets_ptr,  # (M + 1,) int64: label j owns sorted pairs offsets[j] .. offsets[j + 1]
    order_ptr,  # (num_pairs,) int64
    runs_ptr,  # (num_pairs // RUN, d) float32, from label_runs_kernel
    grad_ptr,  # (M, d) float32, added to
    per_row,
    RUN: tl.constexpr,
    BLOCK_ROWS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Each label sums its pairs: loose ones before its whole runs, the runs, loose ones after."""
    d = pairs.d
    label = tl.program_id(0).to(tl.int64)
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    begin = tl.load(offsets_ptr + label)
    end = tl.load(offsets_ptr + label + 1)
    if begin < end:
        b_own = _label_row(pairs, label, b_d, BLOCK_D)
        first_run = (begin + (RUN - 1)) // RUN
        last_run = tl.maximum(end // RUN, first_run)
        # Without a whole run everything is "before"; both bounds then clamp to the end.
        before_end = tl.minimum(first_run * RUN, end)
        after_begin = tl.minimum(last_run * RUN, end)
        b_sum = _run_sum(
            pairs, begin, before_end, order_ptr, b_own, per_row, b_d, BLOCK_ROWS, BLOCK_D
        )
        b_runs = tl.zeros((BLOCK_ROWS, BLOCK_D), tl.float32)
        for start in range(first_run, last_run, BLOCK_ROWS):
            b_run = start + tl.arange(0, BLOCK_ROWS)
            b_runs += load_part(
                runs_ptr, b_run, b_d, d, (b_run < last_run)[:, None] & (b_d < d)[None, :]
            )
        b_sum += tl.sum(b_runs, 0)
        b_sum += _run_sum(
            pairs, after_begin, end, order_ptr, b_own, per_row, b_d, BLOCK_ROWS, BLOCK_D
        )
        b_at = label * d + b_d
        b_sum += tl.load(grad_ptr + b_at, mask=b_d < d, other=0.0)
        tl.store(grad_ptr + b_at, b_sum, mask=b_d < d)


def _pairs_by_label(index: Tensor, num_labels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Sorted labels, the pair behind each, and where each label's pairs begin (M + 1,)."""
    # Half the radix passes when the labels fit 32 bits; what is out of range sorts to an end.
    dtype = torch.int32 if num_labels < 2**31 - 1 else torch.int64
    flat = index.flatten().clamp(-1, num_labels).to(dtype)
    labels, order = torch.sort(flat, stable=True)
    starts = torch.arange(num_labels + 1, device=index.device, dtype=dtype)
    return labels, order, torch.searchsorted(labels, starts)


def add_pair_gradients(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    weight: Tensor | None,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """Add the gradient of scores (``weight`` None) or of pair logits, times ``coefficient``."""
    num_queries, per_row = index.shape
    num_labels, d = problem.labels.shape
    if index.numel() == 0 or num_labels == 0 or d == 0:
        return
    pairs = pairs_argument(problem, index, coefficient, weight)
    tile = {"BLOCK_ROWS": BLOCK_ROWS, "BLOCK_D": BLOCK_D, "num_warps": NUM_WARPS}
    blocks_d = triton.cdiv(d, BLOCK_D)
    with on_device_of(index):
        if grad_queries is not None:
            pair_queries_kernel[(triton.cdiv(num_queries, BLOCK_ROWS), blocks_d)](
                pairs, grad_queries, num_queries, per_row, num_labels, **tile
            )
        if grad_labels is not None and not deterministic:
            pair_labels_kernel[(triton.cdiv(index.numel(), BLOCK_ROWS), blocks_d)](
                pairs, grad_labels, index.numel(), per_row, num_labels, **tile
            )
        if grad_labels is not None and deterministic:
            by_label, order, offsets = _pairs_by_label(index, num_labels)
            runs = torch.empty((index.numel() // RUN, d), dtype=torch.float32, device=index.device)
            if len(runs) > 0:
                label_runs_kernel[(len(runs), blocks_d)](
                    pairs, by_label, order, runs, per_row, num_labels, RUN=RUN, **tile
                )
            label_owners_kernel[(num_labels, blocks_d)](
                pairs, offsets, order, runs, grad_labels, per_row, RUN=RUN, **tile
            )
