"""The passes over the similarities, chunk by chunk: the walk and the dense gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from alc_kernels.backends.torch.pairs import accumulated, row_chunks
from alc_kernels.engine.interface import (
    GradientRequest,
    GradientResult,
    PrefixProblem,
    PrefixSides,
    PrefixTargets,
    Problem,
    RowStatistics,
    Slack,
    WalkRequest,
)

# One chunk of similarities with its masks.


@dataclass(frozen=True)
class Chunk:
    """Rows ``start`` to ``stop`` of the problem, R = stop - start."""

    scores: Tensor  # (R, M) acc
    positive: Tensor  # (R, M) bool
    negative: Tensor  # (R, M) bool


def product(rows: Tensor, labels: Tensor) -> Tensor:
    """rows @ labels.T accumulated and returned in the accumulation dtype."""
    if rows.dtype in (torch.float16, torch.bfloat16):
        if rows.is_cuda:
            return torch.mm(rows, labels.T, out_dtype=torch.float32)
        rows, labels = rows.float(), labels.float()
    return rows @ labels.T


def limits(guard: Tensor, slack: Slack, start: int, stop: int) -> Tensor:
    """Of the guard, for the rows of a chunk: (R, 1), or (R, M) where every pair has its own."""
    limit = guard[start:stop, None]
    return limit if slack is None else limit - slack[0][start:stop, None] * slack[1]


def one_width(problem: Problem) -> PrefixProblem:
    """A plain problem as that of its full width."""
    guard, slack = problem.guard, problem.slack
    return PrefixProblem(
        problem.queries, problem.labels, problem.positives, problem.exclude,
        (problem.queries.shape[1],), None, None, None if guard is None else guard[None],
        None if slack is None else (slack[0][None], slack[1][None]),
    )  # fmt: skip


def ranges(problem: PrefixProblem) -> list[tuple[int, int]]:
    """Of rows, for a pass over all pairs of ``problem``."""
    return row_chunks(*problem.positives.shape, problem.queries)


def chunks_of(problem: PrefixProblem, start: int, stop: int) -> Iterator[Chunk]:
    """The chunk of each width in turn; no host synchronisation.

    Products of prefixes are partial sums: the sum grows from one width to the next.
    """
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


# The k largest of each row, equal values by smaller index.


def exact_topk(values: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Largest ``k`` per row of ``values`` (R, M), descending, ties to the smaller column.

    ``torch.topk`` does not promise which of several equal values it takes. Entries of -inf do
    not exist: their index is -1, and rows with fewer than k others are filled up with them.

    Returns:
        values (R, k) and int64 indices (R, k).
    """
    num_rows, num_columns = values.shape
    taken = min(k, num_columns)
    if taken == 0 or num_rows == 0:
        top = values.new_full((num_rows, k), -torch.inf)
        return top, torch.full((num_rows, k), -1, device=values.device)
    if taken == 1:
        top, index = values.max(dim=1, keepdim=True)  # documented to return the first maximum
    else:
        # One value more tells whether the cut goes through a tie (looked at on the CPU only).
        look = not values.is_cuda and taken < num_columns
        top, index = values.topk(taken + look, dim=1)
        tied = look and _cuts_a_tie(top, taken)
        top, index = top[:, :taken], index[:, :taken]
        if values.is_cuda or tied:
            index = _smallest_indices(values, top)
        index, _ = index.sort(dim=1)
        top, order = values.gather(1, index).sort(dim=1, descending=True, stable=True)
        index = index.gather(1, order)
    index = torch.where(top == -torch.inf, -1, index)
    if taken < k:
        missing = (num_rows, k - taken)
        top = torch.cat([top, top.new_full(missing, -torch.inf)], dim=1)
        index = torch.cat([index, index.new_full(missing, -1)], dim=1)
    return top, index


def _cuts_a_tie(top: Tensor, taken: int) -> bool:
    """Whether the last value taken equals the first one left out, in any row."""
    last, left_out = top[:, taken - 1], top[:, taken]
    return bool(((last == left_out) & (last > -torch.inf)).any())


def _smallest_indices(values: Tensor, top: Tensor) -> Tensor:
    """The columns of the k largest, where the last value's ties go to the smaller columns."""
    num_columns = values.shape[1]
    last = top[:, -1:]
    room = (top == last).sum(dim=1, keepdim=True)
    equal = values == last
    chosen = (values > last) | (equal & (equal.cumsum(dim=1) <= room))
    columns = torch.arange(num_columns, device=values.device)
    key = torch.where(chosen, num_columns - columns, 0)
    return num_columns - key.topk(top.shape[1], dim=1).values.clamp(min=1)


