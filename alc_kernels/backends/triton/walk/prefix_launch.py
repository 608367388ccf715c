"""Host side of the walk over several prefix widths: the variant of the kernel and its launches."""

from __future__ import annotations

import math
from dataclasses import replace

import torch
import triton

from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.launch import (
    Tile,
    device_limits,
    dot_precision,
    on_device_of,
    walk_tile,
)
from alc_kernels.backends.triton.tile.negatives import guard_argument
from alc_kernels.backends.triton.tile.product import embeddings, scales, tile_shape
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.backends.triton.walk.kernel import prefix_walk_kernel
from alc_kernels.backends.triton.walk.launch import Results, list_length, split_tiles
from alc_kernels.backends.triton.walk.merge import NUM_FLOATS, NUM_INTS
from alc_kernels.engine.interface import PrefixProblem, RowStatistics, WalkRequest

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


def prefix_walk(
    problem: PrefixProblem, request: WalkRequest, targets: object = None
) -> list[RowStatistics]:
    """See ``interface.Backend.prefix_walk``. Every request is served; none makes a gradient."""
    queries, labels, widths = problem.queries, problem.labels, problem.widths
    b, m, num_widths = queries.shape[0], labels.shape[0], len(widths)
    top = list_length(problem, request)
    if b == 0 or m == 0:
        nothing = Results(request, num_widths, b, request.top_k, queries).nothing()
        return nothing.statistics()
    device, precision = queries.device, dot_precision(queries.dtype)
    capability, multiprocessors = device_limits(device)
    tile = prefix_tile(capability, queries.dtype, widths, precision, request.top_k)
    results = Results(request, num_widths, b, top, queries)
    shared = (
        embeddings(queries, labels),
        scales(problem.query_scale, problem.label_scale, queries),
        walk_arguments(problem.positives, device),
        walk_arguments(problem.exclude, device),
        guard_argument(problem, queries),
        results.wanted,
        width_bounds(widths, device),
    )
    shape = tile_shape(tile, math.gcd(*widths), queries.dtype, precision)
    tiles = triton.cdiv(m, tile.cols)
    at_once = multiprocessors * tile.programs
    step = _rows_that_fit(b, tiles, at_once, tile, num_widths, triton.next_power_of_2(max(1, top)))
    start = 0
    while start < b:
        stop = min(start + step, b)
        rows = stop - start
        row_blocks = triton.cdiv(rows, tile.rows)
        length = split_tiles(row_blocks, tiles, at_once, tile.cols)
        splits = triton.cdiv(tiles, length)
        lists, floats, ints = results.partial(splits, rows, top)
        worst = results.new((num_widths, splits, rows) if top else (1,))
        with on_device_of(queries):
            prefix_walk_kernel[(row_blocks * splits,)](
                *shared, lists, worst, floats, ints, start, stop, b, m, num_widths, length,
                shape=shape, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
            results.merge(lists, floats, ints, start, length * tile.cols)
        start = stop
    return results.statistics()


def _rows_that_fit(
    num_rows: int, tiles: int, at_once: int, tile: Tile, num_widths: int, slots: int
) -> int:
    """Rows whose partial results fit in the workspace, a multiple of the tile's."""
    row_blocks = triton.cdiv(num_rows, tile.rows)
    splits = triton.cdiv(tiles, split_tiles(row_blocks, tiles, at_once, tile.cols))
    numbers = NUM_FLOATS.value + NUM_INTS.value + 1  # and each list's last entry
    size = num_widths * splits * (4 * numbers + 8 * slots)  # bytes of a row
    return max(workspace.WORKSPACE_BYTES // size // tile.rows, 1) * tile.rows
