"""What one call evaluates, as a value that fits through an operator's schema."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from typing import Any, Literal

from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, ThresholdMargin, Triplet

_BASES: dict[str, type[Base]] = {
    made.__name__: made for made in (Triplet, DynamicTriplet, Softmax, Sigmoid)
}


@dataclass(frozen=True)
class Objective:
    """Base loss and threshold loss of one walk, and what else to report from it.

    The scalars that may be tensors (temperature, scale, bias) travel beside it; their fields in
    ``base`` hold stand-ins.
    """

    base: Base | None = None
    base_weight: float = 1.0
    threshold: ThresholdMargin | None = None
    exclude_above: float | None = None
    normalize: bool = True
    reduction: Literal["mean", "sum", "none"] = "mean"  # of the base; "sum" is for "none"'s backward
    mine: bool = False  # report each row's hardest positive and hardest negative
    deterministic: bool = False

    def encode(self) -> str:
        """As a string: operators accept tensors and plain values only."""
        base = self.base
        if isinstance(base, Softmax):
            base = replace(base, temperature=1.0)
        elif isinstance(base, Sigmoid):
            base = replace(base, scale=1.0, bias=0.0)
        plain: dict[str, Any] = {
            name: getattr(self, name)
            for name in (
                "base_weight", "exclude_above", "normalize", "reduction", "mine", "deterministic",
            )
        }  # fmt: skip
        plain["base"] = None if base is None else [type(base).__name__, asdict(base)]
        plain["threshold"] = None if self.threshold is None else asdict(self.threshold)
        return json.dumps(plain)

    @staticmethod
    @lru_cache(maxsize=256)
    def decode(text: str) -> Objective:
        """The inverse of ``encode``."""
        plain = json.loads(text)
        base, threshold = plain.pop("base"), plain.pop("threshold")
        return Objective(
            base=None if base is None else _BASES[base[0]](**base[1]),
            threshold=None if threshold is None else ThresholdMargin(**threshold),
            **plain,
        )
