"""Values first, then times and memory: how a provider of a work is measured."""

from __future__ import annotations

import ctypes
import gc
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles
from typing import NamedTuple

import torch
from torch import Tensor

from alc_kernels.bench.peers import Step

# Losses below this are compared absolutely: a softmax loss near 0 is a difference of logits of 20.
SMALL_VALUE = 0.01
CLASH = 1.2  # inputs: noise added to a label to make its query


@dataclass
class Errors:
    """Relative errors against the float64 truth: of the value, and of each gradient by norm."""

    value: float
    gradients: list[float] = field(default_factory=list)

    @property
    def worst(self) -> float:
        return max([self.value, *self.gradients])


def inputs(
    rows: int, columns: int, width: int, dtype: torch.dtype, device: str, seed: int
) -> list[Tensor]:
    """Unit rows (B, d) and (M, d); query i is correlated with label i. Leaves with gradients."""
    g = torch.Generator(device).manual_seed(seed)
    k = torch.randn(columns, width, generator=g, device=device)
    q = k[:rows] + CLASH * torch.randn(rows, width, generator=g, device=device)
    normalize = torch.nn.functional.normalize
    return [normalize(x, dim=1).to(dtype).requires_grad_() for x in (q, k)]


def margin_for(pair: list[Tensor], active: float) -> float:
    """The similarity that a share ``active`` of the negatives exceeds, from a sample of rows."""
    with torch.no_grad():
        q, k = (x[: min(len(x), 4096)].float() for x in pair)
        s = q[:512] @ k.T
        off = s[~torch.eye(len(s), s.shape[1], dtype=torch.bool, device=s.device)]
        place = max(0, min(len(off) - 2, round(active * len(off))))
        # Between two values: a pair on the margin would be in or out by rounding.
        return float(off.sort(descending=True).values[place : place + 2].mean())


def run(step: Step, pair: list[Tensor], backward: bool = True) -> Tensor:
    """One call, forward and, where asked, backward; the result, detached."""
    for x in pair:
        x.grad = None
    if not backward:
        with torch.no_grad():
            return step(*pair)
    result = step(*pair)
    result.sum().backward()
    return result.detach()


class Truth(NamedTuple):
    """What a step gives in float64: its value, and the gradients where it has any."""

    value: Tensor
    gradients: list[Tensor]


def exactly(step: Step, pair: list[Tensor], backward: bool = True) -> Truth:
    """``step`` on the numbers of ``pair`` in float64."""
    exact = [x.detach().double().requires_grad_() for x in pair]
    value = run(step, exact, backward).double()
    return Truth(value, [x.grad for x in exact if x.grad is not None])


Judge = Callable[[Tensor, Truth, list[Tensor]], Errors]


def errors(
    step: Step, truth: Truth, pair: list[Tensor], backward: bool = True, judge: Judge | None = None
) -> Errors:
    """Errors of ``step`` on ``pair`` against what is true there; ``judge`` of other results."""
    found = run(step, pair, backward).double()
    if judge is not None:
        return judge(found, truth, pair)
    value = float((found - truth.value).norm() / truth.value.norm().clamp(min=SMALL_VALUE))
    gradients = []
    if backward:
        for x, expected in zip(pair, truth.gradients, strict=True):
            assert x.grad is not None
            gradients.append(float((x.grad.double() - expected).norm() / expected.norm()))
    return Errors(value, gradients)


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
    return float(events[0].elapsed_time(events[1]))


def interleaved(
    actions: dict[str, list[Callable[[], object]]], device: str, repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Times in ms: every action in turn, over its input sets, so that a changing clock hits all.

    Args:
        actions: name -> one callable per input set.
        repeats: timed rounds at most, after two that warm up.
        seconds: rounds stop after this long, but not before three.
    """
    times: dict[str, list[float]] = {name: [] for name in actions}
    started = time.perf_counter()
    for turn in range(repeats + 2):
        if turn >= 5 and time.perf_counter() - started > seconds:
            break
        for name, variants in actions.items():
            took = clock(variants[turn % len(variants)], device)
            if turn >= 2:
                times[name].append(took)
    return times


def summary(times: list[float]) -> dict[str, float | list[float]]:
    """Median and deciles in ms, and how many calls were timed."""
    return {
        "median_ms": median(times),
        "deciles_ms": quantiles(times, n=10) if len(times) > 1 else [],
        "calls": len(times),
    }


def peak_memory(step: Step, pair: list[Tensor], backward: bool = True) -> int | None:
    """Bytes beyond inputs, gradients and one float32 copy of each gradient.

    On a GPU by PyTorch's allocator; on Linux by the resident memory of the process, which also
    sees what the C++ allocator keeps for later (a few MiB either way); None elsewhere.
    """
    copies = sum(x.numel() * 4 for x in pair) if backward else 0
    if not pair[0].is_cuda:
        return _peak_resident(lambda: run(step, pair, backward), pair, copies)
    run(step, pair, backward)
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    run(step, pair, backward)
    torch.cuda.synchronize()
    return int(torch.cuda.max_memory_allocated() - before - copies)


def _peak_resident(action: Callable[[], object], pair: list[Tensor], copies: int) -> int | None:
    """Growth of the resident memory at its peak, less the gradients and ``copies``."""
    for x in pair:
        x.grad = None
    gc.collect()
    _give_back_memory()
    try:
        before = _resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    except OSError:
        return None
    action()
    gradients = sum(x.grad.numel() * x.grad.element_size() for x in pair if x.grad is not None)
    return max(0, _resident("VmHWM") - before - gradients - copies)


def free_memory() -> int | None:
    """Bytes that Linux could give, None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
    return found[0] * 1024 if found else None


def _give_back_memory() -> None:
    """What the C library holds free, so that using it again counts."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _resident(field: str) -> int:
    """Bytes, as /proc/self/status has them."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise OSError(f"/proc/self/status has no {field}")
