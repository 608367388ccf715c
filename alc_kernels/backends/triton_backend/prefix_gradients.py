"""The dense gradients of several prefix widths, with S computed once for all of them.

Of a base loss: a kernel writes the coefficients dL/dS of every width of a chunk into the
workspace, a plane per width; the library's products then add G K and G^T Q of each. Of margins
alone: it writes the bits of the active pairs of every width, and their sparse products follow.
A chunk is what fits in the workspace with the planes of all widths.
"""

from __future__ import annotations

from collections.abc import Callable

from alc_kernels.backends.interface import GradientRequest
from alc_kernels.backends.prefix_interface import PrefixProblem, PrefixSides, PrefixTargets
from alc_kernels.backends.triton_backend.active_bits import MAX_LABELS
from alc_kernels.backends.triton_backend.prefix_bits import active_prefix_gradient
from alc_kernels.backends.triton_backend.prefix_coefficients import dense_prefix_gradient


def prefix_gradient(
    problem: PrefixProblem,
    requests: list[GradientRequest],
    sides: list[PrefixSides],
    targets: Callable[[], PrefixTargets],
) -> bool:
    """See ``prefix_interface.PrefixBackend.prefix_gradient``. Every request is served."""
    first = requests[0]
    rows, labels = problem.queries.shape[0], problem.labels.shape[0]
    wanted = any(s.grad_queries is not None or s.grad_labels is not None for s in sides)
    margins = (first.positive_margin, first.negative_margin)
    if rows == 0 or labels == 0 or not wanted or (first.kind is None and margins == (None, None)):
        return True
    if first.kind is None and labels <= MAX_LABELS:
        active_prefix_gradient(problem, requests, sides)
    else:
        dense_prefix_gradient(problem, requests, sides)
    return True
