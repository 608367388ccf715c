"""The structures of ``csrc/cpu``, field by field in their order."""

# ruff: noqa: RUF012 - ctypes reads _fields_ as it is

from __future__ import annotations

import ctypes
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.native.arguments import (
    DTYPES,
    INT32,
    INT64,
    ITEM,
    POINTER,
    REAL,
    SIZE,
    Arguments,
    check,
    of,
)
from alc_kernels.backends.native.screening import ScreenArguments
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    PrefixProblem,
    Problem,
    RowStatistics,
    WalkRequest,
    accumulation_dtype,
)
from alc_kernels.positives import Positives

NONE = math.nan  # no margin
_FORMULA = of(POINTER, "inverse_temperature label_offset scale bias") + of(
    REAL, "positive_margin negative_margin"
)
_TARGETS = [
    *of(POINTER, "grad_queries grad_labels"), *of(SIZE, "fresh"),
    *of(POINTER, "weighted_sum plain_sum weights query_dots label_dots"),
]  # fmt: skip


class ProblemArguments(Arguments):
    """``Problem``, of an ``interface.Problem`` or ``PrefixProblem``.

    Attributes:
        acc: accumulation dtype.
        lead: () of whole rows, (W,) of prefixes: the first dimension of what has a plane per width.
    """

    _fields_ = [
        *of(SIZE, "dtype"), *of(POINTER, "queries labels"), *of(SIZE, "rows columns dim"),
        *of(POINTER, "positives_start positives_stop positives_column"),
        *of(SIZE, "positives_entries"),
        *of(POINTER, "exclude_start exclude_stop exclude_column"), *of(SIZE, "exclude_entries"),
        *of(SIZE, "count"),
        *of(POINTER, "widths query_scale label_scale guard row_slack column_slack"),
    ]  # fmt: skip

    def __init__(self, problem: Problem | PrefixProblem, relations: bool = True) -> None:
        super().__init__()
        q, k = problem.queries, problem.labels
        if q.dim() != 2 or k.dim() != 2 or q.shape[1] != k.shape[1]:
            raise ValueError(
                f"queries and labels: expected (B, d) and (M, d), got {tuple(q.shape)} and "
                f"{tuple(k.shape)}"
            )
        if q.dtype not in DTYPES:
            raise TypeError(f"queries: expected one of {tuple(DTYPES)}, got {q.dtype}")
        if k.dtype is not q.dtype:
            raise TypeError(f"labels: expected {q.dtype} (as queries), got {k.dtype}")
        b, d = q.shape
        m = k.shape[0]
        self.rows, self.columns, self.dim, self.dtype = b, m, d, DTYPES[q.dtype]
        self.put_rows("queries", q)
        self.put_rows("labels", k)
        self.acc = acc = accumulation_dtype(q.dtype)
        self.lead: tuple[int, ...] = ()
        if not relations:
            return
        self._put_relation("positives", problem.positives)
        self._put_relation("exclude", problem.exclude)
        if isinstance(problem, PrefixProblem):
            self.lead = (len(problem.widths),)
            self.put_list("widths", ctypes.c_int64, problem.widths)
            self.count = len(problem.widths)
            self.put("query_scale", problem.query_scale, acc, (*self.lead, b))
            self.put("label_scale", problem.label_scale, acc, (*self.lead, m))
        if problem.guard is not None:
            self.put("guard", problem.guard, acc, (*self.lead, b))
            if problem.slack is not None:
                self.put("row_slack", problem.slack[0], acc, (*self.lead, b))
                self.put("column_slack", problem.slack[1], acc, (*self.lead, m))

    def _put_relation(self, name: str, relation: Positives) -> None:
        """Every kind in the one form that the passes use: spans of columns."""
        kind, tensors = relation.kind, relation.tensors
        if kind == "empty":
            return
        start = stop = column = None
        entries = self.rows
        if kind == "diagonal":
            if self.rows != self.columns:
                raise ValueError(
                    f"{name}: a diagonal needs B = M, got {self.rows} and {self.columns}"
                )
        elif kind == "index":
            column = tensors[0]
        elif kind == "csr":
            start, column = tensors[0], tensors[1]
            entries = column.numel()
        elif kind == "ids":
            check(name, tensors[0], INT64, (self.rows,))
            check(name, tensors[1], INT64, (self.columns,))
            ordered, column = torch.sort(tensors[1], stable=True)
            start = torch.searchsorted(ordered, tensors[0])
            stop = torch.searchsorted(ordered, tensors[0], right=True)
            entries = self.columns
        else:
            raise ValueError(f"{name}: unknown kind {kind}")
        self.put(f"{name}_start", start, INT64, (self.rows + (stop is None),))
        self.put(f"{name}_column", column, INT64, (entries,))
        if start is not None and stop is None:  # each row ends where the next begins
            setattr(self, f"{name}_stop", getattr(self, f"{name}_start") + ITEM)
        else:
            self.put(f"{name}_stop", stop, INT64, (self.rows,))
        setattr(self, f"{name}_entries", entries)


