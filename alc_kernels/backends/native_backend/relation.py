"""A relation as the operators take it."""

from __future__ import annotations

from torch import Tensor

from alc_kernels.positives import Positives


def arguments(relation: Positives) -> tuple[str, list[Tensor]]:
    """Kind and tensors; of a csr relation the operators need the row pointer and the columns."""
    count = 2 if relation.kind == "csr" else len(relation.tensors)
    return relation.kind, list(relation.tensors[:count])
