"""Scores and gradients of listed pairs: a few labels per query, gathered row by row.

Also the linear pair head on [a; b; |a-b|; a*b], whose 4d features are never stored.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.cuda import pair_sums
from alc_kernels.backends.cuda.enabled import enabled
from alc_kernels.backends.triton.launch import given_or, on_device_of
from alc_kernels.backends.triton.pairs.sums import (
    Pairs,
    add_pair_gradients,
    load_part,
    pair_labels,
    pairs_argument,
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
        pair_sums.add_pair_gradients(problem, index, coefficient, grad_queries, grad_labels)
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