class FormulaArguments(Arguments):
    """What the walk's and the gradient's structures have in common."""

    def put_formula(self, own: ProblemArguments, request: WalkRequest | GradientRequest) -> None:
        """The numbers that the coefficients are made of."""
        self.put_number("inverse_temperature", request.inverse_temperature, own.acc)
        self.put("label_offset", request.label_offset, own.acc, (own.columns,))
        self.put_number("scale", request.scale, own.acc)
        self.put_number("bias", request.bias, own.acc)
        low, high = request.positive_margin, request.negative_margin
        self.positive_margin = NONE if low is None else low
        self.negative_margin = NONE if high is None else high

    def put_targets(
        self,
        own: ProblemArguments,
        grad_queries: Tensor | None,
        grad_labels: Tensor | None,
        want_sums: bool,
    ) -> GradientResult:
        """Where the gradient goes; returns the sums that it leaves."""
        self.put_target("grad_queries", grad_queries, own.acc, (own.rows, own.dim))
        self.put_target("grad_labels", grad_labels, own.acc, (own.columns, own.dim))
        if not want_sums:
            return GradientResult()
        names = ["weighted_sum", "plain_sum"]
        return GradientResult(**self.make_all(names, own.acc, (*own.lead, own.rows)))

    def put_dots(self, own: ProblemArguments, weights: Sequence[float]) -> tuple[Tensor, Tensor]:
        """The targets are by rows before their norms; returns the dots, (W, B) and (W, M)."""
        self.put_list("weights", ctypes.c_double, weights)
        return (
            self.make("query_dots", own.acc, (*own.lead, own.rows)),
            self.make("label_dots", own.acc, (*own.lead, own.columns)),
        )


class WalkArguments(FormulaArguments):
    """``WalkRequest``."""

    _fields_ = [
        *_FORMULA, *of(SIZE, "top_k softmax"),
        *of(POINTER, "num_positives num_negatives top_score top_index positive_score "
             "positive_index log_sum_exp positive_logit_sum sigmoid_sum positive_margin_sum "
             "positive_margin_count negative_margin_sum negative_margin_count margin_sums "
             "margin_counts"),
        *of(SIZE, "active_capacity"), *of(POINTER, "active_crow active_count active_col"),
        *of(SIZE, "columns_softmax"),
        *of(POINTER, "column_positives column_negatives column_log_sum_exp column_logit_sum "
             "similarities row_scale"),
        *_TARGETS, *of(POINTER, "screening"),
    ]  # fmt: skip

    def put_request(
        self, own: ProblemArguments, request: WalkRequest, softmax: dict[str | None, int]
    ) -> dict[str, Any]:
        """Asks for what ``request`` does: the results by their names in ``RowStatistics``."""
        if request.top_k < 0:
            raise ValueError(f"top_k: expected >= 0, got {request.top_k}")
        self.put_formula(own, request)
        self.top_k, self.softmax = request.top_k, softmax[request.softmax]
        low, high = request.positive_margin is not None, request.negative_margin is not None
        rows = (*own.lead, own.rows)
        counts, reals = ["num_positives", "num_negatives"], []
        if request.hardest_positive:
            reals.append("positive_score")
            counts.append("positive_index")
        if request.softmax is not None:
            reals += ["log_sum_exp", "positive_logit_sum"]
        if request.sigmoid:
            reals.append("sigmoid_sum")
        for side in ["positive"] * low + ["negative"] * high:
            reals.append(f"{side}_margin_sum")
            counts.append(f"{side}_margin_count")
        made: dict[str, Any] = self.make_all(counts, INT64, rows)
        if reals:
            made |= self.make_all(reals, own.acc, rows)
        if request.top_k:
            shape = (*rows, request.top_k)
            made["top_score"] = self.make("top_score", own.acc, shape)
            made["top_index"] = self.make("top_index", INT64, shape)
        if low or high:
            made["margin_sums"] = self.make("margin_sums", own.acc, (*own.lead, 2))
            made["margin_counts"] = self.make("margin_counts", INT64, (*own.lead, 2))
        return made

    def put_active(
        self, own: ProblemArguments, capacity: int
    ) -> tuple[Tensor, Tensor, ctypes.Array[Any]]:
        """Row pointers, labels and numbers of at most so many active pairs."""
        self.active_capacity = capacity
        return (
            self.make("active_crow", INT64, (*own.lead, 2, own.rows + 1)),
            self.make("active_col", INT32, (*own.lead, capacity)),
            self.put_list("active_count", ctypes.c_int64, [0, 0] * max(1, own.count)),
        )

    def put_columns(self, own: ProblemArguments) -> RowStatistics:
        """The columns' statistics."""
        shape = (own.columns,)
        return RowStatistics(
            self.make("column_positives", INT64, shape),
            self.make("column_negatives", INT64, shape),
            log_sum_exp=self.make("column_log_sum_exp", own.acc, shape),
            positive_logit_sum=self.make("column_logit_sum", own.acc, shape),
        )


