"""The passes as Triton kernels. Importing this touches no GPU and needs no Triton."""

from __future__ import annotations

import re

import torch
from torch import Tensor

MINIMUM_TRITON = (3, 6)
MINIMUM_CAPABILITY = (8, 0)


def _triton_problem() -> str | None:
    """Why Triton cannot be used here, or None."""
    try:
        import triton
    except ImportError as error:
        return f"Triton is not installed ({error})"
    version = tuple(int(part) for part in re.findall(r"\d+", triton.__version__)[:2])
    if version < MINIMUM_TRITON:
        needed = ".".join(map(str, MINIMUM_TRITON))
        return f"Triton {triton.__version__} is too old: {needed} or later is needed"
    return None


_PROBLEM = _triton_problem()

if _PROBLEM is None:
    from alc_kernels.backends.triton.choose import dense_gradient, prefix_gradient, walk
    from alc_kernels.backends.triton.launch import INTERPRETED
    from alc_kernels.backends.triton.normalize import (
        normalize_both,
        normalize_rows,
        normalize_rows_backward,
    )
    from alc_kernels.backends.triton.pairs.values import (
        pair_gradient,
        pair_logits,
        pair_logits_backward,
        positive_pass,
        score_pairs,
    )
    from alc_kernels.backends.triton.walk.prefix_launch import prefix_walk
else:
    INTERPRETED = False


def unsupported(tensor: Tensor) -> str | None:
    """Why this backend cannot work on ``tensor`` (its device and dtype), or None when it can."""
    if _PROBLEM is not None:
        return _PROBLEM
    if tensor.dtype not in (torch.float32, torch.float16, torch.bfloat16):
        return f"the Triton kernels take float32, float16 and bfloat16, not {tensor.dtype}"
    if INTERPRETED:
        return None
    if not tensor.is_cuda:
        return (
            f"the tensor is on {tensor.device}: the Triton kernels need a GPU "
            "(or TRITON_INTERPRET=1, set before the import)"
        )
    if torch.version.hip is None:
        capability = torch.cuda.get_device_capability(tensor.device)
        if capability < MINIMUM_CAPABILITY:
            have, need = (".".join(map(str, pair)) for pair in (capability, MINIMUM_CAPABILITY))
            return f"the GPU has compute capability {have}: {need} or later is needed"
    return None


__all__ = [
    "dense_gradient",
    "normalize_both",
    "normalize_rows",
    "normalize_rows_backward",
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
