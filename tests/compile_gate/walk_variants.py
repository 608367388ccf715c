"""The variants of the walks that the compile gate compiles, and of what finds the k hardest.

As in ``variants``: each shipped tile in each dtype, each option by itself, and the combinations
that need most registers. Tiles depend on the target, names do not.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from typing import Any
from unittest import mock

import torch

from alc_kernels.backends.triton.pairs.values import positive_pass
from alc_kernels.backends.triton.walk import launch as walk_launch
from alc_kernels.backends.triton.walk.prefix_launch import prefix_walk
from alc_kernels.engine.interface import WalkRequest
from tests.compile_gate.variant import (
    CAPABILITIES,
    DTYPE_NAMES,
    GUARDS,
    HALF,
    ROWS,
    Variant,
    make,
    new,
    prefix_problem,
    problem,
)

D = (64, 128, 768)
WIDTHS = (64, 128, 256, 512, 768)
SMALL_WIDTHS = (32, 64)
ODD_WIDTHS = (50, 100)
ONE, OFFSETS = new(), new(ROWS)

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
    "offset": WalkRequest(softmax="all", label_offset=OFFSETS, **SOFTMAX),
    "everything": WalkRequest(
        top_k=10, **MARGINS, softmax="all", **SOFTMAX, label_offset=OFFSETS, sigmoid=True,
        scale=ONE, bias=ONE,
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
    bits: str = "",  # " bits" or " bits both" are kept
    groups: bool = False,  # so many labels that the k hardest take two passes
    subtile: int = 0,  # the CUDA kernels find them
) -> Iterator[Variant]:
    asked = replace(REQUESTS[request], keep_active=bool(bits))
    rows, labels = (8192, 65_536) if groups else (ROWS, ROWS)
    if asked.label_offset is not None:
        asked.label_offset = new(labels)
    given = problem(dtype, d, relations, guard, rows, labels)
    label = f"{request} {relations} d={d}{GUARDS[guard]}" + " ieee" * (precision == "ieee")
    label += bits + " groups" * groups + f" subtile={subtile}" * (subtile > 0)
    mining = walk_launch.mining
    with (
        mock.patch.object(mining, "width_for", lambda *_: subtile),
        mock.patch.object(mining, "select", lambda *_: None),
    ):
        yield from make(
            target, lambda: walk_launch.walk(given, asked), {"walk_kernel": label}, dtype,
            precision=precision, fast=fast,
        )  # fmt: skip


def _walks(target: str) -> Iterator[Variant]:
    epilogues = ("maximum", "softmax", "decoupled", "sigmoid", "list", "long")
    for request, d in itertools.product(epilogues, D):
        yield from _walk(target, request, d=d, fast=d == 768)
    for request in epilogues:
        yield from _walk(target, request, torch.float16)
        yield from _walk(target, request, torch.float32)
        yield from _walk(target, request, torch.float32, precision="ieee")
        for d in (*D, 100):
            yield from _walk(target, request, d=d, relations="ids-csr", guard=1)
    for relations in ("empty-empty", "index-index", "csr-csr", "ids-ids", "csr-empty"):
        yield from _walk(target, "maximum", relations=relations, fast=relations == "ids-ids")
    for request in ("counts", "positives", "negatives", "top 1", "offset", "everything"):
        yield from _walk(target, request)
    for dtype, d in [(HALF, 64), (HALF, 128), *((dtype, 768) for dtype in DTYPE_NAMES)]:
        fast = dtype == HALF and d == 768
        yield from _walk(target, "negatives", dtype, d=d, bits=" bits", fast=fast)
        yield from _walk(target, "list", dtype, d=d, bits=" bits", groups=True, fast=fast)
    yield from _walk(target, "negatives", torch.float32, bits=" bits", precision="ieee")
    yield from _walk(target, "positives", relations="csr-empty", bits=" bits")
    yield from _walk(target, "list", relations="ids-csr", guard=1, bits=" bits both", groups=True)
    for guard in (1, 2):
        yield from _walk(target, "counts", guard=guard)
        for dtype in (HALF, torch.float32):
            yield from _walk(target, "everything", dtype, relations="ids-csr", guard=guard)
    if target in CAPABILITIES:
        for d, subtile in ((128, 8), (768, 4)):
            yield from _walk(target, "list", d=d, subtile=subtile, fast=d == 768)
        yield from _walk(target, "long", subtile=2)
        yield from _walk(target, "list", torch.float32, precision="ieee", subtile=4)
        yield from _walk(target, "list", torch.float16, relations="ids-csr", subtile=4)


def _selections(target: str) -> Iterator[Variant]:
    """The second pass of the k largest."""
    for dtype, d, relations, guard, precision in (
        *((dtype, 768, "diagonal-empty", 0, "tf32") for dtype in DTYPE_NAMES),
        (HALF, 64, "diagonal-empty", 0, "tf32"),
        (HALF, 100, "ids-csr", 1, "tf32"),
        (HALF, 100, "ids-csr", 2, "tf32"),
        (torch.float32, 768, "diagonal-empty", 0, "ieee"),
    ):
        given = problem(dtype, d, relations, guard, 8192, 65_536)

        def walk(given: Any = given) -> None:
            walk_launch.walk(given, WalkRequest(top_k=10))

        name = f"{relations} d={d}{GUARDS[guard]}" + " ieee" * (precision == "ieee")
        yield from make(
            target, walk, {"scan_groups_kernel": name}, dtype, precision=precision,
            fast=dtype == HALF and d == 768,
        )  # fmt: skip
        if dtype == torch.float32 and precision == "tf32":
            names = {"select_groups_kernel": "", "merge_candidates_kernel": ""}
            names["list_rows_kernel"] = "words=0"
            yield from make(
                target, walk, names, dtype, fast=("select_groups_kernel", "merge_candidates_kernel")
            )


def _prefix_walk(
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
) -> Iterator[Variant]:
    given = prefix_problem(dtype, widths, relations, guard, scaled=scaled)
    name = f"{request} {relations} widths={'-'.join(map(str, widths))}{GUARDS[guard]}"
    name += " unscaled" * (not scaled) + " ieee" * (precision == "ieee")
    yield from make(
        target, lambda: prefix_walk(given, REQUESTS[request]), {"prefix_walk_kernel": name}, dtype,
        precision=precision, fast=fast,
    )  # fmt: skip


def _prefix_walks(target: str) -> Iterator[Variant]:
    for request in ("maximum", "softmax", "decoupled", "sigmoid", "list", "long"):
        yield from _prefix_walk(target, request, fast=request in ("list", "softmax"))
    for dtype in (torch.float32, torch.float16):
        yield from _prefix_walk(target, "list", dtype)
    yield from _prefix_walk(target, "list", torch.float32, precision="ieee")
    for widths in (SMALL_WIDTHS, ODD_WIDTHS):
        yield from _prefix_walk(target, "list", widths=widths)
    yield from _prefix_walk(target, "counts", scaled=False)
    for guard, dtype in itertools.product((1, 2), (HALF, torch.float32)):
        yield from _prefix_walk(target, "everything", dtype, relations="ids-csr", guard=guard)


def walk_variants(target: str) -> Iterator[Variant]:
    """Those of the walks, the merge of their splits and the positive pass, in a fixed order."""
    yield from _walks(target)
    yield from _selections(target)
    for name, request in REQUESTS.items():
        given = problem()
        yield from make(
            target, lambda r=request, p=given: walk_launch.walk(p, r), {"merge_kernel": name},
            torch.float32, fast=name == "list",
        )  # fmt: skip
    for kind, dtype in itertools.product(("diagonal", "index", "ranges", "csr"), DTYPE_NAMES):
        given = problem(dtype, relations=f"{kind}-empty")
        offset = OFFSETS if kind == "csr" else None
        yield from make(
            target, lambda p=given, o=offset: positive_pass(p, new(ROWS), ONE, o),
            {"positive_pass_kernel": kind}, dtype, fast=kind == "csr" and dtype == HALF,
        )  # fmt: skip
    yield from _prefix_walks(target)
