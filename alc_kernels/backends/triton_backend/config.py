"""Tile sizes of the walk, chosen ahead of time: no autotuning at run time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Tile:
    """Block sizes of a kernel: queries, labels, step along the embedding; and its launch."""

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int
    programs: int = 1  # that fit on a multiprocessor at once


_override: Tile | None = None


def walk_tile(capability, dtype, dim, precision, epilogue) -> Tile:
    if _override is not None:
        return _override
    return Tile(128, 128, 64, 8, 3)


@contextmanager
def override_tile(tile: Tile | None) -> Iterator[None]:
    """For tests: use ``tile`` for every walk within."""
    global _override
    before, _override = _override, tile
    try:
        yield
    finally:
        _override = before
