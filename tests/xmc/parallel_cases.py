"""What several processes do together, for test_parallel_*.py.

python parallel_cases.py OUT CASE...      started once per process, with torchrun's variables

Every case is a function of the processes and a folder; what the first process's returns is
written to OUT/CASE.pt. The same functions run with one process in the tests.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from alc_kernels.cli.app import _fail
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.errors import Interrupted
from alc_kernels.trainer.evaluation import validation_check
from alc_kernels.trainer.evaluation.search import SharedSearch
from alc_kernels.trainer.methods import prime as prototype_network
from alc_kernels.trainer.parallel import Processes, join
from alc_kernels.trainer.training import Progress, loop, train
from alc_kernels.trainer.training.sampler import Batch

# Without dropout: processes draw other numbers than one alone.
SMALL = {
    "epochs": 2, "batch_size": 50, "embedding_dim": 16, "ngram_buckets": 1024, "hidden_dim": 16,
    "backend": "torch", "device": "cpu", "context_dropout": 0.0, "prototype_dropout": 0.0,
    "context_size": 32, "num_negatives": 10,
}  # fmt: skip
MINED = {"cluster_size": 4, "hard_negatives": 2, "hard_negative_pool": 10}
AVERAGED = {"ema": 0.9, "accumulate": 2, "early_stopping": 2, "clip_norm": 0.1}
SETTINGS: dict[str, dict[str, Any]] = {
    "ngame": {},
    "chunked": {"cache_chunk": 7, "checkpoint_every": 2},
    "averaged": {**MINED, **AVERAGED, "false_negative_margin": 0.1},
    "tiny": {"batch_size": 2, "epochs": 1, "loss": "tcm"},
    "dexa": {"method": "dexa", "loss": "base"},
    "dexml": {"method": "dexml", "all_labels": True, "loss": "tcm"},
    "prime": {"method": "prime", "loss": "alc-pair"},
    "bf16": {"precision": "bf16"},
    "sharded": {"parallel": "fsdp", "cache_chunk": 7},
    "sharded averaged": {"parallel": "fsdp", **AVERAGED},
}


class Watch(Progress):
    def __init__(self, action: Callable[[int], None] | None = None) -> None:
        self.losses: list[float] = []
        self.action = action

    def step(self, *, step: int, epoch: int, loss: float) -> None:
        self.losses.append(loss)
        if self.action is not None:
            self.action(step)


def small_data() -> Dataset:
    return generate_catalogue(60, 300)


def run_training(
    processes: Processes,
    folder: Path,
    settings: Mapping[str, Any],
    resume: bool = False,
    action: Callable[[int], None] | None = None,
) -> dict[str, Any]:
    """Losses of the steps, history without times, weights."""
    prototype_network.DROPOUT = 0.0
    data, watch = small_data(), Watch(action)
    config = TrainConfig.resolve({**SMALL, **settings})
    check = validation_check(data, processes=processes)
    run = train(config, data, folder, watch, check, resume=resume, processes=processes)
    history = [{k: v for k, v in entry.items() if k != "seconds"} for entry in run.history]
    return {"losses": watch.losses, "history": history, "weights": run.model.state_dict()}


def _training(name: str) -> Callable[[Processes, Path], dict[str, Any]]:
    return lambda processes, folder: run_training(processes, folder, SETTINGS[name])


class NumberedTexts:
    """Texts "0", "1", .. whose vectors are rows of a matrix; notes what it is asked for."""

    def __init__(self, queries: torch.Tensor, labels: torch.Tensor) -> None:
        self.queries, self.labels = queries, labels
        self.asked = 0

    def encode_queries(self, texts: Sequence[str]) -> torch.Tensor:
        self.asked += len(texts)
        return self.queries[[int(text) for text in texts]]

    def encode_labels(self, texts: Sequence[str], ids: np.ndarray | None = None) -> torch.Tensor:
        assert ids is None or [int(text) for text in texts] == ids.tolist()
        return self.labels[[int(text) for text in texts]]


def search(processes: Processes, folder: Path) -> dict[str, Any]:
    """Rankings of random vectors, and of small whole numbers with many ties."""
    made: dict[str, Any] = {}
    generator = torch.Generator().manual_seed(0)
    for name in ("random", "ties"):
        queries, labels = torch.randn(5000, 8, generator=generator), torch.randn(70, 8)
        if name == "ties":
            queries = torch.randint(-1, 2, (5000, 3), generator=generator).float()
            labels = torch.randint(-1, 2, (70, 3), generator=generator).float()
        else:
            labels = torch.randn(70, 8, generator=generator)
        candidates = np.flatnonzero(np.arange(70) % 5)
        left_out = np.random.default_rng(0).random((5000, len(candidates))) < 0.3
        for shards in (1, 2, 3, 100):
            model = NumberedTexts(queries, labels)
            shared = SharedSearch(model, processes, shards)
            vectors = shared.encode_queries([str(i) for i in range(5000)])
            names = shared.encode_labels([str(i) for i in range(70)])
            assert torch.equal(vectors, queries) and torch.equal(names, labels)
            assert processes.size == 1 or model.asked < 5000
            excluded = csr_matrix(left_out.astype(np.float32))
            made[f"{name} {shards}"] = shared.topk(vectors, names, 10, candidates, excluded)
            made[f"{name} {shards} all"] = shared.topk(vectors[:3], names, 60, candidates)
    return made


def interrupt(processes: Processes, folder: Path, settings: Mapping[str, Any], at: int) -> None:
    """Ctrl-C in the first process after step ``at``."""

    def press(step: int) -> None:
        if step == at:
            os.kill(os.getpid(), signal.SIGINT)

    try:
        run_training(processes, folder, settings, action=press)
    except Interrupted:
        return
    raise AssertionError("not interrupted")


def _cut(settings: dict[str, Any]) -> Callable[[Processes, Path], dict[str, Any]]:
    """A run with dropout, and the same interrupted in its second epoch and resumed."""
    settings = {**settings, "dropout": 0.1, "context_dropout": 0.1}

    def run(processes: Processes, folder: Path) -> dict[str, Any]:
        whole = run_training(processes, folder / "whole", settings)
        interrupt(processes, folder / "cut", settings, 3)
        resumed = run_training(processes, folder / "cut", settings, resume=True)
        return {"whole": whole, "resumed": resumed}

    return run


def cut_for_others(processes: Processes, folder: Path) -> dict[str, Any]:
    interrupt(processes, folder, SETTINGS["averaged"], 3)
    return {}


def _resumed(parallel: str) -> Callable[[Processes, Path], dict[str, Any]]:
    """Go on with what one process left in OUT/one."""

    def run(processes: Processes, folder: Path) -> dict[str, Any]:
        def copy() -> None:
            shutil.copytree(folder.parent / "one", folder)

        processes.on_main(copy)
        settings = {**SETTINGS["averaged"], "parallel": parallel}
        return run_training(processes, folder, settings, resume=True)

    return run


CASES: dict[str, Callable[[Processes, Path], dict[str, Any]]] = {
    **{name: _training(name) for name in SETTINGS},
    "search": search,
    "cut": _cut({**MINED, **AVERAGED}),
    "cut sharded": _cut({**AVERAGED, "parallel": "fsdp"}),
    "cut for others": cut_for_others,
    "resumed": _resumed("ddp"),
    "resumed sharded": _resumed("fsdp"),
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(size: int, words: Sequence[str], **variables: str) -> list[subprocess.Popen[str]]:
    """``python parallel_cases.py WORDS`` in ``size`` processes that know of each other."""
    root = str(Path(__file__).parents[2])
    common = {
        **os.environ, "WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1",
        "MASTER_PORT": str(free_port()), "PYTHONPATH": root, **variables,
    }  # fmt: skip
    return [
        subprocess.Popen(
            [sys.executable, __file__, *words],
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]


def run_cases(size: int, folder: Path, names: Sequence[str]) -> dict[str, Any]:
    """The results of the cases with ``size`` processes; a case that failed has its traceback."""
    started = start(size, ["cases", str(folder), *names])
    ended = [process.communicate(timeout=300) for process in started]
    made = {n: torch.load(folder / f"{n}.pt", weights_only=False)
            for n in names if (folder / f"{n}.pt").exists()}  # fmt: skip
    problems = "\n".join(error for _, error in ended)
    return {name: made.get(name, problems) for name in names}


def run_as_command(action: Callable[[], None]) -> int:
    """As the command line treats errors."""
    try:
        action()
        return 0
    except Exception as error:
        if type(error).__module__ != "alc_kernels.trainer.errors":
            traceback.print_exc()
        return _fail("test", error, 1, [])


def main() -> None:
    """Cases, or one run in which a process fails: ``fresh|resume FOLDER SETTINGS``."""
    torch.set_num_threads(1)
    what, folder, *rest = sys.argv[1:]
    with join("cpu", float(os.environ.get("PATIENCE", "120"))) as processes:
        if what == "cases":
            for name in rest:
                made = CASES[name](processes, Path(folder) / f"run {name}")
                if processes.is_main:
                    torch.save(made, Path(folder) / f"{name}.pt")
        else:
            hurt(processes.rank)
            run_training(processes, Path(folder), json.loads(rest[0]), what == "resume")


def hurt(rank: int) -> None:
    """HURT = "RANK STEP kill|raise|sleep SECONDS": what happens to that rank after that step."""
    words = os.environ.get("HURT", "").split()
    if not words or int(words[0]) != rank:
        return
    original = loop._Trainer._step

    def step(self: loop._Trainer, batches: list[Batch]) -> None:
        original(self, batches)
        if self.position.step == int(words[1]):
            if words[2] == "kill":
                os.kill(os.getpid(), signal.SIGKILL)
            elif words[2] == "raise":
                raise ValueError("a bad day")
            time.sleep(float(words[3]))

    loop._Trainer._step = step  # type: ignore[method-assign]


if __name__ == "__main__":
    raise SystemExit(run_as_command(main))
