"""Large batches on a CPU: time per pair and memory with and without 8-bit screening.

    python -m benchmarks.screening_large --rows 8192 65536 --output benchmarks/results/NAME.json

Triplet over 10 hardest negatives + TCM, forward and backward. There is no float64 check as in
``alc bench table``, which would take half an hour at 65,536: value and gradients are held against
those of full precision. Exits with 1 where they are off.
"""

from __future__ import annotations

import argparse
import functools
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alc_kernels import ALCLoss, ThresholdMargin, Triplet
from alc_kernels.bench import measure, record
from alc_kernels.bench.screening import Without, counted

TOLERANCE = 1e-5  # relative


def results(step: Any, pair: list[Tensor]) -> list[Tensor]:
    value = measure.run(step, pair)
    return [value, *(x.grad.clone() for x in pair if x.grad is not None)]


def measured(rows: int, width: int, repeats: int) -> dict[str, Any]:
    """One size: ratios to G, seconds per pair, memory, and how far both are apart."""
    pair = measure.inputs(rows, rows, width, torch.float32, "cpu", seed=0)
    margin = ThresholdMargin(negative_margin=measure.margin_for(pair, 0.0005))
    step = ALCLoss(base=Triplet(num_negatives=10), auxiliary=None, threshold=margin)
    plain = Without(step)
    apart = [
        float((a - b).norm() / b.norm())
        for a, b in zip(results(step, pair), results(plain, pair), strict=True)
    ]
    counts, _ = counted(step, pair)
    made: dict[str, Any] = {
        "work": "triplet10+tcm", "rows": rows, "columns": rows, "width": width,
        "apart": apart, "screened_rows": counts.screened, "fallback_rows": counts.given_up,
        "scored_pairs": counts.scored, "extra_bytes": measure.peak_memory(step, pair),
    }  # fmt: skip
    queries, labels = (x.detach() for x in pair)
    actions: dict[str, Any] = {
        "G": [functools.partial(_product, queries, labels)],
        "alc_kernels": [functools.partial(measure.run, step, pair)],
        "screening off": [functools.partial(measure.run, plain, pair)],
    }
    times: dict[str, list[float]] = {name: [] for name in actions}
    for _ in range(repeats):
        for name, (action,) in actions.items():
            times[name].append(measure.clock(action, "cpu"))
    for name, taken in times.items():
        median = float(measure.summary(taken)["median_ms"])
        made[name] = {"median_ms": median, "picoseconds_per_pair": median * 1e9 / rows**2}
    return made


def _product(queries: Tensor, labels: Tensor, slices: int = 4096) -> None:
    """Q K^T a slice of rows at a time: whole, it would take 16 GiB at 65,536."""
    for part in queries.split(slices):
        torch.mm(part, labels.T)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[8192, 65536])
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = []
    for rows in arguments.rows:
        found.append(measured(rows, arguments.width, arguments.repeats))
        print(found[-1], flush=True)
    if arguments.output is not None:
        shown = " ".join(map(str, arguments.rows))
        record.write(
            arguments.output, found, f"python -m benchmarks.screening_large --rows {shown}"
        )
    return 0 if all(max(row["apart"]) <= TOLERANCE for row in found) else 1


if __name__ == "__main__":
    raise SystemExit(main())
