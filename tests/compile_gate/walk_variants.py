"""The variants of the walk's kernels that are compiled ahead of time by the compile gate.

As in ``variants``: each shipped tile in each dtype, each option by itself, and the combinations
that need most registers. Tiles depend on the target, names do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from alc_kernels.backends.triton.launch import walk_tile
from alc_kernels.backends.triton.pairs import positive_pass as positive_pairs
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.backends.triton.walk import selection
from alc_kernels.backends.triton.walk.kernel import walk_kernel
from alc_kernels.backends.triton.walk.merge import merge_kernel
from alc_kernels.engine.interface import WalkRequest
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant
from tests.compile_gate.variants import GUARDS

# Target name -> compute capability as the launch sees it; AMD and all others: (0, 0).
CAPABILITIES = {"sm_80": (8, 0), "sm_90": (9, 0), "sm_100": (10, 0)}
TYPES = {"int_ptr": "i32", "top_index_ptr": "i32", "out_int_ptr": "i64", "label_ptr": "i64",
         "row_ptr": "i64", "col_ptr": "i64", "positive_bits_ptr": "i32",
         "negative_bits_ptr": "i32", "bits_ptr": "i32", "entries_ptr": "i32",
         "counts_ptr": "i32", "chosen_ptr": "i32", "out_label_ptr": "i64"}  # fmt: skip
WIDTHS = (64, 128, 768)
HALF = torch.bfloat16
ONE = torch.ones(())

MARGINS: dict[str, Any] = {"hardest_positive": True, "positive_margin": 0.9, "negative_margin": 0.5}
SOFTMAX: dict[str, Any] = {"inverse_temperature": ONE}
REQUESTS = {
    "maximum": WalkRequest(top_k=1, **MARGINS),
    "softmax": WalkRequest(top_k=1, **MARGINS, softmax="all", **SOFTMAX),
    "decoupled": WalkRequest(top_k=1, **MARGINS, softmax="negatives", **SOFTMAX),
    "sigmoid": WalkRequest(top_k=1, **MARGINS, sigmoid=True, scale=ONE, bias=ONE),
    "list": WalkRequest(top_k=10, **MARGINS),
    "long": WalkRequest(top_k=128, **MARGINS),
    "counts": WalkRequest(),
    "positives": WalkRequest(hardest_positive=True, positive_margin=0.9),
    "negatives": WalkRequest(negative_margin=0.5),
    "top 1": WalkRequest(top_k=1),
    "offset": WalkRequest(softmax="all", label_offset=ONE, **SOFTMAX),
    "everything": WalkRequest(
        top_k=10, **MARGINS, softmax="all", **SOFTMAX, label_offset=ONE, sigmoid=True, scale=ONE,
        bias=ONE,
    ),
}  # fmt: skip


def _walk(
    target: str,
    request: str,
    dtype: torch.dtype = HALF,
    *,
    d: int = 768,
    relations: str = "diagonal-empty",
    guard: int = 0,
    precision: str = "tf32",
    fast: bool = False,
    keep: tuple[bool, bool] = (False, False),
    two_passes: bool = False,
    subtile: int = 0,
) -> Variant:
    positives, exclude = relations.split("-")
    capability = CAPABILITIES.get(target, (0, 0))
    afterwards = two_passes or subtile > 0
    epilogue = walk_launch.walk_epilogue(REQUESTS[request], two_passes=afterwards)
    tile = walk_tile(capability, dtype, d, precision, epilogue)
    constants = walk_launch.walk_constexprs(
        REQUESTS[request], positives, exclude, guard, tile, d, dtype, precision,
        keep=keep, two_passes=two_passes, subtile=subtile,
    )  # fmt: skip
    constants["UPCAST"] = False
    name = f"{request} {relations} d={d}{GUARDS[guard]}" + " ieee" * (precision == "ieee")
    name += " bits" * any(keep) + " both" * all(keep) + " groups" * two_passes
    name += f" subtile={subtile}" * (subtile > 0)
    return make_variant(
        walk_kernel,
        name,
        dtype,
        constants,
        tile.warps,
        types=TYPES,
        even=d % 16 == 0,
        num_stages=tile.stages,
        products=precision != "ieee",
        fast=fast,
    )


def _walks(target: str) -> Iterator[Variant]:
    epilogues = ("maximum", "softmax", "decoupled", "sigmoid", "list", "long")
    for request, d in itertools.product(epilogues, WIDTHS):
        yield _walk(target, request, d=d, fast=d == 768)
    for request in epilogues:
        yield _walk(target, request, torch.float16)
        yield _walk(target, request, torch.float32)
        yield _walk(target, request, torch.float32, precision="ieee")
        for d in (*WIDTHS, 100):
            yield _walk(target, request, d=d, relations="ids-csr", guard=1)
    for relations in ("empty-empty", "index-index", "csr-csr", "ids-ids", "csr-empty"):
        yield _walk(target, "maximum", relations=relations, fast=relations == "ids-ids")
    for request in ("counts", "positives", "negatives", "top 1", "offset", "everything"):
        yield _walk(target, request)
    for dtype, d in [(HALF, 64), (HALF, 128), *((dtype, 768) for dtype in DTYPE_NAMES)]:
        fast = dtype == HALF and d == 768
        yield _walk(target, "negatives", dtype, d=d, keep=(False, True), fast=fast)
        yield _walk(target, "list", dtype, d=d, keep=(False, True), two_passes=True, fast=fast)
    yield _walk(target, "negatives", torch.float32, keep=(False, True), precision="ieee")
    for request, relations, keep in (
        ("positives", "csr-empty", (True, False)),
        ("list", "ids-csr", (True, True)),
    ):
        two_passes = request == "list"
        yield _walk(
            target,
            request,
            relations=relations,
            keep=keep,
            two_passes=two_passes,
            guard=int(two_passes),
        )
    for guard in (1, 2):
        yield _walk(target, "counts", guard=guard)
        yield _walk(target, "everything", relations="ids-csr", guard=guard)
        yield _walk(target, "everything", torch.float32, relations="ids-csr", guard=guard)


def _selections(target: str) -> Iterator[Variant]:
    """The second pass of the k largest."""
    capability = CAPABILITIES.get(target, (0, 0))
    select = {"TOP": 10, "ROWS": selection.SELECT_ROWS, "GROUPS": selection.SELECT_GROUPS}
    merge = {"TOP": 10, "SIZE": 128, "ROWS": selection.MERGE_ROWS}
    for kernel, constants in (
        (selection.select_groups_kernel, select),
        (selection.merge_candidates_kernel, merge),
    ):
        yield make_variant(
            kernel, "", torch.float32, constants, selection.NUM_WARPS, types=TYPES, fast=True
        )
    for dtype, d, relations, guard, precision in (
        *((dtype, 768, "diagonal-empty", 0, "tf32") for dtype in DTYPE_NAMES),
        (HALF, 64, "diagonal-empty", 0, "tf32"),
        (HALF, 100, "ids-csr", 1, "tf32"),
        (HALF, 100, "ids-csr", 2, "tf32"),
        (torch.float32, 768, "diagonal-empty", 0, "ieee"),
    ):
        tile = walk_tile(capability, dtype, d, precision, "maximum")
        tile = replace(tile, cols=min(tile.cols, selection.GROUP))
        kinds = relations.replace("ids", "ranges").split("-")
        constants = selection.scan_constexprs(
            (kinds[0], kinds[1]), guard, 10, tile, d, dtype, precision
        )
        name = f"{relations} d={d}{GUARDS[guard]}" + " ieee" * (precision == "ieee")
        yield make_variant(
            selection.scan_groups_kernel, name, dtype, {**constants, "UPCAST": False}, tile.warps,
            types=TYPES, even=d % 16 == 0, num_stages=tile.stages, products=precision != "ieee",
            fast=dtype == HALF and d == 768,
        )  # fmt: skip


def _subtile_walks(target: str) -> Iterator[Variant]:
    """Those whose k hardest the CUDA kernels find."""
    if target not in CAPABILITIES:
        return
    for d, subtile in ((128, 8), (768, 4)):
        yield _walk(target, "list", d=d, subtile=subtile, fast=d == 768)
    yield _walk(target, "long", d=768, subtile=2)
    yield _walk(target, "list", torch.float32, precision="ieee", subtile=4)
    yield _walk(target, "list", torch.float16, relations="ids-csr", subtile=4)


def _merges(target: str) -> Iterator[Variant]:
    for name, request in REQUESTS.items():
        tile = walk_tile((9, 0), HALF, 768, "tf32", "maximum")
        walk = walk_launch.walk_constexprs(request, "diagonal", "empty", 0, tile, 768, HALF, "tf32")
        constants = walk_launch.merge_constexprs(walk)
        yield make_variant(
            merge_kernel, name, torch.float32, constants, walk_launch.MERGE_WARPS, types=TYPES,
            fast=name == "list",
        )  # fmt: skip


def _positive_passes() -> Iterator[Variant]:
    for kind, dtype in itertools.product(("diagonal", "index", "ranges", "csr"), DTYPE_NAMES):
        constants = {
            "KIND": kind,
            "HAS_OFFSET": kind == "csr",
            "ROWS": positive_pairs.ROWS,
            "DEPTH": positive_pairs.MAX_DEPTH,
        }
        yield make_variant(
            positive_pairs.positive_pass_kernel, kind, dtype, constants, positive_pairs.NUM_WARPS,
            types=TYPES, fast=kind == "csr" and dtype == HALF,
        )  # fmt: skip


def walk_variants(target: str) -> list[Variant]:
    """Those of the walk, the merge of its splits and the positive pass, for one target."""
    return [
        *_walks(target),
        *_subtile_walks(target),
        *_selections(target),
        *_merges(target),
        *_positive_passes(),
    ]
