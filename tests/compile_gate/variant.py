"""TODO."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}


# Pointers to something else than float32, whichever kernel has them; "x" is the compute dtype.
POINTER_TYPES = {
    "queries_ptr": "x",
    "labels_ptr": "x",
    "x_ptr": "x",
    "rows_ptr": "x",
    "finite_ptr": "u8",
    "index_ptr": "i64",
    "order_ptr": "i64",
    "offsets_ptr": "i64",
    "sorted_ptr": "i32",
    "num_positives_ptr": "i64",
    "positive_row_ptr": "i64",
    "positive_col_ptr": "i64",
    "exclude_row_ptr": "i64",
    "exclude_col_ptr": "i64",
}


SPECIALIZED = ("d", "out_stride", "stride_row")


FLOATS = ("positive_margin", "negative_margin")


@dataclass(frozen=True)
class Variant:
    """One kernel with all that decides its machine code."""

    name: str  # unique; the key of its budget
    kernel: Any
    signature: dict[str, str]  # argument -> Triton type or "constexpr", in order
    constants: dict[str, Any]
    divisible: tuple[str, ...]  # arguments that 16 divides
    num_warps: int
    num_stages: int = 3
    hopper_registers: int | None = None  # limit of registers for compute capability 9.x
    products: bool = False  # has products that must use the matrix units
    fast: bool = False  # part of the quick subset


def make_variant(
    kernel: Any,
    name: str,
    dtype: torch.dtype,
    constants: dict[str, Any],
    num_warps: int,
    *,
    types: dict[str, str] | None = None,
    even: bool = True,
    **options: Any,
) -> Variant:
    """A variant of ``kernel``; ``types`` overrides POINTER_TYPES, ``even``: 16 divides d."""
    signature: dict[str, str] = {}
    divisible: list[str] = []
    for argument in kernel.arg_names:
        if argument in constants:
            signature[argument] = "constexpr"
        elif argument.endswith("_ptr"):
            kind = {**POINTER_TYPES, **(types or {})}.get(argument, "fp32")
            signature[argument] = "*" + (DTYPE_NAMES[dtype] if kind == "x" else kind)
            divisible.append(argument)
        elif argument in FLOATS:
            signature[argument] = "fp32"
        else:
            signature[argument] = "i32"
            if argument == "out_stride" or (argument in SPECIALIZED and even):
                divisible.append(argument)
    full_name = f"{kernel.__name__}[{DTYPE_NAMES[dtype]} {name}]".replace(" ]", "]")
    return Variant(full_name, kernel, signature, constants, tuple(divisible), num_warps, **options)
