"""Worker processes under a clock: what hangs or dies costs its row and no other."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.fifteen.plan import Item, as_json

ROOT = Path(__file__).resolve().parents[2]
Row = dict[str, Any]
Report = Callable[[Item, list[Row], float], None]
# An item may take this many times what it was thought to take, and so many seconds more; a start
# so many (Python, PyTorch and Triton may come from a cold disk).
PATIENCE, GRACE, START_LIMIT = 4.0, 20.0, 120.0
KILL_SECONDS = 5.0
COMMAND = (sys.executable, "-m", "benchmarks.fifteen.work")


class Dead(Exception):
    """The worker ended by itself before it answered."""


class Late(Exception):
    """The worker was ended because it had not answered in time."""


class Process:
    """One worker; started again by the first item after its end."""

    def __init__(self, mode: str, environment: dict[str, str], log: Path) -> None:
        self._mode, self._environment, self._log = mode, environment, log
        self._process: subprocess.Popen[str] | None = None
        self._lines: queue.Queue[str] = queue.Queue()
        self.ready = False

    def ask(self, item: Item, seconds: float, end: float) -> list[Row]:
        """The item's rows.

        Args:
            item: what to do.
            seconds: after its start the worker may take this long.
            end: and not beyond this, by the monotonic clock.

        Raises:
            Dead: it died.
            Late: it had not answered in time.
        """
        if self._process is None:
            self.start()
        assert self._process is not None and self._process.stdin is not None
        if not self.ready:
            self._line(min(end, time.monotonic() + START_LIMIT))
            self.ready = True
        with contextlib.suppress(BrokenPipeError):  # then the next line says how it ended
            self._process.stdin.write(as_json(item) + "\n")
            self._process.stdin.flush()
        found: list[Row] = json.loads(self._line(min(end, time.monotonic() + seconds)))
        return found

    def start(self) -> None:
        """Begin to start; ``ask`` waits for it."""
        self._lines, self.ready = queue.Queue(), False
        with self._log.open("a", encoding="utf-8") as log:
            self._process = subprocess.Popen(
                [*COMMAND, self._mode],
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        threading.Thread(target=self._read, args=(self._process, self._lines), daemon=True).start()

    @staticmethod
    def _read(process: subprocess.Popen[str], lines: queue.Queue[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            lines.put(line)
        lines.put("")

    def _line(self, deadline: float) -> str:
        try:
            line = self._lines.get(timeout=max(0.1, deadline - time.monotonic()))
        except queue.Empty:
            self.stop()
            raise Late from None
        if not line:
            assert self._process is not None
            code = self._process.wait()
            self._process = None
            raise Dead(f"its process ended with {code}, see {self._log.name}")
        return line

    def stop(self) -> None:
        """End the process, if it runs: asked to by the end of its input, then at once."""
        if self._process is None:
            return
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            # A worker in the middle of an item does not see the end of its input.
            self._process.wait(timeout=0.5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(timeout=KILL_SECONDS)
        self._process = None


class Pool:
    """Workers that share the caches of compiled code; the first measures alone.

    Args:
        mode: "full" or "dry".
        processes: for ``together``.
        end: when all must be done, by the monotonic clock.
        log: where the workers' own output goes.
        report: called with each item's rows and seconds, from one thread at a time.
    """

    def __init__(self, mode: str, processes: int, end: float, log: Path, report: Report) -> None:
        self.end = end
        self._report, self._lock = report, threading.Lock()
        # Shared with the processes: what is added counts for those that start afterwards.
        self.environment = dict(os.environ) | {"PYTHONPATH": python_path()}
        self._processes = [Process(mode, self.environment, log) for _ in range(processes)]

    def start(self) -> None:
        """Let all begin to start."""
        for process in self._processes:
            process.start()

    def stop(self) -> None:
        """End all."""
        for process in self._processes:
            process.stop()

    def one_by_one(self, items: Iterable[Item], extra: Callable[[Item], float]) -> None:
        """Each alone on the machine; skipped where the rest of the time is too short for it.

        Args:
            items: in the order of their worth.
            extra: seconds to add to what an item is thought to take.
        """
        for item in items:
            self._do(self._processes[0], item, self.end, extra(item))

    def together(self, items: list[Item], seconds: float) -> set[tuple[Any, ...]]:
        """All items on all workers, within ``seconds``; the keys of those that are done."""
        end = min(self.end, time.monotonic() + seconds)
        waiting: queue.SimpleQueue[Item] = queue.SimpleQueue()
        for item in items:
            waiting.put(item)
        done: set[tuple[Any, ...]] = set()

        def serve(process: Process) -> None:
            while True:
                try:
                    item = waiting.get_nowait()
                except queue.Empty:
                    return
                if self._do(process, item, end, 0.0):
                    done.add(item.key)

        threads = [threading.Thread(target=serve, args=(one,)) for one in self._processes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return done

    def _do(self, process: Process, item: Item, end: float, extra: float) -> bool:
        started = time.monotonic()
        thought = item.seconds + extra
        if started + thought > end:
            left = max(0.0, end - started)
            rows: list[Row] = [
                {"missing": f"skipped: it would take about {thought:.0f} s, {left:.0f} s are left"}
            ]
            self._tell(item, rows, 0.0)
            return False
        done = False
        try:
            rows, done = process.ask(item, PATIENCE * thought + GRACE, end), True
        except Late:
            rows = [{"missing": f"cut after {time.monotonic() - started:.0f} s: not done in time"}]
        except Dead as error:
            rows = [{"missing": str(error), "failed": True}]
        self._tell(item, rows, time.monotonic() - started)
        return done

    def _tell(self, item: Item, rows: list[Row], seconds: float) -> None:
        with self._lock:
            self._report(item, rows, seconds)


def python_path() -> str:
    """This checkout first, then what was set."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
