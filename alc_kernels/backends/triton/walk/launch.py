"""Host side of the walk: which variant of the kernel, how many splits, and its launch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
import triton

from alc_kernels.backends.cuda import mining
from alc_kernels.backends.triton import launch as tuned
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
from alc_kernels.backends.triton.tile.bits import BLOCK, ActiveBits, new_bits, rows_that_fit
from alc_kernels.backends.triton.tile.relation import walk_arguments, walk_kind
from alc_kernels.backends.triton.walk.kernel import walk_kernel
from alc_kernels.backends.triton.walk.merge import NUM_FLOATS, NUM_INTS, merge_kernel
from alc_kernels.backends.triton.walk.selection import (
    GROUP,
    row_bytes,
    select_largest,
    takes_two_passes,
)
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest

MERGE_ROWS = 32
MERGE_WARPS = 4


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
    guard: int,
    tile: Tile,
    d: int,
    dtype: torch.dtype,
    precision: str,
    *,
    keep: tuple[bool, bool] = (False, False),
    two_passes: bool = False,
    subtile: int = 0,
) -> dict[str, Any]:
    """The constexpr arguments of ``walk_kernel``; none depends on the batch size.

    ``guard``: as in ``guard_kind``. ``keep``: store the bits of active positives, negatives.
    ``two_passes``: the k largest are found afterwards, from the maxima of groups of columns.
    ``subtile``: the CUDA kernels find them, from the maxima of sub-tiles that wide.
    """
    reads_negatives = (
        guard > 0
        or request.sigmoid
        or request.softmax is not None
        or request.negative_margin is not None
    )
    # Triton 3.6 aborts on sm_100 when a product is read inside of a branch only: where nothing
    # else reads the plain tile, look for a maximum that nobody asked for.
    top = request.top_k if request.top_k or reads_negatives else 1
    if two_passes or subtile:
        top = 0
    return {
        "POS_KIND": walk_kind(positives),
        "EXC_KIND": walk_kind(exclude),
        "GUARD": guard,
        "TOP": top,
        "SLOTS": triton.next_power_of_2(max(1, top)),
        "HARDEST": request.hardest_positive,
        "SOFTMAX": request.softmax or "none",
        "HAS_OFFSET": request.softmax is not None and request.label_offset is not None,
        "SIGMOID": request.sigmoid,
        "POS_MARGIN": request.positive_margin is not None,
        "NEG_MARGIN": request.negative_margin is not None,
        "KEEP_POSITIVE": keep[0],
        "KEEP_NEGATIVE": keep[1],
        "MAXIMA": min(tile.cols, GROUP) if two_passes else 0,
        "SUBTILE": subtile,
        "WHOLE": d <= tile.depth,
        **product_constexprs(tile, d, dtype, precision),
    }


def merge_constexprs(constexprs: dict[str, Any]) -> dict[str, Any]:
    """The constexpr arguments of ``merge_kernel`` after a walk with ``constexprs``."""
    names = ("TOP", "SLOTS", "HARDEST", "SIGMOID", "POS_MARGIN", "NEG_MARGIN")
    chosen = {name: constexprs[name] for name in names}
    return {**chosen, "SOFTMAX": constexprs["SOFTMAX"] != "none", "ROWS": MERGE_ROWS}


def walk_epilogue(request: WalkRequest, *, two_passes: bool = False) -> str:
    """What a tile costs beyond its product: decides the tile sizes."""
    if request.top_k > 1 and not two_passes:
        return "list" if request.top_k <= 32 else "long"
    if request.softmax is not None or request.sigmoid:
        return "sums"
    return "maximum"


def nothing_found(problem: Problem, request: WalkRequest) -> RowStatistics:
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


def _bits_to_keep(problem: Problem, request: WalkRequest) -> tuple[bool, bool]:
    """Whether to keep the bits of active (positives, negatives).

    Not where every pair has a gradient anyway, nor for positives that ``evaluate`` lists.
    """
    if not request.keep_active or request.softmax is not None or request.sigmoid:
        return False, False
    several = problem.positives.kind not in ("empty", "diagonal", "index")
    return several and request.positive_margin is not None, request.negative_margin is not None


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """One pass over the similarities: see ``Backend.walk``.

    ``RowStatistics.active`` holds the bits of the active pairs where those of all rows fit in
    the workspace (``active_bits``).
    """
    (b, _), m = problem.queries.shape, problem.labels.shape[0]
    if b == 0 or m == 0:
        return nothing_found(problem, request)
    keep = _bits_to_keep(problem, request)
    if any(keep) and rows_that_fit(m, sum(keep)) < b:
        keep = (False, False)
    launch = WalkLaunch(problem, request, keep)
    stats = launch.results()
    active = launch.new_bits(0, b)
    step = launch.rows_at_once(active)
    for start in range(0, b, step):
        launch.rows(start, min(start + step, b), active)
    if any(keep):
        stats.active = active
    return stats


def walk_bits(problem: Problem, request: WalkRequest) -> Iterator[ActiveBits]:
    """The bits of the request's active pairs, in row chunks that fit in the workspace."""
    b, m = problem.queries.shape[0], problem.labels.shape[0]
    if b == 0 or m == 0:
        return
    has_positives = problem.positives.kind != "empty"
    keep = (
        request.positive_margin is not None and has_positives,
        request.negative_margin is not None,
    )
    step = rows_that_fit(m, max(sum(keep), 1))
    launch = WalkLaunch(problem, request, keep)
    for start in range(0, b, step):
        active = launch.new_bits(start, min(start + step, b))
        launch.rows(active.start, active.stop, active)
        yield active


