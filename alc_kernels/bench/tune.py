"""Choose tiles by measuring: the tables' own entry and its neighbours, values first, then times.

Every candidate runs the whole pass that it serves (``PASSES``) at a small, ragged size and at the
timed one, and its results are held against the PyTorch backend in float64 on the same numbers.
What is wrong or does not run is shown and never chosen.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends import torch as torch_backend
from alc_kernels.backends.triton import launch as tuned
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.launch import Tile, device_limits, dot_precision, walk_tile
from alc_kernels.backends.triton.one_pass import launch as one_pass
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.bench import measure
from alc_kernels.engine.interface import (
    GradientRequest,
    Problem,
    RowStatistics,
    WalkGradient,
    WalkRequest,
)
from alc_kernels.positives import Positives

# A tile must be faster than the table's by this much to take its place: less is noise.
GAIN = 0.02
SMALL = (300, 413)  # no multiple of any tile
TOP = {"maximum": 1, "list": 32, "long": 100}  # 32 and 100: never found in two passes
SHARED_LIMIT = (
    227 * 1024
)  # bytes of shared memory on the largest; smaller ones refuse by themselves
MOST_SUMS = 128  # accumulators per thread: half of the registers
# Errors by norm. Products of half precision and of exact float32 are summed in float32; tf32
# rounds its operands to 11 bits; gradients are made of coefficients in the compute dtype.
STATISTICS, TF32 = 2e-5, 2e-3
GRADIENTS = {torch.float32: 2e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
ADVICE = "the Triton backend is broken here; please report it"


@dataclass(frozen=True)
class Row:
    """One candidate: its median in ms, or why it has none."""

    tile: Tile
    milliseconds: float | None = None
    error: float | None = None
    problem: str | None = None


def table_tile(kernel: str, dtype: torch.dtype, d: int, device: torch.device) -> Tile:
    """What the tables say for one of ``tuned.KERNELS``."""
    precision = dot_precision(dtype)
    if kernel in tuned.CHUNKED:
        return coefficients.tile_for(dtype, precision)
    return walk_tile(device_limits(device)[0], dtype, d, precision, kernel)


def candidates(kernel: str, start: Tile, item_bytes: int) -> list[Tile]:
    """``start`` and what differs from it in one or two sizes, within the limits of a GPU."""
    made = [start]
    for stages in (start.stages - 1, start.stages, start.stages + 1):
        made.append(replace(start, stages=stages))
        made += [replace(start, stages=stages, depth=depth) for depth in _around(start.depth)]
    made += [replace(start, warps=warps) for warps in _around(start.warps)]
    for side in ("rows", "cols"):
        for size in _around(getattr(start, side)):
            changed = replace(start, **{side: size})
            made += [changed, *(replace(changed, warps=warps) for warps in _around(start.warps))]
    if kernel not in tuned.CHUNKED:
        made += [replace(tile, programs=3 - tile.programs) for tile in made if tile.programs < 3]
    return [
        tile for tile in dict.fromkeys(made) if tile == start or _fits(kernel, tile, item_bytes)
    ]


def _around(size: int) -> tuple[int, int]:
    return size // 2, 2 * size


def _fits(kernel: str, tile: Tile, item_bytes: int) -> bool:
    try:
        tuned.check_tile(kernel, tile)
    except ValueError:
        return False
    if tile.warps not in (4, 8) or tile.depth < 32:
        return False
    shared = tile.stages * (tile.rows + tile.cols) * tile.depth * item_bytes
    sums = tile.rows * tile.cols / (32 * tile.warps)
    return shared * tile.programs <= SHARED_LIMIT and sums * tile.programs <= MOST_SUMS


def problem_of(pair: list[Tensor], dtype: torch.dtype | None = None) -> Problem:
    """Diagonal positives over unit rows (B, d) and (M, d)."""
    queries, labels = (x.detach() if dtype is None else x.detach().to(dtype) for x in pair)
    b, m = len(queries), len(labels)
    index = torch.arange(b, device=queries.device)
    return Problem(queries, labels, Positives.from_index(index, m), Positives._empty(b, m), None)


def _scalar(problem: Problem, value: float) -> Tensor:
    return torch.tensor(value, device=problem.queries.device, dtype=problem.acc)


def _walk(kernel: str, backend: Any, problem: Problem) -> dict[str, Tensor]:
    """A walk with the epilogue ``kernel``."""
    if kernel == "sums":
        request = WalkRequest(softmax="all", inverse_temperature=_scalar(problem, 20.0))
        return {"log_sum_exp": backend.walk(problem, request).log_sum_exp}
    found = backend.walk(problem, WalkRequest(top_k=TOP[kernel]))
    # Which of two nearly equal labels comes first may differ: what they score may not.
    q, x = problem.queries.double(), problem.labels.double()
    at = found.top_index.clamp(min=0)
    chunks = range(0, len(q), 256)
    own = [torch.einsum("bd,bkd->bk", q[i : i + 256], x[at[i : i + 256]]) for i in chunks]
    return {"score": found.top_score, "score of the label": torch.cat(own)}


def _new_gradients(problem: Problem) -> tuple[Tensor, Tensor]:
    new = functools.partial(torch.zeros_like, dtype=problem.acc)
    return new(problem.queries), new(problem.labels)


def _dense(backend: Any, problem: Problem, log_sum_exp: Tensor) -> dict[str, Tensor]:
    """The softmax's gradient in a pass of its own, with S computed again."""
    b = len(problem.queries)
    new = functools.partial(torch.full, (b,), device=problem.queries.device)
    request = GradientRequest(
        "softmax",
        row_scale=new(1.0, dtype=problem.acc),
        num_positives=new(1, dtype=torch.int64),
        log_sum_exp=log_sum_exp.to(problem.acc),
        inverse_temperature=_scalar(problem, 20.0),
    )
    by_queries, by_labels = _new_gradients(problem)
    backend.dense_gradient(problem, request, by_queries, by_labels)
    return {"gradient of the queries": by_queries, "gradient of the labels": by_labels}


