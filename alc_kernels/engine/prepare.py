"""From an operator's arguments to one process's part of a batch; a single process has all of it."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import ClassVar, NamedTuple, cast

import torch
from torch import Tensor

from alc_kernels.engine.interface import (
    Backend,
    Problem,
    RowStatistics,
)
from alc_kernels.engine.operator import define
from alc_kernels.engine.rows import limits, slack_of
from alc_kernels.positives import OVER_ALL_LABELS, Positives, _check_range

Tensors = dict[str, Tensor]  # each (labels, ...), the same names on every process


@dataclass
class First:
    """Each row's first positive."""

    index: Tensor  # (n,) int64, global column, -1 where there is none
    score: Tensor  # (n,) acc, 0 where there is none
    # (n,) int64, across processes: of candidates from two blocks the one with the smaller key
    key: Tensor | None = None


class Left(NamedTuple):
    """What a visitor leaves for each label that it was shown."""

    found: RowStatistics | None = None  # of the labels over the own queries
    first: First | None = None
    sums: tuple[Tensor, Tensor] | None = None  # ``Backend.positive_pass``
    gradient: Tensor | None = None  # (labels, d) acc


@dataclass
class Shown:
    """All labels, or a block of them."""

    problem: Problem  # own queries by these labels
    label_offset: Tensor | None
    extra: Tensors  # what ``Part.visit`` was given for each of them
    start: int = 0  # columns of the global batch
    label_guard: Tensor | None = None

    @cached_property
    def exchanged(self) -> Problem:
        """Labels by own queries."""
        return self.problem.exchanged(self.label_guard)

    def local(self, index: Tensor) -> Tensor:
        """Numbers of labels in the global batch as columns of the problem, -1 elsewhere."""
        return index

    def local_query(self, index: Tensor) -> Tensor:
        """Numbers of queries as columns of the exchanged problem, -1 elsewhere."""
        return index


Visitor = Callable[[Shown], Left]


@dataclass
class Part:
    """What one process holds of a batch, and how it sees all labels.

    This one holds the whole batch. What evaluates it is written for many
    (``distributed.part.SharedPart``), of which this is the smallest case: one block, no exchange.
    """

    backend: Backend
    problem: Problem  # own rows; relations of the own queries to all labels
    normalized: bool  # the rows are of unit length
    label_offset: Tensor | None  # (M,) acc, of the own labels
    inverse_queries: Tensor  # (B,) acc inverse norms; empty without normalisation
    inverse_labels: Tensor  # (M,)
    poison: Tensor  # 0-d acc: 1, or NaN when an input is not finite or an index out of range
    total_queries: int  # of all processes
    total_labels: int
    sizes: Tensor  # (2, processes) int64 on the CPU: rows and labels of each; empty for one process
    guard: Tensor | None = field(default=None, init=False)  # see ``Problem``; of own queries
    label_guard: Tensor | None = field(default=None, init=False)
    _shown: Shown | None = field(default=None, init=False)

    # The own queries meet all labels and all rows are here: what needs both may be offered.
    whole: ClassVar[bool] = True
    one_block = True  # all labels are shown at once

    def _show(self) -> Shown:
        problem = self.problem
        if self.guard is not None:
            slack = slack_of(problem.queries, problem.labels, self.normalized)
            problem = replace(problem, guard=self.guard, slack=slack)
        return Shown(problem, self.label_offset, {}, label_guard=self.label_guard)

    def visit(self, extra: Tensors, visitor: Visitor) -> Left:
        """Show all labels to ``visitor``, on every process.

        Args:
            extra: more that belongs to each of the own labels.

        Returns:
            What all processes left for the own labels, merged.
        """
        if self._shown is None:
            self._shown = self._show()
        self._shown.extra = extra
        return visitor(self._shown)

    def merge(self, before: RowStatistics | None, here: RowStatistics, start: int) -> RowStatistics:
        """Statistics of the own queries over one more block, which begins at ``start``."""
        return here

    def first(self, before: First | None, shown: Shown, columns: bool = False) -> First:
        """First positives of the own queries (``columns``: of the labels), with one more block."""
        problem = shown.exchanged if columns else shown.problem
        index = problem.positives.first(problem.queries.device)
        return First(index, self.backend.score_pairs(problem, index[:, None])[:, 0])

    def exclude(self, first: First, label_first: First | None, above: float) -> None:
        """Set the guard of what is shown from here on."""
        rows, sides = self.problem.queries, []
        for one in (first, label_first):
            limit = None
            if one is not None:
                limit = limits(one.index, one.score, above, rows, self.normalized)
            sides.append(limit)
        self.guard, self.label_guard = sides
        self._shown = None

    def keep_pairs(self, found: RowStatistics, shown: Shown) -> None:
        """Called after every block: its labels among the hardest pairs so far may be wanted."""

    def mined(self, index: Tensor) -> tuple[Problem, Tensor]:
        """A problem whose labels hold those of ``index`` (B, 2), global, and their columns."""
        return self.problem, index

    def summed(self, own: Tensors, scalars: Tensor | None = None) -> Tensors:
        """The sums over all processes; ``scalars`` must be the same on all of them."""
        return own


