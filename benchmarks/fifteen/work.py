"""What a worker does: one item of the plan at a time, its rows as JSON.

    python3 -m benchmarks.fifteen.work full|dry      # items come on the standard input

A worker ends with its input. What other code prints goes to the standard error.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.triton import launch as config
from alc_kernels.bench import measure, tune
from alc_kernels.bench.run import Case, WorkBench, inputs_of, known_works, providers
from alc_kernels.bench.works import Work
from benchmarks import cuda_kernels, limits
from benchmarks.fifteen.plan import DRY, FULL, Item, Sizes, from_json, prefixes

Row = dict[str, Any]
ACTIVE = 0.0005
# Shares of the pairs with a coefficient, and k of the k hardest: benchmarks.cuda_kernels' own.
PAIRS, TOP = (1.0, 0.1), (10, 100)
TINY_TILES = (config.Tile(32, 32, 32, 4, 2), config.Tile(32, 32, 16, 4, 2))


@dataclass(eq=False)
class Worker:
    """Inputs and truths stay from one item to the next."""

    sizes: Sizes

    def __post_init__(self) -> None:
        if self.dry:
            tune.SMALL = self.sizes.ragged

    @property
    def dtype(self) -> torch.dtype:
        found: torch.dtype = getattr(torch, self.sizes.dtype)
        return found

    @property
    def dry(self) -> bool:
        return self.sizes.device == "cpu"

    def run(self, item: Item) -> list[Row]:
        """The rows of an item; an error of ours is a row as well."""
        action: Callable[[Item], list[Row]] = getattr(self, item.kind)
        try:
            return action(item)
        except torch.OutOfMemoryError:
            return [{"missing": "out of memory"}]
        except Exception as error:
            text = " ".join(str(error).split())[:300]
            return [{"missing": f"{type(error).__name__}: {text}", "failed": True}]

    def case(self, width: int, rows: int, columns: int) -> Case:
        """Ours is the Triton backend, on a CPU in the interpreter."""
        compiler = "eager" if self.dry else "inductor"
        return Case(
            rows, columns, width, self.dtype, ACTIVE, "triton", compiler, prefixes(width)
        )  # fmt: skip

    # The caches hold one entry: the plan goes work by work.
    @functools.lru_cache(maxsize=1)  # noqa: B019
    def inputs(self, width: int, rows: int, columns: int, sets: int) -> list[list[Tensor]]:
        return inputs_of(self.case(width, rows, columns), self.sizes.device, sets)

    @functools.lru_cache(maxsize=1)  # noqa: B019
    def bench(self, name: str, width: int, rows: int, columns: int, sets: int) -> WorkBench:
        case = self.case(width, rows, columns)
        made = self.inputs(width, rows, columns, sets)
        work = known_works(case, self.sizes.device, made)[name]
        return WorkBench(gpu_peers(work, self.dry), case, made, self.sizes.device)

    def values(self, item: Item) -> list[Row]:
        """Ours at the ragged size against float64; then one call at the timed size, unchecked.

        All that the timed rows compile is compiled by that, for every process to come.
        """
        (b, m), n = self.sizes.ragged, self.sizes.rows
        row: Row = {}
        if item.provider == "alc_kernels":
            row = self.bench(item.work, item.width, b, m, 1).check(item.provider)
            self.bench.cache_clear()
            self.inputs.cache_clear()
        case = self.case(item.width, n, n)
        made = self.inputs(item.width, n, n, 1)
        work = gpu_peers(known_works(case, self.sizes.device, made)[item.work], self.dry)
        step, reason = providers(work, case, self.sizes.device).get(
            item.provider, (None, f"{item.work} has no such version")
        )
        if step is None:
            return [row | {"missing": reason}]
        started = time.perf_counter()
        measure.run(step, made[0], work.backward)
        if not self.dry:
            torch.cuda.synchronize()
        return [row | {"first_seconds": time.perf_counter() - started}]

    def time(self, item: Item) -> list[Row]:
        """Values, memory, then times in turn with G and ours."""
        n = self.sizes.rows
        bench = self.bench(item.work, item.width, n, n, 1 if self.dry else 3)
        row = bench.check(item.provider)
        if "missing" in row:
            return [row]
        names = dict.fromkeys(["alc_kernels", item.provider])
        timed = bench.time(names, 1 if self.dry else 100, self.sizes.seconds)
        row |= timed[item.provider] | {"ours_ms": timed["alc_kernels"]["median_ms"]}
        if item.provider == "torch.compile":
            torch._dynamo.reset()
        return [row]

    def large(self, item: Item) -> list[Row]:
        """One pass over the largest batch; values of a sample of its queries."""
        return self.at_once(item, self.sizes.large_rows)

    def sample(self, item: Item) -> list[Row]:
        """The same over a batch of the tables' size, which compiles it."""
        return self.at_once(item, self.sizes.rows)

    def at_once(self, item: Item, n: int) -> list[Row]:
        pair = self.inputs(item.width, n, n, 1)[0]
        started = time.perf_counter()
        found = limits.largest(item.work, "triton", pair[0], pair[1], min(n, 1024))
        return [{**found, "width": item.width, "seconds": time.perf_counter() - started}]

    def nccl(self, item: Item) -> list[Row]:
        """A loss over a group of one process, beside the same without a group."""
        import torch.distributed as dist

        if not dist.is_available() or not dist.is_nccl_available():
            return [{"missing": "this PyTorch has no NCCL"}]
        if self.dry:
            return [{"missing": "needs a GPU"}]
        from alc_kernels import ALCLoss

        os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
        torch.cuda.set_device(0)
        dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
        try:
            width = self.sizes.widths[0]
            pair = self.inputs(width, 4096, 4096, 1)[0]
            values = [
                ALCLoss(auxiliary=None, backend="triton", process_group=group)(*pair)
                for group in (None, dist.group.WORLD)
            ]
            alone, grouped = (float(value.detach()) for value in values)
        finally:
            dist.destroy_process_group()
        error = abs(grouped - alone) / max(abs(alone), 1e-30)
        row: Row = {"value_error": error, "nccl": ".".join(map(str, torch.cuda.nccl.version()))}
        if not error <= 1e-5:
            row |= {"missing": f"wrong: error {error:.2g} over NCCL", "failed": True}
        return [row]

    def cuda(self, item: Item) -> list[Row]:
        """The CUDA kernels beside the Triton ones (``MEASURED_FASTER``)."""
        from alc_kernels.backends.cuda import library

        n = self.sizes.rows
        pair = self.inputs(item.width, n, n, 1)[0]
        reason = library.unavailable(pair[0])
        if reason is not None:
            return [{"missing": reason}]
        rows = []
        for number in TOP if item.work == "mining" else PAIRS:
            if item.work == "mining":
                actions = cuda_kernels.mining(pair, int(number))
                name, off = f"k = {number}", cuda_kernels.check_mining(pair, actions)
            else:
                actions, grads = cuda_kernels.pair_gradients(pair, number)
                name = f"{100 * number:g} % of the pairs"
                off = cuda_kernels.check_pairs(actions, grads)
            with contextlib.redirect_stdout(sys.stderr):
                found = cuda_kernels.timed(name, pair, actions, off, self.sizes.seconds)
            rows += [{**row, "part": item.work} for row in found]
        return rows

    def candidates(self, item: Item) -> list[config.Tile]:
        """The table's own tile first."""
        if self.dry:
            return list(TINY_TILES)
        start = tune.table_tile(item.work, self.dtype, item.width, torch.device("cuda"))
        return tune.candidates(item.work, start, self.dtype.itemsize)[: self.sizes.tiles]

    def tile(self, item: Item) -> list[Row]:
        """One candidate's values, which compiles it."""
        tiles = self.candidates(item)
        if item.number >= len(tiles):
            return [{"missing": f"there are {len(tiles)} candidates"}]
        found = tune.check(
            item.work, tiles[item.number], self.dtype, item.width, self.tiled_rows, self._device
        )
        row: Row = {"tile": str(found.tile), "error": found.error}
        return [row | {"missing": found.problem} if found.problem else row]

    def tiles(self, item: Item) -> list[Row]:
        """The candidates in turn; values once more, at the timed size."""
        found = tune.tune(
            item.work,
            self.dtype,
            item.width,
            self.tiled_rows,
            device=self._device,
            tiles=self.candidates(item),
            rounds=(1 if self.dry else 50, self.sizes.seconds * 2),
            sets=1 if self.dry else 3,
        )
        best = tune.best(found)
        rows = [
            {"tile": repr(one.tile), "median_ms": one.milliseconds, "missing": one.problem}
            for one in found
        ]
        return [{"best": None if best is None else repr(best), "candidates": rows}]

    @property
    def tiled_rows(self) -> int:
        return self.sizes.rows // 2

    @property
    def _device(self) -> str:
        return self.sizes.device


def gpu_peers(work: Work, dry: bool) -> Work:
    """In the interpreter ours runs everywhere: the versions of ours are no longer GPU only."""
    if not dry:
        return work
    own = tuple(
        replace(peer, gpu_only=False) if peer.name.endswith("(triton)") else peer
        for peer in work.peers
    )
    return replace(work, peers=own)


def main() -> None:
    worker = Worker(DRY if sys.argv[1] == "dry" else FULL)
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # other libraries print to where the rows go
    if worker.dry:
        torch.set_num_threads(1)
    out.write("ready\n")
    out.flush()
    for line in sys.stdin:
        item = from_json(line)
        rows = worker.run(item)
        broken = False
        if item.kind != "time":  # another process needs the memory
            worker.inputs.cache_clear()
            worker.bench.cache_clear()
        if not worker.dry:
            try:  # an illegal access shows here, and every later call would fail
                torch.cuda.synchronize()
                torch.cuda.empty_cache()
            except Exception as error:
                broken = True
                rows = [{"missing": f"{type(error).__name__}: {error}"[:300], "failed": True}]
        out.write(json.dumps(rows) + "\n")
        out.flush()
        if broken:
            sys.exit(1)


if __name__ == "__main__":
    main()
