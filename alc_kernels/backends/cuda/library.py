"""Finding and loading the compiled CUDA kernels, without ever failing an import.

The library has a C interface and knows nothing of PyTorch, so one build serves every PyTorch.
"""

from __future__ import annotations

import ctypes
import json
import os
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from alc_kernels.backends.cuda import library

PACKAGE = Path(__file__).resolve().parents[2]
OVERRIDE = "ALC_KERNELS_CUDA_LIBRARY"  # a library built in another way, for tests
RECORD = "_cuda.json"  # written by setup.py: the library's file name, nvcc, architectures
INTERFACE = 2  # alc_cuda_interface() of the library that this package calls
HOW_TO_BUILD = "pip install --no-build-isolation . in the source tree, with nvcc"

_POINTER, _SIZE = ctypes.c_void_p, ctypes.c_int64
# As in csrc/cuda/api.h; the stream comes last.
SIGNATURES = {
    "alc_select_subtiles": [_POINTER] * 3 + [_SIZE] * 6
    + ([_SIZE] + [_POINTER] * 2) * 2 + [_SIZE] + [_POINTER] * 3,
    "alc_compact_pairs": [_POINTER] * 2 + [_SIZE] * 3 + [_POINTER] * 5,
    "alc_segment_sum": [_POINTER] * 5 + [_SIZE] * 4 + [_POINTER] * 3,
}  # fmt: skip


def open_library(path: Path) -> ctypes.CDLL:
    """The library at ``path`` with its functions' types.

    Raises:
        OSError: it cannot be loaded, or was built from other sources than this package's.
    """
    library = ctypes.CDLL(str(path))
    try:
        interface = library.alc_cuda_interface()
        for name, arguments in SIGNATURES.items():
            function = getattr(library, name)
            function.argtypes, function.restype = arguments, ctypes.c_int
    except AttributeError as error:
        raise OSError(f"{path}: {error}") from None
    if interface != INTERFACE:
        raise OSError(f"{path} has interface {interface}, this package calls {INTERFACE}")
    library.alc_cuda_message.restype = ctypes.c_char_p
    return library


@cache
def _load(override: str | None) -> ctypes.CDLL | str:
    """The library, or why there is none."""
    path = Path(override) if override else None
    if path is None:
        record = PACKAGE / RECORD
        if not record.is_file():
            return f"the CUDA kernels were not built (to build them: {HOW_TO_BUILD})"
        try:
            path = PACKAGE / json.loads(record.read_text(encoding="utf-8"))["library"]
        except (OSError, ValueError, KeyError, TypeError):
            return f"{record} cannot be read (to build the CUDA kernels again: {HOW_TO_BUILD})"
    try:
        return open_library(path)
    except OSError as error:
        return f"the CUDA kernels cannot be loaded: {str(error).splitlines()[0]}"


def loaded() -> ctypes.CDLL | str:
    """The library, or why there is none."""
    return _load(os.environ.get(OVERRIDE))


@cache
def _not_ready(library: ctypes.CDLL, device: int) -> str | None:
    """Why the current device, number ``device``, cannot run the library's code, or None."""
    code = library.alc_cuda_ready()
    return None if code == 0 else message(library, code)


def message(library: ctypes.CDLL, code: int) -> str:
    """The library's sentence for a code that one of its functions returned."""
    return str(library.alc_cuda_message(code).decode())


def unavailable(tensor: Tensor) -> str | None:
    """Why the CUDA kernels cannot work on ``tensor``'s device, or None when they can."""
    import torch

    library = loaded()
    if isinstance(library, str):
        return library
    on_gpu = bool(library.alc_cuda_on_gpu())
    if on_gpu and not torch.cuda.is_available():
        return "there is no GPU that PyTorch can use"
    if on_gpu != tensor.is_cuda:
        where = "GPUs" if on_gpu else "the CPU"
        return f"the tensor is on {tensor.device}: this library works on {where}"
    if not on_gpu:
        return None
    with torch.cuda.device(tensor.device):
        reason = _not_ready(library, torch.cuda.current_device())
    return None if reason is None else f"{tensor.device} cannot run the CUDA kernels: {reason}"


# Whether the Triton backend uses the CUDA kernels for a part of its work.


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
