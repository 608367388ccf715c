"""Forward + backward of a training step's loss, side by side with eager PyTorch.

    python -m benchmarks.step                        # what fits the machine
    python -m benchmarks.step --rows 16384 --width 768 --output benchmarks/results/step.json

Every provider's value and gradients are checked first, at the timed size, against the chunked
float32-accumulating backend (which the tests hold to the float64 reference). Providers are timed
in turn, interleaved, over several input sets. Times are medians in ms; G is the time of
``torch.mm(Q, K.T)`` in the same dtype in the same run; memory is the peak beyond the inputs, their
gradients and one float32 copy of each.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median, quantiles
from typing import Any

import torch
from torch import Tensor

from alc_kernels import ALCLoss, Auxiliary, ThresholdMargin, functional
from benchmarks import eager, record

Step = Callable[[Tensor, Tensor], Tensor]


def works(width: int, backend: str) -> dict[str, tuple[Step | None, Callable[[str], Step]]]:
    """name: (eager version or None, our version for a backend)."""
    both = {"auxiliary": None, "threshold": ThresholdMargin()}

    def module(chosen: str, **options: Any) -> Step:
        torch.manual_seed(0)
        loss = ALCLoss(width, backend=chosen, **options)
        return loss.cuda() if torch.cuda.is_available() else loss

    quiet = Auxiliary(dropout=0.0)
    return {
        "triplet10+tcm": (eager.triplet_threshold, lambda b: module(b, **both)),
        "softmax": (eager.softmax, lambda b: lambda q, k: functional.softmax_loss(q, k, backend=b)),
        "sigmoid": (eager.sigmoid, lambda b: lambda q, k: functional.sigmoid_loss(q, k, backend=b)),
        "alc-default": (None, lambda b: module(b, auxiliary=quiet)),
    }


def inputs(rows: int, width: int, dtype: torch.dtype, device: str, seed: int) -> list[Tensor]:
    """Unit rows, queries correlated with their labels; fresh leaves with gradients."""
    g = torch.Generator(device).manual_seed(seed)
    k = torch.randn(rows, width, generator=g, device=device)
    q = k + 1.2 * torch.randn(rows, width, generator=g, device=device)
    normalize = torch.nn.functional.normalize
    return [normalize(x, dim=1).to(dtype).requires_grad_() for x in (q, k)]


def run(step: Step, pair: list[Tensor]) -> Tensor:
    for x in pair:
        x.grad = None
    loss = step(*pair)
    loss.backward()
    return loss.detach()


def check(name: str, step: Step, truth: Step, pair: list[Tensor], allowed: float) -> dict[str, Any]:
    """Errors of value and gradients against the exact backend; refuses to time a wrong one."""
    expected = run(truth, pair).item()
    grads = [x.grad.float() for x in pair]
    found = run(step, pair).item()
    errors = [
        ((x.grad.float() - g).norm() / g.norm()).item() for x, g in zip(pair, grads, strict=True)
    ]
    worst = max(abs(found - expected) / abs(expected), *errors)
    if not worst <= allowed:
        raise SystemExit(f"{name}: error {worst:.3g} exceeds {allowed:.3g}: not timed")
    return {"value_error": abs(found - expected) / abs(expected), "gradient_errors": errors}


def clock(action: Callable[[], object], device: str) -> float:
    """Milliseconds of one call."""
    if device == "cpu":
        start = time.perf_counter()
        action()
        return (time.perf_counter() - start) * 1e3
    events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
    events[0].record()
    action()
    events[1].record()
    events[1].synchronize()
    return events[0].elapsed_time(events[1])


def peak_memory(step: Step, pair: list[Tensor]) -> int | None:
    """Bytes beyond inputs, gradients and one float32 copy of each; None on the CPU."""
    if not pair[0].is_cuda:
        return None
    run(step, pair)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(step, pair)
    torch.cuda.synchronize()
    copies = sum(x.numel() * 4 for x in pair)
    return torch.cuda.max_memory_allocated() - before - copies


def main(argv: list[str] | None = None) -> int:
    """Run the table; returns the exit code."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=16384 if gpu else 2048)
    parser.add_argument("--width", type=int, default=768 if gpu else 384)
    parser.add_argument("--dtype", choices=["bfloat16", "float16", "float32"],
                        default="bfloat16" if gpu else "float32")  # fmt: skip
    parser.add_argument("--repeats", type=int, default=50 if gpu else 5)
    parser.add_argument("--sets", type=int, default=3, help="input sets to rotate among")
    parser.add_argument("--output", type=Path, help="JSON result of record")
    options = parser.parse_args(argv)
    device, dtype = ("cuda" if gpu else "cpu"), getattr(torch, options.dtype)
    if not gpu:
        print("no GPU here: the CPU table. Absolute times mean nothing; look at the ratios.")
    sets = [inputs(options.rows, options.width, dtype, device, s) for s in range(options.sets)]
    backend = "triton" if gpu else "torch"
    allowed = 1e-4 if dtype == torch.float32 else 5e-2  # eager rounds S itself to half precision
    steps: dict[str, Step] = {"G": lambda q, k: torch.mm(q.detach(), k.detach().T)}
    errors: dict[str, dict[str, Any]] = {}
    for name, (plain, ours) in works(options.width, backend).items():
        providers = {"eager": plain, "alc_kernels": ours(backend)}
        for provider, step in providers.items():
            if step is None:
                continue
            label = f"{name}/{provider}"
            limit = allowed if provider == "eager" else allowed / 5
            errors[label] = check(label, step, ours("torch"), sets[0], limit)
            steps[label] = step
    times: dict[str, list[float]] = {label: [] for label in steps}
    for repeat in range(options.repeats + 2):
        for label, step in steps.items():
            pair = sets[repeat % len(sets)]
            action = (lambda s=step, p=pair: s(*p)) if label == "G" else (
                lambda s=step, p=pair: run(s, p))  # fmt: skip
            took = clock(action, device)
            if repeat >= 2:
                times[label].append(took)
    unit = median(times["G"])
    rows = []
    print(f"{'work':32}{'ms':>10}{'x G':>8}{'MiB':>10}   gradient error")
    for label, step in steps.items():
        memory = None if label == "G" else peak_memory(step, sets[0])
        row = {
            "label": label,
            "rows": options.rows,
            "width": options.width,
            "dtype": options.dtype,
            "median_ms": median(times[label]),
            "percentiles_ms": quantiles(times[label], n=10),
            "ratio_to_G": median(times[label]) / unit,
            "extra_bytes": memory,
            **errors.get(label, {}),
        }
        rows.append(row)
        mebibytes = "-" if memory is None else f"{memory / 2**20:.0f}"
        worst = max(row.get("gradient_errors", [0.0]))
        ms, ratio = median(times[label]), median(times[label]) / unit
        print(f"{label:32}{ms:>10.3f}{ratio:>8.2f}{mebibytes:>10}   {worst:.2g}")
    if options.output:
        arguments = " ".join(sys.argv[1:] if argv is None else argv)
        record.write(options.output, rows, f"python -m benchmarks.step {arguments}".strip())
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
