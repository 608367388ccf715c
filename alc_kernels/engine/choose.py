"""Which backend runs a call."""

from __future__ import annotations

import importlib
from functools import cache
from typing import cast

import torch
from torch import Tensor

from alc_kernels.engine.interface import Backend

BACKENDS = ("auto", "triton", "native", "torch")


class BackendUnavailableError(RuntimeError):
    """The backend that was asked for cannot run these inputs here; the message says why."""


@cache
def _module(name: str) -> Backend:
    return cast(Backend, importlib.import_module(f"alc_kernels.backends.{name}"))


def unavailable(name: str, example: Tensor, compute_dtype: torch.dtype) -> str | None:
    """Why backend ``name`` cannot run inputs like ``example``, or None when it can."""
    if name == "triton" and compute_dtype == torch.float64:
        return "float64 is not supported by its kernels"
    if name in ("triton", "native"):
        reason: str | None = _module(name).unsupported(example)  # type: ignore[attr-defined]
        return reason
    return None


def check_backend(name: str) -> None:
    """``name`` is a known backend; whether it can run is decided where it runs."""
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r}: expected one of {', '.join(map(repr, BACKENDS))}")


def choose_backend(name: str, example: Tensor, compute_dtype: torch.dtype) -> Backend:
    """The module for ``name``.

    "auto" takes triton on GPUs and native on CPUs, where they can run, else torch.

    Raises:
        ValueError: an unknown name.
        BackendUnavailableError: an explicit choice that cannot run.
    """
    if name == "auto":
        fast = "triton" if example.is_cuda else "native"
        return _module(fast if unavailable(fast, example, compute_dtype) is None else "torch")
    check_backend(name)
    reason = unavailable(name, example, compute_dtype)
    if reason is not None:
        raise BackendUnavailableError(f"backend={name!r} cannot run here: {reason}")
    return _module(name)
