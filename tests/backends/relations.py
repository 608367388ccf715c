"""Random relations of every kind, for tests."""

from __future__ import annotations

import torch

from alc_kernels.positives import Positives

KINDS = ("empty", "diagonal", "index", "ids", "csr")


def random_relation(
    kind: str,
    num_queries: int,
    num_labels: int,
    generator: torch.Generator,
    *,
    density: float = 0.1,
    device: torch.device | str = "cpu",
) -> Positives:
    """A relation of ``kind``; csr rows hold from no label at all to many of them.

    The diagonal exists only for B = M; elsewhere an index takes its place.
    """
    b, m = num_queries, num_labels
    if kind == "diagonal" and b != m:
        kind = "index"
    if m == 0 and kind == "index":
        kind = "empty"
    if kind == "empty":
        relation = Positives._empty(b, m)
    elif kind == "diagonal":
        relation = Positives.diagonal(b)
    elif kind == "index":
        relation = Positives.from_index(torch.randint(m, (b,), generator=generator), m)
    elif kind == "ids":
        # Ids far beyond 32 bits whose low halves collide: only a full comparison is right.
        base = torch.randint(max(2, round(1 / density)), (b + m,), generator=generator)
        high = torch.randint(2, (b + m,), generator=generator)
        ids = base + (high << 40) - 3
        relation = Positives.from_ids(ids[:b], ids[b:])
    elif kind == "csr":
        row_density = torch.rand(b, 1, generator=generator) * 2 * density
        row_density[torch.rand(b, 1, generator=generator) < 0.2] = 0
        if b > 2:
            row_density[b // 2] = 1.0  # a row to which every label belongs
        mask = torch.rand(b, m, generator=generator) < row_density
        rows, cols = mask.nonzero(as_tuple=True)
        order = torch.randperm(rows.numel(), generator=generator)
        rows, cols = rows[order], cols[order]
        relation = Positives.from_pairs(rows, cols, (b, m))
    else:
        raise ValueError(f"kind: expected one of {KINDS}, got {kind!r}")
    return relation.to(device)
