"""What one call evaluates, as a value that fits through an operator's schema."""

from __future__ import annotations

from ast import literal_eval
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from alc_kernels.engine.rows import PairHead
from alc_kernels.settings import Base, DynamicTriplet, Sigmoid, Softmax, ThresholdMargin, Triplet

_BASES: dict[str, type[Base]] = {
    made.__name__: made for made in (Triplet, DynamicTriplet, Softmax, Sigmoid)
}


def spread(rows: int, wanted: int, device: torch.device) -> Tensor:
    """(wanted,) int64, ascending: the first of each of as many equal parts of ``rows`` rows."""
    return torch.arange(wanted, device=device) * rows // wanted


@dataclass(frozen=True)
class Objective:
    """Base loss and threshold loss of one walk, and what else to report from it.

    The scalars that may be tensors (temperature, scale, bias) travel beside it.
    """

    base: Base | None = None
    base_weight: float = 1.0
    threshold: ThresholdMargin | None = None
    exclude_above: float | None = None
    normalize: bool = True
    reduction: Literal["mean", "sum", "none"] = (
        "mean"  # of the base; "sum" is for "none"'s backward
    )
    mine: bool = False  # report each row's hardest positive and hardest negative
    pair_weight: float = 0.0  # of the pair part, whose head travels beside; needs ``mine``
    gather: bool = False  # return the embeddings of the mined pairs; needs ``mine``
    gather_rows: int | None = None  # of so many rows, spread evenly; None: of all
    deterministic: bool = False

    @property
    def share(self) -> float:
        """Of each direction of the base loss in its value."""
        return 0.5 if getattr(self.base, "symmetric", False) in (True, "mean") else 1.0

    def gathered(self, queries: Tensor) -> Tensor:
        """(R,) int64, ascending: the rows to gather where those are not all of them; else empty."""
        rows, wanted = queries.shape[0], self.gather_rows if self.gather else None
        if wanted is None or wanted >= rows:
            return torch.empty(0, dtype=torch.int64, device=queries.device)
        return spread(rows, wanted, queries.device)

    def encode(self) -> str:
        """As a string (a Python literal): operators accept tensors and plain values only.

        A learnable scalar is a new tensor in every call and not part of the string: objectives
        that hold one are written each time.
        """
        held = any(isinstance(getattr(self.base, name, None), Tensor) for name in _TENSORS)
        if held or torch.compiler.is_compiling():
            return self._text()
        return _text_of(self)

    def _text(self) -> str:
        """Plain string formatting, for ``torch.compile`` to trace."""
        base, threshold = "None", "None"
        if self.base is not None:
            name = next(n for n, made in _BASES.items() if isinstance(self.base, made))
            base = f"({name!r}, {_literal(self.base, _FIELDS[name])})"
        if self.threshold is not None:
            threshold = _literal(self.threshold, _FIELDS["ThresholdMargin"])
        return f"({base}, {threshold}, {_literal(self, _PLAIN)})"

    @staticmethod
    @lru_cache(maxsize=256)
    def decode(text: str) -> Objective:
        """The inverse of ``encode``."""
        base, threshold, plain = literal_eval(text)
        return Objective(
            base=None if base is None else _BASES[base[0]](**base[1]),
            threshold=None if threshold is None else ThresholdMargin(**threshold),
            **plain,
        )


@lru_cache(maxsize=256)
def _text_of(objective: Objective) -> str:
    return objective._text()


def _literal(settings: object, names: tuple[str, ...]) -> str:
    """A dict literal of the named fields, which hold plain values."""
    inside = ", ".join([f"{name!r}: {getattr(settings, name)!r}" for name in names])
    return "{" + inside + "}"


# Scalars that may be tensors travel beside the objective; the decoded settings hold defaults.
_TENSORS = ("temperature", "scale", "bias")
_FIELDS = {
    made.__name__: tuple(f.name for f in fields(made) if f.name not in _TENSORS)
    for made in (*_BASES.values(), ThresholdMargin)
}
_PLAIN = tuple(f.name for f in fields(Objective) if f.name not in ("base", "threshold"))


# What it is evaluated with, and what comes out.


class Given(NamedTuple):
    """The numbers that an objective is evaluated with, beside the embeddings."""

    scalars: Tensor  # (2,) acc: temperature or scale, and bias
    row_weight: Tensor | None = None  # (B,) acc
    head: PairHead | None = None  # of the pair part; None leaves it out


class Wants(NamedTuple):
    """Which gradients to compute."""

    queries: bool
    labels: bool
    scalars: bool = False
    head: bool = False


@dataclass
class Evaluation:
    """Values of the whole batch and, where wanted, gradients by the prepared rows.

    What belongs to rows and labels is of the own ones. Gradients of scalars and heads are this
    process's share, which sum to the whole batch's.
    """

    loss: Tensor  # 0-d acc; (B,) with reduction="none"
    base: Tensor  # 0-d acc, unweighted
    threshold: Tensor  # (2,) acc: positive and negative side of TCM, unweighted
    pair: Tensor  # 0-d acc, unweighted
    active: Tensor  # (2,) int64: active positives and negatives of TCM
    hardest_score: Tensor  # (B,) acc, -inf where there is none; empty unless mined
    hardest_index: Tensor  # (B,) int64, -1 where there is none; empty unless mined
    # (B, 2) int64: hardest positive and negative, -1 outside R; empty without pair part and gather
    pair_index: Tensor
    chosen: Tensor  # (R,) int64, ascending: the rows that are gathered; empty where all are
    rows: Tensor  # (R, d) acc: the prepared queries; empty unless gathered
    pairs: Tensor  # (R, 2, d) acc: the labels of ``pair_index``, 0 outside R
    grad_queries: Tensor | None  # (B, d) acc
    grad_labels: Tensor | None  # (M, d) acc
    grad_scalars: Tensor  # (2,) acc: temperature, or scale and bias
    grad_head_weight: Tensor  # (4d,) acc; empty without a pair head
    grad_head_bias: Tensor  # 0-d acc