def _one_pass(problem: Problem, *, exact: bool) -> dict[str, Tensor]:
    """The sigmoid's gradient, made during the walk (all dtypes have one)."""
    by_queries, by_labels = _new_gradients(problem)
    slope, bias = _scalar(problem, 10.0), _scalar(problem, -10.0)

    def one(positives: Tensor, negatives: Tensor) -> Tensor:
        return torch.ones_like(positives, dtype=problem.acc)

    if exact:
        rows = one(torch.ones(len(by_queries), device=by_queries.device), by_queries)
        plain = GradientRequest("sigmoid", row_scale=rows, scale=slope, bias=bias)
        torch_backend.dense_gradient(problem, plain, by_queries, by_labels)
    else:
        offer = WalkGradient(one, by_queries, by_labels)
        request = WalkRequest(sigmoid=True, scale=slope, bias=bias, gradient=offer)
        if not one_pass.serves(problem, request):
            raise ValueError("so many labels take two passes instead: choose fewer --rows")
        one_pass.walk(problem, request)
    return {"gradient of the queries": by_queries, "gradient of the labels": by_labels}


class Pass:
    """What is run, timed and checked for one kernel on one input."""

    def __init__(self, kernel: str, pair: list[Tensor]) -> None:
        self.kernel, self.problem = kernel, problem_of(pair)
        exact = problem_of(pair, torch.float64)
        self.log_sum_exp = _walk("sums", torch_backend, exact)["log_sum_exp"]
        self.truth = self._results(exact, torch_backend)

    def _results(self, problem: Problem, backend: Any) -> dict[str, Tensor]:
        if self.kernel == "coefficients":
            return _dense(backend, problem, self.log_sum_exp)
        if self.kernel == "exponentials":
            return _one_pass(problem, exact=backend is torch_backend)
        return _walk(self.kernel, backend, problem)

    def run(self, tile: Tile) -> RowStatistics | dict[str, Tensor]:
        """The pass with ``tile``, and nothing else: what is timed."""
        with tuned.forced(self.kernel, tile):
            if self.kernel in TOP:
                return walk_launch.walk(self.problem, WalkRequest(top_k=TOP[self.kernel]))
            return self._results(self.problem, _Launchers)

    def error(self, tile: Tile) -> float:
        """The largest error against float64, as a multiple of what is allowed."""
        with tuned.forced(self.kernel, tile):
            found = self._results(self.problem, _Launchers)
        dtype = self.problem.queries.dtype
        rounded = dtype == torch.float32 and dot_precision(dtype) == "tf32"
        worst = 0.0
        for name, true in self.truth.items():
            allowed = GRADIENTS[dtype] if name.startswith("gradient") else STATISTICS
            if rounded:
                allowed = TF32
            finite = torch.isfinite(true)
            got = found[name].double()
            if not torch.equal(torch.isfinite(got), finite):
                return float("inf")
            off = (got[finite] - true[finite]).norm() / true[finite].norm()
            worst = max(worst, float(off) / allowed)
        return worst


