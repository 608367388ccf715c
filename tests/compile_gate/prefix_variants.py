"""The variants of the walk over several prefix widths that the compile gate compiles."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alc_kernels.backends.triton.walk.prefix_kernel import prefix_walk_kernel
from alc_kernels.backends.triton.walk.prefix_launch import prefix_constexprs, prefix_tile
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant
from tests.compile_gate.variants import GUARDS
from tests.compile_gate.walk_variants import CAPABILITIES, REQUESTS, TYPES

HALF = torch.bfloat16
WIDTHS = (64, 128, 256, 512, 768)
SMALL_WIDTHS = (32, 64)
ODD_WIDTHS = (50, 100)


def _variant(
    target: str,
    request: str,
    dtype: torch.dtype = HALF,
    *,
    widths: tuple[int, ...] = WIDTHS,
    relations: str = "diagonal-empty",
    guard: int = 0,
    scaled: bool = True,
    precision: str = "tf32",
    fast: bool = False,
) -> Variant:
    positives, exclude = relations.split("-")
    capability = CAPABILITIES.get(target, (0, 0))
    asked = REQUESTS[request]
    tile = prefix_tile(capability, dtype, widths, precision, asked.top_k)
    constants = prefix_constexprs(
        asked, positives, exclude, guard, scaled, tile, widths, dtype, precision
    )
    constants["UPCAST"] = False
    name = f"{request} {relations} widths={'-'.join(map(str, widths))}{GUARDS[guard]}"
    name += " unscaled" * (not scaled) + " ieee" * (precision == "ieee")
    return make_variant(
        prefix_walk_kernel,
        name,
        dtype,
        constants,
        tile.warps,
        types={**TYPES, "widths_ptr": "i32"},
        even=widths[-1] % 16 == 0,
        num_stages=tile.stages,
        products=precision != "ieee",
        fast=fast,
    )


def prefix_variants(target: str) -> Iterator[Variant]:
    """For one target, in a fixed order."""
    for request in ("maximum", "softmax", "decoupled", "sigmoid", "list", "long"):
        yield _variant(target, request, fast=request in ("list", "softmax"))
    for dtype in DTYPE_NAMES:
        if dtype != HALF:
            yield _variant(target, "list", dtype)
    yield _variant(target, "list", torch.float32, precision="ieee")
    for widths in (SMALL_WIDTHS, ODD_WIDTHS):
        yield _variant(target, "list", widths=widths)
    yield _variant(target, "counts", scaled=False)
    for guard in (1, 2):
        yield _variant(target, "everything", relations="ids-csr", guard=guard)
        yield _variant(target, "everything", torch.float32, relations="ids-csr", guard=guard)
