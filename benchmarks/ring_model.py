"""What a step of the ring costs: on paper, and on Gloo processes that check the paper.

    python -m benchmarks.ring_model predict
    python -m benchmarks.ring_model simulate --processes 2 3 --rows 512 1024 --output FILE

A softmax loss goes round twice: a walk (labels travel) and the gradients (labels and their
gradients travel). In each of the P steps of a visit a process computes on one block while the next
is under way, so a step takes the longer of the two:

    visit = P * max(compute, transfer) + (compute or transfer that nothing hides, once)

``predict`` takes rates from a table; ``simulate`` measures them on this machine (a block's passes
and its message), predicts a step from them, and times the step itself.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from alc_kernels import GlobalBatch, functional
from alc_kernels.distributed import farewell
from alc_kernels.distributed.exchange import Transfer
from alc_kernels.engine.interface import GradientRequest, Problem, WalkRequest
from alc_kernels.engine.prepare import choose_backend
from alc_kernels.positives import Positives


@dataclass(frozen=True)
class Block:
    """One process's share of a step, and the rates it meets."""

    rows: int  # queries, and labels, of a process
    width: int
    item: int  # bytes of an element of the embeddings
    walk: float  # seconds to walk (rows, rows)
    gradient: float  # seconds for the dense gradient of (rows, rows)
    bandwidth: float  # bytes per second to the next process while as many come in
    latency: float = 0.0  # seconds per message

    @property
    def labels(self) -> float:
        """Seconds for a block of labels."""
        return self.latency + self.rows * self.width * self.item / self.bandwidth

    @property
    def left(self) -> float:
        """Seconds for a block's gradient, float32."""
        return self.latency + self.rows * self.width * 4 / self.bandwidth


@dataclass(frozen=True)
class Step:
    """Seconds of a softmax loss, forward and backward."""

    walk: float
    gradient: float
    compute: float  # both visits if nothing had to be sent

    @property
    def total(self) -> float:
        return self.walk + self.gradient

    @property
    def share_hidden(self) -> float:
        """Of the step, what the compute explains."""
        return self.compute / self.total


def predict(block: Block, processes: int, overlap: bool = True) -> Step:
    """The model. ``overlap`` False: compute and transfer share one resource (CPU threads)."""
    p = processes

    def visit(compute: float, transfer: float, sent_home: float) -> float:
        together = max(compute, transfer) if overlap else compute + transfer
        return (p - 1) * together + compute + sent_home

    return Step(
        walk=visit(block.walk, block.labels, 0.0),
        gradient=visit(block.gradient, block.labels + block.left, block.left),
        compute=p * (block.walk + block.gradient),
    )


# Per process: NVLink of an H200 900 GB/s both directions, InfiniBand 400 Gb/s (published); a ring
# over several nodes is as fast as its slowest link.
LINKS = {"NVLink 450 GB/s": 450e9, "InfiniBand 50 GB/s": 50e9}
# One matrix product of 32,768 x 32,768 at d = 768 in bf16 on an H200: 2.67 ms (measured; 618
# TFLOP/s of the published peak of 989). A walk costs 0.95 of it, forward and backward 4.2 (probes).
PRODUCT = 2.67e-3 / 32768**2 / 768
WALK, BOTH = 0.95, 4.2
MESSAGE_LATENCY = 20e-6  # assumed, not measured


def on_h200(rows: int, bandwidth: float, width: int = 768, mined: bool = False) -> Block:
    """A block on an H200, from the constants above.

    ``mined``: a loss of hardest negatives, whose gradient touches a few pairs per row.
    """
    unit = PRODUCT * rows * rows * width
    gradient = 0.0 if mined else (BOTH - WALK) * unit
    return Block(rows, width, 2, WALK * unit, gradient, bandwidth, MESSAGE_LATENCY)


def smallest_hidden(bandwidth: float, width: int = 768) -> int:
    """Rows per process from which on both visits are hidden behind compute, in steps of 256."""
    rows = 256
    while True:
        block = on_h200(rows, bandwidth, width)
        if block.walk >= block.labels and block.gradient >= block.labels + block.left:
            return rows
        rows += 256


def table(rows: int = 8192, width: int = 768) -> str:
    """Markdown: seconds per step at 8, 64 and 512 GPUs."""
    lines = [
        "| loss | GPUs | link of the ring | walk | gradients | step | of it compute |",
        "|---|---|---|---|---|---|---|",
    ]
    for loss, mined in (("softmax", False), ("triplet", True)):
        for count in (8, 64, 512):
            links = LINKS if count == 8 else {"InfiniBand 50 GB/s": LINKS["InfiniBand 50 GB/s"]}
            for name, bandwidth in links.items():
                step = predict(on_h200(rows, bandwidth, width, mined), count)
                lines.append(
                    f"| {loss} | {count} | {name} | {step.walk * 1e3:.1f} ms | "
                    f"{step.gradient * 1e3:.1f} ms | {step.total * 1e3:.1f} ms | "
                    f"{step.share_hidden:.0%} |"
                )
    for name, bandwidth in LINKS.items():
        rows_needed = smallest_hidden(bandwidth, width)
        lines.append(f"\n{name}: softmax hidden from {rows_needed:,} rows per GPU on.")
    return "\n".join(lines)


