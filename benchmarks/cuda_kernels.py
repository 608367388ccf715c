"""The CUDA kernels beside the Triton ones: mining and pair gradients, values first, then times.

    python3 -m benchmarks.cuda_kernels --output FILE [--rows 32768] [--width 768] [--top 10 100]

Ratios are to G, the time of torch.mm(Q, K.T) in the same run. What is faster on a GPU may go into
``MEASURED_FASTER`` of alc_kernels/backends/cuda/library.py, with the result of record.
"""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from alc_kernels import functional
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.cuda.library import SWITCH
from alc_kernels.bench import eager, measure, record
from alc_kernels.engine.interface import Problem
from alc_kernels.positives import Positives

Action = Callable[[], Any]
PAIRS_PER_ROW = 11  # Triplet(10): the positive and ten negatives


def with_switch(value: str, action: Action) -> Any:
    """``action`` with the CUDA kernels on ("1") or off ("0")."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = value
    try:
        return action()
    finally:
        os.environ.pop(SWITCH) if before is None else os.environ.update({SWITCH: before})


def stored_topk(queries: Tensor, labels: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k hardest negatives of plain PyTorch, S stored; diagonal positives."""
    s = eager.similarities(queries, labels)
    s.fill_diagonal_(-torch.inf)
    return tuple(s.topk(k, dim=1))


def mining(pair: list[Tensor], k: int) -> dict[str, Action]:
    """The k hardest negatives, three ways."""
    q, x = (part.detach() for part in pair)
    ours = functools.partial(functional.hardest_negatives, q, x, k=k, backend="triton")
    return {
        "triton": lambda: with_switch("0", ours),
        "cuda": lambda: with_switch("1", ours),
        "eager topk": lambda: stored_topk(q, x, k),
    }


def check_mining(pair: list[Tensor], actions: dict[str, Action]) -> float:
    """Largest difference between the scores of CUDA and Triton.

    Raises:
        ValueError: it exceeds what another order of summing explains.
    """
    scores = {name: actions[name]()[0].float() for name in ("triton", "cuda")}
    worst = float((scores["triton"] - scores["cuda"]).abs().max())
    allowed = pair[0].shape[1] * 2.0**-22
    if not worst <= allowed:
        raise ValueError(
            f"scores of the CUDA kernels are off by {worst:.2g}, allowed {allowed:.2g}"
        )
    return worst


def listed_pairs(pair: list[Tensor], active: float) -> tuple[Problem, Tensor, Tensor]:
    """A problem with PAIRS_PER_ROW labels per row; a share ``active`` has a coefficient."""
    q, x = (part.detach() for part in pair)
    (b, m), device = (len(q), len(x)), q.device
    generator = torch.Generator(device).manual_seed(0)
    index = torch.randint(m, (b, PAIRS_PER_ROW), generator=generator, device=device)
    coefficient = torch.randn(b, PAIRS_PER_ROW, generator=generator, device=device)
    chosen = torch.rand(b, PAIRS_PER_ROW, generator=generator, device=device) < active
    problem = Problem(q, x, Positives._empty(b, m), Positives._empty(b, m), None)
    return problem, index, torch.where(chosen, coefficient, 0.0)


def pair_gradients(pair: list[Tensor], active: float) -> tuple[dict[str, Action], list[Tensor]]:
    """Triton with atomics, Triton repeatable, CUDA; and the gradients that they add to."""
    problem, index, coefficient = listed_pairs(pair, active)
    grads = [torch.zeros(part.shape, device=part.device) for part in pair]

    def add(deterministic: bool) -> None:
        triton_backend.pair_gradient(problem, index, coefficient, *grads, deterministic)

    actions: dict[str, Action] = {
        "triton atomics": lambda: with_switch("0", lambda: add(False)),
        "triton repeatable": lambda: with_switch("0", lambda: add(True)),
        "cuda": lambda: with_switch("1", lambda: add(True)),
    }
    return actions, grads


def check_pairs(actions: dict[str, Action], grads: list[Tensor]) -> float:
    """Relative difference between the gradients of CUDA and Triton.

    Raises:
        ValueError: it exceeds float32 rounding.
    """
    found = {}
    for name in ("triton repeatable", "cuda"):
        for grad in grads:
            grad.zero_()
        actions[name]()
        found[name] = [grad.clone() for grad in grads]
    pairs = zip(found["triton repeatable"], found["cuda"], strict=True)
    worst = max(float((a - b).norm() / a.norm().clamp(min=1e-30)) for a, b in pairs)
    if not worst <= 1e-5:
        raise ValueError(f"gradients of the CUDA kernels differ by {worst:.2g}")
    return worst


def timed(
    work: str, pair: list[Tensor], actions: dict[str, Action], difference: float, seconds: float
) -> list[dict[str, Any]]:
    """One row per provider, timed in turn with G."""
    q, x = (part.detach() for part in pair)
    variants = {"G": [lambda: torch.mm(q, x.T)]} | {name: [a] for name, a in actions.items()}
    times = measure.interleaved(variants, q.device.type, 100, seconds)
    unit = median(times["G"])
    rows = []
    for name in actions:
        row = {
            "work": work, "provider": name, "rows": len(q), "columns": len(x), "width": q.shape[1],
            "dtype": str(q.dtype).removeprefix("torch."), "difference": difference,
            **measure.summary(times[name]), "product_ms": unit,
            "ratio_to_product": median(times[name]) / unit,
        }  # fmt: skip
        print(f"{work:28}{name:20}{row['median_ms']:10.3f} ms{row['ratio_to_product']:8.2f} G")
        rows.append(row)
    return rows


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=32768)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--top", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--active", type=float, nargs="+", default=[1.0, 0.1])
    parser.add_argument("--seconds", type=float, default=6.0)
    parser.add_argument("--output", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    size = (chosen.rows, chosen.rows, chosen.width)
    pair = measure.inputs(*size, torch.bfloat16, device, 0)
    rows: list[dict[str, Any]] = []
    for k in chosen.top:
        actions = mining(pair, k)
        difference = check_mining(pair, actions)
        rows += timed(f"hardest negatives k={k}", pair, actions, difference, chosen.seconds)
    for active in chosen.active:
        actions, grads = pair_gradients(pair, active)
        difference = check_pairs(actions, grads)
        work = f"pair gradients {100 * active:g} %"
        rows += timed(work, pair, actions, difference, chosen.seconds)
    record.write(chosen.output, rows, "python3 -m benchmarks.cuda_kernels " + " ".join(arguments))
    print(f"Written: {chosen.output}")


if __name__ == "__main__":
    main(sys.argv[1:])
