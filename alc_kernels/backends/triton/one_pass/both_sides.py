"""The symmetric softmax's statistics of rows and columns from one pass over S.

With the coefficients of both sides made in one pass as well (``dense``), forward and backward
take four products: S, S again, and one for each gradient.

A program multiplies one tile and leaves, over its negatives, a base and a sum of 2^(z - base) per
row and per column. The tile's maximum is the base of all of them, so that one exponential per
element serves both sides. Where that is so far above a row or a column that its terms begin to
vanish, the tile is summed up once more with their own maxima. Each slot has one writer: nothing
depends on the order in which programs run.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.launch import Tile, dot_precision, given_or, on_device_of
from alc_kernels.backends.triton.one_pass.rows import PositiveLogits, positive_logits
from alc_kernels.backends.triton.tile.arithmetic import LOG2_E, own_tile
from alc_kernels.backends.triton.tile.negatives import keep_negatives, open_tile
from alc_kernels.backends.triton.tile.product import Rows, Shape, embeddings, tile_at, tile_shape
from alc_kernels.backends.triton.tile.relation import Relation, any_row, walk_arguments
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest

# Terms down to 2^-66 of a sum are kept at this base: no float32 sum would see less.
LEAST = tl.constexpr(2.0**-60)


@triton.jit(
    do_not_specialize=[
        "num_queries", "num_labels", "row_start", "row_stop", "out_rows", "out_cols",
    ]
)  # fmt: skip
def both_sides_kernel(
    rows: Rows,
    positives: Relation,
    exclude: Relation,
    slope_ptr,  # 0-d float32: derivative of the logit in s
    offset_ptr,  # (M,) float32, HAS_OFFSET only: counts in the rows, cancels in the columns
    row_partial_ptr,  # (2, column tiles, out_rows) float32: bases and sums, in base 2
    col_partial_ptr,  # (2, row tiles of a chunk, out_cols) float32
    num_queries,
    num_labels,
    row_start,
    row_stop,
    out_rows,
    out_cols,
    HAS_OFFSET: tl.constexpr,
    shape: Shape,
):
    """Partial sums of one tile; a sum of 0 stands for an empty set, whatever its base."""
    num_queries = num_queries.to(tl.int64)
    num_labels = num_labels.to(tl.int64)
    row_tile, col_tile, num_col_tiles = own_tile(row_stop - row_start, num_labels, shape)
    local = row_tile.to(tl.int64) * shape.ROWS
    row = row_start + local
    column = col_tile.to(tl.int64) * shape.COLS
    b_s = tile_at(rows, row, column, num_queries, num_labels, shape)
    b_rows = row + tl.arange(0, shape.ROWS)
    b_cols = column + tl.arange(0, shape.COLS)
    b_row_in = b_rows < row_stop
    b_col_in = b_cols < num_labels
    opened = open_tile(positives, exclude, b_rows, b_row_in, column, num_labels, shape.COLS)
    b_s = keep_negatives(  # from here on -inf means "no negative"
        b_s, opened, positives, exclude, row, row_stop, column, num_labels, True, shape
    )

    b_z = b_s * (tl.load(slope_ptr) * LOG2_E)
    b_offset = tl.zeros((shape.COLS,), tl.float32)
    if HAS_OFFSET:
        b_offset = tl.load(offset_ptr + b_cols, mask=b_col_in, other=0.0) * LOG2_E
        b_z += b_offset[None, :]
    top = tl.max(tl.max(b_z, 1), 0)
    top = tl.where(top > float("-inf"), top, 0.0)
    b_row_base = tl.zeros((shape.ROWS,), tl.float32) + top
    b_col_base = tl.zeros((shape.COLS,), tl.float32) + top
    b_e = tl.exp2(b_z - top)
    b_row_sum = tl.sum(b_e, 1)
    b_col_sum = tl.sum(b_e, 0)
    if any_row(b_row_in & (b_row_sum < LEAST)) | any_row(b_col_in & (b_col_sum < LEAST)):
        b_row_base = tl.max(b_z, 1)
        b_row_base = tl.where(b_row_base > float("-inf"), b_row_base, 0.0)
        b_row_sum = tl.sum(tl.exp2(b_z - b_row_base[:, None]), 1)
        b_col_base = tl.max(b_z, 0)
        b_col_base = tl.where(b_col_base > float("-inf"), b_col_base, 0.0)
        b_col_sum = tl.sum(tl.exp2(b_z - b_col_base[None, :]), 0)

    b_row_ptr = (
        row_partial_ptr + col_tile.to(tl.int64) * out_rows + local + tl.arange(0, shape.ROWS)
    )
    tl.store(b_row_ptr, b_row_base, mask=b_row_in)
    b_row_ptr += num_col_tiles.to(tl.int64) * out_rows
    tl.store(b_row_ptr, b_row_sum, mask=b_row_in)
    b_col_ptr = col_partial_ptr + row_tile.to(tl.int64) * out_cols + b_cols
    tl.store(b_col_ptr, b_col_base - b_offset, mask=b_col_in)
    b_col_ptr += tl.cdiv(out_rows, shape.ROWS).to(tl.int64) * out_cols
    tl.store(b_col_ptr, b_col_sum, mask=b_col_in)


def serves(problem: Problem, request: WalkRequest) -> bool:
    """Whether this module makes the walk."""
    if request.columns is None or request.softmax is None or problem.guard is not None:
        return False
    # The other statistics come out of the walk, which computes S as well: nothing is saved.
    if request.top_k or request.hardest_positive or request.sigmoid:
        return False
    if request.positive_margin is not None or request.negative_margin is not None:
        return False
    return min(*problem.positives.shape, problem.queries.shape[1]) > 0


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """The walk of a request that ``serves`` accepts, with its columns."""
    slope, offset = request.inverse_temperature, request.label_offset
    assert slope is not None and request.softmax is not None and request.columns is not None
    exchanged = Problem(
        problem.labels, problem.queries, problem.positives.transpose(),
        problem.exclude.transpose(), None,
    )  # fmt: skip
    rows, columns = _negatives(problem, slope, offset)
    found = _statistics(positive_logits(problem, slope, offset), rows, request.softmax)
    own = positive_logits(exchanged, slope)
    found.columns = _statistics(own, columns, request.columns)
    return found


def _statistics(own: PositiveLogits, negatives: tuple[Tensor, Tensor], over: str) -> RowStatistics:
    """One side's numbers from its positives and its negatives."""
    base, total = negatives
    if over == "all":
        base, total = join(torch.stack([base, own.maximum]), torch.stack([total, own.sum]))
    # An empty set: log 0.
    log_sum_exp = torch.where(total > 0, (base + torch.log2(total)) * math.log(2.0), -torch.inf)
    return RowStatistics(
        own.num_positives,
        own.num_negatives,
        log_sum_exp=log_sum_exp,
        positive_logit_sum=own.logit_sum,
    )


