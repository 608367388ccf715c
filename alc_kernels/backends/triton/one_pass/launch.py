"""Softmax and sigmoid losses, forward and backward, with S computed once: three products.

A chunk of rows that sees all columns is finished at a time (``exponentials_kernel``):

    E from one product with an epilogue                   1 product
    row sums -> factor f per row, positives (``rows``)
    dQ += f (E K)             scaled after the product    1 product
    dK += E^T (f Q)           the small operand scaled    1 product

The sigmoid's coefficients need no row sums: E is the coefficient and f is 1. The workspace holds
E in the compute dtype; each chunk adds to all of dK, so it must hold enough rows for that not to
count. In bfloat16 f Q is rounded once more than the coefficients of ``dense`` are.

``walk`` and ``dense`` do the same with S computed twice, four products, where

- the labels are so many that the workspace holds too few rows;
- the walk is asked for more than the loss: hardest negatives, margins, a guard;
- a softmax comes in float16, whose exponents do not reach.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton import launch as common
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.dense.kernel import Space
from alc_kernels.backends.triton.dense.launch import add_product, set_product, upcasts
from alc_kernels.backends.triton.launch import (
    Tile,
    device_limits,
    dot_precision,
    given_or,
    on_device_of,
)
from alc_kernels.backends.triton.one_pass.kernel import (
    Logit,
    exponentials_kernel,
    repair_kernel,
    settle_references_kernel,
)
from alc_kernels.backends.triton.one_pass.rows import (
    NUM_WARPS,
    ROWS,
    TILES,
    Found,
    PositiveLogits,
    positive_logits,
    row_factors_kernel,
)
from alc_kernels.backends.triton.tile.product import depth_for, embeddings, tile_shape
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)

# With fewer rows in a chunk, adding to all rows of dK costs more than computing S again: at d =
# 768 a row of dK is read and written in 6 KiB, while the three products do 5 kFLOP for each of
# its pairs; at 1,024 rows that is about a fifth on top, a product is a third.
MIN_CHUNK_ROWS = 1024
KINDS = {"all": "softmax", "negatives": "decoupled"}
ONE_POSITIVE = ("diagonal", "index")


def serves(problem: Problem, request: WalkRequest) -> bool:
    """Whether this module takes up ``request.gradient``."""
    if request.gradient is None or (request.softmax is None) == (not request.sigmoid):
        return False
    # The other statistics come out of the walk, which computes S as well: nothing is saved.
    if request.top_k or request.hardest_positive or request.columns is not None:
        return False
    if request.positive_margin is not None or request.negative_margin is not None:
        return False
    # Which rows count must be known before the similarities are: not so with a guard.
    if problem.guard is not None:
        return False
    (b, d), m = problem.queries.shape, problem.labels.shape[0]
    if b == 0 or m == 0 or d == 0:
        return False
    # 2^(z - reference) spans more powers of two than float16 has; a sigmoid is at most 1.
    if problem.queries.dtype == torch.float16 and request.softmax is not None:
        return False
    return _chunk_rows(problem, _tile(problem)) >= min(b, MIN_CHUNK_ROWS)


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """The walk of a request that ``serves`` accepts, and the gradient that it offers."""
    assert request.gradient is not None
    offer = request.gradient
    kind = "sigmoid" if request.softmax is None else KINDS[request.softmax]
    slope = request.scale if kind == "sigmoid" else request.inverse_temperature
    assert slope is not None
    softmax = kind != "sigmoid"
    own = positive_logits(problem, slope if softmax else None, request.label_offset)
    row_scale = offer.row_scale(own.num_positives, own.num_negatives).contiguous()
    rows = own.maximum
    half = None
    if not softmax:
        rows = row_scale * slope
        if problem.queries.dtype == torch.float16:
            bound = GradientRequest("sigmoid", row_scale=row_scale, scale=slope)
            half = coefficients.half_scale(bound)
            rows = rows * half
    grads = [grad for grad in (offer.grad_queries, offer.grad_labels) if grad is not None]
    if half is not None:
        for grad in grads:
            grad.mul_(half)  # exact, as is undoing it: a power of two
    run = _Pass(problem, request, offer, kind, slope, own, row_scale, rows)
    run.all_chunks()
    if half is not None:
        for grad in grads:
            grad.mul_(1.0 / half)
    found = RowStatistics(own.num_positives, own.num_negatives, gradient=run.result)
    if softmax:
        found.log_sum_exp, found.positive_logit_sum = run.sums, own.logit_sum
    else:
        found.sigmoid_sum = run.sums
    return found


def _tile(problem: Problem) -> Tile:
    precision = dot_precision(problem.queries.dtype)
    table = coefficients.tile_for(problem.queries.dtype, precision)
    return common.choose("exponentials", problem.queries, precision, table)


def _width(problem: Problem, tile: Tile) -> int:
    """Columns of the workspace: whole tiles, and whole units for the matrix products."""
    unit = max(tile.cols, coefficients.CHUNK_UNIT)
    return triton.cdiv(problem.labels.shape[0], unit) * unit


def _chunk_rows(problem: Problem, tile: Tile) -> int:
    """Rows whose E fits the workspace: whole tiles, no more than there are rows; 0: not one."""
    queries = problem.queries
    # Where products need float32 copies, those count as workspace.
    item_bytes = queries.element_size() + (4 if upcasts(queries) else 0)
    unit = max(tile.rows, coefficients.CHUNK_UNIT)
    fit = common.WORKSPACE_BYTES // (item_bytes * _width(problem, tile)) // unit * unit
    return min(fit, triton.cdiv(queries.shape[0], unit) * unit)


@dataclass
class _Pass:
    """One walk: what all its chunks share."""

    problem: Problem
    request: WalkRequest
    offer: WalkGradient
    kind: str
    slope: Tensor
    own: PositiveLogits
    row_scale: Tensor  # (B,)
    rows: Tensor  # (B,): the largest positive, or the sigmoid's factor

    def __post_init__(self) -> None:
        queries = self.problem.queries
        device = queries.device
        self.tile = _tile(self.problem)
        self.out_rows = _chunk_rows(self.problem, self.tile)
        self.positives = walk_arguments(self.problem.positives, device)
        self.exclude = walk_arguments(self.problem.exclude, device)
        self.result = GradientResult()
        self.sums = torch.empty_like(self.row_scale)
        self.weighted = self.plain = self.sums
        if self.offer.want_scalars:
            self.weighted = self.result.weighted_sum = torch.empty_like(self.sums)
            # A row of the softmax's coefficients sums to 0.
            self.plain = self.result.plain_sum = torch.zeros_like(self.sums)

    def all_chunks(self) -> None:
        """Every row: statistics, gradients."""
        queries, m = self.problem.queries, self.problem.labels.shape[0]
        b, d = queries.shape
        width = _width(self.problem, self.tile)
        tiles = triton.cdiv(m, self.tile.cols)
        new = functools.partial(torch.empty, dtype=torch.float32, device=queries.device)
        out = torch.empty((self.out_rows, width), dtype=queries.dtype, device=queries.device)
        partial = new((4 if self.offer.want_scalars else 2, tiles, self.out_rows))
        row = new((2, self.out_rows))  # references, factors
        scaled = torch.empty((self.out_rows, d), dtype=queries.dtype, device=queries.device)
        product = new((self.out_rows, d))
        for start in range(0, b, self.out_rows):
            stop = min(start + self.out_rows, b)
            self._statistics(start, stop, out, partial, row)
            self._products(start, stop, out[: stop - start, :m], row[1], scaled, product)

    def _statistics(self, start: int, stop: int, out: Tensor, partial: Tensor, row: Tensor) -> None:
        """The chunk's E, its row sums and factors."""
        problem, request, tile = self.problem, self.request, self.tile
        tiles = partial.shape[1]
        has_offset = request.label_offset is not None and self.kind != "sigmoid"
        logit = Logit(
            tl.constexpr(self.kind), tl.constexpr(has_offset), self.slope,
            given_or(request.label_offset, self.rows), given_or(request.bias, self.rows),
        )  # fmt: skip
        scalars, d = self.offer.want_scalars, problem.queries.shape[1]
        row_tiles, few = triton.cdiv(stop - start, tile.rows), triton.cdiv(stop - start, ROWS)
        embedded, space = embeddings(problem.queries, problem.labels), Space(out, out.shape[1])
        shared = embedded, self.positives, self.exclude, logit
        sizes = *problem.positives.shape, start, stop, self.out_rows
        precision = dot_precision(problem.queries.dtype)
        options: dict[str, Any] = {
            "SCALARS": scalars, "shape": tile_shape(tile, d, problem.queries.dtype, precision),
            "num_warps": tile.warps, "num_stages": tile.stages,
        }  # fmt: skip
        limit = {}
        if coefficients.is_hopper(out.device):
            # Within it the softmax kinds spill nothing, and the sigmoid 86 words a tile beside
            # some 2,500 instructions of its formulas, which the other program's product hides.
            kinds = self.positives.kind.value, self.exclude.kind.value
            limit["maxnreg"] = coefficients.register_limit(self.kind, kinds, False, scalars, d)
        with on_device_of(out):
            exponentials_kernel[(row_tiles * tiles,)](
                *shared, self.rows, partial, space, *sizes, **options, **limit
            )
            if self.kind != "sigmoid":
                settle_references_kernel[(few,)](
                    self.rows, partial, row, start, stop, tiles, self.out_rows, KIND=self.kind,
                    ROWS=ROWS, TILES=TILES, num_warps=NUM_WARPS,
                )  # fmt: skip
                programs = row_tiles * triton.cdiv(repair_programs(out.device), row_tiles)
                repair_kernel[(programs,)](
                    *shared, self.rows, row, partial, space, *sizes, **options
                )
            row_factors_kernel[(few,)](
                embedded, self.positives, logit, self.rows, row, self.own.sum,
                self.own.num_positives, self.row_scale, partial, space,
                Found(tl.constexpr(scalars), self.sums, row[1], self.weighted, self.plain),
                problem.labels.shape[0], start, stop, tiles, self.out_rows,
                ONE=self.positives.kind.value in ONE_POSITIVE, ROWS=ROWS, TILES=TILES,
                DEPTH=depth_for(d), num_warps=NUM_WARPS,
            )  # fmt: skip

    def _products(
        self, start: int, stop: int, out: Tensor, factor: Tensor, scaled: Tensor, product: Tensor
    ) -> None:
        """Add the chunk's gradients; out (rows of the chunk, M)."""
        queries, labels = self.problem.queries[start:stop], self.problem.labels
        by_queries, by_labels = self.offer.grad_queries, self.offer.grad_labels
        if self.kind == "sigmoid":
            if by_queries is not None:
                add_product(by_queries[start:stop], out, labels)
            if by_labels is not None:
                add_product(by_labels, out.T, queries)
            return
        column = factor[: stop - start, None]
        if by_queries is not None:
            product = product[: stop - start]
            set_product(product, out, labels)
            by_queries[start:stop].addcmul_(product, column)
        if by_labels is not None:
            scaled = scaled[: stop - start]
            torch.mul(queries, column, out=scaled)
            add_product(by_labels, out.T, scaled)


def repair_programs(device: torch.device) -> int:
    """Programs of the repair: one on a multiprocessor."""
    return device_limits(device)[1]