class DenseArguments(FormulaArguments):
    """``DenseRequest``."""

    _fields_ = [
        *_FORMULA,
        *of(SIZE, "kind"), *of(POINTER, "row_scale log_sum_exp negative_scale num_positives"),
        *of(SIZE, "columns_kind"),
        *of(POINTER, "columns_row_scale columns_log_sum_exp columns_negative_scale "
             "columns_num_positives positive_margin_scale negative_margin_scale similarities"),
        *_TARGETS,
    ]  # fmt: skip

    def put_requests(
        self,
        own: ProblemArguments,
        requests: Sequence[GradientRequest],
        kinds: dict[str | None, int],
    ) -> None:
        """The numbers of the rows, of every width."""
        first = requests[0]

        def joined(name: str) -> Tensor | None:
            values = [x for one in requests if (x := getattr(one, name)) is not None]
            return (torch.stack(values) if own.lead else values[0]) if values else None

        self.put_formula(own, first)
        self.kind = kinds[first.kind]
        self.put("num_positives", first.num_positives, INT64, (own.rows,))  # at every width
        for name in ("row_scale", "log_sum_exp", "negative_scale"):
            self.put(name, joined(name), own.acc, (*own.lead, own.rows))
        for name in ("positive_margin_scale", "negative_margin_scale"):
            self.put(name, joined(name), own.acc, own.lead)

    def put_columns(
        self, own: ProblemArguments, columns: GradientRequest, kinds: dict[str | None, int]
    ) -> None:
        """The numbers of the columns."""
        self.columns_kind = kinds[columns.kind]
        shape = (own.columns,)
        self.put("columns_num_positives", columns.num_positives, INT64, shape)
        for name in ("row_scale", "log_sum_exp", "negative_scale"):
            self.put(f"columns_{name}", getattr(columns, name), own.acc, shape)


class PositiveArguments(FormulaArguments):
    """``PositiveRequest``."""

    _fields_ = [*_FORMULA, *of(POINTER, "log_sum_exp softplus_sum sigmoid_sum")]


class PairArguments(FormulaArguments):
    """``PairRequest``."""

    _fields_ = [
        *of(POINTER, "index"), *of(SIZE, "count"),
        *of(POINTER, "crow col coefficient weight bias values grad_queries grad_labels "
             "grad_weight"),
    ]  # fmt: skip


class NormalArguments(Arguments):
    """``NormalRequest``."""

    _fields_ = [
        *of(SIZE, "input output rows dim"),
        *of(POINTER, "x out inverse_norm grad upstream"),
    ]  # fmt: skip


class ContextArguments(Arguments):
    """``ContextRequest``."""

    _fields_ = [
        *of(SIZE, "dtype rows dim width heads hidden size"),
        *of(POINTER, "queries pairs members parameters"),
        *of(REAL, "epsilon1 epsilon2 dropout"), *of(SIZE, "seed"),
        *of(POINTER, "loss grad_queries grad_pairs grad_parameters"),
    ]  # fmt: skip


STRUCTURES = (
    ProblemArguments, WalkArguments, DenseArguments, PositiveArguments, PairArguments,
    NormalArguments, ScreenArguments, ContextArguments,
)  # fmt: skip