def join(base: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) base and sum in base 2 of partial sums (t, n), those of 0 being empty."""
    base = torch.where(total > 0, base, -torch.inf)
    top = base.amax(dim=0)
    finite = torch.where(top > -torch.inf, top, 0.0)
    return finite, (total * torch.exp2(base - finite)).sum(dim=0)


def chunk_rows(num_rows: int, num_labels: int, tile: Tile) -> int:
    """Rows whose partial sums fit a quarter of the workspace: whole tiles."""
    tiles = triton.cdiv(num_labels, tile.cols)
    per_row_tile = 8 * (tiles * tile.rows + num_labels)
    fit = max(workspace.WORKSPACE_BYTES // 4 // per_row_tile, 1)
    return min(fit, triton.cdiv(num_rows, tile.rows)) * tile.rows


def _negatives(
    problem: Problem, slope: Tensor, offset: Tensor | None
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """((B,) bases, (B,) sums) and ((M,) bases, (M,) sums) over the negatives."""
    queries, labels = problem.queries, problem.labels
    (b, d), m = queries.shape, labels.shape[0]
    device = queries.device
    precision = dot_precision(queries.dtype)
    tile = coefficients.tile_for(queries.dtype, precision)
    height = chunk_rows(b, m, tile)
    new = functools.partial(torch.empty, dtype=torch.float32, device=device)
    by_row = new((2, triton.cdiv(m, tile.cols), height))
    by_column = new((2, height // tile.rows, m))
    bases, sums = new(b), new(b)
    column_base, column_sum = torch.zeros_like(labels[:, 0], dtype=torch.float32), new(m).zero_()
    positives = walk_arguments(problem.positives, device)
    exclude = walk_arguments(problem.exclude, device)
    shape = tile_shape(tile, d, queries.dtype, precision)
    options: dict[str, Any] = {"num_warps": tile.warps, "num_stages": tile.stages}
    if coefficients.is_hopper(device):
        kinds = positives.kind.value, exclude.kind.value
        options["maxnreg"] = coefficients.register_limit("softmax", kinds, False, False, d)
    for start in range(0, b, height):
        stop = min(start + height, b)
        row_tiles = triton.cdiv(stop - start, tile.rows)
        with on_device_of(queries):
            both_sides_kernel[(row_tiles * by_row.shape[1],)](
                embeddings(queries, labels), positives, exclude, slope, given_or(offset, bases),
                by_row, by_column, b, m, start, stop, height, m, HAS_OFFSET=offset is not None,
                shape=shape, **options,
            )  # fmt: skip
        chunk = by_row[:, :, : stop - start]
        bases[start:stop], sums[start:stop] = join(chunk[0], chunk[1])
        chunk = by_column[:, :row_tiles]
        column_base, column_sum = join(
            torch.cat([chunk[0], column_base[None]]), torch.cat([chunk[1], column_sum[None]])
        )
    return (bases, sums), (column_base, column_sum)
