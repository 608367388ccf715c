"""Host side of the walk: which variant of the kernel, how many splits, and its launch."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from alc_kernels.backends.cuda import mining
from alc_kernels.backends.triton import launch as common
from alc_kernels.backends.triton.launch import (
    Tile,
    device_limits,
    dot_precision,
    on_device_of,
    walk_tile,
)
from alc_kernels.backends.triton.tile.bits import (
    BLOCK,
    ActiveBits,
    bits_argument,
    new_bits,
    rows_that_fit,
)
from alc_kernels.backends.triton.tile.negatives import guard_argument
from alc_kernels.backends.triton.tile.product import embeddings, tile_shape
from alc_kernels.backends.triton.tile.relation import walk_arguments
from alc_kernels.backends.triton.walk.kernel import walk_kernel
from alc_kernels.backends.triton.walk.merge import (
    NUM_FLOATS,
    NUM_INTS,
    merge_kernel,
    wanted_argument,
)
from alc_kernels.backends.triton.walk.selection import (
    GROUP,
    row_bytes,
    select_largest,
    takes_two_passes,
)
from alc_kernels.backends.triton.walk.topk import Groups, TopLists
from alc_kernels.engine.interface import PrefixProblem, Problem, RowStatistics, WalkRequest

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


def walk_epilogue(request: WalkRequest, *, two_passes: bool = False) -> str:
    """What a tile costs beyond its product: decides the tile sizes."""
    if request.top_k > 1 and not two_passes:
        return "list" if request.top_k <= 32 else "long"
    if request.softmax is not None or request.sigmoid:
        return "sums"
    return "maximum"


def list_length(problem: Problem | PrefixProblem, request: WalkRequest) -> int:
    """How many entries the walk's lists hold."""
    reads_negatives = (
        problem.guard is not None
        or request.sigmoid
        or request.softmax is not None
        or request.negative_margin is not None
    )
    # Triton 3.6 aborts on sm_100 when a product is read inside of a branch only: where nothing
    # else reads the plain tile, look for a maximum that nobody asked for.
    return request.top_k if request.top_k or reads_negatives else 1


