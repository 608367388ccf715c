"""The table: every work, every provider, values checked before anything is timed."""

from __future__ import annotations

import functools
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alc_kernels.bench import measure
from alc_kernels.bench.peers import Step
from alc_kernels.bench.works import Work, works

# Allowed error where eager PyTorch itself cannot run for comparison; else twice eager's.
FLOOR = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 2e-3, torch.bfloat16: 1e-2}
# Peers may approximate (cut-cross-entropy drops small gradients); far off means another loss.
PEER = 0.1

Report = Callable[[dict[str, Any]], None]


@dataclass(frozen=True)
class Case:
    """One size to measure at.

    Attributes:
        rows, columns, width: B, M, d.
        dtype: of the embeddings.
        active: share of the negatives above TCM's margin.
        backend: ours.
    """

    rows: int
    columns: int
    width: int
    dtype: torch.dtype
    active: float = 0.0005
    backend: str = "torch"

    def describe(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "columns": self.columns,
            "width": self.width,
            "dtype": str(self.dtype).removeprefix("torch."),
            "active": self.active,
        }


def compiled(step: Step) -> Step:
    """``torch.compile`` of the plain version, as a user would call it."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch._inductor")
    made: Step = torch.compile(step)
    return made


def provider_names(known: Iterable[Work]) -> list[str]:
    """Every provider that some of these works has, ours first."""
    peers = [peer.name for work in known for peer in work.peers]
    return list(dict.fromkeys(["alc_kernels", "eager", "torch.compile", "chunked", *peers]))


def providers(
    work: Work, case: Case, device: str, only: Sequence[str] = ()
) -> dict[str, tuple[Step | None, str | None]]:
    """name -> (step, None), or (None, why it is missing); eager always, the others if asked."""
    made: dict[str, tuple[Step | None, str | None]] = {
        "alc_kernels": (work.ours(case.backend), None)
    }
    square = case.rows == case.columns
    if work.eager is not None:
        if square:
            made["eager"] = (work.eager, None)
            if not only or "torch.compile" in only:
                made["torch.compile"] = (compiled(work.eager), None)
        else:
            made["eager"] = (None, "written for B = M")
    if work.chunked is not None:
        made["chunked"] = (work.chunked, None)
    for peer in work.peers:
        if only and peer.name not in only:
            continue
        reason = peer.missing(device)
        if reason is None and not square:
            reason = "measured for B = M"
        made[peer.name] = (peer.build() if reason is None else None, reason)
    return made


def measure_case(
    case: Case,
    chosen: Sequence[str],
    only: Sequence[str] = (),
    *,
    device: str,
    repeats: int,
    seconds: float = 20.0,
    sets: int = 3,
    report: Report = lambda row: None,
) -> list[dict[str, Any]]:
    """Measure the works ``chosen`` (all where empty) at one size; G is timed beside each.

    Args:
        case: the size.
        chosen: names of works.
        only: names of providers; all where empty.
        device: ``"cpu"`` or ``"cuda"``.
        repeats, seconds: rounds at most, and time after which they stop, per work.
        sets: input sets to rotate among; together they should exceed the cache.
        report: called with each row.

    Returns:
        One row per work and provider. A provider that is missing, out of memory or wrong has a
        ``missing`` text and no time.
    """
    made = [
        measure.inputs(case.rows, case.columns, case.width, case.dtype, device, seed)
        for seed in range(sets)
    ]
    margin = measure.margin_for(made[0], case.active)
    rows = []
    for name, work in works(case.width, device, margin, case.active).items():
        if chosen and name not in chosen:
            continue
        rows += _measure_work(work, case, made, only, device, repeats, seconds, report)
    return rows


def _measure_work(
    work: Work,
    case: Case,
    sets: list[list[Tensor]],
    only: Sequence[str],
    device: str,
    repeats: int,
    seconds: float,
    report: Report,
) -> list[dict[str, Any]]:
    rows: dict[str, dict[str, Any]] = {}
    steps: dict[str, Step] = {}
    # A row whose two hardest labels are as good as equal: a few rows' worth of error.
    limit = FLOOR[case.dtype] + (8 / case.rows if work.choices else 0)
    plain = work.ours("torch")
    truth = measure.exactly(plain, sets[0], work.backward)
    found = providers(work, case, device, only)
    if work.eager is None:
        # Nobody has a plain version: plain PyTorch is our own backend in row chunks.
        limit = max(limit, 2 * measure.errors(plain, truth, sets[0], work.backward).worst)
    # Plain PyTorch first: its error says how far off ours may be.
    for name in sorted(found, key=lambda n: n != "eager"):
        step, reason = found[name]
        if only and name not in only and name != "eager":
            continue
        row: dict[str, Any] = {"work": work.name, "provider": name, **case.describe()}
        rows[name] = row
        if step is None:
            row["missing"] = reason
            continue
        started = time.perf_counter()
        try:
            wrong = measure.errors(step, truth, sets[0], work.backward)
        except torch.OutOfMemoryError:
            row["missing"] = "out of memory"
            torch.cuda.empty_cache()
            continue
        except Exception as error:  # a peer may fail in any way; ours must not
            if name == "alc_kernels":
                raise
            row["missing"] = f"{type(error).__name__}: {' '.join(str(error).split())[:80]}"
            continue
        row |= {
            "value_error": wrong.value,
            "gradient_errors": wrong.gradients,
            "first_seconds": time.perf_counter() - started,
        }
        if name == "eager":
            limit = max(limit, 2 * wrong.worst)
        allowed = limit if name == "alc_kernels" else PEER
        if not wrong.worst <= allowed:
            row["missing"] = f"wrong: error {wrong.worst:.2g}, allowed {allowed:.2g}"
            continue
        steps[name] = step
        row["extra_bytes"] = measure.peak_memory(step, sets[0], work.backward)
    _time(work, case, sets, steps, rows, device, repeats, seconds)
    for row in rows.values():
        report(row)
    return list(rows.values())


def _product(pair: list[Tensor]) -> Tensor:
    return torch.mm(pair[0].detach(), pair[1].detach().T)


def _time(
    work: Work,
    case: Case,
    sets: list[list[Tensor]],
    steps: dict[str, Step],
    rows: dict[str, dict[str, Any]],
    device: str,
    repeats: int,
    seconds: float,
) -> None:
    actions: dict[str, list[Callable[[], object]]] = {
        "G": [functools.partial(_product, pair) for pair in sets]
    }
    for name, step in steps.items():
        actions[name] = [functools.partial(measure.run, step, p, work.backward) for p in sets]
    times = measure.interleaved(actions, device, repeats, seconds)
    unit = measure.summary(times["G"])["median_ms"]
    assert isinstance(unit, float)
    for name in steps:
        taken = measure.summary(times[name])
        milliseconds = taken["median_ms"]
        assert isinstance(milliseconds, float)
        work_done = 2 * case.rows * case.columns * case.width * work.products
        rows[name] |= {
            **taken,
            "product_ms": unit,
            "ratio_to_product": milliseconds / unit,
            "teraflops": work_done / milliseconds / 1e9,
        }


HEADER = f"{'work':20}{'provider':26}{'ms':>10}{'x G':>8}{'TFLOP/s':>9}{'MiB':>9}  {'error':>8}"


def line(row: dict[str, Any]) -> str:
    """A row as text, under :data:`HEADER`."""
    start = f"{row['work']:20}{row['provider']:26}"
    if "median_ms" not in row:
        return f"{start}  {row['missing']}"
    memory = row["extra_bytes"]
    mebibytes = "-" if memory is None else f"{memory / 2**20:.0f}"
    worst = max([row["value_error"], *row["gradient_errors"]])
    return (
        f"{start}{row['median_ms']:10.3f}{row['ratio_to_product']:8.2f}{row['teraflops']:9.3g}"
        f"{mebibytes:>9}  {worst:8.1e}"
    )
