"""What the native tests share: the skip, thread counts, tensors of any layout."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from torch import Tensor

from tests.backends.common import NATIVE

needs_native = pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))
LAYOUTS = ("plain", "transposed", "strided", "expanded", "offset")


@contextmanager
def threads(count: int) -> Iterator[None]:
    """``count`` threads in PyTorch's pool."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def laid_out(x: Tensor, layout: str) -> Tensor:
    """The values of ``x`` (n, d) in another memory layout; "expanded" repeats its first row."""
    n, d = x.shape
    if layout == "transposed":
        return x.T.contiguous().T
    if layout == "strided":
        wide = x.new_full((n, 2 * d + 1), float("nan"))
        wide[:, 1::2] = x
        return wide[:, 1::2]
    if layout == "expanded":
        return x[:1].expand(n, d) if n else x
    if layout == "offset":
        return torch.cat([x.new_full((3, d), float("nan")), x])[3:]
    return x
