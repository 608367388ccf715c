"""A batch cut over processes: every process's part, and the whole."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels import Positives

Relation = Positives | Tensor | None
KINDS = ("diagonal", "index", "ids", "pairs", "pairs+exclude", "index+exclude-ids")


@dataclass
class Piece:
    """Arguments of one call."""

    queries: Tensor
    labels: Tensor
    positives: Relation
    exclude: Relation
    offset: Tensor
    weight: Tensor

    def to(self, dtype: torch.dtype) -> Piece:
        """Fresh leaves in ``dtype``."""
        acc = torch.float64 if dtype == torch.float64 else torch.float32
        return Piece(
            self.queries.to(dtype).detach().clone().requires_grad_(),
            self.labels.to(dtype).detach().clone().requires_grad_(),
            self.positives,
            self.exclude,
            self.offset.to(acc),
            self.weight.to(acc),
        )


@dataclass
class Batch:
    """The whole and its pieces in rank order."""

    whole: Piece
    pieces: list[Piece]


def cuts(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(start, stop) of each part."""
    out, start = [], 0
    for size in sizes:
        out.append((start, start + size))
        start += size
    return out


def make_batch(
    kind: str, rows: Sequence[int], labels: Sequence[int] | None = None, width: int = 12,
    seed: int = 0,
) -> Batch:  # fmt: skip
    """Embeddings in float64 where queries resemble their labels.

    Args:
        kind: of ``KINDS``.
        rows: queries of each process.
        labels: labels of each process; None: as many (and always so for the diagonal).
    """
    g = torch.Generator().manual_seed(1000 * seed + sum(rows) + sum(map(ord, kind)))
    if labels is None or kind == "diagonal":
        labels = rows
    b, m = sum(rows), sum(labels)
    keys = torch.randn(m, width, generator=g, dtype=torch.float64)
    if m > 9:
        keys[7] = keys[3]  # duplicate labels are legal
    own = torch.randint(max(m, 1), (b,), generator=g)
    if kind == "diagonal":
        own = torch.arange(b)
    listed: Relation = None
    pieces_of: list[Relation] = [None] * len(rows)
    excluded: Relation = None
    excluded_of: list[Relation] = [None] * len(rows)
    row_cuts, label_cuts = cuts(rows), cuts(labels)
    if kind.startswith("index"):
        listed, pieces_of = own, [own[i:j] for i, j in row_cuts]
    elif kind == "ids":
        label_ids = torch.randint(max(m - m // 4, 1), (m,), generator=g)
        query_ids = label_ids[own] if m else own
        query_ids[: b // 8] = -5
        if b == m:
            query_ids[-1:] = label_ids[-1:]
        listed = Positives.from_ids(query_ids, label_ids)
        pieces_of = [
            Positives.from_ids(query_ids[i:j], label_ids[k:n])
            for (i, j), (k, n) in zip(row_cuts, label_cuts, strict=True)
        ]
    elif kind.startswith("pairs"):
        mask = torch.rand(b, m, generator=g) < 0.15
        mask[: b // 8] = False
        if b > 2:
            mask[-1] = True  # no negative
        listed, pieces_of, first = _listed(mask, row_cuts, m, g)
        own = torch.where(first >= 0, first, own)
    if kind == "pairs+exclude":
        excluded, excluded_of, _ = _listed(torch.rand(b, m, generator=g) < 0.2, row_cuts, m, g)
    elif kind.endswith("exclude-ids"):
        groups = torch.randint(5, (b + m,), generator=g)
        excluded = Positives.from_ids(groups[:b], groups[b:])
        excluded_of = [
            Positives.from_ids(groups[:b][i:j], groups[b:][k:n])
            for (i, j), (k, n) in zip(row_cuts, label_cuts, strict=True)
        ]
    queries = 1.6 * torch.randn(b, width, generator=g, dtype=torch.float64)
    if m:
        queries = queries + keys[own]
    offset = torch.randn(m, generator=g, dtype=torch.float64)
    weight = torch.rand(b, generator=g, dtype=torch.float64) + 0.1
    whole = Piece(queries * 0.4, keys * 0.3, listed, excluded, offset, weight)
    pieces = [
        Piece(
            whole.queries[i:j], whole.labels[k:n], pieces_of[r], excluded_of[r],
            offset[k:n], weight[i:j],
        )
        for r, ((i, j), (k, n)) in enumerate(zip(row_cuts, label_cuts, strict=True))
    ]  # fmt: skip
    return Batch(whole, pieces)


def _listed(
    mask: Tensor, row_cuts: list[tuple[int, int]], columns: int, g: torch.Generator
) -> tuple[Positives, list[Relation], Tensor]:
    """Each process lists its pairs in an order of its own; the whole list in rank order."""
    rows_of, columns_of, pieces = [], [], []
    for start, stop in row_cuts:
        rows, cols = mask[start:stop].nonzero(as_tuple=True)
        order = torch.randperm(rows.numel(), generator=g)
        rows, cols = rows[order], cols[order]
        pieces.append(Positives.from_pairs(rows, cols, (stop - start, columns)))
        rows_of.append(rows + start)
        columns_of.append(cols)
    whole = Positives.from_pairs(
        torch.cat(rows_of), torch.cat(columns_of), (mask.shape[0], columns)
    )
    return whole, pieces, whole.first()
