"""The dense gradient pass: G = dL/dS chunk by chunk into a workspace, multiplied out at once.

A kernel recomputes a tile of S, turns it into coefficients by the request's formula and writes
them in the compute dtype; the library's matrix products then add G K and G^T Q in float32.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.triton import launch as common
from alc_kernels.backends.triton.dense.kernel import (
    Columns,
    Formula,
    Margins,
    Space,
    coefficients_kernel,
)
from alc_kernels.backends.triton.dense.prefix_kernel import prefix_coefficients_kernel
from alc_kernels.backends.triton.launch import (
    INTERPRETED,
    Tile,
    device_limits,
    dot_precision,
    given_or,
    on_device_of,
)
from alc_kernels.backends.triton.tile.negatives import guard_argument
from alc_kernels.backends.triton.tile.product import embeddings, scales, tile_shape
from alc_kernels.backends.triton.tile.relation import relation_arguments
from alc_kernels.backends.triton.walk.prefix_launch import LEAST_DEPTH, width_bounds
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    PrefixProblem,
    PrefixSides,
    Problem,
)

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
    entries = common.WORKSPACE_BYTES // item_bytes
    all_rows, cols = _round_up(num_rows, unit), _round_up(num_cols, unit)
    few_rows = min(MIN_CHUNK_ROWS, all_rows)
    if few_rows * cols > entries:
        cols = min(cols, max(entries // few_rows // unit, 1) * unit)
    rows = min(all_rows, max(entries // cols // unit, 1) * unit)
    return rows, cols


def is_hopper(device: torch.device) -> bool:
    """Whether kernels are compiled for compute capability 9.x."""
    return not INTERPRETED and device_limits(device)[0][0] == 9


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


def column_argument(columns: GradientRequest | None, unused: Tensor) -> Columns:
    """The kernel's argument for ``GradientRequest.columns``, (M,) float32 each.

    The scale of a column is part of the exponent, so that a negative costs one exponential and
    one number per column is held while S is. Columns that do not count have infinite shifts.
    """
    if columns is None:
        return Columns(tl.constexpr("none"), *[unused] * 4)
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
    return Columns(tl.constexpr(columns.kind), *(value.contiguous() for value in values))


class _Pass:
    """Chunk by chunk: coefficients of every width into a workspace, then its products."""

    def __init__(
        self,
        problem: Problem | PrefixProblem,
        requests: list[GradientRequest],  # one per width, as are ``sides``
        sides: list[PrefixSides],
        tile: Tile,
        scalars: bool,
    ) -> None:
        queries, labels, first = problem.queries, problem.labels, requests[0]
        self.problem, self.sides, self.tile = problem, sides, tile
        dtype, device, num_rows = queries.dtype, queries.device, queries.shape[0]
        widths = problem.widths if isinstance(problem, PrefixProblem) else queries.shape[1:]
        d = math.gcd(*widths)
        # Where products need float32 copies, those count as workspace: of one width at a time.
        item_bytes = len(sides) * queries.element_size() + (4 if upcasts(queries) else 0)
        self.rows, self.cols = chunk_shape(num_rows, labels.shape[0], item_bytes)
        self.space = torch.empty((len(sides), self.rows, self.cols), dtype=dtype, device=device)
        self.scales = None
        if dtype == torch.float16:
            self.scales = torch.stack([half_scale(request) for request in requests])
        relations = [relation_arguments(r, device) for r in (problem.positives, problem.exclude)]

        def of_all(name: str) -> Tensor:
            found = [getattr(request, name) for request in requests]
            if found[0] is None:
                return queries
            return torch.stack(found) if len(found) > 1 else found[0].contiguous()

        offset = first.label_offset if first.kind != "sigmoid" else None
        slope = first.scale if first.kind == "sigmoid" else first.inverse_temperature
        formula = Formula(
            tl.constexpr(first.kind or "none"),
            tl.constexpr(offset is not None),
            tl.constexpr(self.scales is not None),
            of_all("row_scale"),
            given_or(first.num_positives, queries),  # the positives are those of every width
            of_all("log_sum_exp"),
            of_all("negative_scale"),
            given_or(slope, queries),
            given_or(offset, queries),
            given_or(first.bias, queries),
            given_or(self.scales, queries),
        )
        margins = first.positive_margin, first.negative_margin
        self.arguments: dict[str, Any] = {
            "rows": embeddings(queries, labels),
            "positives": relations[0],
            "exclude": relations[1],
            "guard": guard_argument(problem, queries),
            "formula": formula,
            "margins": Margins(
                tl.constexpr(margins[0] is not None), tl.constexpr(margins[1] is not None),
                float(margins[0] or 0.0), of_all("positive_margin_scale"),
                float(margins[1] or 0.0), of_all("negative_margin_scale"),
            ),
            "columns": column_argument(first.columns, queries),
            "space": Space(self.space, self.cols),
            "num_queries": num_rows,
            "num_labels": labels.shape[0],
            "shape": tile_shape(tile, d, dtype, dot_precision(dtype)),
            "num_warps": tile.warps,
            "num_stages": tile.stages,
        }  # fmt: skip
        if is_hopper(device):
            kinds = relations[0].kind.value, relations[1].kind.value
            self.arguments["maxnreg"] = register_limit(
                first.kind or "none", kinds, margins != (None, None), scalars, d
            )

    def all_chunks(self, launch: Callable[..., None]) -> None:
        """``launch(grid, row_start=, row_stop=, col_start=, col_stop=)``, then the products."""
        num_rows, num_labels = self.problem.queries.shape[0], self.problem.labels.shape[0]
        if self.scales is not None:
            self._multiply(self.scales)  # exact, as is undoing it: a power of two
        with on_device_of(self.space):
            for start, stop in _chunks(num_rows, self.rows):
                for left, right in _chunks(num_labels, self.cols):
                    blocks = triton.cdiv(right - left, self.tile.cols)
                    launch(
                        (triton.cdiv(stop - start, self.tile.rows) * blocks,),
                        row_start=start, row_stop=stop, col_start=left, col_stop=right,
                        **self.arguments,
                    )  # fmt: skip
                    for plane, side in zip(self.space, self.sides, strict=True):
                        chunk = plane[: stop - start, : right - left]
                        if side.grad_queries is not None:
                            add_product(
                                side.grad_queries[start:stop], chunk, side.labels[left:right]
                            )
                        if side.grad_labels is not None:
                            add_product(
                                side.grad_labels[left:right], chunk.T, side.queries[start:stop]
                            )
        if self.scales is not None:
            self._multiply(1.0 / self.scales)

    def _multiply(self, factors: Tensor) -> None:
        for side, factor in zip(self.sides, factors, strict=True):
            for grad in (side.grad_queries, side.grad_labels):
                if grad is not None:
                    grad.mul_(factor)


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    queries, labels = problem.queries, problem.labels
    num_rows, num_labels = queries.shape[0], labels.shape[0]
    new = functools.partial(torch.zeros, dtype=torch.float32, device=queries.device)
    result = GradientResult()
    if request.want_scalars:
        result.weighted_sum, result.plain_sum = new(num_rows), new(num_rows)
    scalars = request.want_scalars and request.kind is not None
    margins = request.positive_margin, request.negative_margin
    nothing = request.kind is None and margins == (None, None)
    if num_rows == 0 or num_labels == 0 or nothing:
        return result
    if grad_queries is None and grad_labels is None and not scalars:
        return result

    precision = dot_precision(queries.dtype)
    table = tile_for(queries.dtype, precision)
    tile = common.choose("coefficients", queries, precision, table)
    sides = PrefixSides(queries, labels, grad_queries, grad_labels)
    run = _Pass(problem, [request], [sides], tile, scalars)
    partial = torch.empty(
        (2, run.cols // tile.cols if scalars else 0, run.rows), dtype=torch.float32,
        device=queries.device,
    )  # fmt: skip

    def launch(grid: tuple[int], **arguments: Any) -> None:
        coefficients_kernel[grid](
            partial_ptr=partial, partial_cols=partial.shape[1], partial_rows=run.rows,
            SCALARS=scalars, **arguments,
        )  # fmt: skip
        if result.weighted_sum is not None and result.plain_sum is not None and scalars:
            start, stop = arguments["row_start"], arguments["row_stop"]
            blocks = triton.cdiv(arguments["col_stop"] - arguments["col_start"], tile.cols)
            sums = partial[:, :blocks, : stop - start].sum(dim=1)
            result.weighted_sum[start:stop] += sums[0]
            result.plain_sum[start:stop] += sums[1]

    run.all_chunks(launch)
    return result


# The sum that goes on and one width's coefficients live at the same time.
MOST_PREFIX_COLS = 64


def dense_prefix_gradient(
    problem: PrefixProblem, requests: list[GradientRequest], sides: list[PrefixSides]
) -> None:
    """Coefficients of every width of a chunk into the workspace, then its products."""
    queries, widths, precision = (
        problem.queries,
        problem.widths,
        dot_precision(problem.queries.dtype),
    )
    tile = tile_for(queries.dtype, precision)
    common = math.gcd(*widths)
    depth = max(common & -common, LEAST_DEPTH)
    # With half the columns where it has 128.
    tile = replace(tile, cols=min(tile.cols, MOST_PREFIX_COLS), depth=min(tile.depth, depth))
    run = _Pass(problem, requests, sides, tile, False)
    bounds = width_bounds(widths, queries.device)

    def launch(grid: tuple[int], **arguments: Any) -> None:
        prefix_coefficients_kernel[grid](
            scales=scales(problem.query_scale, problem.label_scale, queries), widths_ptr=bounds,
            num_widths=len(widths), out_rows=run.rows, **arguments,
        )  # fmt: skip

    run.all_chunks(launch)
