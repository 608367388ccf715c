"""A training run that kills its own process. Started by test_training_kill.py:

python killed_run.py FOLDER SETTINGS RESUME AT

SETTINGS are TrainConfig's as JSON, RESUME is "fresh" or "resume". AT is "step 7": killed after
step 7 was taken, before anything about it is written; or "write 12": killed before the twelfth
operation on files of all that checkpoints do.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.evaluation import validation_check
from alc_kernels.trainer.training import Progress, TrainedRun, train

SMALL = {
    "epochs": 3, "batch_size": 24, "embedding_dim": 16, "ngram_buckets": 1024, "hidden_dim": 16,
    "backend": "torch", "device": "cpu", "dropout": 0.1, "context_size": 32,
}  # fmt: skip


def small_data() -> Dataset:
    return generate_catalogue(60, 300)


def kill() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Killer(Progress):
    def __init__(self, at_step: int) -> None:
        self.at_step = at_step

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        if step == self.at_step:
            kill()


class CountedWrites:
    """Counts operations on files, and runs ``action`` before the n-th."""

    places = ((os, "fsync"), (Path, "rename"), (Path, "mkdir"), (shutil, "rmtree"))

    def __init__(self, n: int = 0, action: Callable[[], None] = kill) -> None:
        self.count, self.n, self.action = 0, n, action
        self.before = [getattr(where, name) for where, name in self.places]

    def __enter__(self) -> CountedWrites:
        for (where, name), original in zip(self.places, self.before, strict=True):
            setattr(where, name, self._counted(original))
        return self

    def __exit__(self, *rest: object) -> None:
        for (where, name), original in zip(self.places, self.before, strict=True):
            setattr(where, name, original)

    def _counted(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def counted(*arguments: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.n:
                self.action()
            return original(*arguments, **options)

        return counted


def run(folder: Path, settings: dict[str, Any], resume: bool, progress: Progress) -> TrainedRun:
    torch.set_num_threads(1)
    data = small_data()
    config = TrainConfig.resolve({**SMALL, **settings})
    return train(config, data, folder, progress, validation_check(data), resume=resume)


def main() -> None:
    folder, settings, resume, at = sys.argv[1:]
    what, number = at.split()
    killer = Killer(int(number) if what == "step" else 0)
    with CountedWrites(int(number) if what == "write" else 0):
        run(Path(folder), json.loads(settings), resume == "resume", killer)


if __name__ == "__main__":
    main()