def _timed(call: Callable[[], Any], group: Any) -> float:
    """Seconds of one call, begun by all processes together."""
    dist.barrier(group)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _calls(rows: int, width: int, group: Any) -> dict[str, Callable[[], Any]]:
    """What is timed: a block's passes, its messages, and the step of ``softmax_loss``."""
    g = torch.Generator().manual_seed(group.rank())
    queries, labels = (
        torch.nn.functional.normalize(torch.randn(rows, width, generator=g)) for _ in range(2)
    )
    backend = choose_backend("auto", queries, torch.float32)
    nothing = Positives._empty(rows, rows)
    problem = Problem(queries, labels, Positives.diagonal(rows), nothing, None)
    slope = torch.tensor(20.0)
    request = WalkRequest(softmax="negatives", inverse_temperature=slope)
    found = backend.walk(problem, request)
    scale = torch.full((rows,), 1.0 / rows)
    dense = GradientRequest(
        kind="decoupled", row_scale=scale, num_positives=found.num_positives,
        log_sum_exp=found.log_sum_exp, negative_scale=scale, inverse_temperature=slope,
    )  # fmt: skip
    by_queries, by_labels = torch.zeros_like(queries), torch.zeros_like(labels)
    leaves = [x.clone().requires_grad_() for x in (queries, labels)]
    across = GlobalBatch(group, "ring", equal_sizes=True)
    small = torch.zeros(1, 1)

    def send(x: torch.Tensor) -> None:
        Transfer({"x": x}, {"x": torch.empty_like(x)}, group, 7).wait()

    return {
        "walk": lambda: backend.walk(problem, request),
        "gradient": lambda: backend.dense_gradient(problem, dense, by_queries, by_labels),
        "small message": lambda: send(small),
        "large message": lambda: send(labels),
        "step": lambda: functional.softmax_loss(*leaves, process_group=across).backward(),
    }


def measured(rows: int, width: int, group: Any, repeats: int) -> dict[str, Any]:
    """Measured and predicted seconds of a step.

    Every repeat times all parts and the step one after the other, so that a machine whose speed
    changes (others use it too) changes both sides of the comparison.
    """
    calls = _calls(rows, width, group)
    for call in calls.values():
        call()
    steps, models, ratios = [], [], []
    for _ in range(repeats):
        found = {name: _timed(call, group) for name, call in calls.items()}
        transfer = max(found["large message"] - found["small message"], 1e-9)
        block = Block(
            rows, width, 4, found["walk"], found["gradient"],
            rows * width * 4 / transfer, found["small message"],
        )  # fmt: skip
        # Threads that compute and threads that copy share the cores.
        model = predict(block, group.size(), overlap=False).total
        steps.append(found["step"])
        models.append(model)
        ratios.append(found["step"] / model)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "processes": group.size(), "rows": rows, "width": width,
        "measured": statistics.median(steps), "predicted": statistics.median(models),
        "ratio": middle, "ratio quartiles": [low, high],
    }  # fmt: skip


def _process(rank: int, store: str, count: int, sizes: Sequence[int], width: int, repeats: int,
             out: str) -> None:  # fmt: skip
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{store}", rank=rank, world_size=count,
        timeout=timedelta(minutes=5),
    )  # fmt: skip
    rows = [measured(size, width, dist.group.WORLD, repeats) for size in sizes]
    if rank == 0:
        Path(out).write_text(json.dumps(rows))
    farewell()
    dist.destroy_process_group()


def simulate(
    processes: Sequence[int], sizes: Sequence[int], width: int, repeats: int
) -> dict[str, Any]:
    """Measured and predicted steps, with what they were measured on."""
    rows: list[dict[str, Any]] = []
    for count in processes:
        with tempfile.TemporaryDirectory() as folder:
            store, out = str(Path(folder) / "store"), str(Path(folder) / "out")
            arguments = (store, count, sizes, width, repeats, out)
            torch.multiprocessing.spawn(_process, arguments, nprocs=count)
            rows += json.loads(Path(out).read_text())
    machine = {"cpu": platform.processor() or platform.machine(), "torch": torch.__version__}
    return {"machine": machine, "threads per process": 1, "repeats": repeats, "steps": rows}


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    commands = parser.add_subparsers(dest="command", required=True)
    on_paper = commands.add_parser("predict")
    on_paper.add_argument("--rows", type=int, default=8192)
    on_paper.add_argument("--width", type=int, default=768)
    here = commands.add_parser("simulate")
    here.add_argument("--processes", type=int, nargs="+", default=[2])
    here.add_argument("--rows", type=int, nargs="+", default=[512, 1024])
    here.add_argument("--width", type=int, default=256)
    here.add_argument("--repeats", type=int, default=7)
    here.add_argument("--output", type=Path)
    settings = parser.parse_args(arguments)
    if settings.command == "predict":
        print(table(settings.rows, settings.width))
        return
    found = simulate(settings.processes, settings.rows, settings.width, settings.repeats)
    print("| processes | rows each | measured | predicted | ratio (quartiles) |")
    print("|---|---|---|---|---|")
    for row in found["steps"]:
        low, high = row["ratio quartiles"]
        print(
            f"| {row['processes']} | {row['rows']:,} | {row['measured'] * 1e3:.0f} ms | "
            f"{row['predicted'] * 1e3:.0f} ms | {row['ratio']:.2f} ({low:.2f}-{high:.2f}) |"
        )
    if settings.output is not None:
        settings.output.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
