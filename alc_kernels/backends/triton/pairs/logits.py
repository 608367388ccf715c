"""The linear pair head on [a; b; |a-b|; a*b], whose 4d features are never stored."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.pairs.sums import add_pair_gradients
from alc_kernels.backends.triton.pairs.values import BLOCK_D, BLOCK_PAIRS, NUM_WARPS, pair_values
from alc_kernels.engine.interface import Problem

# Programs along the pairs; each leaves one partial sum of 4d numbers.
MAX_PARTS = 512


@triton.jit(do_not_specialize=["num_pairs", "per_part", "per_row", "num_labels"])
def pair_weight_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    index_ptr,  # (B * per_row,) int64
    grad_ptr,  # (B * per_row,) float32
    partial_ptr,  # (parts, 4, d) float32
    num_pairs,
    per_part,  # a multiple of BLOCK_PAIRS
    per_row,
    num_labels,
    d,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Sum grad times each of the four features over one part of the pairs."""
    part = tl.program_id(0).to(tl.int64)
    b_d = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    b_d_in = b_d < d
    b_query_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_label_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_distance_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    b_product_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    for start in range(0, per_part, BLOCK_PAIRS):
        b_pair = part * per_part + start + tl.arange(0, BLOCK_PAIRS)
        b_label = tl.load(index_ptr + b_pair, mask=b_pair < num_pairs, other=-1)
        b_valid = (b_label >= 0) & (b_label < num_labels)
        b_grad = tl.load(grad_ptr + b_pair, mask=b_valid, other=0.0)[:, None]
        b_mask = b_valid[:, None] & b_d_in[None, :]
        b_query_at = (b_pair // per_row)[:, None] * d + b_d[None, :]
        b_label_at = b_label[:, None] * d + b_d[None, :]
        b_a = tl.load(queries_ptr + b_query_at, mask=b_mask, other=0.0).to(tl.float32)
        b_b = tl.load(labels_ptr + b_label_at, mask=b_mask, other=0.0).to(tl.float32)
        b_query_sum += b_grad * b_a
        b_label_sum += b_grad * b_b
        b_distance_sum += b_grad * tl.abs(b_a - b_b)
        b_product_sum += b_grad * (b_a * b_b)
    b_out_ptr = partial_ptr + part * (4 * d) + b_d
    tl.store(b_out_ptr, tl.sum(b_query_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + d, tl.sum(b_label_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + 2 * d, tl.sum(b_distance_sum, 0), mask=b_d_in)
    tl.store(b_out_ptr + 3 * d, tl.sum(b_product_sum, 0), mask=b_d_in)


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
            problem.queries,
            problem.labels,
            index.contiguous(),
            grad.contiguous(),
            partial,
            num_pairs,
            per_part,
            index.shape[1],
            num_labels,
            d,
            BLOCK_PAIRS=BLOCK_PAIRS,
            BLOCK_D=BLOCK_D,
            num_warps=NUM_WARPS,
        )
    return partial.sum(0)
