"""Labels packed once for the screening of many walks."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from alc_kernels.backends.native import screening
from alc_kernels.backends.native.library import call
from alc_kernels.backends.native.request import ProblemArguments
from alc_kernels.engine.interface import Problem
from alc_kernels.positives import Positives

ALIGNED = 64  # bytes, of a cache line


def pack(labels: Tensor) -> Tensor | None:
    """For ``Problem.packed``: what a walk would make of ``labels`` (M, d) each time.

    Bytes for this process alone, about M d of them (2 M d with AVX2). None where walks do not
    screen, or where a row cannot be bounded.
    """
    if screening.asked() is None:
        return None
    none = Positives._empty(0, len(labels))
    own = ProblemArguments(Problem(labels[:0], labels, none, none, None), relations=False)
    size, bounded = ctypes.c_int64(), ctypes.c_int64()
    call("alc_packed_bytes", own, ctypes.byref(size))
    if not size.value:
        return None
    memory = torch.empty(size.value + ALIGNED, dtype=torch.uint8, device="cpu")
    start = -memory.data_ptr() % ALIGNED
    memory = memory[start : start + size.value]
    call("alc_pack_labels", own, ctypes.c_void_p(memory.data_ptr()), ctypes.byref(bounded))
    return memory if bounded.value else None