class WalkLaunch:
    """The walk of one request, launched over any rows; holds the results of all rows."""

    def __init__(self, problem: Problem, request: WalkRequest, keep: tuple[bool, bool]) -> None:
        queries, device = problem.queries, problem.queries.device
        b, d = queries.shape
        capability, self.multiprocessors = device_limits(device)
        precision = dot_precision(queries.dtype)
        self.problem, self.request, self.keep = problem, request, keep

        def choose(epilogue: str) -> Tile:
            table = walk_tile(capability, queries.dtype, d, precision, epilogue)
            return tuned.choose(epilogue, queries, precision, table)

        tile = choose(walk_epilogue(request, two_passes=True))
        group = min(tile.cols, GROUP)
        self.subtile = mining.width_for(problem, request.top_k, tile.cols, precision)
        self.two_passes = not self.subtile and takes_two_passes(
            b, problem.labels.shape[0], request.top_k, group
        )
        self.group_tile = replace(tile, cols=group)
        afterwards = self.two_passes or self.subtile > 0
        self.tile = tile if afterwards else choose(walk_epilogue(request))
        self.constexprs = walk_constexprs(
            request, problem.positives.kind, problem.exclude.kind, guard_kind(problem),
            self.tile, d, queries.dtype, precision, keep=keep, two_passes=self.two_passes,
            subtile=self.subtile,
        )  # fmt: skip
        self.relations = (
            walk_arguments(problem.positives, device), walk_arguments(problem.exclude, device)
        )  # fmt: skip
        top = request.top_k if afterwards else self.constexprs["TOP"]
        self.new = functools.partial(torch.empty, device=device, dtype=torch.float32)
        self.floats, self.ints = self.new((6, b)), self.new((5, b), dtype=torch.int64)
        self.scores, self.indices = self.new((b, top)), self.new((b, top), dtype=torch.int64)

    def rows_at_once(self, active: ActiveBits) -> int:
        """Rows whose groups fit in what the bits leave of the workspace; a multiple of BLOCK."""
        b, m = self.problem.queries.shape[0], self.problem.labels.shape[0]
        if not self.two_passes and not self.subtile:
            return b
        kept = [side for side in (active.positive, active.negative) if side is not None]
        left = workspace.WORKSPACE_BYTES - sum(4 * side.numel() for side in kept)
        size = row_bytes(m, self.request.top_k, self.group_tile.cols)
        if self.subtile:
            size = 4 * mining.num_subtiles(m, self.tile.cols, self.subtile)
        return max(left // size // BLOCK, 1) * BLOCK

    def new_bits(self, start: int, stop: int) -> ActiveBits:
        """Room for the bits of some rows, where they are kept."""
        m = self.problem.labels.shape[0]
        positive, negative = (
            new_bits(m, start, stop, self.problem.queries) if wanted else None
            for wanted in self.keep
        )
        return ActiveBits(start, stop, positive, negative)

    def rows(self, start: int, stop: int, active: ActiveBits) -> None:
        """Walk over the rows ``start`` .. ``stop``, a part of those of ``active``."""
        problem, request, tile, new = self.problem, self.request, self.tile, self.new
        queries, labels = problem.queries, problem.labels
        rows, m = stop - start, labels.shape[0]
        row_blocks, tiles = triton.cdiv(rows, tile.rows), triton.cdiv(m, tile.cols)
        slots = self.multiprocessors * tile.programs
        length = split_tiles(row_blocks, tiles, slots, tile.cols)
        splits = triton.cdiv(tiles, length)
        partial_floats = new((NUM_FLOATS.value, splits, rows))
        partial_ints = new((NUM_INTS.value, splits, rows), dtype=torch.int32)
        list_size = (splits, rows, self.constexprs["SLOTS"]) if self.constexprs["TOP"] else (1,)
        list_values, list_indices = new(list_size), new(list_size, dtype=torch.int32)
        unused, stride = self.floats, triton.cdiv(active.stop - active.start, BLOCK) * BLOCK
        bits = [
            unused if side is None else side[:, start - active.start :]
            for side in (active.positive, active.negative)
        ]
        maxima = new((triton.cdiv(m, self.group_tile.cols), rows) if self.two_passes else (1, 1))
        if self.subtile:
            maxima = new((rows, mining.num_subtiles(m, tile.cols, self.subtile)))
        positives, exclude = self.relations
        with on_device_of(queries):
            walk_kernel[(row_blocks * splits,)](
                queries, labels, positives.row_ptr, positives.col_ptr,
                exclude.row_ptr, exclude.col_ptr, given_or(problem.guard, unused),
                *slack_or(problem, unused), given_or(request.label_offset, unused),
                given_or(request.inverse_temperature, unused), given_or(request.scale, unused),
                given_or(request.bias, unused), list_values, list_indices, partial_floats,
                partial_ints, maxima, *bits, start, stop, m,
                queries.shape[1], length, stride, request.positive_margin or 0.0,
                request.negative_margin or 0.0,
                **self.constexprs, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
            merge_kernel[(triton.cdiv(rows, MERGE_ROWS),)](
                list_values, list_indices, partial_floats, partial_ints, self.scores,
                self.indices, self.floats, self.ints, queries.shape[0], start, rows, splits,
                length * tile.cols, **merge_constexprs(self.constexprs), num_warps=MERGE_WARPS,
            )  # fmt: skip
        if self.two_passes:
            select_largest(
                problem, self.relations, maxima, start, self.group_tile, self.scores, self.indices
            )

        if self.subtile:
            mining.select(
                problem, positives, exclude, maxima, start, tile.cols, self.subtile, self.scores,
                self.indices,
            )  # fmt: skip

    def results(self) -> RowStatistics:
        """The results by their names, to be filled by ``rows``."""
        return named_slots(self.request, self.scores, self.indices, self.floats, self.ints)


def named_slots(
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
