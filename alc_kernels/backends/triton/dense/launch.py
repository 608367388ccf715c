"""The dense gradient pass: G = dL/dS chunk by chunk into a workspace, multiplied out at once.

A kernel recomputes a tile of S, turns it into coefficients by the request's formula and writes
them in the compute dtype; the library's matrix products then add G K and G^T Q in float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
import triton
from torch import Tensor

from alc_kernels.backends.triton import launch as tuned
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense.kernel import coefficients_kernel
from alc_kernels.backends.triton.launch import (
    INTERPRETED,
    Tile,
    dot_precision,
    guard_kind,
    on_device_of,
    slack_or,
)
from alc_kernels.backends.triton.tile.relation import relation_arguments
from alc_kernels.engine.interface import GradientRequest, GradientResult, Problem

# Products of the library's matrix multiplication with float32 results.


def upcasts(a: Tensor) -> bool:
    """Whether a product makes float32 copies of ``a``: half values outside a GPU."""
    return a.dtype != torch.float32 and not a.is_cuda


def add_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Add a (m, k) @ b (k, n), one dtype, to ``out`` (m, n) float32 contiguous."""
    # In-place and out= forms: autocast, which would round float32 operands, leaves them alone.
    if upcasts(a):
        out.addmm_(a.float(), b.float())
    elif a.dtype == torch.float32:
        out.addmm_(a, b)
    else:
        torch.addmm(out, a, b, out_dtype=torch.float32, out=out)


def set_product(out: Tensor, a: Tensor, b: Tensor) -> None:
    """Set ``out`` (m, n) float32 contiguous to a (m, k) @ b (k, n), one dtype."""
    if upcasts(a):
        torch.mm(a.float(), b.float(), out=out)
    elif a.dtype == torch.float32:
        torch.mm(a, b, out=out)
    else:
        torch.mm(a, b, out_dtype=torch.float32, out=out)


# Every chunk adds to all rows of grad_labels that it sees, so short chunks spend their time there:
# below this many rows, columns are cut too.
MIN_CHUNK_ROWS = 2048
CHUNK_UNIT = 128  # rows and columns of the workspace: whole tiles of any configuration
# Float16 coefficients are scaled so that their bound becomes this: four times below the largest.
HALF_TARGET = 2.0**14


# S and G are alive together: 128 x 256 with 8 warps would need all 255 registers for them alone.
HALF_TILE = Tile(128, 128, 64, 8, 3)
FLOAT_TILE = Tile(128, 128, 32, 8, 3)
# Without the matrix units the products live in registers too.
EXACT_TILE = Tile(64, 64, 16, 4, 2)


def tile_for(dtype: torch.dtype, precision: str) -> Tile:
    """The launch configuration for a compute dtype."""
    if dtype != torch.float32:
        return HALF_TILE
    return EXACT_TILE if precision == "ieee" else FLOAT_TILE


# Two programs of HALF_TILE share a multiprocessor, one multiplying while the other writes, if they
# keep to this many registers. Where that would spill more than a few words, one has to do.
SHARED_REGISTERS = 128


def register_limit(
    kind: str, relations: tuple[str, str], margins: bool, scalars: bool, d: int
) -> int | None:
    """Registers per thread to compile for on Hopper; None: as many as the compiler likes."""
    crowded = scalars or "ids" in relations or (margins and kind != "none")
    # Rows that are not aligned pass through registers one element at a time.
    return None if crowded or d % 16 != 0 else SHARED_REGISTERS


