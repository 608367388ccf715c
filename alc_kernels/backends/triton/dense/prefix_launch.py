"""Host side of the coefficients of several prefix widths: chunks, launches, products."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import torch
import triton
from torch import Tensor

from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.dense.launch import add_product, upcasts
from alc_kernels.backends.triton.dense.prefix_kernel import prefix_coefficients_kernel
from alc_kernels.backends.triton.launch import (
    Tile,
    dot_precision,
    given_or,
    guard_kind,
    on_device_of,
    slack_or,
)
from alc_kernels.backends.triton.tile.relation import relation_arguments
from alc_kernels.backends.triton.walk.prefix_launch import (
    LEAST_DEPTH,
    depth_constexprs,
    width_bounds,
)
from alc_kernels.engine.interface import GradientRequest, PrefixProblem, PrefixSides

# The sum that goes on and one width's coefficients live at the same time.
MOST_COLS = 64


def coefficients_tile(dtype: torch.dtype, widths: tuple[int, ...], precision: str) -> Tile:
    """The launch configuration: that of one width, with half the columns where it has 128."""
    tile = coefficients.tile_for(dtype, precision)
    common = math.gcd(*widths)
    depth = max(common & -common, LEAST_DEPTH)
    return replace(tile, cols=min(tile.cols, MOST_COLS), depth=min(tile.depth, depth))


def coefficients_constexprs(
    request: GradientRequest,
    relations: tuple[str, str],
    guard: int,
    scaled: bool,
    dtype: torch.dtype,
) -> dict[str, Any]:
    """The options of ``prefix_coefficients_kernel``."""
    return {
        "KIND": request.kind or "none",
        "POSITIVES": relations[0],
        "EXCLUDE": relations[1],
        "SCALED": scaled,
        "GUARD": guard,
        "LABEL_OFFSET": request.label_offset is not None and request.kind != "sigmoid",
        "POSITIVE_MARGIN": request.positive_margin is not None,
        "NEGATIVE_MARGIN": request.negative_margin is not None,
        "OUT_SCALE": dtype == torch.float16,
    }


def register_limit(constexprs: dict[str, Any], widths: tuple[int, ...]) -> int | None:
    """Registers per thread on Hopper, as for one width: two programs on a multiprocessor."""
    return coefficients.register_limit(
        constexprs["KIND"],
        (constexprs["POSITIVES"], constexprs["EXCLUDE"]),
        margins=constexprs["POSITIVE_MARGIN"] or constexprs["NEGATIVE_MARGIN"],
        scalars=False,
        d=math.gcd(*widths),
    )


def _stack(tensors: list[Tensor | None], unused: Tensor) -> Tensor:
    """(W, ...) of what every width has, or a pointer that nothing reads."""
    found = [tensor for tensor in tensors if tensor is not None]
    return torch.stack(found) if found else unused


def dense_prefix_gradient(
    problem: PrefixProblem, requests: list[GradientRequest], sides: list[PrefixSides]
) -> None:
    """Coefficients of every width of a chunk into the workspace, then its products."""
    queries, labels, first = problem.queries, problem.labels, requests[0]
    (num_rows, d), num_labels = queries.shape, labels.shape[0]
    num_widths, device, dtype = len(problem.widths), queries.device, queries.dtype
    precision = dot_precision(dtype)
    tile = coefficients_tile(dtype, problem.widths, precision)
    # Where products need float32 copies, those count as workspace: of one width at a time.
    item_bytes = num_widths * queries.element_size() + (4 if upcasts(queries) else 0)
    rows, cols = coefficients.chunk_shape(num_rows, num_labels, item_bytes)
    space = torch.empty((num_widths, rows, cols), dtype=dtype, device=device)
    scales = None
    if dtype == torch.float16:
        scales = torch.stack([coefficients.half_scale(request) for request in requests])
        _multiply_gradients(sides, scales)  # exact, as is undoing it: a power of two

    stack = functools.partial(_stack, unused=queries)
    positives, exclude = (
        relation_arguments(relation, device) for relation in (problem.positives, problem.exclude)
    )
    slack = slack_or(problem, queries)
    slope = first.scale if first.kind == "sigmoid" else first.inverse_temperature
    arguments = {
        "queries_ptr": queries,
        "labels_ptr": labels,
        "query_scale_ptr": given_or(problem.query_scale, queries),
        "label_scale_ptr": given_or(problem.label_scale, queries),
        "positive_row_ptr": positives.row_ptr,
        "positive_col_ptr": positives.col_ptr,
        "exclude_row_ptr": exclude.row_ptr,
        "exclude_col_ptr": exclude.col_ptr,
        "guard_ptr": given_or(problem.guard, queries),
        "row_slack_ptr": slack[0],
        "column_slack_ptr": slack[1],
        "row_scale_ptr": stack([request.row_scale for request in requests]),
        # The positives are those of every width.
        "num_positives_ptr": given_or(first.num_positives, queries),
        "log_sum_exp_ptr": stack([request.log_sum_exp for request in requests]),
        "negative_scale_ptr": stack([request.negative_scale for request in requests]),
        "slope_ptr": given_or(slope, queries),
        "label_offset_ptr": given_or(first.label_offset, queries),
        "bias_ptr": given_or(first.bias, queries),
        "positive_margin": first.positive_margin or 0.0,
        "positive_margin_scale_ptr": stack([r.positive_margin_scale for r in requests]),
        "negative_margin": first.negative_margin or 0.0,
        "negative_margin_scale_ptr": stack([r.negative_margin_scale for r in requests]),
        "widths_ptr": width_bounds(problem.widths, device),
        "out_ptr": space,
        "out_scale_ptr": given_or(scales, queries),
        "num_queries": num_rows,
        "num_labels": num_labels,
        "d": d,
        "num_widths": num_widths,
        "out_rows": rows,
        "out_stride": cols,
        **coefficients_constexprs(
            first, (positives.kind, exclude.kind), guard_kind(problem),
            problem.query_scale is not None, dtype,
        ),
        **depth_constexprs(tile, problem.widths, dtype, precision),
    }  # fmt: skip
    if coefficients.is_hopper(device):
        arguments["maxnreg"] = register_limit(arguments, problem.widths)
    with on_device_of(queries):
        for start in range(0, num_rows, rows):
            stop = min(start + rows, num_rows)
            for left in range(0, num_labels, cols):
                right = min(left + cols, num_labels)
                blocks = triton.cdiv(stop - start, tile.rows) * triton.cdiv(right - left, tile.cols)
                prefix_coefficients_kernel[(blocks,)](
                    **arguments, row_start=start, row_stop=stop, col_start=left, col_stop=right,
                    num_warps=tile.warps, num_stages=tile.stages,
                )  # fmt: skip
                for n, side in enumerate(sides):
                    chunk = space[n, : stop - start, : right - left]
                    if side.grad_queries is not None:
                        add_product(side.grad_queries[start:stop], chunk, side.labels[left:right])
                    if side.grad_labels is not None:
                        add_product(side.grad_labels[left:right], chunk.T, side.queries[start:stop])
    if scales is not None:
        _multiply_gradients(sides, 1.0 / scales)


def _multiply_gradients(sides: list[PrefixSides], factors: Tensor) -> None:
    for side, factor in zip(sides, factors, strict=True):
        for grad in (side.grad_queries, side.grad_labels):
            if grad is not None:
                grad.mul_(factor)
