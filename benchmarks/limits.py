"""The largest batch, and repeatability: what a table of times does not show.

    python -m benchmarks.limits --output limits.json

1. One forward and backward pass at B = M = ``--rows`` of a mined triplet with TCM and of a softmax
   loss: peak memory beyond inputs and gradients, and whether values and gradients agree with the
   ``torch`` backend on ``--sample`` of the queries (all labels; gradients of those queries).
2. ``--repeats`` passes with ``deterministic=True`` at ``--repeat-rows``: all bits equal.

Exits with 1 where a value is off or a bit differs.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alc_kernels import ALCLoss, Positives, Softmax, ThresholdMargin, Triplet
from alc_kernels.bench import measure

LOSSES: dict[str, dict[str, Any]] = {
    "triplet10+tcm": {
        "base": Triplet(),
        "threshold": ThresholdMargin(negative_scope="hardest", reduction="rows"),
    },
    "softmax": {"base": Softmax(), "threshold": None},
}
# Of the largest element; half precision rounds the gradient itself to 2**-9.
TOLERANCE = {torch.bfloat16: 2e-2, torch.float16: 5e-3, torch.float32: 1e-4}


def _loss(name: str, backend: str, deterministic: bool = False) -> ALCLoss:
    return ALCLoss(auxiliary=None, backend=backend, deterministic=deterministic, **LOSSES[name])


def _gradients(
    loss: ALCLoss, queries: Tensor, labels: Tensor, index: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Value and both gradients; query i belongs to label index[i]."""
    q, k = queries.detach().requires_grad_(), labels.detach().requires_grad_()
    value = loss(q, k, positives=Positives.from_index(index, len(labels)))
    value.backward()
    assert q.grad is not None and k.grad is not None
    return value.detach(), q.grad, k.grad


def largest(name: str, backend: str, queries: Tensor, labels: Tensor, sample: int) -> dict:
    """Memory of one pass over everything, and errors on the first ``sample`` queries."""
    index = torch.arange(len(queries), device=queries.device)
    cuda = queries.is_cuda
    if cuda:
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    value, of_queries, of_labels = _gradients(_loss(name, backend), queries, labels, index)
    result: dict[str, Any] = {"loss": name, "rows": len(queries), "value": float(value)}
    if cuda:
        own = 4 * (of_queries.numel() + of_labels.numel())  # a float32 copy of each gradient
        own += sum(g.numel() * g.element_size() for g in (of_queries, of_labels))
        extra = torch.cuda.max_memory_allocated() - before - own
        result["extra_mib"] = round(extra / 2**20, 1)
    some = queries[:sample], labels, index[:sample]
    ours = _gradients(_loss(name, backend), *some)
    plain = _gradients(_loss(name, "torch"), *some)
    errors = [float((a - b).float().abs().max() / b.float().abs().max())
              for a, b in zip(ours, plain, strict=True)]  # fmt: skip
    result["errors"] = errors
    finite = all(bool(torch.isfinite(x).all()) for x in (value, of_queries, of_labels))
    result["right"] = finite and max(errors) <= TOLERANCE[queries.dtype]
    return result


def repeated(name: str, backend: str, queries: Tensor, labels: Tensor, repeats: int) -> dict:
    """Whether ``repeats`` passes end in the same bits."""
    index = torch.arange(len(queries), device=queries.device)
    step: Callable[[], tuple[Tensor, ...]] = lambda: _gradients(  # noqa: E731
        _loss(name, backend, deterministic=True), queries, labels, index
    )
    first = step()
    same = all(
        all(torch.equal(a, b) for a, b in zip(first, step(), strict=True))
        for _ in range(repeats - 1)
    )
    return {"loss": name, "rows": len(queries), "repeats": repeats, "right": same}


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=262144)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--dtype", default="bfloat16", choices=["bfloat16", "float16", "float32"])
    parser.add_argument("--sample", type=int, default=1024)
    parser.add_argument("--repeat-rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=1000)
    parser.add_argument("--backend", default="auto")
    parser.add_argument("--output", type=Path)
    options = parser.parse_args(arguments)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = getattr(torch, options.dtype)
    results = []
    for name in LOSSES:
        pair = measure.inputs(options.rows, options.rows, options.width, dtype, device, seed=0)
        results.append(largest(name, options.backend, *pair[:2], options.sample))
        print(json.dumps(results[-1]), flush=True)
        rows = options.repeat_rows
        pair = measure.inputs(rows, rows, options.width, dtype, device, seed=1)
        results.append(repeated(name, options.backend, *pair[:2], options.repeats))
        print(json.dumps(results[-1]), flush=True)
    if options.output:
        options.output.write_text(json.dumps(results, indent=1) + "\n")
    return 0 if all(result["right"] for result in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