class Inputs(NamedTuple):
    """An operator's arguments that make a part of a batch."""

    queries: Tensor  # (B, d)
    labels: Tensor  # (M, d)
    positives: tuple[str, list[Tensor]]  # kind and tensors of a relation
    exclude: tuple[str, list[Tensor]]
    compute_dtype: torch.dtype
    normalize: bool
    backend: str
    label_offset: Tensor | None = None  # (M,) acc


# Which backend runs a call.


BACKENDS = ("auto", "triton", "native", "torch")


class BackendUnavailableError(RuntimeError):
    """The backend that was asked for cannot run these inputs here; the message says why."""


@cache
def _module(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"alc_kernels.backends.{name}"))


def unavailable(name: str, example: Tensor, compute_dtype: torch.dtype) -> str | None:
    """Why backend ``name`` cannot run inputs like ``example``, or None when it can."""
    if name == "triton" and compute_dtype == torch.float64:
        return "float64 is not supported by its kernels"
    if name in ("triton", "native"):
        reason: str | None = _module(name).unsupported(example)  # type: ignore[attr-defined]
        return reason
    return None


def check_backend(name: str) -> None:
    """``name`` is a known backend; whether it can run is decided where it runs."""
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")


def choose_backend(name: str, example: Tensor, compute_dtype: torch.dtype) -> Backend:
    """The module for ``name``.

    "auto" takes triton on GPUs and native on CPUs, where they can run, else torch.

    Raises:
        ValueError: an unknown name.
        BackendUnavailableError: an explicit choice that cannot run.
    """
    if name == "auto":
        fast = "triton" if example.is_cuda else "native"
        return _module(fast if unavailable(fast, example, compute_dtype) is None else "torch")
    check_backend(name)
    reason = unavailable(name, example, compute_dtype)
    if reason is not None:
        raise BackendUnavailableError(f"backend={name!r} cannot run here: {reason}")
    return _module(name)


def plain_arithmetic(device: torch.device) -> AbstractContextManager[object]:
    """No autograd and no autocast: the operator decides on every dtype itself."""
    if not torch.is_autocast_enabled(device.type):
        return torch.no_grad() if torch.is_grad_enabled() else nullcontext()
    both = ExitStack()
    both.enter_context(torch.no_grad())
    both.enter_context(torch.autocast(device.type, enabled=False))
    return both


def relation(
    name: str, kind: str, tensors: list[Tensor], num_queries: int, num_labels: int
) -> tuple[Positives, Tensor | None]:
    """Rebuild a relation from an operator's arguments.

    An index on the CPU is checked here; one on a GPU is clamped, and the second result, a 0-d
    bool tensor, says whether it was in range: looking would make the host wait.
    """
    if kind != "index":
        return Positives(kind, num_queries, num_labels, tuple(tensors)), None
    index = tensors[0]
    if not index.is_cuda:
        _check_range(name, index, num_labels, "number of labels")
        return Positives(kind, num_queries, num_labels, (index,)), None
    inside = ((index >= 0) & (index < num_labels)).all()
    if num_labels == 0:
        return Positives._empty(num_queries, 0), inside
    clamped = index.clamp(0, num_labels - 1)
    return Positives(kind, num_queries, num_labels, (clamped,)), inside


def poison_unless(acc: torch.dtype, good: Tensor, *others: Tensor | None) -> Tensor:
    """0-d ``acc``: 1 where every 0-d bool holds (None: nothing to check), else NaN."""
    for other in others:
        if other is not None:
            good = good & other
    ones = good.to(acc)
    return ones / ones  # 0 / 0 is NaN