class Results:
    """What a walk at ``num_widths`` widths finds, filled some rows at a time."""

    def __init__(
        self, request: WalkRequest, num_widths: int, num_rows: int, top: int, like: Tensor
    ) -> None:
        self.request, self.num_widths, self.num_rows = request, num_widths, num_rows
        self.new = functools.partial(torch.empty, device=like.device, dtype=torch.float32)
        whole = functools.partial(self.new, dtype=torch.int64)
        self.floats, self.ints = (
            self.new((num_widths, 6, num_rows)),
            whole((num_widths, 5, num_rows)),
        )
        self.scores, self.indices = (new((num_widths, num_rows, top)) for new in (self.new, whole))
        self.wanted = wanted_argument(request, self.floats)

    def nothing(self) -> Results:
        """Filled with what rows without labels have."""
        self.floats.zero_()[:, 0].fill_(torch.inf)
        self.floats[:, 1].fill_(-torch.inf)
        self.ints.zero_()[:, 4].fill_(-1)
        self.scores.fill_(-torch.inf)
        self.indices.fill_(-1)
        return self

    def partial(self, splits: int, rows: int, top: int) -> tuple[TopLists, Tensor, Tensor]:
        """Lists and slots (W, ...) for a launch over some rows."""
        slots, number = triton.next_power_of_2(max(1, top)), torch.int32
        size = (self.num_widths, splits, rows, slots) if top else (self.num_widths, 1)
        lists = self.new(size), self.new(size, dtype=number)
        return (
            TopLists(tl.constexpr(top), tl.constexpr(slots), *lists),
            self.new((self.num_widths, NUM_FLOATS.value, splits, rows)),
            self.new((self.num_widths, NUM_INTS.value, splits, rows), dtype=number),
        )

    def merge(
        self, lists: TopLists, floats: Tensor, ints: Tensor, start: int, columns: int
    ) -> None:
        """Combine the splits, of ``columns`` each, into the rows from ``start`` on."""
        splits, rows = floats.shape[2:]
        for n in range(self.num_widths):
            own = lists._replace(value_ptr=lists.value_ptr[n], index_ptr=lists.index_ptr[n])
            merge_kernel[(triton.cdiv(rows, MERGE_ROWS),)](
                own, self.wanted, floats[n], ints[n], self.scores[n], self.indices[n],
                self.floats[n], self.ints[n], self.num_rows, start, rows, splits, columns,
                ROWS=MERGE_ROWS, num_warps=MERGE_WARPS,
            )  # fmt: skip

    def statistics(self) -> list[RowStatistics]:
        """By their names, for each width."""
        request, found = self.request, []
        for n, (floats, ints) in enumerate(zip(self.floats, self.ints, strict=True)):
            stats = RowStatistics(ints[0], ints[1])
            if request.top_k:
                stats.top_score, stats.top_index = self.scores[n], self.indices[n]
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
            found.append(stats)
        return found


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
    the workspace (``tile.bits``).
    """
    (b, _), m = problem.queries.shape, problem.labels.shape[0]
    if b == 0 or m == 0:
        nothing = Results(request, 1, b, request.top_k, problem.queries).nothing()
        return nothing.statistics()[0]
    keep = _bits_to_keep(problem, request)
    if any(keep) and rows_that_fit(m, sum(keep)) < b:
        keep = (False, False)
    launch = WalkLaunch(problem, request, keep)
    active = launch.new_bits(0, b)
    step = launch.rows_at_once(active)
    for start in range(0, b, step):
        launch.rows(start, min(start + step, b), active)
    (stats,) = launch.results.statistics()
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
            return common.choose(epilogue, queries, precision, table)

        tile = choose(walk_epilogue(request, two_passes=True))
        group = min(tile.cols, GROUP)
        self.subtile = mining.width_for(problem, request.top_k, tile.cols, precision)
        self.two_passes = not self.subtile and takes_two_passes(
            b, problem.labels.shape[0], request.top_k, group
        )
        self.group_tile = replace(tile, cols=group)
        afterwards = self.two_passes or self.subtile > 0
        self.tile = tile if afterwards else choose(walk_epilogue(request))
        self.shape = tile_shape(self.tile, d, queries.dtype, precision)
        self.whole = d <= self.tile.depth
        self.relations = (
            walk_arguments(problem.positives, device), walk_arguments(problem.exclude, device)
        )  # fmt: skip
        self.top = 0 if afterwards else list_length(problem, request)
        kept = request.top_k if afterwards else self.top
        self.results = Results(request, 1, b, kept, queries)

    def rows_at_once(self, active: ActiveBits) -> int:
        """Rows whose groups fit in what the bits leave of the workspace; a multiple of BLOCK."""
        b, m = self.problem.queries.shape[0], self.problem.labels.shape[0]
        if not self.two_passes and not self.subtile:
            return b
        kept = [side for side in (active.positive, active.negative) if side is not None]
        left = common.WORKSPACE_BYTES - sum(4 * side.numel() for side in kept)
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
        problem, tile, results = self.problem, self.tile, self.results
        queries, labels = problem.queries, problem.labels
        rows, m = stop - start, labels.shape[0]
        row_blocks, tiles = triton.cdiv(rows, tile.rows), triton.cdiv(m, tile.cols)
        slots = self.multiprocessors * tile.programs
        length = split_tiles(row_blocks, tiles, slots, tile.cols)
        splits = triton.cdiv(tiles, length)
        lists, floats, ints = results.partial(splits, rows, self.top)
        stride = triton.cdiv(active.stop - active.start, BLOCK) * BLOCK
        positive, negative = (
            None if side is None else side[:, start - active.start :]
            for side in (active.positive, active.negative)
        )
        size = (triton.cdiv(m, self.group_tile.cols), rows) if self.two_passes else (1, 1)
        if self.subtile:
            size = (rows, mining.num_subtiles(m, tile.cols, self.subtile))
        maxima = results.new(size)
        group = self.group_tile.cols if self.two_passes else 0
        groups = Groups(tl.constexpr(group), tl.constexpr(self.subtile), maxima)
        with on_device_of(queries):
            walk_kernel[(row_blocks * splits,)](
                embeddings(queries, labels), *self.relations, guard_argument(problem, floats),
                results.wanted, lists, groups, bits_argument(positive, negative, floats), floats,
                ints, start, stop, m, length, stride,
                WHOLE=self.whole, shape=self.shape, num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
            results.merge(lists, floats, ints, start, length * tile.cols)
        scores, indices = results.scores[0], results.indices[0]
        if self.two_passes:
            select_largest(problem, self.relations, maxima, start, self.group_tile, scores, indices)
        if self.subtile:
            positives, exclude = ((kind.value, row, col) for kind, row, col in self.relations)
            mining.select(
                problem, positives, exclude, maxima, start, tile.cols, self.subtile,
                (scores, indices),
            )  # fmt: skip
