"""The passes in C++ on the CPU (``csrc/cpu``): similarities in tiles, never stored."""

from __future__ import annotations

import torch
from torch import Tensor

from alc_kernels.backends.native import batch_part, library
from alc_kernels.backends.native.packing import pack
from alc_kernels.backends.native.pairs import (
    normalize_both,
    normalize_rows,
    normalize_rows_backward,
    pair_gradient,
    pair_logits,
    pair_logits_backward,
    score_pairs,
)
from alc_kernels.backends.native.passes import (
    dense_gradient,
    positive_pass,
    prefix_gradient,
    prefix_walk,
    walk,
)

_PROBLEM = library.load()  # loads it where it can
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def unsupported(tensor: Tensor) -> str | None:
    """Why this backend cannot work on ``tensor`` (its device and dtype), or None when it can."""
    if _PROBLEM is not None:
        return _PROBLEM
    if tensor.device.type != "cpu":
        return f"the tensor is on {tensor.device}: the native extension works on the CPU"
    if tensor.dtype not in DTYPES:
        return f"the native extension takes floating point embeddings, not {tensor.dtype}"
    return None


__all__ = [
    "batch_part",
    "dense_gradient",
    "normalize_both",
    "normalize_rows",
    "normalize_rows_backward",
    "pack",
    "pair_gradient",
    "pair_logits",
    "pair_logits_backward",
    "positive_pass",
    "prefix_gradient",
    "prefix_walk",
    "score_pairs",
    "unsupported",
    "walk",
]
