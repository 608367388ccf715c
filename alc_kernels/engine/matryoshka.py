"""One objective at several prefix widths: ``evaluate`` per width over a shared walk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from alc_kernels.engine.evaluate import evaluate
from alc_kernels.engine.guard import limits, slack_of
from alc_kernels.engine.interface import (
    Backend,
    GradientRequest,
    GradientResult,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    Problem,
    RowStatistics,
    Slack,
    WalkRequest,
    accumulation_dtype,
)
from alc_kernels.engine.prepare import Part
from alc_kernels.engine.specification import Evaluation, Given, Objective, Wants
from alc_kernels.engine.widths import JoinedGradient, PrefixRows
from alc_kernels.positives import Positives


@dataclass
class _Direction:
    """The walk of one direction: rows by columns, or exchanged."""

    problem: PrefixProblem
    found: list[RowStatistics] | None
    # Dense gradients put off until those of all widths are known
    requests: list[GradientRequest] = field(default_factory=list)
    sides: list[PrefixSides] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)


class SharedWalk:
    """What the widths share. ``backend_of(n)`` is the backend that width n is evaluated with."""

    def __init__(
        self,
        backend: Backend,
        queries: PrefixRows,
        labels: PrefixRows,
        positives: Positives,
        exclude: Positives,
        widths: tuple[int, ...],
        weights: tuple[float, ...],
        exclude_above: float | None,
    ) -> None:
        self.backend, self.widths, self.exclude_above = backend, widths, exclude_above
        self.weights = weights
        self.joined = JoinedGradient(queries, widths), JoinedGradient(labels, widths)
        self.apart = False  # some width has a gradient of its own
        self.problems = [
            Problem(q, k, positives, exclude, None)
            for q, k in zip(queries.units, labels.units, strict=True)
        ]
        self.sides = queries, labels
        self.directions: list[_Direction] = []

    def backend_of(self, n: int) -> Backend:
        """With the walk that all widths share."""
        return _OneWidth(self, n)  # type: ignore[return-value]

    def direction(self, number: int, problem: Problem, request: WalkRequest) -> _Direction:
        """Direction ``number`` (0: rows, 1: columns), walked when the first width asks."""
        if len(self.directions) > number:
            return self.directions[number]
        queries, labels = self.sides if number == 0 else self.sides[::-1]
        guard, slack = None, None
        if self.exclude_above is not None:
            first = problem.positives.first(queries.rows.device)
            score = _first_scores(queries, labels, first, self.widths)
            guard, slack = _guard(queries, labels, first, score, self.exclude_above)
        shared = PrefixProblem(
            queries.rows, labels.rows, problem.positives, problem.exclude, self.widths,
            queries.scales, labels.scales, guard, slack,
        )  # fmt: skip
        offer = request.gradient if guard is None else None
        request = replace(request, columns=None, gradient=offer)
        found = self.backend.prefix_walk(shared, request, partial(self._targets, number))
        self.apart |= found is None
        self.directions.append(_Direction(shared, found))
        return self.directions[number]

    def _targets(self, number: int) -> PrefixTargets:
        """What a backend adds the gradients of direction ``number`` to, all widths at once."""
        sides = self.joined if number == 0 else self.joined[::-1]
        (grad_queries, query_dots), (grad_labels, label_dots) = (side.targets() for side in sides)
        return PrefixTargets(self.weights, grad_queries, grad_labels, query_dots, label_dots)

    def finish(self) -> None:
        """Make the dense gradients that the widths have put off."""
        for number, one in enumerate(self.directions):
            if not one.requests:
                continue
            served = len(one.requests) == len(self.widths) and self.backend.prefix_gradient(
                one.problem, one.requests, one.sides, partial(self._targets, number)
            )
            if served:
                continue
            for problem, request, side in zip(one.problems, one.requests, one.sides, strict=True):
                self.backend.dense_gradient(problem, request, side.grad_queries, side.grad_labels)


def _first_scores(
    queries: PrefixRows, labels: PrefixRows, first: Tensor, widths: tuple[int, ...]
) -> Tensor:
    """(W, B) acc: every width's similarity of each row with label ``first``, as a walk has it."""
    acc = accumulation_dtype(queries.rows.dtype)
    if labels.rows.shape[0] == 0:
        return torch.zeros(len(widths), first.shape[0], dtype=acc, device=first.device)
    chosen = first.clamp(min=0)
    products = queries.rows.to(acc) * labels.rows[chosen].to(acc)  # (B, d)
    steps = zip((0, *widths), widths, strict=False)
    score = torch.stack([products[:, a:b].sum(dim=1) for a, b in steps]).cumsum(dim=0)
    if queries.scales is not None and labels.scales is not None:
        score = score * queries.scales * labels.scales[:, chosen]
    return score


