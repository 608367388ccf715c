"""The symmetric softmax's statistics of rows and columns from one pass over S.

With the coefficients of both sides made in one pass as well (``coefficients``), forward and
backward take four products: S, S again, and one for each gradient.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
import triton
from torch import Tensor

from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.launch import Tile, dot_precision, on_device_of, product_constexprs
from alc_kernels.backends.triton.one_pass.both_sides_kernel import both_sides_kernel
from alc_kernels.backends.triton.one_pass.positive_logits import PositiveLogits, positive_logits
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest


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
    constants = both_sides_constexprs(
        (positives.kind, exclude.kind), offset is not None, tile, d, queries.dtype
    )
    options: dict[str, Any] = {"num_warps": tile.warps, "num_stages": tile.stages}
    if coefficients.is_hopper(device):
        options["maxnreg"] = register_limit(constants, d)
    for start in range(0, b, height):
        stop = min(start + height, b)
        row_tiles = triton.cdiv(stop - start, tile.rows)
        with on_device_of(queries):
            both_sides_kernel[(row_tiles * by_row.shape[1],)](
                queries, labels, positives.row_ptr, positives.col_ptr, exclude.row_ptr,
                exclude.col_ptr, slope, bases if offset is None else offset.contiguous(), by_row,
                by_column, b, m, d, start, stop, height, m, **constants, **options,
            )  # fmt: skip
        chunk = by_row[:, :, : stop - start]
        bases[start:stop], sums[start:stop] = join(chunk[0], chunk[1])
        chunk = by_column[:, :row_tiles]
        column_base, column_sum = join(
            torch.cat([chunk[0], column_base[None]]), torch.cat([chunk[1], column_sum[None]])
        )
    return (bases, sums), (column_base, column_sum)


def register_limit(constants: dict[str, Any], d: int) -> int | None:
    """Registers per thread on Hopper, for two programs on a multiprocessor; None: no limit."""
    relations = constants["POSITIVES"], constants["EXCLUDE"]
    return coefficients.register_limit("softmax", relations, margins=False, scalars=False, d=d)


def both_sides_constexprs(
    relations: tuple[str, str], has_offset: bool, tile: Tile, d: int, dtype: torch.dtype
) -> dict[str, Any]:
    """Constexpr arguments of ``both_sides_kernel``, for any batch size."""
    return {
        "POSITIVES": relations[0],
        "EXCLUDE": relations[1],
        "HAS_OFFSET": has_offset,
        **product_constexprs(tile, d, dtype, dot_precision(dtype)),
    }
