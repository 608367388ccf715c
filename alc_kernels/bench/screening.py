"""8-bit screening in the tables: turned off beside it, its counters, and that both agree."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from alc_kernels.backends.native.screening import SWITCH, Counts, take_counts
from alc_kernels.bench.peers import Step


@contextmanager
def off() -> Iterator[None]:
    """No screening inside."""
    before = os.environ.get(SWITCH)
    os.environ[SWITCH] = "off"
    try:
        yield
    finally:
        if before is None:
            del os.environ[SWITCH]
        else:
            os.environ[SWITCH] = before


class Without:
    """A step in full precision throughout.

    Its backward runs outside, which does not matter: what a loss needs of S it finds on its way
    forward.
    """

    def __init__(self, step: Step) -> None:
        self.step = step

    def __call__(self, queries: Tensor, labels: Tensor) -> Tensor:
        with off():
            return self.step(queries, labels)


def counted(step: Step, pair: list[Tensor]) -> tuple[Counts, Tensor]:
    """What screening did in one call of ``step``, and the call's result."""
    take_counts()
    with torch.no_grad():
        found = step(*pair)
    return take_counts(), found
