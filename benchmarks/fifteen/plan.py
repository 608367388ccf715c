"""What is measured, in the order of its worth, and how many seconds each row is thought to take.

Nothing here needs PyTorch: ``benchmarks/on_gpu.sh OUTPUT fifteen --plan`` prints it anywhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

COMPILES = Path(__file__).with_name("compiles.json")
# Work -> providers, ours first. What a work does not have, or what is not installed, is a row too.
# Screening will be on by default: the bench then has a version of ours of this name without it.
SCREENING = "screening off (triton)"
TABLE = {
    "mining": ("alc_kernels", "eager", "torch.compile", SCREENING),
    "triplet10+tcm": (
        "alc_kernels", "eager", "torch.compile", "deterministic (triton)", SCREENING,
    ),
    "alc-default": ("alc_kernels",),
    "softmax": (
        "alc_kernels", "eager", "torch.compile", "memeff", "cut-cross-entropy",
        "linear_cross_entropy",
    ),
    "softmax-symmetric": ("alc_kernels", "eager", "torch.compile", "memeff"),
    "sigmoid": ("alc_kernels", "eager", "torch.compile", "siglip-kernel"),
    "matryoshka-softmax": (
        "alc_kernels", "eager", "torch.compile", "memeff", "per width (triton)",
    ),
    "matryoshka-triplet": ("alc_kernels", "eager", "per width (triton)"),
    "triplet1+tcm": ("alc_kernels",),
}  # fmt: skip
OURS = ("alc_kernels", "deterministic (triton)", "per width (triton)")
LARGE = ("triplet10+tcm", "softmax")  # benchmarks.limits.LOSSES
TILES = ("maximum", "coefficients", "exponentials")  # kernels of alc bench tune

# Guesses in seconds. A worker's start: imports, a CUDA context. A provider's first call: what is
# traced, and kernels that come from the caches. A row: truth in float64, memory, timed rounds.
START, LARGE_SECONDS, NCCL_SECONDS, CUDA_SECONDS, TILE_SECONDS = 12.0, 12.0, 12.0, 8.0, 4.0
FIRST_CALL = {"torch.compile": 6.0, "cut-cross-entropy": 4.0, "memeff": 3.0}
PEER_COMPILE = {
    "torch.compile": 25.0,
    "cut-cross-entropy": 20.0,
    "memeff": 20.0,
    "siglip-kernel": 8.0,
}
TRUTH, ROW = 1.5, 2.0


@dataclass(frozen=True)
class Sizes:
    """How large everything is."""

    device: str
    dtype: str
    rows: int  # B = M of the tables
    widths: tuple[int, ...]
    # B and M at which values are checked first: multiples of no tile, and so many that the kernels
    # are those of the tables (the k hardest of a small batch are found in another way).
    ragged: tuple[int, int]
    large_rows: int
    seconds: float  # of timed rounds per row
    processes: int
    value_seconds: float  # for the values and the compiling, all processes together
    minutes: float  # for everything
    tiles: int  # candidates of a kernel, the table's own among them
    guessed: bool  # an item's seconds are guesses for the GPU; else all are DRY_SECONDS


FULL = Sizes("cuda", "bfloat16", 32768, (768, 384), (8195, 32771), 262144, 1.5, 8, 120, 9, 8, True)
# The whole script in Triton's interpreter, on two cores.
DRY = Sizes("cpu", "float32", 24, (32,), (23, 37), 40, 0.0, 2, 900, 30, 2, False)
DRY_SECONDS = 30.0  # the machine may be busy with other tests


@dataclass(frozen=True)
class Item:
    """One thing that a worker does; what comes of it is one row, or a few.

    Attributes:
        kind: "values", "sample", "time", "large", "nccl", "cuda", "tile" or "tiles".
        work, provider: of the bench; for "cuda" what is timed, for "tiles" and "tile" the kernel.
        width: d.
        seconds: what it is thought to take.
        number: for "tile", which of the candidates.
    """

    kind: str
    work: str
    width: int
    provider: str = "alc_kernels"
    seconds: float = 0.0
    number: int = 0

    @property
    def key(self) -> tuple[str, str, int, str, int]:
        return self.kind, self.work, self.width, self.provider, self.number

    def __str__(self) -> str:
        words = [self.work, f"d={self.width}" if self.width else "", self.provider]
        return " ".join([self.kind, *(word for word in words if word)])


def prefixes(width: int) -> tuple[int, ...]:
    """Matryoshka widths as they are usually chosen: 64, 128, 256, ..., and the whole."""
    steps = [64 << n for n in range(8) if 64 << n < width]
    return (*(steps or [max(width // 2, 1)]), width)


def compiled_rows() -> list[tuple[str, int, str]]:
    """(work, width, provider) of all rows whose kernels are ours."""
    return [
        (work, width, provider)
        for width in FULL.widths
        for work, providers in TABLE.items()
        for provider in providers
        if provider in OURS
    ]


def compile_records() -> dict[str, dict[str, Any]]:
    """What ``compiles`` recorded."""
    found: dict[str, dict[str, Any]] = json.loads(COMPILES.read_text(encoding="utf-8"))
    return found


def compile_seconds(work: str, width: int, provider: str) -> float:
    """Seconds in one process; what several rows share is counted in each."""
    record = compile_records().get(f"{work}, {width}, {provider}")
    return float(record["seconds"]) if record else PEER_COMPILE.get(provider, 0.0)


def _guess(sizes: Sizes, seconds: float) -> float:
    return seconds if sizes.guessed else DRY_SECONDS


def values(sizes: Sizes) -> list[Item]:
    """Values at a ragged size and one call at the timed one: all that the rows compile.

    The longest first within ours, then the others: the processes end together.
    """
    rows = [
        (work, width, provider)
        for width in sizes.widths
        for work, providers in TABLE.items()
        for provider in providers
        if provider != SCREENING and provider != "eager"
    ]
    made = [
        Item("values", work, width, provider, _guess(sizes, 3.0 + seconds))
        for work, width, provider in rows
        for seconds in [compile_seconds(work, width, provider)]
    ]
    # What the largest batch runs, at the size of the tables.
    made += [
        Item("sample", name, sizes.widths[0], seconds=_guess(sizes, LARGE_SECONDS))
        for name in LARGE
    ]
    return sorted(made, key=lambda item: (item.provider not in OURS, -item.seconds))


def measurements(sizes: Sizes) -> Iterator[Item]:
    """One after the other: the tables, the largest batch, NCCL, the CUDA kernels."""
    for width in sizes.widths:
        for work, providers in TABLE.items():
            for provider in providers:
                seconds = ROW + FIRST_CALL.get(provider, 1.0)
                seconds += TRUTH if provider == "alc_kernels" else 0.0
                yield Item("time", work, width, provider, _guess(sizes, seconds))
    for name in LARGE:
        yield Item("large", name, sizes.widths[0], seconds=_guess(sizes, LARGE_SECONDS))
    yield Item("nccl", "one process", 0, seconds=_guess(sizes, NCCL_SECONDS))
    for name in ("mining", "pair_gradient"):
        yield Item("cuda", name, sizes.widths[0], seconds=_guess(sizes, CUDA_SECONDS))


def tile_values(sizes: Sizes) -> list[Item]:
    """Every candidate's values, which compiles it."""
    seconds = _guess(sizes, TILE_SECONDS)
    return [
        Item("tile", kernel, sizes.widths[0], seconds=seconds, number=number)
        for number in range(sizes.tiles)
        for kernel in TILES
    ]


