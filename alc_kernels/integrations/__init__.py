"""Adapters to other libraries, each imported by its own name and only where it is asked for.

``sentence_transformers``, ``pytorch_metric_learning`` (each needs the library of that name) and
``xmc`` (criteria for the training code of NGAME, DEXA, PRIME and ViXML; needs nothing).
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, version

import torch
from torch import Tensor


def require(package: str, minimum: str) -> None:
    """Check that ``package`` is installed in version ``minimum`` (``"6.0"``) or a later one.

    Raises:
        ImportError: it is not, with the command that installs it. The extra has its name.
    """
    try:
        found = version(package)
    except PackageNotFoundError:
        found = "none"
    if found == "none" or _numbers(found) < _numbers(minimum):
        raise ImportError(
            f"this adapter needs {package} >= {minimum}, found {found}: "
            f'pip install "alc-kernels[{package}]"'
        )


def _numbers(text: str) -> tuple[int, ...]:
    """Major and minor version."""
    return tuple(int(x) for x in re.findall(r"\d+", text)[:2])


# Pairs of equal keys, listed sparsely: what relations by text or by class are made of.


def equal_pairs(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """All (row, column) with ``left[row] == right[column]``, by row, then by column.

    Args:
        left: (n,) integers.
        right: (m,) integers, on the same device.

    Returns:
        rows and columns, (pairs,) int64 each. The host waits once, for their number.
    """
    order = torch.argsort(right, stable=True)
    ranked = right[order]
    start = torch.searchsorted(ranked, left)  # (n,)
    count = torch.searchsorted(ranked, left, right=True) - start  # (n,)
    rows = torch.repeat_interleave(torch.arange(left.numel(), device=left.device), count)
    place = torch.arange(rows.numel(), device=left.device) - (count.cumsum(0) - count)[rows]
    return rows, order[start[rows] + place]
