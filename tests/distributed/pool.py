"""Processes with a Gloo group that stay alive over many cases."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

LARGEST = 4
GROUP_TIMEOUT = 20.0  # seconds a collective may wait
CASE_TIMEOUT = 120.0

# Workers start as copies of a process that has imported everything once.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["torch.distributed", "alc_kernels", "tests.distributed.cases"])


def join(rank: int, store: str, size: int, timeout: float) -> dict[int, Any]:
    """Start the default group; the groups of the first 2, 3, ... processes by their size."""
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=size,
        timeout=timedelta(seconds=timeout),
    )  # fmt: skip
    limit = timedelta(seconds=timeout)
    return {n: dist.new_group(list(range(n)), timeout=limit) for n in range(1, size + 1)}


def _work(rank: int, size: int, store: str, timeout: float, pipe: Any) -> None:
    groups = join(rank, store, size, timeout)
    while (message := pipe.recv()) is not None:
        function, count, arguments = message
        try:
            pipe.send((True, function(rank, groups[count], *arguments)))
        except BaseException:
            pipe.send((False, traceback.format_exc()))
    dist.destroy_process_group()


class Pool:
    """``size`` processes that call functions together."""

    def __init__(self, size: int = LARGEST, timeout: float = GROUP_TIMEOUT) -> None:
        self._folder = tempfile.TemporaryDirectory()
        store = str(Path(self._folder.name) / "store")
        self.pipes: list[Any] = []
        self.processes: list[Any] = []
        for rank in range(size):
            here, there = _context.Pipe()
            process = _context.Process(
                target=_work, args=(rank, size, store, timeout, there), daemon=True
            )
            process.start()
            there.close()
            self.pipes.append(here)
            self.processes.append(process)

    def start(self, function: Callable[..., Any], count: int, *arguments: Any) -> None:
        """Let the first ``count`` processes call ``function(rank, group, *arguments)``."""
        for pipe in self.pipes[:count]:
            pipe.send((function, count, arguments))

    def finish(self, count: int, timeout: float = CASE_TIMEOUT) -> list[tuple[bool, Any]]:
        """By rank: whether it returned, and what, or the traceback. A lost process: (False, "")."""
        out = []
        for pipe in self.pipes[:count]:
            try:
                if not pipe.poll(timeout):
                    raise TimeoutError(f"no answer within {timeout:g} s")
                out.append(pipe.recv())
            except (EOFError, ConnectionResetError):
                out.append((False, ""))
        return out

    def run(self, function: Callable[..., Any], count: int, *arguments: Any) -> list[Any]:
        """As ``start`` and ``finish``; every process must return."""
        self.start(function, count, *arguments)
        found = self.finish(count)
        bad = [f"process {rank}: {what}" for rank, (good, what) in enumerate(found) if not good]
        if bad:
            # The groups are of no use any more.
            self.close()
            shared_pool.cache_clear()
        assert not bad, "\n".join(bad)
        return [what for _, what in found]

    def close(self) -> None:
        """End the processes."""
        for pipe, process in zip(self.pipes, self.processes, strict=True):
            with suppress(BrokenPipeError, OSError):
                pipe.send(None)
            process.join(2)
            if process.is_alive():
                process.kill()
                process.join()
        self._folder.cleanup()


@cache
def shared_pool() -> Pool:
    """One pool for all tests of this process."""
    return Pool()
