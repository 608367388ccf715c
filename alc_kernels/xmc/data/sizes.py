"""Parts of a data set that are too small for what they are there for."""

from __future__ import annotations

import numpy as np

from alc_kernels.xmc.data.dataset import Dataset
from alc_kernels.xmc.words import counted

ENOUGH = 100  # queries; a threshold chosen on fewer says little of the next ones


def small_parts(data: Dataset, shares: dict[str, float] | None = None) -> list[str]:
    """A sentence for each part on which no threshold can be chosen, or judged.

    Args:
        data: any.
        shares: ``"validation"``, ``"test"`` and ``"hold-out"`` as they were asked for; the
            sentence then says which share would do.
    """
    found = {
        "validation": (len(data.validation), "choose a threshold"),
        "test": (len(data.test), "judge a threshold"),
    }
    made = [_too_small(f"{name}: {counted(count, 'queries')}", count, name, purpose, shares)
            for name, (count, purpose) in found.items() if count < ENOUGH]  # fmt: skip
    if data.held_out.any():
        matched = data.validation.relation @ (~data.held_out).astype(np.float32)
        count = int((matched == 0).sum())
        if count < ENOUGH:
            without = counted(count, "queries without a right answer in the open catalogue")
            what = f"validation: {without}"
            made.append(_too_small(what, count, "hold-out", "see what is accepted wrongly", shares))
    return made


def _too_small(
    what: str, count: int, name: str, purpose: str, shares: dict[str, float] | None
) -> str:
    hint = ""
    if shares is not None and name in shares and count:
        needed = shares[name] * ENOUGH / count
        if needed <= 0.5:
            hint = f" (--{name}-share {np.ceil(needed * 100) / 100:.2f} would give about that many)"
    return f"{what}, at least {ENOUGH} are needed to {purpose}{hint}"
