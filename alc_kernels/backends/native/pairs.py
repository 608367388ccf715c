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

_Unit = tuple[Tensor, Tensor | None]


def _normal(name: str, x: Tensor, output: torch.dtype) -> NormalArguments:
    if x.dim() != 2:
        raise ValueError(f"{name}: expected (n, d), got {tuple(x.shape)}")
    if x.dtype not in DTYPES or output not in DTYPES:
        raise TypeError(f"{name}: expected one of {tuple(DTYPES)}, got {x.dtype} for {output}")
    asked = NormalArguments()
    asked.input, asked.output = DTYPES[x.dtype], DTYPES[output]
    asked.rows, asked.dim = x.shape
    asked.put_rows("x", x)
    return asked


def _unit(asked: NormalArguments, x: Tensor, dtype: torch.dtype, normalize: bool) -> _Unit:
    """Rows and inverse norms, to be written."""
    rows = asked.make("out", dtype, x.shape)
    if not normalize:
        return rows, None
    return rows, asked.make("inverse_norm", accumulation_dtype(x.dtype), x.shape[:1])


def _normalize(first: NormalArguments, second: NormalArguments | None = None) -> bool:
    """Whether all they hold is finite."""
    finite = ctypes.c_int64()
    call("alc_normalize", first, second, ctypes.byref(finite))
    return bool(finite.value)


def normalize_rows(
    x: Tensor, dtype: torch.dtype, normalize: bool
) -> tuple[Tensor, Tensor | None, Tensor]:
    """See ``interface.Backend.normalize_rows``."""
    asked = _normal("x", x, dtype)
    rows, inverse = _unit(asked, x, dtype, normalize)
    return rows, inverse, rows.new_full((), _normalize(asked), dtype=torch.bool)


def normalize_both(queries: Tensor, labels: Tensor, dtype: torch.dtype, normalize: bool) -> Both:
    """See ``interface.Backend.normalize_both``: in one call."""
    first, second = _normal("queries", queries, dtype), _normal("labels", labels, dtype)
    unit_queries, by_queries = _unit(first, queries, dtype, normalize)
    unit_labels, by_labels = _unit(second, labels, dtype, normalize)
    poison = unit_queries.new_empty((), dtype=accumulation_dtype(dtype))
    poison.fill_(1.0 if _normalize(first, second) else torch.nan)
    return unit_queries, by_queries, unit_labels, by_labels, poison


def normalize_rows_backward(
    grad: Tensor, x: Tensor, inverse_norm: Tensor | None, upstream: Tensor
) -> Tensor:
    """See ``interface.Backend.normalize_rows_backward``."""
    acc = accumulation_dtype(grad.dtype)
    asked = _normal("x", x if acc == torch.float32 else x.to(acc), x.dtype)
    asked.put("grad", grad, acc, x.shape)
    asked.put("inverse_norm", inverse_norm, acc, x.shape[:1])
    asked.put_number("upstream", upstream, acc)
    out = asked.make("out", x.dtype, x.shape)
    call("alc_normalize_backward", asked)
    return out
