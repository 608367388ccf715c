"""A short name for what runs are scored on, so that only like is compared with like."""

from __future__ import annotations

import hashlib

import numpy as np

from alc_kernels.xmc.data import Dataset
from alc_kernels.xmc.data.text.texts import add_texts
from alc_kernels.xmc.evaluation.predictions import SPLITS


def data_fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits over labels, held-out labels, and the queries and pairs scored.

    The training split is left out: two runs that were trained on different queries and are scored
    on the same ones may be compared.
    """
    digest = hashlib.sha256()
    add_texts(digest, dataset.labels)
    digest.update(np.packbits(dataset.held_out).tobytes())
    for name in SPLITS:
        split = dataset.splits[name]
        add_texts(digest, split.queries)
        digest.update(split.relation.indptr.astype("<i8").tobytes())
        digest.update(split.relation.indices.astype("<i8").tobytes())
        if split.excluded is not None and split.excluded.nnz:
            digest.update(b"excluded")
            digest.update(split.excluded.indptr.astype("<i8").tobytes())
            digest.update(split.excluded.indices.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
