"""How a structure of ``csrc/cpu`` is filled from tensors.

Every field takes 8 bytes, and starts as 0: absent, not asked for.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

DTYPES = {torch.float64: 0, torch.float32: 1, torch.float16: 2, torch.bfloat16: 3}
CPU = torch.device("cpu")
_LIKE = torch.empty(0, device=CPU)  # whose ``new_empty`` asks for no default device
INT64, INT32 = torch.int64, torch.int32
ITEM = 8  # bytes of an int64
# An empty tensor points nowhere, which would read as an absent one.
_EMPTY = ctypes.c_int64()
_NOWHERE = ctypes.addressof(_EMPTY)

_Fields = list[tuple[str, Any]]


def of(kind: Any, names: str) -> _Fields:
    return [(name, kind) for name in names.split()]


POINTER, SIZE, REAL = ctypes.c_void_p, ctypes.c_int64, ctypes.c_double


class Arguments(ctypes.Structure):
    """A structure, and the tensors that its fields point to."""

    def __init__(self) -> None:
        self.held: list[object] = []

    def put(self, name: str, x: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
        """Point the field ``name`` at the numbers of ``x``, copied where they are not contiguous.

        Raises:
            TypeError, ValueError: another dtype, another shape.
        """
        if x is None:
            return
        check(name, x, dtype, shape)
        self.put_rows(name, x)

    def put_rows(self, name: str, x: Tensor) -> None:
        """The same whatever its dtype and shape."""
        if not x.is_cpu:
            raise ValueError(f"{name}: expected a CPU tensor, got one on {x.device}")
        x = x.contiguous()
        self.held.append(x)
        setattr(self, name, x.data_ptr() or _NOWHERE)

    def put_number(self, name: str, x: Tensor | None, dtype: torch.dtype) -> None:
        """The same for one number of any dtype."""
        if x is not None:
            if x.numel() != 1:
                raise ValueError(f"{name}: expected one number, got shape {tuple(x.shape)}")
            self.put_rows(name, x.to(CPU, dtype))

    def put_target(
        self, name: str, x: Tensor | None, dtype: torch.dtype, shape: tuple[int, ...]
    ) -> None:
        """The same for a tensor that is written to."""
        if x is not None:
            check(name, x, dtype, shape)
            if not x.is_contiguous():
                raise ValueError(f"{name}: expected a contiguous tensor, got strides {x.stride()}")
            self.put_rows(name, x)

    def put_list(self, name: str, kind: Any, values: Sequence[float]) -> ctypes.Array[Any]:
        """The same for a list of ``kind``."""
        made: ctypes.Array[Any] = (kind * len(values))(*values)
        self.held.append(made)
        setattr(self, name, ctypes.addressof(made))
        return made

    def make(self, name: str, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
        """A tensor for the results that the field ``name`` asks for."""
        made = _LIKE.new_empty(*shape, dtype=dtype)
        self.held.append(made)
        setattr(self, name, made.data_ptr() or _NOWHERE)
        return made

    def make_all(
        self, names: list[str], dtype: torch.dtype, shape: tuple[int, ...]
    ) -> dict[str, Tensor]:
        """The same for several of one shape: parts of one tensor, which takes less time."""
        made = dict(
            zip(names, _LIKE.new_empty(len(names), *shape, dtype=dtype).unbind(), strict=True)
        )
        for name, part in made.items():
            setattr(self, name, part.data_ptr() or _NOWHERE)
        return made


def check(name: str, x: Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if x.dtype is not dtype:
        raise TypeError(f"{name}: expected {dtype}, got {x.dtype}")
    if x.shape != shape:
        raise ValueError(f"{name}: expected {shape}, got {tuple(x.shape)}")
