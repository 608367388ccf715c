"""The variants of the gradients of several prefix widths that the compile gate compiles."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from alc_kernels.backends.triton.active import product as prefix_bits
from alc_kernels.backends.triton.active.kernel import prefix_bits_kernel
from alc_kernels.backends.triton.dense import prefix_launch as prefix_coefficients
from alc_kernels.backends.triton.dense.prefix_kernel import prefix_coefficients_kernel
from alc_kernels.backends.triton.walk.prefix_launch import depth_constexprs, prefix_tile
from alc_kernels.engine.interface import GradientRequest
from tests.compile_gate.prefix_variants import HALF, ODD_WIDTHS, SMALL_WIDTHS, WIDTHS
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant
from tests.compile_gate.variants import GUARDS
from tests.compile_gate.walk_variants import CAPABILITIES

EVERYTHING = ("guard", "offset", "margins")


def _coefficients(
    kind: str,
    dtype: torch.dtype = HALF,
    *,
    widths: tuple[int, ...] = WIDTHS,
    relations: str = "diagonal-empty",
    options: tuple[str, ...] = (),  # of guard or slack, offset, margins, unscaled
    precision: str = "tf32",
    fast: bool = False,
) -> Variant:
    positives, exclude = relations.split("-")
    margin = 0.5 if "margins" in options else None
    request = GradientRequest(
        None if kind == "none" else kind,  # type: ignore[arg-type]
        label_offset=torch.ones(()) if "offset" in options else None,
        positive_margin=margin,
        negative_margin=margin,
    )
    tile = prefix_coefficients.coefficients_tile(dtype, widths, precision)
    constants = {
        **prefix_coefficients.coefficients_constexprs(
            request,
            (positives, exclude),
            2 if "slack" in options else int("guard" in options),
            "unscaled" not in options,
            dtype,
        ),
        **depth_constexprs(tile, widths, dtype, precision),
        "UPCAST": False,
    }
    name = f"{kind} {relations} widths={'-'.join(map(str, widths))}"
    return make_variant(
        prefix_coefficients_kernel,
        " ".join((name, *options)) + " ieee" * (precision == "ieee"),
        dtype,
        constants,
        tile.warps,
        types={"out_ptr": "x", "widths_ptr": "i32"},
        even=widths[-1] % 16 == 0,
        num_stages=tile.stages,
        hopper_registers=prefix_coefficients.register_limit(constants, widths),
        products=precision != "ieee",
        fast=fast,
    )


def _bits(
    target: str,
    keep: tuple[bool, bool] = (False, True),
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
    tile = prefix_tile(CAPABILITIES.get(target, (0, 0)), dtype, widths, precision, 1)
    constants = {
        **prefix_bits.bits_constexprs(keep, (positives, exclude), guard, scaled),
        **depth_constexprs(tile, widths, dtype, precision),
        "UPCAST": False,
    }
    name = f"{relations} widths={'-'.join(map(str, widths))}" + " positives" * keep[0]
    name += " negatives" * keep[1] + GUARDS[guard] + " unscaled" * (not scaled)
    bits = {"widths_ptr": "i32", "positive_bits_ptr": "i32", "negative_bits_ptr": "i32"}
    return make_variant(
        prefix_bits_kernel,
        name + " ieee" * (precision == "ieee"),
        dtype,
        constants,
        tile.warps,
        types=bits,
        even=widths[-1] % 16 == 0,
        num_stages=tile.stages,
        products=precision != "ieee",
        fast=fast,
    )


def prefix_gradient_variants(target: str) -> Iterator[Variant]:
    """For one target, in a fixed order."""
    for kind in ("softmax", "decoupled", "sigmoid"):
        for dtype in DTYPE_NAMES:
            yield _coefficients(kind, dtype, fast=kind == "softmax" and dtype == HALF)
        yield _coefficients(kind, relations="csr-csr", options=EVERYTHING)
        yield _coefficients(kind, relations="ids-ids", options=EVERYTHING)
    yield _coefficients("softmax", torch.float32, precision="ieee")
    yield _coefficients("softmax", options=("margins",))
    yield _coefficients("softmax", options=("unscaled",))
    yield _coefficients("softmax", relations="csr-csr", options=("slack", "margins", "unscaled"))
    yield _coefficients("none", relations="csr-empty", options=("margins",))
    for relations in ("index-empty", "empty-index", "ids-csr"):
        yield _coefficients("softmax", relations=relations)
    for widths in (SMALL_WIDTHS, ODD_WIDTHS):
        yield _coefficients("softmax", widths=widths)
        yield _bits(target, widths=widths)
    for dtype in DTYPE_NAMES:
        yield _bits(target, dtype=dtype, fast=dtype == HALF)
        yield _bits(target, (True, True), dtype, relations="ids-csr", guard=1)
    yield _bits(target, (True, True), relations="ids-csr", guard=2)
    yield _bits(target, dtype=torch.float32, precision="ieee")
    yield _bits(target, (True, False), relations="csr-empty")
    yield _bits(target, relations="index-ids", scaled=False)