def _guard(
    queries: PrefixRows, labels: PrefixRows, first: Tensor, score: Tensor, exclude_above: float
) -> tuple[Tensor, Slack]:
    """Limits (W, B) and slack (W, B), (W, M) of all widths."""
    normalized = queries.scales is not None
    sides = list(zip(queries.units, labels.units, strict=True))
    guard = [
        limits(first, own, exclude_above, q, normalized)
        for own, (q, _) in zip(score, sides, strict=True)
    ]
    slack = [made for q, k in sides if (made := slack_of(q, k, normalized)) is not None]
    joined = (
        (torch.stack([s for s, _ in slack]), torch.stack([s for _, s in slack])) if slack else None
    )
    return torch.stack(guard), joined


class _OneWidth:
    """The backend of one width, with the walk that all widths share."""

    def __init__(self, shared: SharedWalk, n: int) -> None:
        self._shared, self._n = shared, n
        self._walked: list[tuple[Problem, _Direction]] = []
        self._exact: dict[int, Problem] = {}

    def __getattr__(self, name: str) -> object:
        return getattr(self._shared.backend, name)

    def walk(self, problem: Problem, request: WalkRequest) -> RowStatistics:
        """With all widths when the first one asks."""
        direction = self._shared.direction(self._number(problem), problem, request)
        self._walked.append((problem, direction))
        if direction.found is None:
            return self._shared.backend.walk(problem, request)
        return direction.found[self._n]

    def _number(self, problem: Problem) -> int:
        """The direction: 0 over the rows, 1 over the columns."""
        return int(problem.queries is not self._shared.problems[self._n].queries)

    def _as_walked(self, problem: Problem) -> Problem:
        """With rows that give the walk's similarities: those of half precision are not rounded."""
        if problem.queries.dtype not in (torch.float16, torch.bfloat16):
            return problem
        number = self._number(problem)
        walked = self._shared.directions[number:]
        if walked and walked[0].found is None:
            return problem
        if number not in self._exact:
            queries, labels = self._shared.sides if number == 0 else self._shared.sides[::-1]
            self._exact[number] = replace(
                problem, queries=queries.exact(self._n), labels=labels.exact(self._n)
            )
        return replace(self._exact[number], guard=problem.guard, slack=problem.slack)

    def score_pairs(self, problem: Problem, index: Tensor) -> Tensor:
        """Scores as the walk has them."""
        return self._shared.backend.score_pairs(self._as_walked(problem), index)

    def positive_pass(
        self,
        problem: Problem,
        log_sum_exp: Tensor,
        inverse_temperature: Tensor,
        label_offset: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """On the similarities that ``log_sum_exp`` is of."""
        return self._shared.backend.positive_pass(
            self._as_walked(problem), log_sum_exp, inverse_temperature, label_offset
        )

    def pair_gradient(self, *arguments: Any) -> None:
        """A gradient of this width."""
        self._shared.apart = True
        self._shared.backend.pair_gradient(*arguments)

    def dense_gradient(
        self,
        problem: Problem,
        request: GradientRequest,
        grad_queries: Tensor | None,
        grad_labels: Tensor | None,
    ) -> GradientResult:
        """Put off, unless a result is wanted at once."""
        self._shared.apart = True
        backend = self._shared.backend
        direction = next(found for walked, found in self._walked if walked is problem)
        if direction.found is None or request.want_scalars or request.columns is not None:
            return backend.dense_gradient(problem, request, grad_queries, grad_labels)
        direction.requests.append(request)
        direction.problems.append(problem)
        sides = PrefixSides(problem.queries, problem.labels, grad_queries, grad_labels)
        direction.sides.append(sides)
        return GradientResult()


def evaluate_widths(
    shared: SharedWalk,
    objective: Objective,
    given: Given,
    label_offset: Tensor | None,
    wants: Wants,
) -> list[Evaluation]:
    """Evaluate ``objective`` at every width; gradients by the unit prefixes."""
    none, poison = given.scalars.new_empty(0), given.scalars.new_ones(())
    made = []
    for n, problem in enumerate(shared.problems):
        backend = shared.backend_of(n)
        sizes = problem.positives.shape
        part = Part(
            backend, problem, objective.normalize, label_offset, none, none, poison, *sizes, none
        )
        made.append(evaluate(part, objective, given, wants))
    shared.finish()
    return made
