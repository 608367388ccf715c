"""What a journal says: the tables of docs/benchmarks.md, the aims missed, the defaults."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.fifteen.plan import SCREENING, TABLE

Row = dict[str, Any]
# Units of G at B = M = 32,768 in bfloat16 that the kernels were built to reach, by work and d.
AIMS = {
    "mining": {768: 0.95, 384: 0.95},
    "triplet1+tcm": {768: 1.25, 384: 1.35},
    "triplet10+tcm": {768: 1.7, 384: 1.9},
    "softmax": {768: 3.2, 384: 3.3},
    "softmax-symmetric": {768: 4.3, 384: 4.7},
}
NONE = "\N{EN DASH}"
AIM_MIB, LARGE_AIM_MIB = 300, 1024  # extra memory at B = 32,768 and at 262,144
# A default changes where the other way is this much faster: less is noise.
GAIN = 0.05
MEMORY_SLACK = 16 * 2**20  # bytes of allocator rounding that mean nothing


def of(rows: Sequence[Row], kind: str) -> list[Row]:
    return [row for row in rows if row["kind"] == kind]


def table(rows: Sequence[Row], width: int) -> str:
    """Times in G and extra MiB, a work per line and a provider per column; empty: not planned."""
    found = {(r["work"], r["provider"]): r for r in of(rows, "time") if r["width"] == width}
    providers = [
        name
        for name in dict.fromkeys(n for names in TABLE.values() for n in names)
        if any("median_ms" in row for (_, p), row in found.items() if p == name)
    ]
    if not providers:
        return f"Nothing was timed at d = {width}."
    lines = ["| | " + " | ".join(providers) + " |", "|---|" + "---|" * len(providers)]
    for work in TABLE:
        cells = [cell(found.get((work, name))) for name in providers]
        if any(cells):
            lines.append(f"| {work} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def cell(row: Row | None) -> str:
    if row is None:
        return ""
    if "median_ms" not in row:
        return "out of memory" if row["missing"] == "out of memory" else NONE
    memory = row.get("extra_bytes")
    text = f"{row['ratio_to_product']:.2f} G"
    return text if memory is None else f"{text}, {memory / 2**20:,.0f} MiB"


def missing(rows: Sequence[Row]) -> list[str]:
    """Every row without a figure, with its reason; those of one reason together."""
    reasons: dict[str, list[str]] = {}
    for row in rows:
        if row.get("missing"):
            width = f" d={row['width']}" if row["width"] else ""
            name = f"{row['kind']} {row['work']}{width}"
            name += "" if row["provider"] == "alc_kernels" else f" {row['provider']}"
            name += f" no. {row['number']}" if row["kind"] == "tile" else ""
            reasons.setdefault(row["missing"], []).append(name)
    return [f"{reason}: {', '.join(names)}" for reason, names in reasons.items()]


def large(rows: Sequence[Row]) -> list[str]:
    """A line per loss at the largest batch."""
    return [
        f"| {row['loss']} | {row['rows']:,} | {row['width']} | "
        f"{row.get('extra_mib', NONE)} MiB | {max(row['errors']):.1g} | "
        f"{'right' if row['right'] else 'WRONG'} |"
        for row in of(rows, "large")
        if "errors" in row
    ]


def missed(rows: Sequence[Row], rows_of_table: int) -> list[str]:
    """Where ours is slower or larger than it was built to be, or than another provider."""
    lines = []
    timed = [row for row in of(rows, "time") if "median_ms" in row]
    ours = {(r["work"], r["width"]): r for r in timed if r["provider"] == "alc_kernels"}
    for (work, width), row in ours.items():
        aim, ratio = AIMS.get(work, {}).get(width), row["ratio_to_product"]
        if row["rows"] != rows_of_table:
            continue
        if aim is not None and ratio > aim:
            lines.append(f"{work}, d = {width}: {ratio:.2f} G, the aim is {aim:g}")
        memory = (row.get("extra_bytes") or 0) / 2**20
        if memory > AIM_MIB:
            lines.append(f"{work}, d = {width}: {memory:,.0f} MiB, the aim is {AIM_MIB}")
    for row in timed:
        own = ours.get((row["work"], row["width"]))
        if own is None or row["provider"].endswith("(triton)") or row is own:
            continue
        name = f"{row['work']}, d = {row['width']}: {row['provider']}"
        # Both from the row's own run.
        if row["median_ms"] < row["ours_ms"]:
            lines.append(f"{name} takes {row['median_ms'] / row['ours_ms']:.2f} of our time")
        memory = row.get("extra_bytes"), own.get("extra_bytes")
        if None not in memory and memory[0] < memory[1] - MEMORY_SLACK:
            lines.append(f"{name} takes {memory[0] / memory[1]:.2f} of our memory")
    for row in of(rows, "large"):
        if row.get("extra_mib", 0) > LARGE_AIM_MIB:
            lines.append(
                f"{row['loss']}, B = {row['rows']:,}: {row['extra_mib']:,.0f} MiB, "
                f"the aim is {LARGE_AIM_MIB:,}"
            )
    return lines


def defaults(head: Row, rows: Sequence[Row]) -> list[str]:
    """Every default that waits for a measurement, and what these figures say of it."""
    return [
        _measured_faster(head, rows),
        _screening(rows),
        *_tiles(rows),
        *_one_walk(rows),
    ]


def _measured_faster(head: Row, rows: Sequence[Row]) -> str:
    name = "MEASURED_FASTER (alc_kernels/backends/cuda/library.py)"
    found = [row for row in of(rows, "cuda") if "median_ms" in row]
    faster = []
    for part in dict.fromkeys(row["part"] for row in found):
        of_part = [row for row in found if row["part"] == part]
        ratios = []
        for work in dict.fromkeys(row["work"] for row in of_part):
            times = {r["provider"]: r["median_ms"] for r in of_part if r["work"] == work}
            triton = min(ms for who, ms in times.items() if who.startswith("triton"))
            ratios.append(times["cuda"] / triton)
        if max(ratios) <= 1 - GAIN:
            faster.append(part)
    if not found:
        return f"{name}: not measured, stays empty"
    if not faster:
        return f"{name}: stays empty, no part is faster by {GAIN:.0%} everywhere"
    capability = tuple(head.get("capability") or ())
    return f"{name}: {{{capability}: frozenset({faster})}}"


def _screening(rows: Sequence[Row]) -> str:
    found = [row for row in of(rows, "time") if row["provider"] == SCREENING]
    timed = [row for row in found if "median_ms" in row]
    if not timed:
        if any(row["missing"].endswith("has no such version") for row in found):
            return "8-bit screening: this version has none"
        return "8-bit screening: not measured"
    lines = [
        f"{row['work']}, d = {row['width']}: on {row['ours_ms']:.3f} ms, "
        f"off {row['median_ms']:.3f} ms: {'on' if row['ours_ms'] < row['median_ms'] else 'OFF'}"
        for row in timed
    ]
    return "8-bit screening: " + "; ".join(lines)


def _tiles(rows: Sequence[Row]) -> list[str]:
    name = "tiles (HOPPER_HALF of backends/triton/launch.py, dense/launch.py tile_for)"
    lines = []
    for row in of(rows, "tiles"):
        what = f"{name}: {row['work']}, d = {row['width']}: "
        if "candidates" not in row:
            lines.append(what + f"not measured ({row['missing']})")
            continue
        count = sum(one["median_ms"] is not None for one in row["candidates"])
        lines.append(what + (row["best"] or f"stays, no faster one of {count}"))
    return lines or [f"{name}: not measured"]


def _one_walk(rows: Sequence[Row]) -> list[str]:
    lines = []
    for row in of(rows, "time"):
        if row["provider"] == "per width (triton)" and "median_ms" in row:
            share = row["ours_ms"] / row["median_ms"]
            verdict = "pays" if share <= 1 else "DOES NOT PAY"
            lines.append(
                f"one walk for all Matryoshka widths: {row['work']}, d = {row['width']}: "
                f"{share:.2f} of the time width by width: {verdict}"
            )
    return lines or ["one walk for all Matryoshka widths: not measured"]


def failures(rows: Sequence[Row]) -> list[str]:
    """What is wrong with ours: errors, crashes, values."""
    return [
        f"{row['kind']} {row['work']} d={row['width']} {row['provider']}: "
        f"{row.get('missing') or 'wrong values'}"
        for row in rows
        if row.get("right") is False
        or row.get("failed")
        or (row["provider"] == "alc_kernels" and str(row.get("missing")).startswith("wrong"))
    ]


def text(head: Row, rows: Sequence[Row]) -> str:
    """Everything, ready to paste."""
    made = [f"{key}: {head[key]}" for key in ("device", "torch", "triton", "commit") if key in head]
    parts = ["; ".join(made)]
    checked = [row for row in of(rows, "values") if "value_error" in row]
    wrong = [row for row in checked if str(row.get("missing")).startswith("wrong")]
    parts.append(f"values at a ragged size: {len(checked) - len(wrong)} right, {len(wrong)} wrong")
    size = int(head["rows"])
    for width in head["widths"]:
        title = f"B = M = {size:,}, d = {width}, {head['dtype']}, forward and backward"
        parts.append(f"{title}:\n\n{table(rows, width)}")
    batch = large(rows)
    if batch:
        first = "| loss | B = M | d | extra memory | largest error of a sample | |"
        parts.append("\n".join([first, "|---|---|---|---|---|---|", *batch]))
    sections: list[tuple[str, Callable[[], list[str]]]] = [
        ("Not faster or smaller than it should be", lambda: missed(rows, size)),
        ("Defaults", lambda: defaults(head, rows)),
        ("Not measured", lambda: missing(rows)),
        ("Failed", lambda: failures(rows)),
    ]
    for title, lines in sections:
        parts.append("\n".join([f"{title}:", *(f"- {line}" for line in lines() or ["nothing"])]))
    return "\n\n".join(parts) + "\n"
