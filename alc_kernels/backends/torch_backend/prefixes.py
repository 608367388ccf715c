"""Several prefix widths from one walk: a chunk's products are partial sums of each other."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields

from torch import Tensor

from alc_kernels.backends.interface import (
    GradientRequest,
    GradientResult,
    RowStatistics,
    WalkRequest,
)
from alc_kernels.backends.prefix_interface import PrefixProblem, PrefixSides, PrefixTargets
from alc_kernels.backends.torch_backend.chunks import accumulated, row_chunks
from alc_kernels.backends.torch_backend.gradient import coefficients
from alc_kernels.backends.torch_backend.similarity import Chunk, limits, product
from alc_kernels.backends.torch_backend.walk import statistics


def _ranges(problem: PrefixProblem) -> list[tuple[int, int]]:
    rows, columns = problem.queries.shape[0], problem.labels.shape[0]
    return list(row_chunks(rows, columns, problem.item_bytes))


def _chunks(problem: PrefixProblem, start: int, stop: int) -> Iterator[Chunk]:
    """The chunk of each width in turn. The sum of the products grows from one to the next."""
    raw: Tensor | None = None
    before = 0
    device = problem.queries.device
    positive = problem.positives.mask(start, stop, device)
    allowed = ~positive
    if problem.exclude.kind != "empty":
        allowed &= ~problem.exclude.mask(start, stop, device)
    for n, width in enumerate(problem.widths):
        part = product(problem.queries[start:stop, before:width], problem.labels[:, before:width])
        raw = part if raw is None else raw.add_(part)
        before = width
        scores, negative = raw, allowed
        if problem.query_scale is not None and problem.label_scale is not None:
            scores = raw * problem.query_scale[n, start:stop, None]
            scores *= problem.label_scale[n]
        if problem.guard is not None:
            slack = None if problem.slack is None else (problem.slack[0][n], problem.slack[1][n])
            negative = allowed & (scores <= limits(problem.guard[n], slack, start, stop))
        yield Chunk(scores, positive, negative)


def prefix_walk(problem: PrefixProblem, request: WalkRequest) -> list[RowStatistics]:
    """See ``prefix_interface.PrefixBackend.prefix_walk``."""
    num_rows = problem.queries.shape[0]
    whole = [statistics(chunk, request) for chunk in _chunks(problem, 0, 0)]
    for found in whole:
        for field in fields(RowStatistics):
            empty = getattr(found, field.name)
            if empty is not None:
                setattr(found, field.name, empty.new_empty(num_rows, *empty.shape[1:]))
    for start, stop in _ranges(problem):
        for found, chunk in zip(whole, _chunks(problem, start, stop), strict=True):
            part = statistics(chunk, request)
            for field in fields(RowStatistics):
                value = getattr(part, field.name)
                if value is not None:
                    getattr(found, field.name)[start:stop] = value
    return whole


def prefix_gradient(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    sides: list[PrefixSides],
    targets: Callable[[], PrefixTargets],
) -> bool:
    """See ``prefix_interface.PrefixBackend.prefix_gradient``."""
    labels = [None if s.grad_queries is None else accumulated(s.labels) for s in sides]
    for start, stop in _ranges(problem):
        for n, chunk in enumerate(_chunks(problem, start, stop)):
            coefficient = coefficients(chunk, requests[n], GradientResult(), start, stop)
            side, keys = sides[n], labels[n]
            if side.grad_queries is not None and keys is not None:
                side.grad_queries[start:stop].addmm_(coefficient, keys)
            if side.grad_labels is not None:
                queries = accumulated(side.queries[start:stop])
                side.grad_labels.addmm_(coefficient.T, queries)
    return True
