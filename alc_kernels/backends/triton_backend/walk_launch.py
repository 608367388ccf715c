"""Host side of the walk: which variant of the kernel, how many splits, and its launch."""

from __future__ import annotations

import functools
from typing import Any

import torch
import triton

from alc_kernels.backends.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.backends.triton_backend.config import Tile, walk_tile
from alc_kernels.backends.triton_backend.launch import INTERPRETED, on_device_of
from alc_kernels.backends.triton_backend.merge import merge_kernel
from alc_kernels.backends.triton_backend.relation import walk_arguments, walk_kind
from alc_kernels.backends.triton_backend.walk import walk_kernel

MERGE_ROWS = 32
MERGE_WARPS = 4


def dot_precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied (half precision inputs are multiplied exactly)."""
    if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"


@functools.cache
def _device_limits(device: torch.device) -> tuple[tuple[int, int], int]:
    """(compute capability, multiprocessors); a stand-in where there is no GPU."""
    if device.type != "cuda":
        return (9, 0), 4
    properties = torch.cuda.get_device_properties(device)
    # The versions of AMD's devices look like compute capabilities but mean something else.
    capability = (0, 0) if torch.version.hip else (properties.major, properties.minor)
    return capability, properties.multi_processor_count


@functools.lru_cache(maxsize=4096)
def split_tiles(row_blocks: int, tiles: int, slots: int, cols: int) -> int:
    """Column tiles per split, for ``slots`` programs that run at once.

    Without splits the time is that of ceil(row_blocks / slots) rounds of ``tiles`` tiles, and
    the last round is mostly empty where few rows are left. More splits fill it, but each
    program has a start-up cost, taken as two tiles. The fewest splits of the least time. A
    split's columns are counted in 32 bits.
    """
    longest = max(1, (2**31 - 1) // cols - 1)
    best = (float("inf"), 1)
    for splits in range(1, min(tiles, 2 * slots) + 1):
        length = -(-tiles // splits)
        rounds = -(-row_blocks * -(-tiles // length) // slots)
        time = rounds * (length + 2)
        if length <= longest and time < best[0]:
            best = (time, length)
    return best[1] if best[0] != float("inf") else longest


def walk_constexprs(
    request: WalkRequest,
    positives: str,
    exclude: str,
    has_guard: bool,
    tile: Tile,
    d: int,
    dtype: torch.dtype,
    precision: str,
) -> dict[str, Any]:
    """The constexpr arguments of ``walk_kernel``; none depends on the batch size."""
    reads_negatives = (
        has_guard
        or request.sigmoid
        or request.softmax is not None
        or request.negative_margin is not None
    )
    # Triton 3.6 aborts on sm_100 when a product is read inside of a branch only: where nothing
    # else reads the plain tile, look for a maximum that nobody asked for.
    top = request.top_k if request.top_k or reads_negatives else 1
    return {
        "POS_KIND": walk_kind(positives),
        "EXC_KIND": walk_kind(exclude),
        "HAS_GUARD": has_guard,
        "TOP": top,
        "SLOTS": triton.next_power_of_2(max(1, top)),
        "HARDEST": request.hardest_positive,
        "SOFTMAX": request.softmax or "none",
        "HAS_OFFSET": request.softmax is not None and request.label_offset is not None,
        "SIGMOID": request.sigmoid,
        "POS_MARGIN": request.positive_margin is not None,
        "NEG_MARGIN": request.negative_margin is not None,
        "ROWS": tile.rows,
        "COLS": tile.cols,
        "DEPTH": tile.depth,
        "EVEN": d % tile.depth == 0,
        "WHOLE": d <= tile.depth,
        "PRECISION": precision,
        "UPCAST": INTERPRETED and dtype == torch.bfloat16,
    }


def merge_constexprs(constexprs: dict[str, Any]) -> dict[str, Any]:
    """The constexpr arguments of ``merge_kernel`` after a walk with ``constexprs``."""
    names = ("TOP", "SLOTS", "HARDEST", "SIGMOID", "POS_MARGIN", "NEG_MARGIN")
    chosen = {name: constexprs[name] for name in names}
    return {**chosen, "SOFTMAX": constexprs["SOFTMAX"] != "none", "ROWS": MERGE_ROWS}


def walk_epilogue(request: WalkRequest) -> str:
    """What a tile costs beyond its product: decides the tile sizes."""
    if request.top_k > 1:
        return "list" if request.top_k <= 32 else "long"
    if request.softmax is not None or request.sigmoid:
        return "sums"
    return "maximum"


def _nothing(problem: Problem, request: WalkRequest) -> RowStatistics:
    """The statistics of rows that have no labels (or of no rows)."""
    b = problem.queries.shape[0]
    new = functools.partial(torch.full, device=problem.queries.device, dtype=torch.float32)
    whole = functools.partial(torch.full, device=problem.queries.device, dtype=torch.int64)
    stats = RowStatistics(whole((b,), 0), whole((b,), 0))
    if request.top_k:
        stats.top_score = new((b, request.top_k), float("-inf"))
        stats.top_index = whole((b, request.top_k), -1)
    if request.hardest_positive:
        stats.positive_score, stats.positive_index = new((b,), float("inf")), whole((b,), -1)
    if request.softmax:
        stats.log_sum_exp = new((b,), float("-inf"))
        stats.positive_logit_sum = new((b,), 0.0)
    if request.sigmoid:
        stats.sigmoid_sum = new((b,), 0.0)
    if request.positive_margin is not None:
        stats.positive_margin_sum, stats.positive_margin_count = new((b,), 0.0), whole((b,), 0)
    if request.negative_margin is not None:
        stats.negative_margin_sum, stats.negative_margin_count = new((b,), 0.0), whole((b,), 0)
    return stats


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """One pass over the similarities: see ``Backend.walk``."""
    queries, labels = problem.queries, problem.labels
    (b, d), m = queries.shape, labels.shape[0]
    if b == 0 or m == 0:
        return _nothing(problem, request)
    device = queries.device
    capability, multiprocessors = _device_limits(device)
    precision = dot_precision(queries.dtype)
    tile = walk_tile(capability, queries.dtype, d, precision, walk_epilogue(request))
    constexprs = walk_constexprs(
        request, problem.positives.kind, problem.exclude.kind, problem.guard is not None,
        tile, d, queries.dtype, precision,
    )  # fmt: skip
    row_blocks, tiles = triton.cdiv(b, tile.rows), triton.cdiv(m, tile.cols)
    length = split_tiles(row_blocks, tiles, multiprocessors * tile.programs, tile.cols)
    splits = triton.cdiv(tiles, length)

    top, slots = constexprs["TOP"], constexprs["SLOTS"]
    new = functools.partial(torch.empty, device=device, dtype=torch.float32)
    partial_floats = new((7, splits, b))
    partial_ints = new((5, splits, b), dtype=torch.int32)
    list_size = (splits, b, slots) if top else (1,)
    list_values, list_indices = new(list_size), new(list_size, dtype=torch.int32)
    floats, ints = new((6, b)), new((5, b), dtype=torch.int64)
    scores, indices = new((b, top)), new((b, top), dtype=torch.int64)

    positives = walk_arguments(problem.positives, device)
    exclude = walk_arguments(problem.exclude, device)
    with on_device_of(queries):
        walk_kernel[(row_blocks * splits,)](
            queries, labels, positives.row_ptr, positives.col_ptr, exclude.row_ptr,
            exclude.col_ptr, _or(problem.guard, floats), _or(request.label_offset, floats),
            _or(request.inverse_temperature, floats), _or(request.scale, floats),
            _or(request.bias, floats), list_values, list_indices, partial_floats, partial_ints,
            b, m, d, length, request.positive_margin or 0.0, request.negative_margin or 0.0,
            **constexprs, num_warps=tile.warps, num_stages=tile.stages,
        )  # fmt: skip
        merge_kernel[(triton.cdiv(b, MERGE_ROWS),)](
            list_values, list_indices, partial_floats, partial_ints, scores, indices, floats,
            ints, b, splits, length * tile.cols, **merge_constexprs(constexprs),
            num_warps=MERGE_WARPS,
        )  # fmt: skip
    return _collect(request, scores, indices, floats, ints)


def _or(tensor: torch.Tensor | None, dummy: torch.Tensor) -> torch.Tensor:
    """The tensor, or a pointer for an argument that the kernel does not read."""
    return dummy if tensor is None else tensor.contiguous()


def _collect(
    request: WalkRequest,
    scores: torch.Tensor,
    indices: torch.Tensor,
    floats: torch.Tensor,
    ints: torch.Tensor,
) -> RowStatistics:
    """Name the slots of ``merge_kernel``."""
    stats = RowStatistics(ints[0], ints[1])
    if request.top_k:
        stats.top_score, stats.top_index = scores, indices
    if request.hardest_positive:
        stats.positive_score, stats.positive_index = floats[0], ints[4]
    if request.softmax:
        stats.log_sum_exp, stats.positive_logit_sum = floats[1], floats[2]
    if request.sigmoid:
        stats.sigmoid_sum = floats[3]
    if request.positive_margin is not None:
        stats.positive_margin_sum, stats.positive_margin_count = floats[4], ints[2]
    if request.negative_margin is not None:
        stats.negative_margin_sum, stats.negative_margin_count = floats[5], ints[3]
    return stats