def _round_up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def chunk_shape(num_rows: int, num_cols: int, item_bytes: int) -> tuple[int, int]:
    """(rows, columns) of a workspace of at most ``WORKSPACE_BYTES``, or of one tile."""
    unit = CHUNK_UNIT
    entries = workspace.WORKSPACE_BYTES // item_bytes
    all_rows, cols = _round_up(num_rows, unit), _round_up(num_cols, unit)
    few_rows = min(MIN_CHUNK_ROWS, all_rows)
    if few_rows * cols > entries:
        cols = min(cols, max(entries // few_rows // unit, 1) * unit)
    rows = min(all_rows, max(entries // cols // unit, 1) * unit)
    return rows, cols


def is_hopper(device: torch.device) -> bool:
    """Whether kernels are compiled for compute capability 9.x."""
    if INTERPRETED or torch.version.hip is not None:
        return False
    return torch.cuda.get_device_capability(device)[0] == 9


def _chunks(size: int, step: int) -> Iterator[tuple[int, int]]:
    for start in range(0, size, step):
        yield start, min(start + step, size)


def coefficient_bound(request: GradientRequest) -> Tensor:
    """0-d float32, no smaller than any |G|: e.g. |row_scale|/T, as softmax terms are below 1."""
    parts = []
    if request.kind is not None:
        assert request.row_scale is not None
        rows = request.row_scale.abs()
        slope = request.scale if request.kind == "sigmoid" else request.inverse_temperature
        assert slope is not None
        if request.kind == "decoupled":
            assert request.negative_scale is not None
            # A row that does not count may hold anything.
            factor = request.negative_scale.abs().clamp(min=1.0)
            rows = torch.where(rows == 0, 0.0, rows * factor)
        parts.append(rows.amax() * slope.abs())
    if request.columns is not None:
        parts.append(coefficient_bound(request.columns))
    margins = (request.positive_margin_scale, request.negative_margin_scale)
    parts += [scale.abs() for scale in margins if scale is not None]
    return sum(parts[1:], parts[0])


def half_scale(request: GradientRequest) -> Tensor:
    """0-d float32: the power of two that brings float16 coefficients into range."""
    exponent = torch.log2(HALF_TARGET / coefficient_bound(request)).floor()
    # A bound of 0 or infinity lands on the limits, NaN on 0.
    return torch.exp2(exponent.nan_to_num(0.0).clamp(-40.0, 40.0))


def column_arguments(columns: GradientRequest | None, unused: Tensor) -> dict[str, Any]:
    """What the kernel takes of ``GradientRequest.columns``, (M,) float32 each.

    The scale of a column is part of the exponent, so that a negative costs one exponential and
    one number per column is held while S is. Columns that do not count have infinite shifts.
    """
    names = ("column_shift_ptr", "column_scale_ptr", "column_sum_ptr", "column_share_ptr")
    if columns is None:
        return {**dict.fromkeys(names, unused), "COLUMNS": "none"}
    assert columns.row_scale is not None and columns.log_sum_exp is not None
    assert columns.num_positives is not None
    counts = columns.row_scale > 0
    log_sum_exp = torch.where(counts, columns.log_sum_exp * math.log2(math.e), torch.inf)
    factor = columns.row_scale
    if columns.kind == "decoupled":
        assert columns.negative_scale is not None
        factor = factor * torch.where(counts, columns.negative_scale, 0.0)
    shift = torch.where(factor > 0, log_sum_exp - torch.log2(factor), torch.inf)
    share = 1.0 / columns.num_positives.clamp(min=1)
    values = (shift, columns.row_scale, log_sum_exp, share)
    made = {name: value.contiguous() for name, value in zip(names, values, strict=True)}
    return {**made, "COLUMNS": columns.kind}


def _kernel_arguments(problem: Problem, request: GradientRequest) -> dict[str, Any]:
    """What is the same for every chunk."""
    unused = problem.queries
    device = problem.queries.device
    positives = relation_arguments(problem.positives, device)
    exclude = relation_arguments(problem.exclude, device)
    slope = request.scale if request.kind == "sigmoid" else request.inverse_temperature
    slack = slack_or(problem, unused)

    def pointer(tensor: Tensor | None) -> Tensor:
        return unused if tensor is None else tensor.contiguous()

    return {
        "queries_ptr": problem.queries,
        "labels_ptr": problem.labels,
        "positive_row_ptr": positives.row_ptr,
        "positive_col_ptr": positives.col_ptr,
        "exclude_row_ptr": exclude.row_ptr,
        "exclude_col_ptr": exclude.col_ptr,
        "guard_ptr": pointer(problem.guard),
        "row_slack_ptr": slack[0],
        "column_slack_ptr": slack[1],
        "row_scale_ptr": pointer(request.row_scale),
        "num_positives_ptr": pointer(request.num_positives),
        "log_sum_exp_ptr": pointer(request.log_sum_exp),
        "negative_scale_ptr": pointer(request.negative_scale),
        "slope_ptr": pointer(slope),
        "label_offset_ptr": pointer(request.label_offset),
        "bias_ptr": pointer(request.bias),
        "positive_margin": request.positive_margin or 0.0,
        "positive_margin_scale_ptr": pointer(request.positive_margin_scale),
        "negative_margin": request.negative_margin or 0.0,
        "negative_margin_scale_ptr": pointer(request.negative_margin_scale),
        "num_queries": problem.queries.shape[0],
        "num_labels": problem.labels.shape[0],
        "d": problem.queries.shape[1],
        "KIND": request.kind or "none",
        **column_arguments(request.columns, unused),
        "POSITIVES": positives.kind,
        "EXCLUDE": exclude.kind,
        "GUARD": guard_kind(problem),
        "LABEL_OFFSET": request.label_offset is not None and request.kind != "sigmoid",
        "POSITIVE_MARGIN": request.positive_margin is not None,
        "NEGATIVE_MARGIN": request.negative_margin is not None,
    }


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    queries, labels = problem.queries, problem.labels
    (num_rows, d), num_labels = queries.shape, labels.shape[0]
    device = queries.device
    result = GradientResult()
    if request.want_scalars:
        result.weighted_sum = torch.zeros(num_rows, dtype=torch.float32, device=device)
        result.plain_sum = torch.zeros(num_rows, dtype=torch.float32, device=device)
    want_scalars = request.want_scalars and request.kind is not None
    nothing = request.kind is None and request.positive_margin is None
    nothing = nothing and request.negative_margin is None
    if num_rows == 0 or num_labels == 0 or nothing:
        return result
    if grad_queries is None and grad_labels is None and not want_scalars:
        return result

    precision = dot_precision(queries.dtype)
    table = tile_for(queries.dtype, precision)
    tile = tuned.choose("coefficients", queries, precision, table)
    # Where products need float32 copies, those count as workspace.
    item_bytes = queries.element_size() + (4 if upcasts(queries) else 0)
    rows, cols = chunk_shape(num_rows, num_labels, item_bytes)
    space = torch.empty((rows, cols), dtype=queries.dtype, device=device)
    blocks = cols // tile.cols if want_scalars else 0
    partial = torch.empty((2, blocks, rows), dtype=torch.float32, device=device)
    scale = half_scale(request) if queries.dtype == torch.float16 else None
    grads = [grad for grad in (grad_queries, grad_labels) if grad is not None]
    if scale is not None:
        for grad in grads:
            grad.mul_(scale)  # exact, as is undoing it: a power of two
    arguments = _kernel_arguments(problem, request)
    if is_hopper(device):
        relations = arguments["POSITIVES"], arguments["EXCLUDE"]
        margins = arguments["POSITIVE_MARGIN"] or arguments["NEGATIVE_MARGIN"]
        arguments["maxnreg"] = register_limit(
            arguments["KIND"], relations, margins, want_scalars, d
        )
    with on_device_of(queries):
        for start, stop in _chunks(num_rows, rows):
            for left, right in _chunks(num_labels, cols):
                blocks = triton.cdiv(right - left, tile.cols)
                grid = (triton.cdiv(stop - start, tile.rows) * blocks,)
                coefficients_kernel[grid](
                    **arguments,
                    out_ptr=space,
                    partial_ptr=partial,
                    out_scale_ptr=partial if scale is None else scale,
                    row_start=start,
                    row_stop=stop,
                    col_start=left,
                    col_stop=right,
                    out_stride=cols,
                    partial_cols=partial.shape[1],
                    partial_rows=rows,
                    SCALARS=want_scalars,
                    OUT_SCALE=scale is not None,
                    PRECISION=precision,
                    EVEN=d % tile.depth == 0,
                    UPCAST=INTERPRETED and queries.dtype == torch.bfloat16,
                    BLOCK_ROWS=tile.rows,
                    BLOCK_COLS=tile.cols,
                    BLOCK_D=tile.depth,
                    num_warps=tile.warps,
                    num_stages=tile.stages,
                )
                chunk = space[: stop - start, : right - left]
                if grad_queries is not None:
                    add_product(grad_queries[start:stop], chunk, labels[left:right])
                if grad_labels is not None:
                    add_product(grad_labels[left:right], chunk.T, queries[start:stop])
                if want_scalars:
                    assert result.weighted_sum is not None and result.plain_sum is not None
                    sums = partial[:, :blocks, : stop - start].sum(dim=1)
                    result.weighted_sum[start:stop] += sums[0]
                    result.plain_sum[start:stop] += sums[1]
    if scale is not None:
        for grad in grads:
            grad.mul_(1.0 / scale)
    return result
