"""One objective at several prefix widths: ``evaluate`` per width over a shared walk."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor

from alc_kernels.engine.evaluate import evaluate
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
from alc_kernels.engine.rows import limits, slack_of
from alc_kernels.engine.specification import Evaluation, Given, Objective, Wants
from alc_kernels.positives import Positives

# One rounding of the rows, an inverse norm per width.


SMALL = 1e-24  # elements of a row up to this are those of a zero row


@dataclass(frozen=True)
class PrefixRows:
    """One side's embeddings."""

    rows: Tensor  # (n, d) compute dtype, contiguous: x times a power of two per row
    scales: Tensor | None  # (W, n) acc: what makes a prefix of ``rows`` a unit vector
    power: Tensor | None  # (n,) acc: x / rows; None with ``scales``
    # Per width, as the plain losses have them: unit prefixes (n, w), inverse norms of x (n,)
    units: list[Tensor]
    inverse: list[Tensor | None]
    finite: Tensor  # 0-d bool, all of x

    def exact(self, n: int) -> Tensor:
        """(n, w) acc: the prefixes that a walk compares at width number ``n``, not rounded."""
        prefix = self.rows[:, : self.units[n].shape[1]].to(accumulation_dtype(self.rows.dtype))
        return prefix.contiguous() if self.scales is None else prefix * self.scales[n, :, None]


def prefix_rows(
    backend: Backend, x: Tensor, dtype: torch.dtype, normalize: bool, widths: tuple[int, ...]
) -> PrefixRows:
    """Prepare ``x`` (n, d). The power of two keeps products in range and rounds nothing.

    It gets the norm of the widest prefix into (1, 2]; that of float16 rows their largest element
    into [2^14, 2^15), so that no element of float16 input falls below its range.
    """
    made = [backend.normalize_rows(x[:, :w].contiguous(), dtype, normalize) for w in widths]
    units, inverse = [unit for unit, _, _ in made], [norm for _, norm, _ in made]
    finite = made[-1][2] if widths[-1] == x.shape[1] else torch.isfinite(x).all()
    if not normalize:
        return PrefixRows(x.to(dtype).contiguous(), None, None, units, inverse, finite)
    wide = x.to(accumulation_dtype(x.dtype))
    if torch.float16 in (x.dtype, dtype):
        size = wide.abs().amax(dim=1)
        power = size / (2.0 * torch.frexp(size).mantissa)  # 2^e, size in [2^e, 2^(e+1))
        power = torch.where(size > SMALL, power, 1.0) * 2.0**-14
    else:
        assert inverse[-1] is not None
        length = inverse[-1].to(wide.dtype)
        power = torch.frexp(length).mantissa / length  # 2^e, 1 / length in (2^e, 2^(e+1)]
        power = torch.where(length > 0, power, 1.0)
    rows = (wide / power[:, None]).to(x.dtype).to(dtype).contiguous()
    acc = accumulation_dtype(dtype)
    lengths = torch.stack([norm for norm in inverse if norm is not None])  # (W, n)
    largest = torch.finfo(acc).max
    scales = (lengths * power).to(acc).clamp(max=largest)
    return PrefixRows(rows, scales, power.to(acc), units, inverse, finite)


# The gradient that a backend makes of a dense loss at all prefix widths at once.


class JoinedGradient:
    """One side's, by ``PrefixRows.rows`` before their norms: see ``PrefixTargets``."""

    def __init__(self, side: PrefixRows, widths: tuple[int, ...]) -> None:
        self._side, self._widths = side, widths
        self._made: tuple[Tensor, Tensor] | None = None

    def targets(self) -> tuple[Tensor, Tensor]:
        """((n, d), (W, n)) acc: what a backend adds to."""
        if self._made is None:
            rows = self._side.rows
            zeros = torch.zeros(
                rows.shape, dtype=accumulation_dtype(rows.dtype), device=rows.device
            )
            self._made = zeros, zeros.new_zeros(len(self._widths), rows.shape[0])
        return self._made

    def by_embeddings(self, weights: tuple[float, ...]) -> Tensor | None:
        """(n, d) acc: by the embeddings as given; None where nothing was taken up."""
        if self._made is None:
            return None
        grad, dots = self._made
        scales, power = self._side.scales, self._side.power
        if scales is None or power is None:
            return grad
        factor = torch.tensor(weights, dtype=dots.dtype, device=dots.device)[:, None]
        along = factor * scales * scales * dots  # (W, n), of each width
        along = along.flip(0).cumsum(dim=0).flip(0)  # of all widths that have a coordinate
        steps = zip((0, *self._widths), self._widths, strict=False)
        for n, (start, stop) in enumerate(steps):
            part = self._side.rows[:, start:stop].to(grad.dtype)
            grad[:, start:stop].addcmul_(part, along[n, :, None], value=-1.0)
        return grad.div_(power[:, None])


# The walk that the widths share.


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
    """What the widths share."""

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
        backend = cast(Backend, _OneWidth(shared, n))
        sizes = problem.positives.shape
        part = Part(
            backend, problem, objective.normalize, label_offset, none, none, poison, *sizes, none
        )
        made.append(evaluate(part, objective, given, wants))
    shared.finish()
    return made
