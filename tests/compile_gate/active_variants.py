"""The variants of the kernels on active pairs that are compiled ahead of time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from alc_kernels.backends.triton.active import lists as active_lists
from alc_kernels.backends.triton.active.product import active_product_kernel
from alc_kernels.backends.triton.launch import product_tile
from alc_kernels.backends.triton.tile.bits import BLOCK
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant

TYPES = {"bits_ptr": "i32", "entries_ptr": "i32", "counts_ptr": "i32", "rows_ptr": "x",
         "masks_ptr": "i32", "out_ptr": "fp32"}  # fmt: skip
HALF = torch.bfloat16


def _product(
    capability: tuple[int, int],
    dtype: torch.dtype,
    d: int,
    *,
    of_queries: bool,
    dense: bool = False,
    partial: bool = False,
    precision: str = "tf32",
    fast: bool = False,
) -> Variant:
    tile = product_tile(capability, dtype, d, precision)
    constants = {
        "OF_QUERIES": of_queries,
        "DENSE": dense,
        "PARTIAL": partial,
        "EVEN": d % tile.cols == 0,
        "PRECISION": precision,
        "UPCAST": False,
        "NEGATE": not of_queries,
        "BLOCK": BLOCK,
        "BLOCK_D": tile.cols,
        "STEP": tile.depth,
    }
    name = f"{'queries' if of_queries else 'labels'} d={d}"
    name += " dense" * dense + " partial" * partial + " ieee" * (precision == "ieee")
    return make_variant(
        active_product_kernel, name, dtype, constants, tile.warps, types=TYPES, even=d % 16 == 0,
        num_stages=tile.stages, products=precision != "ieee", fast=fast,
    )  # fmt: skip


def active_variants(capability: tuple[int, int]) -> Iterator[Variant]:
    """Lists and products, for the tiles of one compute capability."""
    both = (True, False)
    for dtype, queries, dense in itertools.product(DTYPE_NAMES, both, both):
        yield _product(capability, dtype, 768, of_queries=queries, dense=dense, fast=dtype == HALF)
    for d, queries in itertools.product((64, 384), both):
        yield _product(capability, HALF, d, of_queries=queries)
    for of_queries in (True, False):
        yield _product(capability, torch.float32, 768, of_queries=of_queries, precision="ieee")
        yield _product(capability, HALF, 100, of_queries=of_queries, partial=True)
    lists = {"BLOCK": BLOCK, "STEP": active_lists.STEP_WORDS}
    yield make_variant(
        active_lists.list_labels_kernel, "", torch.float32, lists, active_lists.NUM_WARPS,
        types=TYPES, fast=True,
    )  # fmt: skip
    masks = {"BLOCK": BLOCK, "STEP": active_lists.STEP_MASKS}
    yield make_variant(
        active_lists.row_masks_kernel, "", torch.float32, masks, active_lists.NUM_WARPS,
        types=TYPES, fast=True,
    )  # fmt: skip
    for words in (0, BLOCK // 32):
        rows = {"WORDS": words, "STEP": active_lists.STEP_ROWS}
        yield make_variant(
            active_lists.list_rows_kernel, f"words={words}", torch.float32, rows,
            active_lists.NUM_WARPS, types=TYPES, fast=words > 0,
        )  # fmt: skip
