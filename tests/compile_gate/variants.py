"""Every kernel in the variants that are compiled ahead of time by the compile gate.

The options of a kernel multiply to thousands of variants. Listed here are each shipped tile
configuration in each dtype, each option by itself, and the combinations that need most registers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from alc_kernels.backends.triton import normalize
from alc_kernels.backends.triton.dense import launch as coefficients
from alc_kernels.backends.triton.dense.kernel import coefficients_kernel
from alc_kernels.backends.triton.pairs import sums as pair_sums
from alc_kernels.backends.triton.pairs import values as pairs
from alc_kernels.backends.triton.pairs.logits import pair_weight_kernel
from tests.compile_gate.variant import DTYPE_NAMES, Variant, make_variant

# Integers that a launch specialises on when 16 divides them; sizes of the batch never are.
# Names of the kernels' GUARD (``tile_negatives.guard_limits``).
GUARDS = ("", " guard", " slack")


def _normalize_variants() -> Iterator[Variant]:
    block = {"BLOCK_ROWS": normalize.BLOCK_ROWS, "BLOCK_D": normalize.BLOCK_D}
    for dtype, unit in itertools.product(DTYPE_NAMES, (True, False)):
        constants = {"NORMALIZE": unit, "stride_d": 1, **block}
        name = "unit" if unit else "copy"
        fast = unit and dtype == torch.bfloat16
        for kernel, types in (
            (normalize.normalize_rows_kernel, {}),
            (normalize.normalize_rows_backward_kernel, {"out_ptr": "x"}),
        ):
            yield make_variant(
                kernel, name, dtype, constants, normalize.NUM_WARPS, types=types, fast=fast
            )


def _pair_variants() -> Iterator[Variant]:
    for dtype, features in itertools.product(DTYPE_NAMES, (True, False)):
        name = "features" if features else "scores"
        fast = features and dtype == torch.bfloat16
        tile = {"BLOCK_PAIRS": pairs.BLOCK_PAIRS, "BLOCK_D": pairs.BLOCK_D, "FEATURES": features}
        yield make_variant(pairs.pair_values_kernel, name, dtype, tile, pairs.NUM_WARPS, fast=fast)
        tile = {
            "BLOCK_ROWS": pair_sums.BLOCK_ROWS,
            "BLOCK_D": pair_sums.BLOCK_D,
            "FEATURES": features,
        }
        for kernel in (pair_sums.pair_queries_kernel, pair_sums.pair_labels_kernel):
            yield make_variant(kernel, name, dtype, tile, pair_sums.NUM_WARPS, fast=fast)
        tile = {**tile, "RUN": pair_sums.RUN}
        for kernel in (pair_sums.label_runs_kernel, pair_sums.label_owners_kernel):
            yield make_variant(kernel, name, dtype, tile, pair_sums.NUM_WARPS, fast=fast)
    for dtype in DTYPE_NAMES:
        tile = {"BLOCK_PAIRS": pairs.BLOCK_PAIRS, "BLOCK_D": pairs.BLOCK_D}
        fast = dtype == torch.bfloat16
        yield make_variant(pair_weight_kernel, "", dtype, tile, pairs.NUM_WARPS, fast=fast)


def _coefficients(
    dtype: torch.dtype,
    kind: str,
    *,
    positives: str = "diagonal",
    exclude: str = "empty",
    # of guard or slack, offset, margins, scalars, ragged, odd, columns
    options: tuple[str, ...] = (),
    precision: str = "tf32",
    fast: bool = False,
) -> Variant:
    tile = coefficients.tile_for(dtype, precision)
    even = "odd" not in options  # 16 divides d; ragged: the block along d does not
    constants = {
        "KIND": kind,
        "COLUMNS": kind if "columns" in options else "none",
        "POSITIVES": positives,
        "EXCLUDE": exclude,
        "GUARD": 2 if "slack" in options else int("guard" in options),
        "LABEL_OFFSET": "offset" in options,
        "POSITIVE_MARGIN": "margins" in options,
        "NEGATIVE_MARGIN": "margins" in options,
        "SCALARS": "scalars" in options,
        "OUT_SCALE": dtype == torch.float16,
        "PRECISION": precision,
        "EVEN": even and "ragged" not in options,
        "UPCAST": False,
        "BLOCK_ROWS": tile.rows,
        "BLOCK_COLS": tile.cols,
        "BLOCK_D": tile.depth,
    }
    name = " ".join((f"{kind} {positives}-{exclude}", *options))
    if precision == "ieee":
        name += " ieee"
    return make_variant(
        coefficients_kernel,
        name,
        dtype,
        constants,
        tile.warps,
        types={"out_ptr": "x"},
        even=even,
        num_stages=tile.stages,
        hopper_registers=coefficients.register_limit(
            kind,
            (positives, exclude),
            margins="margins" in options,
            scalars="scalars" in options,
            d=16 if even else 1,
        ),
        products=precision != "ieee",
        fast=fast,
    )


def _coefficient_variants() -> Iterator[Variant]:
    half = torch.bfloat16
    kinds = ("softmax", "decoupled", "sigmoid")
    everything = ("guard", "offset", "margins", "scalars")
    for kind in kinds:
        for dtype in DTYPE_NAMES:
            yield _coefficients(dtype, kind, fast=dtype == half)
        yield _coefficients(torch.float32, kind, precision="ieee")
        yield _coefficients(half, kind, positives="csr", exclude="csr", options=everything)
        yield _coefficients(half, kind, positives="ids", exclude="csr", options=everything)
    slack = ("slack", "offset", "margins", "scalars")
    yield _coefficients(half, "softmax", positives="csr", exclude="csr", options=slack)
    yield _coefficients(half, "none", options=("slack", "margins"), fast=True)
    for kind, dtype in itertools.product(("softmax", "decoupled"), DTYPE_NAMES):
        yield _coefficients(dtype, kind, options=("columns",), fast=dtype == half)
    options = ("offset", "scalars", "columns")
    yield _coefficients(half, "softmax", positives="csr", exclude="csr", options=options)
    for dtype in DTYPE_NAMES:
        yield _coefficients(dtype, "none", options=("margins",))
    for positives in ("empty", "index", "ids", "csr"):
        yield _coefficients(half, "softmax", positives=positives, fast=positives == "csr")
    for exclude in ("diagonal", "index", "ids", "csr"):
        yield _coefficients(half, "softmax", exclude=exclude)
    for option in (*everything, "ragged", "odd"):
        yield _coefficients(half, "softmax", options=(option,), fast=option == "scalars")
    for dtype in DTYPE_NAMES:
        yield _coefficients(dtype, "sigmoid", positives="ids", exclude="ids", options=everything)


def variants(target: str) -> list[Variant]:
    """All of them in a fixed order, for "sm_80", "sm_90", "sm_100" or another target's name."""
    # Those modules build their lists with this one's make_variant.
    from tests.compile_gate.active_variants import active_variants
    from tests.compile_gate.one_pass_variants import one_pass_variants
    from tests.compile_gate.prefix_gradient_variants import prefix_gradient_variants
    from tests.compile_gate.prefix_variants import prefix_variants
    from tests.compile_gate.walk_variants import CAPABILITIES, walk_variants

    return [
        *_normalize_variants(),
        *_pair_variants(),
        *_coefficient_variants(),
        *walk_variants(target),
        *prefix_variants(target),
        *prefix_gradient_variants(target),
        *one_pass_variants(),
        *active_variants(CAPABILITIES.get(target, (0, 0))),
    ]
