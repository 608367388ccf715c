"""How figures are written for people."""

from __future__ import annotations

import math
from collections.abc import Callable

from alc_kernels.xmc.evaluation.results import Estimate
from alc_kernels.xmc.report.table import Cell

NONE = "\u2013"  # en dash, also between the ends of an interval
MINUS = "\u2212"


def per_cent(value: float | None, digits: int = 1) -> str:
    """0.6234 -> ``62.3``; the per cent sign stands in the caption."""
    return NONE if value is None or not math.isfinite(value) else f"{100 * value:.{digits}f}"


def score(value: float | None) -> str:
    """A similarity or threshold."""
    if value is None or math.isnan(value):
        return NONE
    return f"{value:.3f}" if math.isfinite(value) else "none"


def points(value: float) -> str:
    """A difference in percentage points, with its sign."""
    return NONE if not math.isfinite(value) else f"{100 * value:+.1f}".replace("-", MINUS)


def span(e: Estimate, write: Callable[[float], str]) -> str:
    """The interval of a figure; nothing where there is none."""
    return "" if math.isnan(e.low) else f"{write(e.low)}{NONE}{write(e.high)}"


def share_cell(e: Estimate, strong: bool = False) -> Cell:
    """A share with its interval below."""
    return Cell(per_cent(e.value), span(e, per_cent), strong)


def score_cell(e: Estimate) -> Cell:
    """A threshold with its interval below, where there is one."""
    return Cell(score(e.value), span(e, score) if math.isfinite(e.value) else "")


def small_cell(e: Estimate) -> Cell:
    """A figure much below 1, such as AURC."""
    if math.isnan(e.value):
        return Cell(NONE)
    return Cell(f"{e.value:#.3g}", span(e, "{:#.3g}".format))  # with trailing zeros


def count_cell(number: int, right: int) -> Cell:
    """How many, and how many of them have a right match."""
    return Cell(f"{number:,}", f"{right:,} right")


def difference_cell(e: Estimate) -> Cell:
    """A difference with its interval below; strong and starred when that leaves out zero."""
    clear = e.low > 0 or e.high < 0
    small = "" if math.isnan(e.low) else f"{points(e.low)} to {points(e.high)}"
    return Cell(points(e.value) + ("*" if clear else ""), small, clear)


def duration(seconds: float) -> str:
    """``95`` -> ``1 min 35 s``."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 100:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"