def logits(scores: Tensor, inverse_temperature: Tensor, label_offset: Tensor | None) -> Tensor:
    """z = s / temperature + label_offset, (R, M)."""
    z = scores * inverse_temperature
    return z if label_offset is None else z + label_offset


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    return prefix_walk(one_width(problem), request)[0]


def prefix_walk(
    problem: PrefixProblem, request: WalkRequest, targets: Callable[[], PrefixTargets] | None = None
) -> list[RowStatistics]:
    """See ``interface.Backend.prefix_walk``. Every request is served."""
    num_rows, parts = problem.queries.shape[0], ranges(problem)
    if len(parts) == 1:
        return [statistics(chunk, request) for chunk in chunks_of(problem, *parts[0])]
    whole = [statistics(chunk, request) for chunk in chunks_of(problem, 0, 0)]
    for found in whole:
        for field in fields(RowStatistics):
            empty = getattr(found, field.name)
            if empty is not None:
                setattr(found, field.name, empty.new_empty(num_rows, *empty.shape[1:]))
    # Results go straight to their place: small tensors that outlive a chunk would settle in the
    # gaps between the large ones, and the heap would grow with every chunk.
    for start, stop in parts:
        for found, chunk in zip(whole, chunks_of(problem, start, stop), strict=True):
            part = statistics(chunk, request)
            for field in fields(RowStatistics):
                value = getattr(part, field.name)
                if value is not None:
                    getattr(found, field.name)[start:stop] = value
    return whole


def statistics(chunk: Chunk, request: WalkRequest) -> RowStatistics:
    """What ``request`` asks for, from one chunk of rows."""
    scores, positive, negative = chunk.scores, chunk.positive, chunk.negative
    found = RowStatistics(positive.sum(dim=1), negative.sum(dim=1))
    if request.top_k:
        masked = scores.masked_fill(~negative, -torch.inf)
        found.top_score, found.top_index = exact_topk(masked, request.top_k)
    if request.hardest_positive:
        found.positive_score, found.positive_index = _hardest_positive(scores, positive)
    if request.softmax is not None:
        assert request.inverse_temperature is not None
        z = logits(scores, request.inverse_temperature, request.label_offset)
        members = negative if request.softmax == "negatives" else positive | negative
        found.log_sum_exp = z.masked_fill(~members, -torch.inf).logsumexp(dim=1)
        found.positive_logit_sum = torch.where(positive, z, 0.0).sum(dim=1)
    if request.sigmoid:
        assert request.scale is not None and request.bias is not None
        x = scores * request.scale + request.bias
        losses = -F.logsigmoid(torch.where(positive, x, -x))
        found.sigmoid_sum = torch.where(positive | negative, losses, 0.0).sum(dim=1)
    if request.positive_margin is not None:
        active = positive & (scores <= request.positive_margin)
        short = torch.where(active, request.positive_margin - scores, 0.0)
        found.positive_margin_sum = short.sum(dim=1)
        found.positive_margin_count = active.sum(dim=1)
    if request.negative_margin is not None:
        active = negative & (scores >= request.negative_margin)
        over = torch.where(active, scores - request.negative_margin, 0.0)
        found.negative_margin_sum = over.sum(dim=1)
        found.negative_margin_count = active.sum(dim=1)
    return found


def _hardest_positive(scores: Tensor, positive: Tensor) -> tuple[Tensor, Tensor]:
    if scores.shape[1] == 0:
        none = torch.full((scores.shape[0],), -1, device=scores.device)
        return scores.new_full((scores.shape[0],), torch.inf), none
    score, index = torch.where(positive, scores, torch.inf).min(dim=1)  # the first minimum
    return score, torch.where(positive.any(dim=1), index, -1)


