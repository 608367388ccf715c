"""The variants of the kernels of the gradients that the compile gate compiles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace

import torch

from alc_kernels.backends.triton.active.product import active_prefix_gradient, add_active
from alc_kernels.backends.triton.dense.launch import dense_gradient, dense_prefix_gradient
from alc_kernels.backends.triton.one_pass import both_sides
from alc_kernels.backends.triton.one_pass import launch as one_pass
from alc_kernels.backends.triton.tile.bits import ActiveBits, new_bits
from alc_kernels.engine.interface import GradientRequest, PrefixSides, WalkGradient, WalkRequest
from tests.compile_gate.variant import (
    DTYPE_NAMES,
    HALF,
    ROWS,
    Variant,
    make,
    new,
    prefix_problem,
    problem,
)
from tests.compile_gate.walk_variants import ODD_WIDTHS, OFFSETS, ONE, SMALL_WIDTHS, WIDTHS

MARGINS = ("positive_margin", "negative_margin")
KINDS = ("softmax", "decoupled", "sigmoid")


def _request(kind: str, options: tuple[str, ...]) -> GradientRequest:
    """``options``: of offset, margins, scalars, columns."""
    margins = "margins" in options
    numbers = (new(ROWS), new(ROWS, dtype=torch.int64), new(ROWS), new(ROWS), ONE)
    return GradientRequest(
        None if kind == "none" else kind,  # type: ignore[arg-type]
        *numbers,
        label_offset=OFFSETS if "offset" in options else None,
        scale=ONE,
        bias=ONE,
        positive_margin=0.9 if margins else None,
        positive_margin_scale=ONE if margins else None,
        negative_margin=0.5 if margins else None,
        negative_margin_scale=ONE if margins else None,
        want_scalars="scalars" in options,
        columns=GradientRequest(kind, *numbers) if "columns" in options else None,  # type: ignore[arg-type]
    )


def _guard(options: tuple[str, ...]) -> int:
    return 2 if "slack" in options else int("guard" in options)


def _coefficients(
    target: str,
    dtype: torch.dtype,
    kind: str,
    *,
    relations: str = "diagonal-empty",
    options: tuple[str, ...] = (),  # and of guard, slack, ragged, odd
    precision: str = "tf32",
    fast: bool = False,
) -> Iterator[Variant]:
    # odd: 16 does not divide d; ragged: the block along d does not.
    d = 100 if "odd" in options else 784 if "ragged" in options else 768
    given = problem(dtype, d, relations, _guard(options))
    name = " ".join((f"{kind} {relations}", *options)) + " ieee" * (precision == "ieee")
    grads = new(ROWS, d), new(ROWS, d)
    yield from make(
        target, lambda: dense_gradient(given, _request(kind, options), *grads),
        {"coefficients_kernel": name}, dtype, precision=precision, fast=fast,
    )  # fmt: skip


def _coefficient_variants(target: str) -> Iterator[Variant]:
    everything = ("guard", "offset", "margins", "scalars")
    for kind in KINDS:
        for dtype in DTYPE_NAMES:
            yield from _coefficients(target, dtype, kind, fast=dtype == HALF)
        yield from _coefficients(target, torch.float32, kind, precision="ieee")
        for relations in ("csr-csr", "ids-csr"):
            yield from _coefficients(target, HALF, kind, relations=relations, options=everything)
    slack = ("slack", *everything[1:])
    yield from _coefficients(target, HALF, "softmax", relations="csr-csr", options=slack)
    yield from _coefficients(target, HALF, "none", options=("slack", "margins"), fast=True)
    for kind, dtype in itertools.product(("softmax", "decoupled"), DTYPE_NAMES):
        yield from _coefficients(target, dtype, kind, options=("columns",), fast=dtype == HALF)
    options = ("offset", "scalars", "columns")
    yield from _coefficients(target, HALF, "softmax", relations="csr-csr", options=options)
    for dtype in DTYPE_NAMES:
        yield from _coefficients(target, dtype, "none", options=("margins",))
    for relations in ("empty-empty", "index-empty", "ids-empty", "csr-empty", "diagonal-diagonal",
                      "diagonal-index", "diagonal-ids", "diagonal-csr"):  # fmt: skip
        fast = relations == "csr-empty"
        yield from _coefficients(target, HALF, "softmax", relations=relations, fast=fast)
    for option in (*everything, "ragged", "odd"):
        fast = option == "scalars"
        yield from _coefficients(target, HALF, "softmax", options=(option,), fast=fast)
    for dtype in DTYPE_NAMES:
        yield from _coefficients(target, dtype, "sigmoid", relations="ids-ids", options=everything)


def _prefixes(
    target: str,
    kind: str,  # "bits": the margins alone, by their bits
    dtype: torch.dtype = HALF,
    *,
    widths: tuple[int, ...] = WIDTHS,
    relations: str = "diagonal-empty",
    options: tuple[str, ...] = (),  # and of guard, slack, unscaled; bits: positives, negatives
    precision: str = "tf32",
    fast: bool = False,
) -> Iterator[Variant]:
    scaled = "unscaled" not in options
    given = prefix_problem(dtype, widths, relations, _guard(options), scaled=scaled)
    bits = kind == "bits"
    request = _request("none" if bits else kind, ("margins",) if bits else options)
    if bits:
        sides = ("positives", "negatives")
        margins = (0.9 if side in options else None for side in sides)
        request = replace(request, **dict(zip(MARGINS, margins, strict=True)))
    sides = [
        PrefixSides(given.queries[:, :w], given.labels[:, :w], new(ROWS, w), new(ROWS, w))
        for w in widths
    ]
    run = active_prefix_gradient if bits else dense_prefix_gradient
    name = f"{kind} {relations} widths={'-'.join(map(str, widths))}".removeprefix("bits ")
    name = " ".join((name, *options)) + " ieee" * (precision == "ieee")
    kernel = "prefix_bits_kernel" if bits else "prefix_coefficients_kernel"
    yield from make(
        target, lambda: run(given, [request] * len(widths), sides), {kernel: name}, dtype,
        precision=precision, fast=fast,
    )  # fmt: skip


def _prefix_variants(target: str) -> Iterator[Variant]:
    everything, kept = ("guard", "offset", "margins"), ("positives", "negatives")
    for kind in KINDS:
        for dtype in DTYPE_NAMES:
            fast = kind == "softmax" and dtype == HALF
            yield from _prefixes(target, kind, dtype, fast=fast)
        for relations in ("csr-csr", "ids-ids"):
            yield from _prefixes(target, kind, relations=relations, options=everything)
    yield from _prefixes(target, "softmax", torch.float32, precision="ieee")
    yield from _prefixes(target, "softmax", options=("margins",))
    yield from _prefixes(target, "softmax", options=("unscaled",))
    options = ("slack", "margins", "unscaled")
    yield from _prefixes(target, "softmax", relations="csr-csr", options=options)
    yield from _prefixes(target, "none", relations="csr-empty", options=("margins",))
    for relations in ("index-empty", "empty-index", "ids-csr"):
        yield from _prefixes(target, "softmax", relations=relations)
    for widths in (SMALL_WIDTHS, ODD_WIDTHS):
        yield from _prefixes(target, "softmax", widths=widths)
        yield from _prefixes(target, "bits", widths=widths, options=("negatives",))
    for dtype in DTYPE_NAMES:
        yield from _prefixes(target, "bits", dtype, options=("negatives",), fast=dtype == HALF)
        options = (*kept, "guard")
        yield from _prefixes(target, "bits", dtype, relations="ids-csr", options=options)
    yield from _prefixes(target, "bits", relations="ids-csr", options=(*kept, "slack"))
    yield from _prefixes(target, "bits", torch.float32, options=("negatives",), precision="ieee")
    yield from _prefixes(target, "bits", relations="csr-empty", options=("positives",))
    options = ("negatives", "unscaled")
    yield from _prefixes(target, "bits", relations="index-ids", options=options)


def _one_pass(
    target: str,
    kind: str,
    dtype: torch.dtype = HALF,
    *,
    relations: str = "diagonal-empty",
    offset: bool = False,
    scalars: bool = False,
    d: int = 768,
    precision: str = "tf32",
    kernels: dict[str, str] | None = None,
    fast: tuple[str, ...] = (),
) -> Iterator[Variant]:
    """The exponentials and, for a softmax, their repair; or ``kernels`` of the same walk."""
    given = problem(dtype, d, relations)
    softmax = {"softmax": "all", "decoupled": "negatives"}.get(kind)
    gradient = WalkGradient(lambda *_: new(ROWS), new(ROWS, d), new(ROWS, d), scalars)
    request = WalkRequest(
        softmax=softmax,  # type: ignore[arg-type]
        inverse_temperature=ONE,
        label_offset=OFFSETS if offset else None,
        sigmoid=softmax is None,
        scale=ONE,
        bias=ONE,
        gradient=gradient,
    )
    name = f"{kind} {relations}" + " offset" * offset + " scalars" * scalars
    name += f" d={d}" * (d != 768) + " ieee" * (precision == "ieee")
    names = {"exponentials_kernel": name}
    if softmax is not None:
        names["repair_kernel"] = name
    yield from make(
        target, lambda: one_pass.walk(given, request), kernels or names, dtype,
        precision=precision, fast=fast,
    )  # fmt: skip


def _one_pass_variants(target: str) -> Iterator[Variant]:
    """Each kind in each dtype it serves, each option, and all at once."""
    for kind in KINDS:
        softmax = kind != "sigmoid"
        yield from _one_pass(target, kind, fast=("exponentials_kernel",))
        yield from _one_pass(target, kind, torch.float32)
        yield from _one_pass(target, kind, torch.float32, precision="ieee")
        yield from _one_pass(target, kind, scalars=True)
        yield from _one_pass(target, kind, relations="csr-ranges", offset=softmax, scalars=True)
        for dtype in DTYPE_NAMES:
            if dtype == torch.float16 and softmax:
                continue
            more = dtype == HALF
            names = {"row_factors_kernel": f"{kind} csr" + " offset scalars" * more}
            if dtype == torch.float32 and softmax:
                names["settle_references_kernel"] = kind
            yield from _one_pass(
                target, kind, dtype, relations="csr-empty", offset=more and softmax, scalars=more,
                kernels=names, fast=("row_factors_kernel",) if more else (),
            )  # fmt: skip
        yield from _one_pass(
            target, kind, torch.float32, relations="index-empty", offset=softmax, scalars=True,
            kernels={"row_factors_kernel": f"{kind} index offset scalars"},
        )  # fmt: skip
    yield from _one_pass(target, "sigmoid", torch.float16)
    yield from _one_pass(target, "decoupled", offset=True)
    yield from _one_pass(target, "softmax", relations="ranges-csr", d=100)
    yield from _one_pass(target, "softmax", relations="index-diagonal", d=128)
    for dtype in DTYPE_NAMES:
        yield from _both_sides(target, dtype)
    yield from _both_sides(target, HALF, "csr-ranges")
    for dtype, relations in itertools.product(DTYPE_NAMES, ("diagonal-empty", "csr-ranges")):
        offset = OFFSETS if relations == "csr-ranges" else None
        given = problem(dtype, relations=relations)
        yield from make(
            target, lambda p=given, o=offset: one_pass.positive_logits(p, ONE, o),
            {"positive_logits_kernel": relations}, dtype, fast=dtype == HALF,
        )  # fmt: skip


def _both_sides(
    target: str, dtype: torch.dtype, relations: str = "diagonal-empty"
) -> Iterator[Variant]:
    offset = relations == "csr-ranges"
    given = problem(dtype, relations=relations)
    request = WalkRequest(
        softmax="all", inverse_temperature=ONE, label_offset=OFFSETS if offset else None,
        columns="all",
    )  # fmt: skip
    yield from make(
        target, lambda: both_sides.walk(given, request),
        {"both_sides_kernel": relations + " offset" * offset}, dtype, fast=dtype == HALF,
    )  # fmt: skip


def _active(
    target: str,
    dtype: torch.dtype,
    d: int,
    names: dict[str, str],
    *,
    rows: int = ROWS,
    labels: int = ROWS,
    precision: str = "tf32",
    fast: bool | tuple[str, ...] = False,
) -> Iterator[Variant]:
    """Of the negatives: launches 0 and 1 are the queries', listed and dense; 2 and 3 labels'."""
    given = problem(dtype, d, "empty-empty", rows=rows, labels=labels)
    active = ActiveBits(0, rows, None, new_bits(labels, 0, rows, given.queries))
    grads = new(rows, d), new(labels, d)
    yield from make(
        target, lambda: add_active(given, active, None, ONE, *grads), names, dtype,
        precision=precision, fast=fast,
    )  # fmt: skip


def _active_variants(target: str) -> Iterator[Variant]:
    kernel = "active_product_kernel"
    for dtype in DTYPE_NAMES:
        names = {
            f"{kernel} 0": "queries d=768", f"{kernel} 1": "queries d=768 dense",
            f"{kernel} 2": "labels d=768", f"{kernel} 3": "labels d=768 dense",
        }  # fmt: skip
        yield from _active(target, dtype, 768, names, fast=dtype == HALF)
    for d in (64, 384):
        names = {f"{kernel} 0": f"queries d={d}", f"{kernel} 2": f"labels d={d}"}
        yield from _active(target, HALF, d, names)
    names = {f"{kernel} 0": "queries d=768 ieee", f"{kernel} 2": "labels d=768 ieee"}
    yield from _active(target, torch.float32, 768, names, precision="ieee")
    names = {f"{kernel} 0": "queries d=100 partial"}
    yield from _active(target, HALF, 100, names, labels=65_536)
    names = {f"{kernel} 2": "labels d=100 partial"}
    yield from _active(target, HALF, 100, names, rows=65_536)
    names = {"list_labels_kernel": "", "row_masks_kernel": "", "list_rows_kernel": "words=4"}
    yield from _active(target, torch.float32, 768, names, fast=True)


def gradient_variants(target: str) -> Iterator[Variant]:
    """All of them in a fixed order."""
    yield from _coefficient_variants(target)
    yield from _prefix_variants(target)
    yield from _one_pass_variants(target)
    yield from _active_variants(target)
