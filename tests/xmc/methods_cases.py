"""A small catalogue of unit vectors for the tests of methods."""

from __future__ import annotations

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch import Tensor
from torch.nn import functional as F

from alc_kernels.trainer.methods import Snapshot

DIM, LABELS, SEEN, QUERIES = 16, 40, 32, 90


def unit(rows: int, seed: int, dim: int = DIM) -> Tensor:
    return F.normalize(torch.randn(rows, dim, generator=torch.Generator().manual_seed(seed)), dim=1)


def snapshot(seed: int = 0, seen: int = SEEN) -> Snapshot:
    """90 queries of the first ``seen`` of 40 labels, two labels for every third query."""
    rows = np.concatenate([np.arange(QUERIES), np.arange(0, QUERIES, 3)])
    cols = np.concatenate([np.arange(QUERIES) % seen, (np.arange(0, QUERIES, 3) + 1) % seen])
    relation = csr_matrix((np.ones(len(rows), np.float32), (rows, cols)), shape=(QUERIES, LABELS))
    return Snapshot(unit(QUERIES, seed), unit(LABELS, seed + 1), relation)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
