"""Progress of a training run: a bar with time left in a terminal, a line per epoch elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from typing import Any

from alc_kernels.xmc.report.numbers import duration
from alc_kernels.xmc.training import Progress


class LineProgress(Progress):
    """One line on stderr per epoch."""

    def __init__(self, title: str) -> None:
        self.title = title

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        self.epochs, self.steps = epochs, epochs * steps_per_epoch
        self.done = self.first = first_step
        self.began = time.perf_counter()

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        self.done = step

    def epoch(self, record: Mapping[str, float]) -> None:
        spent = time.perf_counter() - self.began
        left = spent * (self.steps - self.done) / max(1, self.done - self.first)
        print(
            f"{self.title}: epoch {record['epoch']:.0f} of {self.epochs}, "
            f"{epoch_text(record)}, {duration(spent)}, {duration(left)} left",
            file=sys.stderr,
            flush=True,
        )


class BarProgress(Progress):
    """A rich progress bar on stderr: steps, loss, what validation said, time left."""

    def __init__(self, title: str, console: Any) -> None:
        from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        self.title = title
        self.bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
        )
        self.validation = ""

    def start(self, *, epochs: int, steps_per_epoch: int, first_step: int = 0) -> None:
        total = epochs * steps_per_epoch
        self.task = self.bar.add_task(self.title, total=total, completed=first_step, state="")
        self.bar.start()

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        state = ", ".join(part for part in (f"loss {loss:.3f}", self.validation) if part)
        self.bar.update(self.task, completed=step, state=state)

    def epoch(self, record: Mapping[str, float]) -> None:
        self.validation = validation_text(record)
        self.bar.update(self.task, state=epoch_text(record))

    def finish(self) -> None:
        self.bar.stop()


def validation_text(record: Mapping[str, float]) -> str:
    """What validation said after the epoch, if it was asked."""
    if "validation_coverage_90" not in record:
        return ""
    return f"validation C@.9 {100 * record['validation_coverage_90']:.1f} %"


def epoch_text(record: Mapping[str, float]) -> str:
    """Loss and validation of an epoch."""
    return ", ".join(
        part for part in (f"loss {record['loss']:.3f}", validation_text(record)) if part
    )


def make_progress(title: str) -> Progress:
    """A bar where stderr is a terminal and rich is installed, lines otherwise."""
    if sys.stderr.isatty():
        try:
            from rich.console import Console
        except ImportError:
            return LineProgress(title)
        return BarProgress(title, Console(stderr=True))
    return LineProgress(title)
