"""Scores and gradients of listed pairs: a few labels per query, gathered row by row.

Also the linear pair head on [a; b; |a-b|; a*b], whose 4d features are never stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.cuda import operators
from alc_kernels.backends.cuda.library import enabled
from alc_kernels.backends.triton.launch import given_or, on_device_of
from alc_kernels.backends.triton.pairs.sums import (
    Pairs,
    add_pair_gradients,
    load_part,
    pair_labels,
    pairs_argument,
)
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

BLOCK_PAIRS = 16
BLOCK_D = 128
NUM_WARPS = 4
# Programs along the pairs; each leaves one partial sum of 4d numbers.
MAX_PARTS = 512


@triton.jit(do_not_specialize=["num_pairs", "per_row", "num_labels"])
def pair_values_kernel(
    pairs: Pairs,
    bias_ptr,  # 0-d float32; FEATURES only
    out_ptr,  # (B * per_row,) float32
    num_pairs,
    per_row,
    num_labels,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Per pair a . b, or with FEATURES weight . [a; b; |a-b|; a*b] + bias; 0 for no label."""
    d = pairs.d
    b_pair = tl.program_id(0).to(tl.int64) * BLOCK_PAIRS + tl.arange(0, BLOCK_PAIRS)
    b_label, b_valid = pair_labels(pairs, b_pair, b_pair < num_pairs, num_labels)
    b_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    for start in range(0, d, BLOCK_D):
        b_d = start + tl.arange(0, BLOCK_D)
        b_d_in = b_d < d
        b_mask = b_valid[:, None] & b_d_in[None, :]
        b_a = load_part(pairs.queries_ptr, b_pair // per_row, b_d, d, b_mask)
        b_b = load_part(pairs.labels_ptr, b_label, b_d, d, b_mask)
        if pairs.FEATURES:
            b_weight_ptr = pairs.weight_ptr + b_d
            b_on_query = tl.load(b_weight_ptr, mask=b_d_in, other=0.0)
            b_on_label = tl.load(b_weight_ptr + d, mask=b_d_in, other=0.0)
            b_on_distance = tl.load(b_weight_ptr + 2 * d, mask=b_d_in, other=0.0)
            b_on_product = tl.load(b_weight_ptr + 3 * d, mask=b_d_in, other=0.0)
            b_sum += b_a * b_on_query[None, :] + b_b * b_on_label[None, :]
            b_sum += tl.abs(b_a - b_b) * b_on_distance[None, :]
            b_sum += (b_a * b_b) * b_on_product[None, :]
        else:
            b_sum += b_a * b_b
    b_value = tl.sum(b_sum, 1)
    if pairs.FEATURES:
        b_value += tl.load(bias_ptr)
    tl.store(out_ptr + b_pair, tl.where(b_valid, b_value, 0.0), mask=b_pair < num_pairs)


@triton.jit(do_not_specialize=["num_pairs", "per_part", "per_row", "num_labels"])
def pair_weight_kernel(
    pairs: Pairs,  # the coefficients: the gradient of each
    partial_ptr,  # (parts, 4, d) float32
    num_pairs,
    per_part,  # a multiple of BLOCK_PAIRS
    per_row,
    num_labels,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum grad times each of the four features over one part of the pairs."""
    d = pairs.d
    part = tl.program_id(0).to(tl.int64)
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_d_in = b_d < d
    b_query_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_label_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_distance_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_product_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    for start in range(0, per_part, BLOCK_PAIRS):
        b_pair = part * per_part + start + tl.arange(0, BLOCK_PAIRS)
        b_label, b_valid = pair_labels(pairs, b_pair, b_pair < num_pairs, num_labels)
        b_grad = tl.load(pairs.coefficient_ptr + b_pair, mask=b_valid, other=0.0)[:, None]
        b_mask = b_valid[:, None] & b_d_in[None, :]
        b_a = load_part(pairs.queries_ptr, b_pair // per_row, b_d, d, b_mask)
        b_b = load_part(pairs.labels_ptr, b_label, b_d, d, b_mask)
        b_query_sum += b_grad * b_a
        b_label_sum += b_grad * b_b
        b_distance_sum += b_grad * tl.abs(b_a - b_b)
        b_product_sum += b_grad * (b_a * b_b)
    b_out_ptr = partial_ptr + part * (4 * d) + b_d
    tl.store(b_out_ptr, tl.sum(b_query_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + d, tl.sum(b_label_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + 2 * d, tl.sum(b_distance_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + 3 * d, tl.sum(b_product_sum, 0), mask=b_d_in)


def pair_values(
    problem: Problem, index: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """(B, t) float32: scores of the listed pairs, or their logits when ``weight`` is given."""
    out = torch.empty(index.shape, dtype=torch.float32, device=index.device)
    if out.numel() > 0:
        with on_device_of(out):
            pair_values_kernel[(triton.cdiv(out.numel(), BLOCK_PAIRS),)](
                pairs_argument(problem, index, out, weight), given_or(bias, out), out,
                out.numel(), index.shape[1], problem.labels.shape[0], BLOCK_PAIRS=BLOCK_PAIRS,
                BLOCK_D=BLOCK_D, num_warps=NUM_WARPS,
            )  # fmt: skip
    return out


def score_pairs(problem: Problem, index: Tensor) -> Tensor:
    """See ``interface.Backend.score_pairs``."""
    return pair_values(problem, index)


def pair_gradient(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """See ``interface.Backend.pair_gradient``."""
    if enabled("pair_gradient", problem.queries):
        operators.add_pair_gradients(problem, index, coefficient, grad_queries, grad_labels)
        return
    add_pair_gradients(problem, index, coefficient, None, grad_queries, grad_labels, deterministic)


def pair_logits(problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``interface.Backend.pair_logits``."""
    return pair_values(problem, index, weight, bias)


def pair_logits_backward(
    problem: Problem,
    index: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> Tensor:
    """See ``interface.Backend.pair_logits_backward``."""
    add_pair_gradients(problem, index, grad, weight, grad_queries, grad_labels, deterministic)
    num_labels, d = problem.labels.shape
    num_pairs = index.numel()
    if num_pairs == 0 or d == 0:
        return torch.zeros_like(weight)
    blocks = triton.cdiv(num_pairs, BLOCK_PAIRS)
    per_part = triton.cdiv(blocks, MAX_PARTS) * BLOCK_PAIRS
    parts = triton.cdiv(num_pairs, per_part)
    partial = torch.empty((parts, 4 * d), dtype=torch.float32, device=index.device)
    with on_device_of(partial):
        pair_weight_kernel[(parts, triton.cdiv(d, BLOCK_D))](
            pairs_argument(problem, index, grad, weight), partial, num_pairs, per_part,
            index.shape[1], num_labels, BLOCK_PAIRS=BLOCK_PAIRS, BLOCK_D=BLOCK_D,
            num_warps=NUM_WARPS,
        )  # fmt: skip
    return partial.sum(0)


# Sums over the positives that need the finished log-sum-exp of their row.


ROWS = 16  # per program: its time is that of the row with the most positives


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
