"""Scores and gradients of listed pairs: a few labels per query, gathered row by row."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.cuda import pair_sums
from alc_kernels.backends.cuda.enabled import enabled
from alc_kernels.backends.triton.launch import on_device_of
from alc_kernels.backends.triton.pairs.sums import add_pair_gradients
from alc_kernels.engine.interface import Problem

BLOCK_PAIRS = 16
BLOCK_D = 128
NUM_WARPS = 4


@triton.jit(do_not_specialize=["num_pairs", "per_row", "num_labels"])
def pair_values_kernel(
    queries_ptr,  # (B, d)
    labels_ptr,  # (M, d)
    index_ptr,  # (B * per_row,) int64
    weight_ptr,  # (4d,) float32; FEATURES only
    bias_ptr,  # 0-d float32; FEATURES only
    out_ptr,  # (B * per_row,) float32
    num_pairs,
    per_row,
    num_labels,
    d,
    FEATURES: tl.constexpr,
    BLOCK_PAIRS: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Per pair a . b, or with FEATURES weight . [a; b; |a-b|; a*b] + bias; 0 for no label."""
    b_pair = tl.program_id(0).to(tl.int64) * BLOCK_PAIRS + tl.arange(0, BLOCK_PAIRS)
    b_label = tl.load(index_ptr + b_pair, mask=b_pair < num_pairs, other=-1)
    b_valid = (b_label >= 0) & (b_label < num_labels)
    b_a_ptr = queries_ptr + (b_pair // per_row)[:, None] * d
    b_b_ptr = labels_ptr + b_label[:, None] * d
    b_sum = tl.zeros((BLOCK_PAIRS, BLOCK_D), tl.float32)
    for start in range(0, d, BLOCK_D):
        b_d = start + tl.arange(0, BLOCK_D)
        b_d_in = b_d < d
        b_mask = b_valid[:, None] & b_d_in[None, :]
        b_a = tl.load(b_a_ptr + b_d[None, :], mask=b_mask, other=0.0).to(tl.float32)
        b_b = tl.load(b_b_ptr + b_d[None, :], mask=b_mask, other=0.0).to(tl.float32)
        if FEATURES:
            b_weight_ptr = weight_ptr + b_d
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
    if FEATURES:
        b_value += tl.load(bias_ptr)
    tl.store(out_ptr + b_pair, tl.where(b_valid, b_value, 0.0), mask=b_pair < num_pairs)


def pair_values(
    problem: Problem, index: Tensor, weight: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """(B, t) float32: scores of the listed pairs, or their logits when ``weight`` is given."""
    out = torch.empty(index.shape, dtype=torch.float32, device=index.device)
    if out.numel() > 0:
        with on_device_of(out):
            pair_values_kernel[(triton.cdiv(out.numel(), BLOCK_PAIRS),)](
                problem.queries,
                problem.labels,
                index.contiguous(),
                out if weight is None else weight.contiguous(),
                out if bias is None else bias,
                out,
                out.numel(),
                index.shape[1],
                problem.labels.shape[0],
                problem.queries.shape[1],
                FEATURES=weight is not None,
                BLOCK_PAIRS=BLOCK_PAIRS,
                BLOCK_D=BLOCK_D,
                num_warps=NUM_WARPS,
            )
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