class _Launchers:
    """The Triton passes without the choice between them: the kernel under test is reached."""

    walk = staticmethod(walk_launch.walk)
    dense_gradient = staticmethod(coefficients.dense_gradient)


def tune(
    kernel: str,
    dtype: torch.dtype,
    d: int,
    rows: int,
    *,
    device: str = "cuda",
    tiles: list[Tile] | None = None,
    rounds: tuple[int, float] = (50, 10.0),
    sets: int = 3,
) -> list[Row]:
    """Measure the candidates for one entry; the table's own comes first.

    Args:
        kernel: one of ``tuned.KERNELS``.
        dtype, d: of the embeddings.
        rows: B = M of the timed size.
        device: on ``"cpu"`` the interpreter runs, and the times mean nothing.
        tiles: instead of ``candidates``; the table's entry first.
        rounds: how many at most, and seconds after which they stop.
        sets: inputs to rotate among; together they should exceed the cache.

    Raises:
        ValueError: the table's own tile does not run, or gives wrong values.
    """
    if tiles is None:
        start = table_tile(kernel, dtype, d, torch.device(device))
        tiles = candidates(kernel, start, dtype.itemsize)
    small = Pass(kernel, measure.inputs(*SMALL, d, dtype, device, seed=97))
    large = [
        Pass(kernel, measure.inputs(rows, rows, d, dtype, device, seed)) for seed in range(sets)
    ]
    found: dict[Tile, Row] = {}
    actions: dict[str, list[Callable[[], object]]] = {}
    for tile in tiles:
        found[tile] = _check(tile, [small, *large])
        if found[tile].problem is None:
            actions[repr(tile)] = [functools.partial(one.run, tile) for one in large]
        elif tile == tiles[0]:
            raise ValueError(f"{kernel}: the table's {tile}: {found[tile].problem}: {ADVICE}")
    times = measure.interleaved(actions, device, *rounds)
    for tile, row in found.items():
        if row.problem is None:
            found[tile] = replace(row, milliseconds=median(times[repr(tile)]))
    return list(found.values())


def check(kernel: str, tile: Tile, dtype: torch.dtype, d: int, rows: int, device: str) -> Row:
    """One candidate's values at the small, ragged size and at B = M = ``rows``, untimed.

    In several processes it compiles what ``tune`` then finds in Triton's cache.
    """
    sizes = SMALL, (rows, rows)
    return _check(tile, [Pass(kernel, measure.inputs(*n, d, dtype, device, 97)) for n in sizes])


def _check(tile: Tile, passes: list[Pass]) -> Row:
    """The tile's worst error, or why it cannot be chosen."""
    try:
        worst = max(one.error(tile) for one in passes)
    except Exception as error:  # a compiler's or a driver's refusal is an answer about the tile
        lines = str(error).splitlines() or [""]
        return Row(tile, problem=f"does not run: {type(error).__name__}: {lines[0][:100]}")
    if not worst <= 1:
        return Row(tile, error=worst, problem=f"wrong: error {worst:.3g} times what is allowed")
    return Row(tile, error=worst)


def best(rows: list[Row]) -> Tile | None:
    """The fastest tile where it beats the table's, the first, by more than GAIN; else None."""
    timed = [row for row in rows if row.milliseconds is not None]
    fastest = min(timed, key=lambda row: row.milliseconds or 0.0)
    base = rows[0].milliseconds
    assert base is not None and fastest.milliseconds is not None
    return fastest.tile if fastest.milliseconds < (1 - GAIN) * base else None


def lines(rows: list[Row]) -> list[str]:
    """The table to print: tile, time, ratio to the first row's."""
    base = rows[0].milliseconds
    assert base is not None
    made = [
        f"  {'tile':<24}{'ms':>10}{'to table':>10}{'error':>9}  (error: share of what is allowed)"
    ]
    for row in sorted(rows, key=lambda row: (row.milliseconds is None, row.milliseconds)):
        name = f"{row.tile} x{row.tile.programs}"
        if row.milliseconds is None:
            made.append(f"  {name:<24}{row.problem}")
            continue
        ratio = row.milliseconds / base
        own = "  the table's" if row is rows[0] else ""
        made.append(f"  {name:<24}{row.milliseconds:>10.4f}{ratio:>10.3f}{row.error:>9.2g}{own}")
    return made
