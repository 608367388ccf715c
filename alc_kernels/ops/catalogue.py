"""Labels that are searched many times: normalised, checked and packed once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from alc_kernels import checks
from alc_kernels.engine.interface import Problem, WalkRequest, accumulation_dtype
from alc_kernels.engine.prepare import (
    check_backend,
    choose_backend,
    plain_arithmetic,
    poison_unless,
    relation,
)
from alc_kernels.positives import Positives


@dataclass(frozen=True)
class Catalogue:
    """What :func:`~alc_kernels.functional.prepare` makes; for ``topk_similarity``.

    Attributes:
        rows: (M, d), of unit length with ``normalize``.
        normalize: cosine similarity, or plain inner product.
        backend: as it was asked for.
        packed: what the backend makes of the rows for its search, or None. It belongs to this
            process: it is not saved, and is left out of pickles.
    """

    rows: Tensor
    normalize: bool
    backend: str
    packed: Tensor | None

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _packed, (self.rows, self.normalize, self.backend)


def prepare(labels: Tensor, normalize: bool, backend: str) -> Catalogue:
    """See :func:`alc_kernels.functional.prepare`."""
    with plain_arithmetic(labels.device if isinstance(labels, Tensor) else torch.device("cpu")):
        dtype = checks.check_embeddings(labels, labels)
        check_backend(backend)
        checks.check_flag("normalize", normalize)
        labels = labels.detach()
        if normalize or not labels.is_contiguous():
            chosen = choose_backend(backend, labels, dtype)
            rows, _, _ = chosen.normalize_rows(labels, dtype, normalize)
        else:
            rows = labels
        # In one pass: NaN is the largest of its row.
        finite = torch.linalg.vector_norm(rows, torch.inf, dim=1).isfinite()
        if not bool(finite.all()):
            row = int((~finite).nonzero()[0])
            raise ValueError(f"labels: row {row} holds a number that is not finite")
        return _packed(rows, normalize, backend)


def _packed(rows: Tensor, normalize: bool, backend: str) -> Catalogue:
    pack = getattr(choose_backend(backend, rows, rows.dtype), "pack", None)
    return Catalogue(rows, normalize, backend, None if pack is None else pack(rows))


def search(
    queries: Tensor, catalogue: Catalogue, k: int, exclude: Positives | Tensor | None
) -> tuple[Tensor, Tensor]:
    """See :func:`alc_kernels.functional.topk_similarity`."""
    labels = catalogue.rows
    with plain_arithmetic(labels.device):
        dtype = checks.check_embeddings(queries, labels)
        checks.check_k(k)
        batch = checks.Batch(queries, labels, None, exclude)
        excluded = checks.check_relation("exclude", batch)
        sizes = len(queries), len(labels)
        excluded, inside = relation("exclude", excluded.kind, list(excluded.tensors), *sizes)
        chosen = choose_backend(catalogue.backend, queries, dtype)
        rows, _, finite = chosen.normalize_rows(queries.detach(), dtype, catalogue.normalize)
        none = Positives._empty(*sizes)
        problem = Problem(rows, labels, none, excluded, None, packed=catalogue.packed)
        found = chosen.walk(problem, WalkRequest(top_k=k))
        assert found.top_score is not None and found.top_index is not None
        poison = poison_unless(accumulation_dtype(dtype), finite, inside)
        return found.top_score * poison, found.top_index