def gather_pairs(
    part: Part, mined: tuple[Problem, Tensor] | None, chosen: Tensor
) -> tuple[Tensor, Tensor]:
    """The rows ``chosen`` (empty: all) and the labels of their pairs, both in acc.

    ``mined``: what ``Part.mined`` has found.
    """
    rows, acc = part.problem.queries, part.poison.dtype
    if mined is None:
        return rows.new_empty(0, dtype=acc), rows.new_empty(0, dtype=acc)
    problem, index = mined
    if chosen.shape[0]:
        rows, index = rows[chosen], index[chosen]
    wide = rows.to(acc, copy=True)
    if problem.labels.shape[0] == 0:
        return wide, wide.new_zeros(*index.shape, rows.shape[1])
    pairs = problem.labels[index.clamp(min=0)].to(acc)
    return wide, torch.where((index < 0)[..., None], 0.0, pairs)


def prepare(inputs: Inputs, num_columns: int | None = None) -> Part:
    """Choose the backend, normalise the rows and rebuild the relations.

    ``num_columns``: of relations over the labels of all processes.
    """
    queries, labels, _, _, compute_dtype, normalize, backend, label_offset = inputs
    chosen = choose_backend(backend, queries, compute_dtype)
    made = []
    for name in ("positives", "exclude"):
        kind, tensors = getattr(inputs, name)
        across = num_columns is not None and kind in OVER_ALL_LABELS
        columns = num_columns if across and num_columns is not None else labels.shape[0]
        made.append(relation(name, kind, tensors, queries.shape[0], columns))
    (positives, positive_inside), (exclude, excluded_inside) = made
    unit_queries, inverse_queries, unit_labels, inverse_labels, poison = chosen.normalize_both(
        queries, labels, compute_dtype, normalize
    )
    problem = Problem(unit_queries, unit_labels, positives, exclude, None)
    for inside in (positive_inside, excluded_inside):
        if inside is not None:
            poison = poison * poison_unless(poison.dtype, inside)
    if inverse_queries is None or inverse_labels is None:
        inverse_queries, inverse_labels = poison.new_empty(0), poison.new_empty(0)
    return Part(
        chosen, problem, normalize, label_offset, inverse_queries, inverse_labels, poison,
        queries.shape[0], labels.shape[0], poison.new_empty(0, dtype=torch.int64),
    )  # fmt: skip


def add_by_label(grad_labels: Tensor, index: Tensor, values: Tensor, deterministic: bool) -> None:
    """grad_labels[index[i, t]] += values[i, t]; where the index is -1, values must be 0."""
    flat = index.clamp(min=0).flatten()
    rows = values.flatten(0, 1)
    if deterministic and grad_labels.is_cuda:
        grad_labels.index_put_((flat,), rows, accumulate=True)  # sorts first, adds in order
    else:
        grad_labels.index_add_(0, flat, rows)


# The last step of every backward: un-normalise, apply the upstream gradient, round once.


class Finish(NamedTuple):
    """Of the raw rows ``x``, whose gradient is made."""

    grad: Tensor  # (n, d) acc, by the prepared rows, for an upstream gradient of 1
    x: Tensor  # (n, d)
    inverse_norm: Tensor  # (n,) acc; empty without normalisation
    upstream: Tensor  # 0-d acc
    # A further gradient by the prepared rows, acc, added as it is: (n, d), or with ``at`` (B, t),
    # the rows it belongs to, (B, t, d).
    more: Tensor | None
    at: Tensor | None
    normalize: bool
    deterministic: bool
    backend: str


def _finish_gradient(given: Finish) -> Tensor:
    """(n, d) in x.dtype."""
    grad, x, inverse_norm, upstream, more, at, *_ = given
    with plain_arithmetic(x.device):
        chosen = choose_backend(given.backend, x, x.dtype)
        inverse = inverse_norm if given.normalize else None
        if more is not None:
            if at is None:
                grad = torch.addcmul(more, grad, upstream)
            else:
                grad = grad * upstream
                if grad.shape[0] > 0:
                    more = torch.where((at < 0)[..., None], 0.0, more)
                    add_by_label(grad, at, more, given.deterministic)
            upstream = torch.ones_like(upstream)
        return chosen.normalize_rows_backward(grad, x, inverse, upstream)


def _finish_gradient_fake(given: Finish) -> Tensor:
    return torch.empty(given.x.shape, dtype=given.x.dtype, device=given.x.device)


finish_gradient = define(
    "finish_gradient", _finish_gradient, _finish_gradient_fake, 5, arguments=Finish
)