def positive_pass(
    problem: Problem,
    log_sum_exp: Tensor,
    inverse_temperature: Tensor,
    label_offset: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """See ``interface.Backend.positive_pass``."""
    softplus_sum = torch.zeros_like(log_sum_exp)
    sigmoid_sum = torch.zeros_like(log_sum_exp)
    prefixes = one_width(problem)
    for start, stop in ranges(prefixes):
        (chunk,) = chunks_of(prefixes, start, stop)
        z = logits(chunk.scores, inverse_temperature, label_offset)
        gap = log_sum_exp[start:stop, None] - z
        softplus_sum[start:stop] = torch.where(chunk.positive, -F.logsigmoid(-gap), 0.0).sum(dim=1)
        sigmoid_sum[start:stop] = torch.where(chunk.positive, gap.sigmoid(), 0.0).sum(dim=1)
    return softplus_sum, sigmoid_sum


# The dense gradient pass: G = dL/dS chunk by chunk, multiplied out at once.


def dense_gradient(
    problem: Problem,
    request: GradientRequest,
    grad_queries: Tensor | None,
    grad_labels: Tensor | None,
) -> GradientResult:
    """See ``interface.Backend.dense_gradient``."""
    side = PrefixSides(problem.queries, problem.labels, grad_queries, grad_labels)
    return _gradients(one_width(problem), [request], [side])[0]


def prefix_gradient(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    sides: list[PrefixSides],
    targets: Callable[[], PrefixTargets],
) -> bool:
    """See ``interface.Backend.prefix_gradient``."""
    _gradients(problem, requests, sides)
    return True


def _gradients(
    problem: PrefixProblem, requests: list[GradientRequest], sides: list[PrefixSides]
) -> list[GradientResult]:
    acc, results = problem.acc, [GradientResult() for _ in requests]
    for result, request in zip(results, requests, strict=True):
        if request.want_scalars:
            result.weighted_sum = problem.queries.new_zeros(problem.queries.shape[0], dtype=acc)
            result.plain_sum = torch.zeros_like(result.weighted_sum)
    labels = [None if s.grad_queries is None else accumulated(s.labels) for s in sides]
    for start, stop in ranges(problem):
        for n, chunk in enumerate(chunks_of(problem, start, stop)):
            coefficient = coefficients(chunk, requests[n], results[n], start, stop)
            side, keys = sides[n], labels[n]
            if side.grad_queries is not None and keys is not None:
                side.grad_queries[start:stop].addmm_(coefficient, keys)
            if side.grad_labels is not None:
                queries = accumulated(side.queries[start:stop])
                side.grad_labels.addmm_(coefficient.T, queries)
    return results


def coefficients(
    chunk: Chunk, request: GradientRequest, result: GradientResult, start: int, stop: int
) -> Tensor:
    """G of one chunk, (R, M); the sums that ``request`` wants go to ``result``."""
    coefficient = torch.zeros_like(chunk.scores)
    if request.kind is not None:
        g, slope = _base_coefficient(chunk, request, start, stop)
        if result.weighted_sum is not None and result.plain_sum is not None:
            result.weighted_sum[start:stop] = (g * chunk.scores).sum(dim=1)
            result.plain_sum[start:stop] = g.sum(dim=1)
        coefficient = g * slope
    return _add_margins(coefficient, chunk, request)


def _base_coefficient(
    chunk: Chunk, request: GradientRequest, start: int, stop: int
) -> tuple[Tensor, Tensor]:
    """(R, M) derivative by the logit, and the logit's slope in s (0-d)."""
    assert request.row_scale is not None
    positive, negative = chunk.positive, chunk.negative
    row_scale = request.row_scale[start:stop, None]
    if request.kind == "sigmoid":
        assert request.scale is not None and request.bias is not None
        x = chunk.scores * request.scale + request.bias
        g = torch.where(positive, -torch.sigmoid(-x), torch.sigmoid(x))
        g = torch.where(positive | negative, g, 0.0)
        return torch.where(row_scale == 0, 0.0, g * row_scale), request.scale
    assert request.inverse_temperature is not None and request.log_sum_exp is not None
    assert request.num_positives is not None
    z = logits(chunk.scores, request.inverse_temperature, request.label_offset)
    lse = request.log_sum_exp[start:stop, None]
    share = 1.0 / request.num_positives[start:stop, None].to(z.dtype)
    if request.kind == "softmax":
        g = torch.where(positive | negative, (z - lse).exp(), 0.0)
        g = g - torch.where(positive, share, 0.0)
    else:
        assert request.negative_scale is not None
        g = torch.where(negative, request.negative_scale[start:stop, None] * (z - lse).exp(), 0.0)
        g = torch.where(positive, -torch.sigmoid(lse - z) * share, g)
    return torch.where(row_scale == 0, 0.0, g * row_scale), request.inverse_temperature


def _add_margins(coefficient: Tensor, chunk: Chunk, request: GradientRequest) -> Tensor:
    if request.positive_margin is not None:
        assert request.positive_margin_scale is not None
        active = chunk.positive & (chunk.scores <= request.positive_margin)
        coefficient = coefficient - torch.where(active, request.positive_margin_scale, 0.0)
    if request.negative_margin is not None:
        assert request.negative_margin_scale is not None
        active = chunk.negative & (chunk.scores >= request.negative_margin)
        coefficient = coefficient + torch.where(active, request.negative_margin_scale, 0.0)
    return coefficient
