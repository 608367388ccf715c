"""A short name for what runs are scored on, so that only like is compared with like."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np

from alc_kernels.xmc.data import Dataset
from alc_kernels.xmc.evaluation.predictions import SPLITS


def _add_texts(digest: hashlib._Hash, texts: Iterable[str]) -> None:
    for text in texts:
        encoded = text.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(8, "little"))  # so that no two lists run together
        digest.update(encoded)


def data_fingerprint(dataset: Dataset) -> str:
    """16 hexadecimal digits over labels, held-out labels, and the queries and relations scored.

    The training split is left out: two runs that were trained on different queries and are scored
    on the same ones may be compared.
    """
    digest = hashlib.sha256()
    _add_texts(digest, dataset.labels)
    digest.update(np.packbits(dataset.held_out).tobytes())
    for name in SPLITS:
        split = dataset.splits[name]
        _add_texts(digest, split.queries)
        digest.update(split.relation.indptr.astype("<i8").tobytes())
        digest.update(split.relation.indices.astype("<i8").tobytes())
    return digest.hexdigest()[:16]
