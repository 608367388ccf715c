"""The variants of the one-pass and both-sides kernels for the compile gate."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.one_pass import both_sides, positive_logits, row_factors
from alc_kernels.backends.triton.one_pass import launch as one_pass
from alc_kernels.backends.triton.one_pass.both_sides_kernel import both_sides_kernel
from alc_kernels.backends.triton.one_pass.kernel import (
    exponentials_kernel,
    repair_kernel,
    settle_references_kernel,
)
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant

HALF = torch.bfloat16
TYPES = {"out_ptr": "x", "count_ptr": "i64"}
SOFTMAX = ("softmax", "decoupled")


def _tiles(
    kind: str,
    dtype: torch.dtype = HALF,
    *,
    relations: str = "diagonal-empty",
    offset: bool = False,
    scalars: bool = False,
    d: int = 768,
    precision: str = "tf32",
    fast: bool = False,
) -> Iterator[Variant]:
    """The exponentials and, for a softmax, their repair."""
    tile = coefficients.tile_for(dtype, precision)
    positives, exclude = relations.split("-")
    constants = one_pass.exponentials_constexprs(
        kind, (positives, exclude), offset, scalars, tile, d, dtype
    )
    constants |= {"UPCAST": False, "PRECISION": precision}
    limit = one_pass.register_limit(constants, d)
    name = f"{kind} {relations}" + " offset" * offset + " scalars" * scalars
    name += f" d={d}" * (d != 768) + " ieee" * (precision == "ieee")
    for kernel in (exponentials_kernel, repair_kernel):
        repair = kernel is repair_kernel
        if repair and kind == "sigmoid":
            continue
        yield make_variant(
            kernel,
            name,
            dtype,
            constants,
            tile.warps,
            types=TYPES,
            even=d % 16 == 0,
            num_stages=tile.stages,
            hopper_registers=None if repair else limit,
            products=precision != "ieee",
            fast=fast and not repair,
        )


def _rows(kind: str, dtype: torch.dtype, positives: str, *, more: bool) -> Iterator[Variant]:
    """The small kernels around them; ``more``: offset and scalars."""
    block = {"ROWS": row_factors.ROWS, "TILES": row_factors.TILES}
    constants = {
        "KIND": kind,
        "POSITIVES": positives,
        "HAS_OFFSET": more and kind != "sigmoid",
        "SCALARS": more,
        "ONE": positives in one_pass.ONE_POSITIVE,
        "DEPTH": positive_logits.MAX_DEPTH,
        **block,
    }
    name = f"{kind} {positives}" + " offset scalars" * more
    yield make_variant(
        row_factors.row_factors_kernel, name, dtype, constants, row_factors.NUM_WARPS,
        types=TYPES, fast=more and dtype == HALF,
    )  # fmt: skip
    if dtype != torch.float32 or kind == "sigmoid":
        return
    if not more:
        yield make_variant(
            settle_references_kernel, kind, dtype, {"KIND": kind, **block}, row_factors.NUM_WARPS
        )


def _counts() -> Iterator[Variant]:
    for dtype, relations in itertools.product(DTYPE_NAMES, ("diagonal-empty", "csr-ranges")):
        positives, exclude = relations.split("-")
        constants = {
            "POSITIVES": positives,
            "EXCLUDE": exclude,
            "LOGITS": True,
            "HAS_OFFSET": positives == "csr",
            "ROWS": positive_logits.ROWS,
            "DEPTH": positive_logits.MAX_DEPTH,
        }
        yield make_variant(
            positive_logits.positive_logits_kernel, relations, dtype, constants,
            positive_logits.NUM_WARPS, types=TYPES, fast=dtype == HALF,
        )  # fmt: skip


def _both_sides(
    dtype: torch.dtype = HALF, relations: str = "diagonal-empty", *, more: bool = False
) -> Variant:
    tile = coefficients.tile_for(dtype, "tf32")
    positives, exclude = relations.split("-")
    constants = both_sides.both_sides_constexprs((positives, exclude), more, tile, 768, dtype)
    constants |= {"UPCAST": False, "PRECISION": "tf32"}
    return make_variant(
        both_sides_kernel,
        relations + " offset" * more,
        dtype,
        constants,
        tile.warps,
        num_stages=tile.stages,
        hopper_registers=both_sides.register_limit(constants, 768),
        products=True,
        fast=dtype == HALF,
    )


def one_pass_variants() -> list[Variant]:
    """Each kind in each dtype it serves, each option, and all at once."""
    made: list[Variant] = []
    for kind in (*SOFTMAX, "sigmoid"):
        made += _tiles(kind, fast=True)
        made += _tiles(kind, torch.float32)
        made += _tiles(kind, torch.float32, precision="ieee")
        made += _tiles(kind, scalars=True)
        made += _tiles(kind, relations="csr-ranges", offset=kind != "sigmoid", scalars=True)
        for dtype in DTYPE_NAMES:
            if dtype != torch.float16 or kind == "sigmoid":
                made += _rows(kind, dtype, "csr", more=dtype == HALF)
        made += _rows(kind, torch.float32, "index", more=True)
    made += _tiles("sigmoid", torch.float16)
    made += _tiles("decoupled", offset=True)
    made += _tiles("softmax", relations="ranges-csr", d=100)
    made += _tiles("softmax", relations="index-diagonal", d=128)
    made += [_both_sides(dtype) for dtype in DTYPE_NAMES]
    made.append(_both_sides(relations="csr-ranges", more=True))
    return [*made, *_counts()]
