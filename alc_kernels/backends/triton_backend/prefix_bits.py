"""Host side of the active pairs of several prefix widths: bits of a chunk, sparse products."""

from __future__ import annotations

from typing import Any

import torch
import triton

from alc_kernels.backends.interface import GradientRequest, Problem
from alc_kernels.backends.prefix_interface import PrefixProblem, PrefixSides
from alc_kernels.backends.triton_backend.active_bits import ActiveBits, bits_shape, rows_that_fit
from alc_kernels.backends.triton_backend.active_product import add_active
from alc_kernels.backends.triton_backend.launch import (
    device_limits,
    dot_precision,
    given_or,
    guard_kind,
    on_device_of,
    slack_or,
)
from alc_kernels.backends.triton_backend.prefix_bits_kernel import prefix_bits_kernel
from alc_kernels.backends.triton_backend.prefixes import (
    depth_constexprs,
    prefix_tile,
    width_bounds,
)
from alc_kernels.backends.triton_backend.relation import walk_arguments, walk_kind


def bits_constexprs(
    keep: tuple[bool, bool], relations: tuple[str, str], guard: int, scaled: bool
) -> dict[str, Any]:
    """The options of ``prefix_bits_kernel``; ``keep``: bits of active positives, negatives."""
    return {
        "POSITIVES": walk_kind(relations[0]),
        "EXCLUDE": walk_kind(relations[1]),
        "SCALED": scaled,
        "GUARD": guard,
        "KEEP_POSITIVE": keep[0],
        "KEEP_NEGATIVE": keep[1],
    }


def active_prefix_gradient(
    problem: PrefixProblem, requests: list[GradientRequest], sides: list[PrefixSides]
) -> None:
    """Bits of the active pairs, then their sparse products."""
    queries, labels, first = problem.queries, problem.labels, requests[0]
    (num_rows, d), num_labels, device = queries.shape, labels.shape[0], queries.device
    num_widths = len(problem.widths)
    keep = (
        first.positive_margin is not None and problem.positives.kind != "empty",
        first.negative_margin is not None,
    )
    precision = dot_precision(queries.dtype)
    capability, _ = device_limits(device)
    tile = prefix_tile(capability, queries.dtype, problem.widths, precision, 1)
    positives, exclude = (
        walk_arguments(relation, device) for relation in (problem.positives, problem.exclude)
    )
    constexprs = {
        **bits_constexprs(
            keep, (problem.positives.kind, problem.exclude.kind), guard_kind(problem),
            problem.query_scale is not None,
        ),
        **depth_constexprs(tile, problem.widths, queries.dtype, precision),
    }  # fmt: skip
    bounds = width_bounds(problem.widths, device)
    step = rows_that_fit(num_labels, num_widths * max(sum(keep), 1))
    blocks = triton.cdiv(num_labels, tile.cols)
    for start in range(0, num_rows, step):
        stop = min(start + step, num_rows)
        shape = bits_shape(num_labels, start, stop)
        positive, negative = (
            torch.empty((num_widths, *shape), dtype=torch.int32, device=device) if wanted else None
            for wanted in keep
        )
        with on_device_of(queries):
            prefix_bits_kernel[(triton.cdiv(stop - start, tile.rows) * blocks,)](
                queries, labels, given_or(problem.query_scale, queries),
                given_or(problem.label_scale, queries), positives.row_ptr, positives.col_ptr,
                exclude.row_ptr, exclude.col_ptr, given_or(problem.guard, queries),
                *slack_or(problem, queries), bounds,
                given_or(positive, queries), given_or(negative, queries),
                first.positive_margin or 0.0, first.negative_margin or 0.0, num_rows, num_labels,
                d, num_widths, start, stop, *shape, **constexprs, num_warps=tile.warps,
                num_stages=tile.stages,
            )  # fmt: skip
        for n, (request, side) in enumerate(zip(requests, sides, strict=True)):
            own = Problem(side.queries, side.labels, problem.positives, problem.exclude, None)
            active = ActiveBits(
                start, stop, None if positive is None else positive[n],
                None if negative is None else negative[n],
            )  # fmt: skip
            add_active(
                own, active, request.positive_margin_scale, request.negative_margin_scale,
                side.grad_queries, side.grad_labels,
            )  # fmt: skip
