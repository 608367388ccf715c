"""Kernels with all that decides their machine code, as this package's own launches have it.

Within ``recorded`` the host side runs as ever, but launches are noted instead of made. Its tensors
are on the device "meta": they have sizes and dtypes, and no memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from triton.compiler import make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from alc_kernels.engine.interface import PrefixProblem, Problem
from alc_kernels.positives import Positives

DTYPE_NAMES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16"}
HALF = torch.bfloat16
# Names of the kernels' guard (``negatives.Guard``).
GUARDS = ("", " guard", " slack")
# Target name -> compute capability as the launch sees it; AMD and all others: (0, 0).
CAPABILITIES = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
MULTIPROCESSORS = 132
ROWS = 1000  # queries, and labels
# Kernels with products, which must use the matrix units where float32 is not multiplied exactly.
PRODUCTS = (
    "active_product_kernel", "both_sides_kernel", "coefficients_kernel", "exponentials_kernel",
    "prefix_bits_kernel", "prefix_coefficients_kernel", "prefix_walk_kernel", "repair_kernel",
    "scan_groups_kernel", "walk_kernel",
)  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """One launch of a kernel."""

    kernel: Any
    positional: tuple[Any, ...]
    named: dict[str, Any]

    def specialised(self, target: Any) -> tuple[Any, Any, Any, dict[str, Any]]:
        """(signature, constants, attributes, options) as Triton's launcher finds them."""
        backend = make_backend(target)
        bind = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        named = {**self.named, "debug": False}
        bound, specialization, options = bind(*self.positional, **named)
        found, signature, constants, attributes = self.kernel._pack_args(
            backend, named, bound, specialization, options
        )
        # Of tensors of any size: AMD's backend also notes which are below 2 GiB.
        attributes = {
            path: [pair for pair in pairs if pair[0] == "tt.divisibility"]
            for path, pairs in attributes.items()
        }
        return signature, constants, attributes, found.__dict__


@dataclass(frozen=True)
class Variant:
    """A launch under the name that its budget has."""

    name: str
    launch: Launch
    products: bool  # has products that must use the matrix units
    fast: bool  # part of the quick subset


@contextmanager
def recorded(target: str, precision: str) -> Iterator[list[Launch]]:
    """Within: launches for ``target`` are noted instead of made."""
    noted: list[Launch] = []

    def note(self: Any, *positional: Any, grid: Any, warmup: bool, **named: Any) -> None:
        noted.append(Launch(self, positional, named))

    limits = CAPABILITIES.get(target, (0, 0)), MULTIPROCESSORS
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest" if precision == "ieee" else "high")
    with ExitStack() as patches:
        patches.enter_context(mock.patch.object(JITFunction, "run", note))
        for name, module in list(sys.modules.items()):
            if name.startswith("alc_kernels.backends.triton") and hasattr(module, "device_limits"):
                patch = mock.patch.object(module, "device_limits", lambda device: limits)
                patches.enter_context(patch)
        try:
            yield noted
        finally:
            torch.set_float32_matmul_precision(before)


def make(
    target: str,
    call: Callable[[], object],
    names: dict[str, str],
    dtype: torch.dtype,
    *,
    precision: str = "tf32",
    fast: bool | tuple[str, ...] = False,
) -> Iterator[Variant]:
    """The variants that ``call`` launches: ``names`` kernel -> what it is called beside its dtype.

    ``fast``: all of them are, or those kernels.
    """
    with recorded(target, precision) as noted:
        call()
    for name, label in names.items():
        kernel = name.split()[0]  # "kernel n": its n-th launch
        launches = [launch for launch in noted if launch.kernel.__name__ == kernel]
        launch = launches[int(name.split()[1]) if " " in name else 0]
        yield Variant(
            f"{kernel}[{DTYPE_NAMES[dtype]} {label}]".replace(" ]", "]"),
            launch,
            kernel in PRODUCTS and precision != "ieee",
            fast if isinstance(fast, bool) else kernel in fast,
        )


def new(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor of which only the size counts."""
    return torch.empty(shape, dtype=dtype, device="meta")


def relation(kind: str, rows: int, columns: int) -> Positives:
    """A relation of a kind; "ranges" is what a walk makes of ids."""
    whole = torch.int64

    def one_way(n: int) -> tuple[Tensor, ...]:
        many = new(5 * ROWS, dtype=whole)
        return new(n + 1, dtype=whole), many, many, new(n, dtype=whole)

    tensors: tuple[Tensor, ...] = ()
    if kind == "index":
        tensors = (new(rows, dtype=whole),)
    elif kind in ("ids", "ranges"):
        kind, tensors = "ids", (new(rows, dtype=whole), new(columns, dtype=whole))
    elif kind == "csr":
        tensors = (*one_way(rows), *one_way(columns))
    return Positives(kind, rows, columns, tensors)


def problem(
    dtype: torch.dtype = HALF,
    d: int = 768,
    relations: str = "diagonal-empty",
    guard: int = 0,
    rows: int = ROWS,
    labels: int = ROWS,
) -> Problem:
    """Embeddings, the relations "positives-exclude" and a guard (of GUARDS)."""
    positives, exclude = (relation(kind, rows, labels) for kind in relations.split("-"))
    return Problem(
        new(rows, d, dtype=dtype), new(labels, d, dtype=dtype), positives, exclude,
        new(rows) if guard else None, (new(rows), new(labels)) if guard == 2 else None,
    )  # fmt: skip


def prefix_problem(
    dtype: torch.dtype,
    widths: tuple[int, ...],
    relations: str = "diagonal-empty",
    guard: int = 0,
    *,
    scaled: bool = True,
) -> PrefixProblem:
    """The same at several widths."""
    plain, w = problem(dtype, widths[-1], relations), len(widths)
    scale = new(w, ROWS) if scaled else None
    return PrefixProblem(
        plain.queries, plain.labels, plain.positives, plain.exclude, widths, scale, scale,
        new(w, ROWS) if guard else None, (new(w, ROWS), new(w, ROWS)) if guard == 2 else None,
    )  # fmt: skip
