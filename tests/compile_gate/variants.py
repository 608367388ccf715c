"""Every kernel in the variants that are compiled ahead of time by the compile gate.

The options of a kernel multiply to thousands of variants. Listed here are each shipped tile
configuration in each dtype, each option by itself, and the combinations that need most registers.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import torch

from alc_kernels.backends.triton import normalize
from alc_kernels.backends.triton.pairs import values as pairs
from tests.compile_gate.gradient_variants import gradient_variants
from tests.compile_gate.variant import DTYPE_NAMES, HALF, ROWS, Variant, make, new, problem
from tests.compile_gate.walk_variants import ONE, walk_variants

D = 768


def _normalize_variants(target: str) -> Iterator[Variant]:
    for dtype, unit in itertools.product(DTYPE_NAMES, (True, False)):
        x, inverse = new(ROWS, D, dtype=dtype), new(ROWS) if unit else None
        label, fast = "unit" if unit else "copy", unit and dtype == HALF

        def both(x=x, inverse=inverse, dtype=dtype, unit=unit) -> None:
            normalize.normalize_rows(x, dtype, unit)
            normalize.normalize_rows_backward(new(ROWS, D), x, inverse, ONE)

        names = {"normalize_rows_kernel": label, "normalize_rows_backward_kernel": label}
        yield from make(target, both, names, dtype, fast=fast)


def _pair_variants(target: str) -> Iterator[Variant]:
    index, coefficient = new(ROWS, 7, dtype=torch.int64), new(ROWS, 7)
    for dtype, features in itertools.product(DTYPE_NAMES, (True, False)):
        given, label = problem(dtype, D, "empty-empty"), "features" if features else "scores"
        weight, grads = new(4 * D) if features else None, (new(ROWS, D), new(ROWS, D))

        def run(given=given, weight=weight, grads=grads) -> None:
            pairs.pair_values(given, index, weight, None if weight is None else ONE)
            for repeatable in (False, True):
                pairs.add_pair_gradients(given, index, coefficient, weight, *grads, repeatable)
            if weight is not None:
                pairs.pair_logits_backward(given, index, weight, coefficient, None, None, True)

        kernels = ("pair_values", "pair_queries", "pair_labels", "label_runs", "label_owners")
        names = {f"{kernel}_kernel": label for kernel in kernels}
        if features:
            names["pair_weight_kernel"] = ""
        yield from make(target, run, names, dtype, fast=features and dtype == HALF)


def variants(target: str) -> list[Variant]:
    """All of them in a fixed order, for "sm_80", "sm_90", "sm_100" or another target's name."""
    return [
        *_normalize_variants(target),
        *_pair_variants(target),
        *walk_variants(target),
        *gradient_variants(target),
    ]
