"""Whether the Triton backend uses the CUDA kernels for a part of its work."""

from __future__ import annotations

import os

import torch
from torch import Tensor

from alc_kernels.backends.cuda import library

SWITCH = "ALC_KERNELS_CUDA"
PARTS = ("mining", "pair_gradient")
# Compute capability -> the parts that were measured to be faster in CUDA C++ than in Triton, with
# the result of record beside each. Empty: nothing has been measured on a GPU yet. The stage
# "cuda" of benchmarks/on_gpu.sh measures both ways.
MEASURED_FASTER: dict[tuple[int, int], frozenset[str]] = {}


def switch() -> str:
    """ "1" (wherever they can run), "0" (never) or "auto" (where measured faster).

    Raises:
        ValueError: the environment variable holds something else.
    """
    value = os.environ.get(SWITCH, "auto")
    if value not in ("0", "1", "auto"):
        raise ValueError(f"{SWITCH}={value!r}: expected 0, 1 or auto")
    return value


def enabled(part: str, tensor: Tensor) -> bool:
    """Whether ``part`` (one of PARTS) on ``tensor``'s device goes through the CUDA kernels.

    Raises:
        RuntimeError: they were asked for (``ALC_KERNELS_CUDA=1``) and cannot run.
    """
    chosen = switch()
    if chosen == "0":
        return False
    if chosen == "auto":
        if not tensor.is_cuda or not MEASURED_FASTER:
            return False
        capability = torch.cuda.get_device_capability(tensor.device)
        faster = part in MEASURED_FASTER.get(capability, ())
        return faster and library.unavailable(tensor) is None
    reason = library.unavailable(tensor)
    if reason is not None:
        raise RuntimeError(f"{SWITCH}=1, but {reason}")
    return True
