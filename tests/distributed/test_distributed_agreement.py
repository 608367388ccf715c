"""Several processes compute what one computes on the concatenated batch: value and gradients."""

from __future__ import annotations

import pytest
import torch

from alc_kernels import Auxiliary, Softmax, ThresholdMargin
from tests.distributed.cases import Setup, compare, compare_modules, compare_with_plain
from tests.distributed.data import KINDS
from tests.distributed.pool import shared_pool
from tests.losses.cases import CASES

MODES = ("gather", "ring")
EQUAL = [9, 9], [13, 13]
UNEVEN = [7, 0, 12], [9, 11, 3]
FOUR = [7, 0, 12, 3], [9, 11, 3, 4]

MODULES = {
    "default": {"auxiliary": Auxiliary(dropout=0.0, context_size=4)},
    "some rows": {
        "auxiliary": Auxiliary(dropout=0.0, context_size=3, context_rows=7),
        "threshold": None,
    },
    "whole batch": {
        "auxiliary": Auxiliary(dropout=0.0, context_size=None),
        "base": "decoupled_softmax",
    },
    "published tcm": {
        "auxiliary": None,
        "base": None,
        "threshold": ThresholdMargin(0.8, 0.1),
    },
    "learned scalars": {
        "auxiliary": Auxiliary(dropout=0.0, context_size=5),
        "base": "sigmoid",
        "threshold": None,
    },
    "pair part": {
        "auxiliary": Auxiliary(batch_weight=0.0),
        "base": None,
        "threshold": ThresholdMargin(0.8, 0.1, reduction="rows"),
    },
    "batch part": {
        "auxiliary": Auxiliary(pair_weight=0.0, batch_weight=0.7, dropout=0.0, context_size=7),
        "base": Softmax(symmetric=True),
        "threshold": ThresholdMargin(0.8, 0.1, negative_scope="hardest"),
    },
}


def run(function, setups: list[Setup]) -> None:
    count = len(setups[0].rows)
    bad = shared_pool().run(function, count, setups)[0]
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("mode", MODES)
def test_every_loss_on_two_equal_parts(mode: str) -> None:
    run(compare, [Setup(kind, *EQUAL, mode, case.name) for kind in KINDS for case in CASES])


def test_every_loss_on_uneven_parts() -> None:
    setups = [
        Setup(kind, *UNEVEN, MODES[(i + j) % 2], case.name)
        for i, kind in enumerate(KINDS)
        for j, case in enumerate(CASES)
    ]
    run(compare, setups)


@pytest.mark.parametrize("mode", MODES)
def test_modules(mode: str) -> None:
    run(
        compare_modules,
        [Setup(kind, *EQUAL, mode, options=more) for kind in KINDS for more in MODULES.values()],
    )


@pytest.mark.parametrize("mode", MODES)
def test_modules_on_four_uneven_parts(mode: str) -> None:
    kinds = ("diagonal", "pairs+exclude")
    run(
        compare_modules,
        [Setup(kind, *FOUR, mode, options=more) for kind in kinds for more in MODULES.values()],
    )


def test_a_gradient_for_every_row() -> None:
    names = ("triplet", "softmax-weighted", "decoupled", "sigmoid-renee", "dynamic")
    setups = [
        Setup(kind, *UNEVEN, mode, name, options={"reduction": "none"})
        for kind in ("diagonal", "pairs+exclude")
        for name in names
        for mode in MODES
    ]
    run(compare, setups)


def test_for_wrappers_that_average() -> None:
    averaged = {"averaged": True}
    run(compare_modules, [Setup("pairs", *EQUAL, options=m, **averaged) for m in MODULES.values()])
    names = ("triplet", "softmax-offset")
    run(compare, [Setup("ids", *EQUAL, case=name, **averaged) for name in names])


@pytest.mark.parametrize("rows", [[0, 0, 0], [0, 5, 0], [1, 0, 0]], ids=str)
@pytest.mark.parametrize("labels", [[0, 0, 0], [0, 0, 3], [4, 1, 0]], ids=str)
def test_almost_nothing(rows: list[int], labels: list[int]) -> None:
    kinds = [k for k in KINDS if sum(labels) or not k.startswith("index") or not sum(rows)]
    setups = [
        Setup(kind, rows, labels, mode, options=MODULES["default"])
        for kind in kinds
        for mode in MODES
    ]
    run(compare_modules, setups)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_every_loss_on_four_uneven_parts(mode: str) -> None:
    run(compare, [Setup(kind, *FOUR, mode, case.name) for kind in KINDS for case in CASES])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_low_precision_errs_no_more_than_plain_pytorch(dtype: torch.dtype) -> None:
    setups = [
        Setup(kind, *UNEVEN, mode, case.name, dtype)
        for kind in ("diagonal", "pairs+exclude")
        for case in CASES[::3]
        for mode in MODES
    ]
    run(compare_with_plain, setups)
