"""What every launcher needs: the device of its tensors, and where kernels run."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import triton
from torch import Tensor

from alc_kernels.backends.interface import Problem
from alc_kernels.backends.prefix_interface import PrefixProblem
from alc_kernels.backends.triton_backend.config import Tile

# Kernels were compiled for the interpreter if this was set when they were defined.
INTERPRETED: bool = triton.knobs.runtime.interpret


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device, which need not be the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def given_or(tensor: Tensor | None, dummy: Tensor) -> Tensor:
    """The tensor, or a pointer for an argument that the kernel does not read."""
    return dummy if tensor is None else tensor.contiguous()


def guard_kind(problem: Problem | PrefixProblem) -> int:
    """The kernels' GUARD: see ``tile_negatives.guard_limits``."""
    if problem.guard is None:
        return 0
    return 1 if problem.slack is None else 2


def slack_or(problem: Problem | PrefixProblem, dummy: Tensor) -> tuple[Tensor, Tensor]:
    """Of rows and columns, or two pointers for arguments that the kernel does not read."""
    rows, columns = problem.slack or (dummy, dummy)
    return rows.contiguous(), columns.contiguous()


def dot_precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied (half precision inputs are multiplied exactly)."""
    if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"


def product_constexprs(tile: Tile, d: int, dtype: torch.dtype, precision: str) -> dict[str, Any]:
    """What ``tile_product`` takes, in any kernel. d: the width, or a divisor of all of several."""
    return {
        "ROWS": tile.rows,
        "COLS": tile.cols,
        "DEPTH": tile.depth,
        "EVEN": d % tile.depth == 0,
        "PRECISION": precision,
        "UPCAST": INTERPRETED and dtype == torch.bfloat16,
    }