def tiles(sizes: Sizes) -> list[Item]:
    """The candidates of a kernel in turn."""
    return [Item("tiles", kernel, sizes.widths[0], seconds=_guess(sizes, 12.0)) for kernel in TILES]


def as_text(sizes: Sizes) -> str:
    """The plan with its seconds; a clock of what all takes, were the guesses right."""
    records = compile_records()
    in_parallel = [("values", values(sizes)), ("tile", tile_values(sizes))]
    lines = []
    spent = {
        name: START + sum(item.seconds for item in items) / sizes.processes
        for name, items in in_parallel
    }
    clock = min(spent["values"], sizes.value_seconds)
    lines.append(
        f"{len(values(sizes))} steps compiled and checked in {sizes.processes} processes: "
        f"{spent['values']:.0f} s, at most {sizes.value_seconds:.0f}"
    )
    lines += [
        f"  {name}: {record['kernels']} kernels, {record['seconds']:.1f} s in one process"
        for name, record in records.items()
    ]
    clock += START
    lines.append(f"{'at':>5}{'s':>6}  one after the other")
    for item in measurements(sizes):
        lines.append(f"{clock:5.0f}{item.seconds:6.1f}  {item}")
        clock += item.seconds
    lines.append(f"{clock:5.0f}{spent['tile']:6.1f}  tiles: values of {len(tile_values(sizes))}")
    clock += spent["tile"]
    for item in tiles(sizes):
        lines.append(f"{clock:5.0f}{item.seconds:6.1f}  {item}")
        clock += item.seconds
    lines.append(
        f"{clock:5.0f} s in all; what does not fit in {sizes.minutes:g} minutes is skipped and said"
    )
    return "\n".join(lines)


def as_json(item: Item) -> str:
    return json.dumps(asdict(item))


def from_json(text: str) -> Item:
    return Item(**json.loads(text))
