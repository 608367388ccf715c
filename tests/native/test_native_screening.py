"""Screening by 8-bit products finds what full precision finds."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from alc_kernels import functional
from alc_kernels.backends import native
from alc_kernels.backends.native import screening
from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.positives import Positives
from tests.backends.relations import KINDS, random_relation
from tests.native.common import needs_native, threads
from tests.native.test_native_fuzz import problem_of

pytestmark = needs_native
ROOT = Path(__file__).resolve().parents[2]
fuzz = settings(max_examples=40, deadline=None, derandomize=True)
SCORED = ("top_score", "positive_score", "positive_margin_sum", "negative_margin_sum")


def walk(problem: Problem, request: WalkRequest, mode: str) -> RowStatistics:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(screening.SWITCH, mode)
        return native.walk(problem, request)


def both(problem: Problem, request: WalkRequest) -> tuple[RowStatistics, RowStatistics]:
    """With screening, whether it saves time or not, and without."""
    screening.take_counts()
    found = walk(problem, request, "on"), walk(problem, request, "off")
    if problem.queries.dtype != torch.float64 and problem.queries.shape[1]:
        assert screening.take_counts().screened == len(problem.queries)
    return found


def agree(found: RowStatistics, expected: RowStatistics, exact: bool = True) -> None:
    """``exact``: every score is, in whatever order it is summed."""
    for field in dataclasses.fields(RowStatistics):
        a, b = getattr(found, field.name), getattr(expected, field.name)
        if not isinstance(a, torch.Tensor):
            continue
        if exact or not a.is_floating_point():
            assert torch.equal(a, b), field.name
        else:
            torch.testing.assert_close(a, b, msg=field.name)
    if expected.active is None:
        assert found.active is None
    else:
        assert torch.equal(found.active.crow, expected.active.crow)
        count = found.active.positives + found.active.negatives
        assert torch.equal(found.active.col[:count], expected.active.col[:count])


def plain(queries: torch.Tensor, labels: torch.Tensor, **more) -> Problem:
    empty = Positives._empty(len(queries), len(labels))
    return Problem(queries, labels, *[more.pop(x, empty) for x in ("positives", "exclude")],
                   more.pop("guard", None), **more)  # fmt: skip


@given(st.data())
@fuzz
def test_any_problem(data):
    """Exact scores, of which many are equal: ties, relations and guards included."""
    problem = problem_of(data)
    margins = st.none() | st.sampled_from([-0.5, 0.0, 0.25, 0.5])
    request = WalkRequest(
        top_k=data.draw(st.integers(0, 6)), hardest_positive=data.draw(st.booleans()),
        positive_margin=data.draw(margins), negative_margin=data.draw(margins),
        keep_active=data.draw(st.booleans()),
    )  # fmt: skip
    if request.top_k == 0 and request.negative_margin is None:
        request.top_k = 1
    with threads(data.draw(st.sampled_from([1, 3]))):
        agree(*both(problem, request))


def labels_of(kind: str, count: int, width: int, g: torch.Generator) -> torch.Tensor:
    """Rows that are hard to tell apart, or hard to round."""
    x = torch.randn(count, width, generator=g)
    if kind == "twins":  # of a few, and of them in the last tenth
        x = x[torch.randint(0, max(1, count // 3), (count,), generator=g)]
    elif kind == "near":
        x = x[:1] + 1e-3 * x
    elif kind == "zeros":
        x[torch.rand(count, generator=g) < 0.3] = 0
    elif kind == "spikes":  # one coordinate far above the others
        x[:, 0] *= 1e3
    elif kind == "scales":
        x *= torch.logspace(-9, 9, count)[torch.randperm(count, generator=g), None]
    return x


@pytest.mark.parametrize("kind", ["plain", "twins", "near", "zeros", "spikes", "scales"])
@pytest.mark.parametrize("width", [1, 2, 3, 7, 64, 129, 1000, 4096])
def test_any_rows(kind, width):
    """Against float64: what is found is among the k best up to float32's rounding."""
    g = torch.Generator().manual_seed(width)
    q, y = torch.randn(21, width, generator=g), labels_of(kind, 331, width, g)
    if kind != "scales":
        q, y = normalize(q), normalize(y)
    for relation in (random_relation(k, 21, 331, g, density=0.05) for k in KINDS):
        if relation.kind == "diagonal":
            continue
        problem = plain(q, y, positives=relation)
        found, expected = both(problem, WalkRequest(top_k=5, hardest_positive=True))
        agree(
            dataclasses.replace(found, top_index=None),
            dataclasses.replace(expected, top_index=None), exact=False,
        )  # fmt: skip
        exact, at = q.double() @ y.double().T, found.top_index
        scores = exact.gather(1, at.clamp(min=0))
        error = (width + 32) * 2.0**-23 * q.norm(dim=1)[:, None] * y.norm(dim=1)[at.clamp(min=0)]
        assert ((found.top_score - scores).abs() <= error)[at >= 0].all()
        # Equal scores by the smaller label; the rows of twins are equal to the bit.
        same = (found.top_score[:, 1:] == found.top_score[:, :-1]) & (at[:, 1:] >= 0)
        assert (at[:, 1:] > at[:, :-1])[same].all()


def embeddings(rows: int, columns: int, width: int = 48) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(rows + columns)
    y = torch.randn(columns, width, generator=g)
    q = torch.randn(rows, width, generator=g) + y[:rows]
    return normalize(q), normalize(y)


