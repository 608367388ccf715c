"""Two results of record side by side: what got slower, what takes more memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alc_kernels.bench import record

KEY = ("work", "provider", "rows", "columns", "width", "dtype", "active")
MEMORY_SLACK = 16 * 2**20  # bytes of allocator rounding that mean nothing


def compare(before: Path, after: Path, tolerance: float) -> tuple[str, int]:
    """A table of all rows that both hold or one lacks, and how many of ours got worse.

    Times are compared as ratios to G, which the same run measured, so results of two machines of
    one kind can be compared. A row is worse when that ratio grew by more than ``tolerance``,
    its memory by more than that and 16 MiB, or when it was measured before and now is not.

    Raises:
        ValueError: a file is no result of record.
    """
    old, new = (_rows(path) for path in (before, after))
    lines = [f"{'':70}{'before':>9}{'after':>9}{'change':>9}"]
    worse = 0
    for key in sorted({**old, **new}, key=str):
        one, two = old.get(key), new.get(key)
        name = "  ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key)
        ours = key[1] == "alc_kernels"
        verdict, cells = _judge(one, two, tolerance)
        if verdict == "worse" and ours:
            worse += 1
        mark = {"worse": "SLOWER" if ours else "slower", "better": "faster"}.get(verdict, "")
        lines.append(f"{name:70}{cells}  {mark}".rstrip())
    return "\n".join(lines), worse


def _judge(
    one: dict[str, Any] | None, two: dict[str, Any] | None, tolerance: float
) -> tuple[str, str]:
    was = None if one is None else one.get("ratio_to_product")
    now = None if two is None else two.get("ratio_to_product")
    if was is None or now is None:
        cells = "".join(f"{'-' if ratio is None else f'{ratio:.2f}':>9}" for ratio in (was, now))
        return ("worse" if was is not None else "same"), f"{cells}{'':>9}"
    assert one is not None and two is not None
    change = now / was - 1
    cells = f"{was:9.2f}{now:9.2f}{change:+9.1%}"
    had, has = one.get("extra_bytes"), two.get("extra_bytes")
    if had is not None and has is not None and has > had * (1 + tolerance) + MEMORY_SLACK:
        return "worse", f"{cells}  memory {had / 2**20:.0f} -> {has / 2**20:.0f} MiB"
    if change > tolerance:
        return "worse", cells
    return ("better" if change < -tolerance else "same"), cells


def _rows(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = record.read(path)["rows"]
    try:
        return {tuple(row[key] for key in KEY): row for row in rows}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a row lacks {error}, expected {', '.join(KEY)}") from None
