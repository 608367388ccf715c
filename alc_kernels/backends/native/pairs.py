"""Listed pairs: scores, gradients and the linear head on them; unit rows."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from alc_kernels.backends.native.library import call
from alc_kernels.backends.native.request import (
    DTYPES,
    INT64,
    NormalArguments,
    PairArguments,
    ProblemArguments,
)
from alc_kernels.engine.interface import Both, Problem, accumulation_dtype


def _pairs(problem: Problem, index: Tensor) -> tuple[ProblemArguments, PairArguments]:
    own, asked = ProblemArguments(problem, relations=False), PairArguments()
    if index.dim() != 2:
        raise ValueError(f"index: expected ({own.rows}, t), got {tuple(index.shape)}")
    asked.count = index.shape[1]
    asked.put("index", index, INT64, (own.rows, asked.count))
    return own, asked


def _head(asked: PairArguments, own: ProblemArguments, weight: Tensor) -> None:
    asked.put("weight", weight, own.acc, (4 * own.dim,))


def score_pairs(problem: Problem, index: Tensor) -> Tensor:
    """See ``interface.Backend.score_pairs``."""
    own, asked = _pairs(problem, index)
    values = asked.make("values", own.acc, index.shape)
    call("alc_score_pairs", own, asked)
    return values


def pair_gradient(
    problem: Problem,
    index: Tensor,
    coefficient: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> None:
    """See ``interface.Backend.pair_gradient``; always repeatable."""
    own, asked = _pairs(problem, index)
    asked.put("coefficient", coefficient, own.acc, index.shape)
    asked.put_targets(own, grad_queries, grad_labels, False)
    call("alc_pair_gradient", own, asked)


def pair_logits(problem: Problem, index: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """See ``interface.Backend.pair_logits``."""
    own, asked = _pairs(problem, index)
    _head(asked, own, weight)
    asked.put_number("bias", bias, own.acc)
    values = asked.make("values", own.acc, index.shape)
    call("alc_pair_logits", own, asked)
    return values


def pair_logits_backward(
    problem: Problem,
    index: Tensor,
    weight: Tensor,
    grad: Tensor,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
    deterministic: bool,
) -> Tensor:
    """See ``interface.Backend.pair_logits_backward``; always repeatable."""
    own, asked = _pairs(problem, index)
    _head(asked, own, weight)
    asked.put("coefficient", grad, own.acc, index.shape)
    asked.put_targets(own, grad_queries, grad_labels, False)
    grad_weight = asked.make("grad_weight", own.acc, (4 * own.dim,))
    call("alc_pair_logits_backward", own, asked)
    return grad_weight


# Unit rows and the gradient through them.


def _normal(name: str, x: Tensor, output: torch.dtype) -> NormalArguments:
    if x.dim() != 2:
        raise ValueError(f"{name}: expected (n, d), got {tuple(x.shape)}")
    for dtype in (x.dtype, output):
        if dtype not in DTYPES:
            raise TypeError(f"{name}: expected one of {DTYPES}, got {dtype}")
    asked = NormalArguments()
    asked.input, asked.output = DTYPES.index(x.dtype), DTYPES.index(output)
    asked.rows, asked.dim = x.shape
    asked.put("x", x, x.dtype, x.shape)
    return asked


def _normalize(
    sides: dict[str, Tensor], dtype: torch.dtype, normalize: bool
) -> tuple[list[tuple[Tensor, Tensor | None]], bool]:
    """Rows and inverse norms of each; and whether all they hold is finite."""
    made: list[tuple[Tensor, Tensor | None]] = []
    asked = [_normal(name, x, dtype) for name, x in sides.items()]
    for one, x in zip(asked, sides.values(), strict=True):
        rows = one.make("out", dtype, x.shape)
        acc = accumulation_dtype(x.dtype)
        made.append((rows, one.make("inverse_norm", acc, x.shape[:1]) if normalize else None))
    finite = ctypes.c_int64()
    call(
        "alc_normalize", (NormalArguments * len(asked))(*asked), ctypes.c_int64(len(asked)),
        ctypes.byref(finite),
    )  # fmt: skip
    return made, bool(finite.value)


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    ((rows, inverse),), finite = _normalize({"x": x}, dtype, normalize)
    return rows, inverse, rows.new_full((), finite, dtype=torch.bool)


def normalize_both(queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool) -> Both:
    """See ``interface.Backend.normalize_both``: in one call."""
    made, finite = _normalize({"queries": queries, "labels": labels}, dtype, normalize)
    (unit_queries, by_queries), (unit_labels, by_labels) = made
    poison = made[0][0].new_full((), 1.0 if finite else torch.nan, dtype=accumulation_dtype(dtype))
    return unit_queries, by_queries, unit_labels, by_labels, poison


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    acc = accumulation_dtype(grad.dtype)
    asked = _normal("x", x if acc == torch.float32 else x.to(acc), x.dtype)
    asked.put("grad", grad, accumulation_dtype(DTYPES[asked.input]), x.shape)
    asked.put("inverse_norm", inverse_norm, acc, x.shape[:1])
    asked.put_number("upstream", upstream, acc)
    out = asked.make("out", x.dtype, x.shape)
    call("alc_normalize_backward", asked)
    return out
