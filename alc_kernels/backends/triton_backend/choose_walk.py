"""Which of the walks serves a request."""

from __future__ import annotations

from alc_kernels.backends.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.backends.triton_backend import both_sides, one_pass, walk_launch


def walk(problem: Problem, request: WalkRequest) -> RowStatistics:
    """See ``interface.Backend.walk``."""
    if one_pass.serves(problem, request):
        return one_pass.walk(problem, request)
    if both_sides.serves(problem, request):
        return both_sides.walk(problem, request)
    return walk_launch.walk(problem, request)
