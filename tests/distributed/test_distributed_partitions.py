"""Any way to cut a batch gives the same numbers."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alc_kernels import Auxiliary, Softmax, ThresholdMargin
from tests.distributed.cases import Setup, compare, compare_modules
from tests.distributed.data import KINDS
from tests.distributed.pool import shared_pool
from tests.losses.cases import CASES

QUICK = settings(
    max_examples=6, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)
THOROUGH = settings(QUICK, max_examples=30)

MODULE = {
    "auxiliary": Auxiliary(dropout=0.0, context_size=3, context_heads=2),
    "base": Softmax(decoupled=True, symmetric=True),
    "threshold": ThresholdMargin(0.8, 0.1),
}


@st.composite
def setups(draw: st.DrawFn) -> list[Setup]:
    """Some comparisons over the same number of processes."""
    count = draw(st.integers(2, 4))
    parts = st.lists(st.integers(0, 9), min_size=count, max_size=count)
    made = []
    for _ in range(3):
        kind, rows, labels = draw(st.sampled_from(KINDS)), draw(parts), draw(parts)
        if kind.startswith("index") and sum(rows) and not sum(labels):
            labels[0] = 1  # an index needs a label to point at
        made.append(
            Setup(
                kind,
                rows,
                labels,
                draw(st.sampled_from(["gather", "ring"])),
                draw(st.sampled_from(CASES)).name,
                seed=draw(st.integers(0, 999)),
                options=MODULE,
            )
        )
    return made


def check(made: list[Setup]) -> None:
    pool, count = shared_pool(), len(made[0].rows)
    functions = [Setup(**{**vars(setup), "options": {}}) for setup in made]
    bad = pool.run(compare, count, functions)[0] + pool.run(compare_modules, count, made)[0]
    assert not bad, "\n".join(bad)


@QUICK
@given(setups())
def test_partitions(made: list[Setup]) -> None:
    check(made)


@pytest.mark.slow
@THOROUGH
@given(setups())
def test_many_partitions(made: list[Setup]) -> None:
    check(made)
