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
from alc_kernels.bench.screening import Without, counted
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
        compiler: what ``torch.compile`` ends in.
        prefixes: widths of the Matryoshka works; ``works.prefix_widths(width)`` where empty.
    """

    rows: int
    columns: int
    width: int
    dtype: torch.dtype
    active: float = 0.0005
    backend: str = "torch"
    compiler: str = "inductor"
    prefixes: tuple[int, ...] = ()

    def describe(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "columns": self.columns,
            "width": self.width,
            "dtype": str(self.dtype).removeprefix("torch."),
            "active": self.active,
        }


def compiled(step: Step, compiler: str = "inductor") -> Step:
    """``torch.compile`` of the plain version, as a user would call it."""
    warnings.filterwarnings("ignore", category=FutureWarning, module="torch._inductor")
    made: Step = torch.compile(step, backend=compiler)
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
    square = case.rows == case.columns or not work.square
    if work.eager is not None:
        if large := _too_large(case, device):
            made["eager"] = (None, large)
        elif square:
            made["eager"] = (work.eager, None)
            if not only or "torch.compile" in only:
                made["torch.compile"] = (compiled(work.eager, case.compiler), None)
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


STORED = 4  # matrices of the size of S that plain PyTorch keeps or makes on its way


def _too_large(case: Case, device: str) -> str:
    """Why a version that stores S is not even tried: Linux would end the process; "" elsewhere."""
    free = measure.free_memory() if device == "cpu" else None
    needed = STORED * case.rows * case.columns * case.dtype.itemsize
    if free is None or needed < free:
        return ""
    return f"needs about {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free"


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
    made = inputs_of(case, device, sets)
    rows = []
    for name, work in known_works(case, device, made).items():
        if not chosen or name in chosen:
            rows += _measure_work(work, case, made, only, device, repeats, seconds, report)
    return rows


def inputs_of(case: Case, device: str, sets: int) -> list[list[Tensor]]:
    """Several (B, d) queries and (M, d) labels to take turns."""
    size = (case.rows, case.columns, case.width)
    return [measure.inputs(*size, case.dtype, device, seed) for seed in range(sets)]


def known_works(case: Case, device: str, sets: list[list[Tensor]]) -> dict[str, Work]:
    """Every work with TCM's margin set for these inputs."""
    margin = measure.margin_for(sets[0], case.active)
    return works(case.width, device, margin, case.active, case.prefixes)


