"""Host side of the walk over several prefix widths: the variant of the kernel and its launches."""

from __future__ import annotations

import functools
import math
from dataclasses import replace
from typing import Any

import torch
import triton

from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.launch import (
    Tile,
    device_limits,
    dot_precision,
    given_or,
    guard_kind,
    on_device_of,
    product_constexprs,
    slack_or,
    walk_tile,
)
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.backends.triton.walk.merge import NUM_FLOATS, NUM_INTS, merge_kernel
from alc_kernels.backends.triton.walk.prefix_kernel import prefix_walk_kernel
from alc_kernels.engine.interface import PrefixProblem, Problem, RowStatistics, WalkRequest

LEAST_DEPTH = 32
MOST_COLS = 64


def prefix_tile(
    capability: tuple[int, int],
    dtype: torch.dtype,
    widths: tuple[int, ...],
    precision: str,
    top_k: int,
) -> Tile:
    """The plain walk's tile for lists, with half the columns where it has 128.

    The sum that goes on and its scaled copy live at the same time: with 64 columns the walk for
    lists does not spill on compute capability 8.0 and 9.0, with 128 it does.
    The depth divides every width where that leaves a step of LEAST_DEPTH or more.
    """
    tile = walk_tile(capability, dtype, widths[-1], precision, "list" if top_k <= 32 else "long")
    common = math.gcd(*widths)
    depth = max(common & -common, LEAST_DEPTH)
    return replace(tile, cols=min(tile.cols, MOST_COLS), depth=min(tile.depth, depth))


def width_bounds(widths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """(W + 1,) int32: 0 and the widths."""
    bounds = torch.empty(len(widths) + 1, device=device, dtype=torch.int32)
    for n, width in enumerate((0, *widths)):
        bounds[n].fill_(width)  # without a copy from the host, which would wait
    return bounds


def depth_constexprs(
    tile: Tile, widths: tuple[int, ...], dtype: torch.dtype, precision: str
) -> dict[str, Any]:
    """Of a kernel's tile, and how it goes along the embedding."""
    return product_constexprs(tile, math.gcd(*widths), dtype, precision)


def prefix_constexprs(
    request: WalkRequest,
    positives: str,
    exclude: str,
    guard: int,
    scaled: bool,
    tile: Tile,
    widths: tuple[int, ...],
    dtype: torch.dtype,
    precision: str,
) -> dict[str, Any]:
    """The constexpr arguments of ``prefix_walk_kernel``."""
    d = math.gcd(*widths)
    made = walk_launch.walk_constexprs(
        request, positives, exclude, guard, tile, d, dtype, precision
    )
    # The plain walk has options that this one has not.
    own = {name: value for name, value in made.items() if name in prefix_walk_kernel.arg_names}
    return {**own, "SCALED": scaled}


def prefix_walk(
    problem: PrefixProblem, request: WalkRequest, targets: object = None
) -> list[RowStatistics]:
    """See ``interface.Backend.prefix_walk``. Every request is served; none makes a gradient."""
    queries, labels, widths = problem.queries, problem.labels, problem.widths
    (b, d), m, num_widths = queries.shape, labels.shape[0], len(widths)
    if b == 0 or m == 0:
        nothing = Problem(queries, labels, problem.positives, problem.exclude, None)
        return [walk_launch.nothing_found(nothing, request) for _ in widths]
    device, precision = queries.device, dot_precision(queries.dtype)
    capability, multiprocessors = device_limits(device)
    tile = prefix_tile(capability, queries.dtype, widths, precision, request.top_k)
    constexprs = prefix_constexprs(
        request, problem.positives.kind, problem.exclude.kind, guard_kind(problem),
        problem.query_scale is not None, tile, widths, queries.dtype, precision,
    )  # fmt: skip
    positives, exclude = (
        walk_arguments(relation, device) for relation in (problem.positives, problem.exclude)
    )
    new = functools.partial(torch.empty, device=device, dtype=torch.float32)
    top, slots = constexprs["TOP"], constexprs["SLOTS"]
    floats, ints = new((num_widths, 6, b)), new((num_widths, 5, b), dtype=torch.int64)
    scores, indices = new((num_widths, b, top)), new((num_widths, b, top), dtype=torch.int64)
    bounds = width_bounds(widths, device)
    optional = functools.partial(given_or, dummy=floats)
    tiles = triton.cdiv(m, tile.cols)
    at_once = multiprocessors * tile.programs
    start = 0
    while start < b:
        stop = min(start + _rows_that_fit(b, tiles, at_once, tile, num_widths, slots), b)
        rows = stop - start
        row_blocks = triton.cdiv(rows, tile.rows)
        length = walk_launch.split_tiles(row_blocks, tiles, at_once, tile.cols)
        splits = triton.cdiv(tiles, length)
        plane = (num_widths, splits, rows)
        partial_floats = new((num_widths, NUM_FLOATS.value, splits, rows))
        partial_ints = new((num_widths, NUM_INTS.value, splits, rows), dtype=torch.int32)
        list_size = (*plane, slots) if top else (1, 1)
        values, columns = new(list_size), new(list_size, dtype=torch.int32)
        worst = new(plane if top else (1,))
        with on_device_of(queries):
            prefix_walk_kernel[(row_blocks * splits,)](
                queries, labels, optional(problem.query_scale), optional(problem.label_scale),
                positives.row_ptr, positives.col_ptr, exclude.row_ptr, exclude.col_ptr,
                optional(problem.guard), *slack_or(problem, floats),
                optional(request.label_offset),
                optional(request.inverse_temperature), optional(request.scale),
                optional(request.bias), bounds, values, columns, worst, partial_floats,
                partial_ints, start, stop, b, m, d, num_widths, length,
                request.positive_margin or 0.0, request.negative_margin or 0.0,
                **constexprs, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
            for n in range(num_widths):
                own = n if top else 0
                merge_kernel[(triton.cdiv(rows, walk_launch.MERGE_ROWS),)](
                    values[own], columns[own], partial_floats[n], partial_ints[n], scores[n],
                    indices[n], floats[n], ints[n], b, start, rows, splits, length * tile.cols,
                    **walk_launch.merge_constexprs(constexprs), num_warps=walk_launch.MERGE_WARPS,
                )  # fmt: skip
        start = stop
    return [
        walk_launch.named_slots(request, scores[n], indices[n], floats[n], ints[n])
        for n in range(num_widths)
    ]


def _rows_that_fit(
    num_rows: int, tiles: int, at_once: int, tile: Tile, num_widths: int, slots: int
) -> int:
    """Rows whose partial results fit in the workspace, a multiple of the tile's."""
    row_blocks = triton.cdiv(num_rows, tile.rows)
    splits = triton.cdiv(tiles, walk_launch.split_tiles(row_blocks, tiles, at_once, tile.cols))
    numbers = NUM_FLOATS.value + NUM_INTS.value + 1  # and each list's last entry
    size = num_widths * splits * (4 * numbers + 8 * slots)  # bytes of a row
    return max(workspace.WORKSPACE_BYTES // size // tile.rows, 1) * tile.rows