@pytest.mark.parametrize("exclude_above", [None, 0.0, 0.1])
def test_twins_of_the_positive(exclude_above):
    """Copies of a query's label stand first without a guard, and are excluded with one."""
    q, y = embeddings(200, 700)
    y[400:600] = y[:200]
    found = []
    for mode in ("on", "off"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv(screening.SWITCH, mode)
            found.append(
                functional.hardest_negatives(
                    q, y, torch.arange(200), k=4, exclude_above=exclude_above, backend="native"
                )
            )
    assert torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0][0], found[1][0])
    twins = torch.arange(400, 600)[:, None]
    assert bool((found[0][1] == twins).any(dim=1).all()) == (exclude_above is None)


def test_a_guard_below_most():
    """What is certainly above the guard is counted without being scored."""
    q, y = embeddings(64, 640)
    for limit in (-2.0, -0.1, 0.0, 0.3, torch.inf):
        problem = plain(q, y, guard=torch.full((64,), limit))
        agree(*both(problem, WalkRequest(top_k=3)), exact=False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_the_same_bits(dtype):
    """Where the order of the product's sums is known, scores are equal to the last bit."""
    for width in (48, 130, 384, 1000):
        q, y = (x.to(dtype) for x in embeddings(128, 1024, width))
        problem = plain(q, y, positives=Positives.from_index(torch.arange(128), 1024))
        request = WalkRequest(top_k=10, hardest_positive=True)
        screening.take_counts()
        found, expected = walk(problem, request, "on"), walk(problem, request, "off")
        agree(found, expected, exact=screening.take_counts().same_rounding)


@pytest.mark.parametrize("case", ["equal", "near", "last tenth", "margin below"])
def test_too_many_candidates(case):
    """Blocks of rows take full precision from where screening stops to pay; the result stays."""
    q, y = embeddings(96, 1920)
    request = WalkRequest(top_k=10)
    if case == "equal":
        y = y[:1].expand_as(y).contiguous()
    elif case == "near":
        y = normalize(y[:1] + 1e-4 * y)
    elif case == "last tenth":
        q = normalize(y[:1] + 0.01 * q)
        y[-192:] = normalize(y[:1] + 1e-4 * y[-192:])
    else:
        request = WalkRequest(negative_margin=-2.0, keep_active=True)
    screening.take_counts()
    found, expected = walk(plain(q, y), request, "on"), walk(plain(q, y), request, "off")
    counts = screening.take_counts()
    assert counts.given_up == counts.screened == 96
    agree(found, expected, exact=False)


def test_few_are_scored():
    """Of 2,048 labels a few dozen per row, and nothing is given up."""
    q, y = embeddings(256, 2048, 128)
    screening.take_counts()
    walk(plain(q, y), WalkRequest(top_k=10), "auto")
    counts = screening.take_counts()
    if counts.screened == 0:
        pytest.skip("plain C++ saves no time: not screened")
    assert (counts.screened, counts.given_up) == (256, 0)
    assert 10 * 256 <= counts.scored <= 60 * 256


@pytest.mark.parametrize("bound", [0.0, 0.02])
def test_a_wrong_bound_is_found_out(bound, monkeypatch):
    """With less than the bound some of the k hardest are missed: these tests would see that."""
    q, y = embeddings(256, 2048, 128)
    expected = walk(plain(q, y), WalkRequest(top_k=10), "off")
    agree(walk(plain(q, y), WalkRequest(top_k=10), "on"), expected, exact=False)
    monkeypatch.setattr(screening, "BOUND_SCALE", bound)
    with pytest.raises(AssertionError):
        agree(walk(plain(q, y), WalkRequest(top_k=10), "on"), expected, exact=False)


@pytest.mark.parametrize("bad", [torch.inf, torch.nan, 1e30, 1e-30])
@pytest.mark.parametrize("side", [0, 1])
def test_numbers_without_a_bound(bad, side):
    """Rows that cannot be bounded are not screened; the others are."""
    q, y = embeddings(128, 640)
    (q, y)[side][70] = bad
    screening.take_counts()
    found, expected = (walk(plain(q, y), WalkRequest(top_k=3), mode) for mode in ("on", "off"))
    assert screening.take_counts().screened == (0 if side else 80)  # the blocks of other queries
    for a, b in ((found.top_score, expected.top_score), (found.top_index, expected.top_index)):
        keep = torch.ones(128, dtype=torch.bool) if bad == 1e-30 else torch.arange(128) != 70
        if side == 0 or bad == 1e-30:
            assert torch.equal(a[keep], b[keep])


def test_the_switch(monkeypatch):
    q, y = embeddings(256, 2048, 128)
    monkeypatch.setenv(screening.SWITCH, "sometimes")
    with pytest.raises(ValueError, match="ALC_KERNELS_SCREENING=sometimes: expected off, auto, on"):
        native.walk(plain(q, y), WalkRequest(top_k=1))
    monkeypatch.setenv(screening.SWITCH, "on")
    torch.set_float32_matmul_precision("medium")
    try:
        assert screening.asked() is None
    finally:
        torch.set_float32_matmul_precision("highest")


@pytest.mark.parametrize("level", ["baseline", "avx2"])
def test_every_instruction_set(level):
    """These tests with each but the best; a processor without one takes the best below it."""
    chosen = "any_problem or twins or too_many or wrong_bound"
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:xdist", "-p", "no:cacheprovider",
         __file__, "-k", f"({chosen}) and not every_instruction"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
        env=os.environ | {"ALC_KERNELS_SIMD": level},
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