class WorkBench:
    """One work at one size: what is true there, who computes it, how far off and how fast.

    Args:
        work: what is computed.
        case: the size.
        sets: inputs to take turns; values are checked on the first.
        device: ``"cpu"`` or ``"cuda"``.
        only: names of providers; all where empty.
    """

    def __init__(
        self, work: Work, case: Case, sets: list[list[Tensor]], device: str,
        only: Sequence[str] = (),
    ) -> None:  # fmt: skip
        sets = [work.inputs(pair) for pair in sets] if work.inputs is not None else sets
        self.work, self.case, self.sets, self.device = work, case, sets, device
        self.truth = measure.exactly(work.ours("torch"), sets[0], work.backward)
        self.providers = providers(work, case, device, only)

    @functools.cached_property
    def allowed(self) -> float:
        """The error that ours may have: twice plain PyTorch's, or FLOOR where that is more."""
        limit = FLOOR[self.case.dtype]
        if self.work.choices:
            # A row whose two hardest labels are as good as equal: a few rows' worth of error.
            limit += 8 / self.case.rows
        # Where nobody has a plain version for this: our own backend of plain PyTorch in row chunks.
        plain = self.providers.get("eager", (None, None))[0] or self.work.ours("torch")
        try:
            found = self.errors(plain)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return limit
        return max(limit, 2 * found.worst)

    def errors(self, step: Step) -> measure.Errors:
        """Of a step on the first inputs."""
        work = self.work
        return measure.errors(step, self.truth, self.sets[0], work.backward, work.judge)

    def screened(self, step: Step) -> dict[str, Any]:
        """What 8-bit screening did, where it did; ``missing`` where it changed the answer."""
        counts, found = counted(step, self.sets[0])
        if not counts.screened:
            return {}
        row: dict[str, Any] = {
            "screened_rows": counts.screened,
            "fallback_rows": counts.given_up,
            "scored_pairs": counts.scored,
        }
        if self.work.judge is not None and counts.same_rounding:
            with torch.no_grad():
                plain = Without(step)(*self.sets[0])
            if not torch.equal(plain, found):
                row["missing"] = "wrong: not what full precision finds"
        return row

    def check(self, name: str) -> dict[str, Any]:
        """The provider's row without its times: errors and memory, or why it has none."""
        row: dict[str, Any] = {"work": self.work.name, "provider": name, **self.case.describe()}
        step, reason = self.providers.get(name, (None, f"{self.work.name} has no such version"))
        if step is None:
            return row | {"missing": reason}
        allowed = self.allowed if name == "alc_kernels" else PEER
        started = time.perf_counter()
        try:
            wrong = self.errors(step)
            row |= {
                "value_error": wrong.value,
                "gradient_errors": wrong.gradients,
                "first_seconds": time.perf_counter() - started,
            }
            if not wrong.worst <= allowed:
                missing = f"wrong: error {wrong.worst:.2g}, allowed {allowed:.2g}"
                return row | {"missing": missing}
            if self.device == "cpu" and not isinstance(step, Without):
                row |= self.screened(step)
                if "missing" in row:
                    return row
            row["extra_bytes"] = measure.peak_memory(step, self.sets[0], self.work.backward)
        except torch.OutOfMemoryError:
            torch.cuda.empty_cache()
            return row | {"missing": "out of memory"}
        except Exception as error:  # a peer may fail in any way; ours must not
            if name == "alc_kernels":
                raise
            text = " ".join(str(error).split())[:80]
            return row | {"missing": f"{type(error).__name__}: {text}"}
        return row

    def time(self, names: Iterable[str], repeats: int, seconds: float) -> dict[str, dict[str, Any]]:
        """The providers' times, taken in turn with G."""
        actions: dict[str, list[Callable[[], object]]] = {
            "G": [functools.partial(_product, pair) for pair in self.sets]
        }
        for name in names:
            step = self.providers[name][0]
            assert step is not None
            actions[name] = [
                functools.partial(measure.run, step, p, self.work.backward) for p in self.sets
            ]
        times = measure.interleaved(actions, self.device, repeats, seconds)
        unit = measure.summary(times.pop("G"))["median_ms"]
        assert isinstance(unit, float)
        case = self.case
        work_done = 2 * case.rows * case.columns * case.width * self.work.products
        made = {}
        for name, taken in times.items():
            found = measure.summary(taken)
            milliseconds = found["median_ms"]
            assert isinstance(milliseconds, float)
            made[name] = {
                **found,
                "product_ms": unit,
                "ratio_to_product": milliseconds / unit,
                "teraflops": work_done / milliseconds / 1e9,
            }
        return made


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
    bench = WorkBench(work, case, sets, device, only)
    names = [name for name in bench.providers if not only or name in only or name == "eager"]
    # Plain PyTorch first.
    rows = {name: bench.check(name) for name in sorted(names, key=lambda n: n != "eager")}
    timed = bench.time([n for n, row in rows.items() if "missing" not in row], repeats, seconds)
    for name, row in rows.items():
        row |= timed.get(name, {})
        report(row)
    return list(rows.values())


def _product(pair: list[Tensor]) -> Tensor:
    return torch.mm(pair[0].detach(), pair[1].detach().T)


HEADER = f"{'work':20}{'provider':26}{'ms':>10}{'x G':>8}{'TFLOP/s':>9}{'MiB':>9}  {'error':>8}"


def line(row: dict[str, Any]) -> str:
    """A row as text, under :data:`HEADER`."""
    start = f"{row['work']:20}{row['provider']:26}"
    if "median_ms" not in row:
        return f"{start}  {row['missing']}"
    memory = row["extra_bytes"]
    mebibytes = "-" if memory is None else f"{memory / 2**20:.0f}"
    worst = max([row["value_error"], *row["gradient_errors"]])
    screened = ""
    if "screened_rows" in row:
        scored = row["scored_pairs"] / row["screened_rows"]
        screened = f"  8-bit: {row['fallback_rows']} rows fell back, {scored:.0f} scored a row"
    return (
        f"{start}{row['median_ms']:10.3f}{row['ratio_to_product']:8.2f}{row['teraflops']:9.3g}"
        f"{mebibytes:>9}  {worst:8.1e}{screened}"
    )
