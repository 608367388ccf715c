"""Which of the library's distances the fused losses compute."""

from __future__ import annotations

from typing import Any

from pytorch_metric_learning.distances import CosineSimilarity, DotProductSimilarity


def check_distance(owner: object, distance: Any) -> bool:
    """Whether rows are normalised: True for cosine similarity, False for plain products.

    Raises:
        ValueError: any other distance.
    """
    known = isinstance(distance, CosineSimilarity | DotProductSimilarity)
    if not known or distance.power != 1 or distance.p != 2:
        raise ValueError(
            f"{type(owner).__name__}: expected distance CosineSimilarity() or "
            f"DotProductSimilarity(...) with p=2 and power=1, got {distance}"
        )
    return bool(distance.normalize_embeddings)
