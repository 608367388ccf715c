"""exclude_above: what rounding alone may lift over the guard is excluded, on every backend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from alc_kernels import (
    ALCLoss,
    MatryoshkaLoss,
    Positives,
    Softmax,
    ThresholdMargin,
    functional,
    reference,
)
from alc_kernels.engine.rows import norms, rounding
from tests.backends.common import NATIVE
from tests.tolerances import TOLERANCES, assert_close

no_native = pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))
BACKENDS = ["torch", pytest.param("native", marks=no_native), "triton"]
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
every_backend_and_dtype = pytest.mark.parametrize(
    ("backend", "dtype"),
    [("torch", dtype) for dtype in DTYPES]
    + [pytest.param("native", dtype, marks=no_native) for dtype in DTYPES]
    + [("triton", dtype) for dtype in DTYPES[1:]],
    ids=str,
)
LOSSES: dict[str, tuple[str, dict[str, Any]]] = {
    "triplet": ("triplet_loss", {"symmetric": "sum"}),
    "dynamic": ("triplet_loss", {"dynamic_margin": (0.1, 0.9), "positive": "hardest"}),
    "softmax": ("softmax_loss", {"symmetric": True}),
    "decoupled": ("softmax_loss", {"decoupled": True, "temperature": 0.1}),
    "sigmoid": ("sigmoid_loss", {}),
    "tcm": ("threshold_margin_loss", {"positive_margin": 0.93, "negative_margin": 0.07}),
    "tcm-hardest": (
        "threshold_margin_loss",
        {"positive_margin": 0.93, "negative_margin": 0.07, "negative_scope": "hardest"},
    ),
}


def twins(rows: int = 8, width: int = 16, spread: float = 1.0) -> tuple[Tensor, Tensor]:
    """Queries, and labels of which every second is a copy of the one before; float64.

    ``spread``: lengths of both from 1 to this.
    """
    g = torch.Generator().manual_seed(0)
    q, k = (torch.randn(rows, width, generator=g, dtype=torch.float64) for _ in range(2))
    k[1::2] = k[::2]
    sizes = torch.logspace(0, torch.log10(torch.tensor(spread)).item(), rows, dtype=torch.float64)
    return q * sizes[:, None].flip(0), k * sizes.repeat_interleave(2)[:rows, None]


def without_twins(name: str, q: Tensor, k: Tensor, **more: Any) -> Tensor:
    """The reference with the copies excluded by name, so that the guard meets none of them.

    The labels' side has no copies among its queries.
    """
    function, given = LOSSES[name]
    options = {**given, **more}
    symmetric = options.pop("symmetric", False)
    copies = Positives.from_index(torch.arange(len(q)) ^ 1, len(k))
    loss = getattr(reference, function)
    made = loss(q, k, exclude=copies, exclude_above=0.0, **options)
    if symmetric:
        made = made + loss(k, q, exclude_above=0.0, **options)
    return made / 2 if symmetric is True else made


def clear_of_guards(q: Tensor, k: Tensor) -> float:
    """The least distance of a negative that is no copy from its row's guard or its column's."""
    s, n = q @ k.T, len(q)
    number = torch.arange(n)
    by_rows, by_columns = ((x - x.diagonal()[:, None]).abs() for x in (s, s.T))
    by_rows[number, number ^ 1] = torch.inf
    return float(torch.stack([by_rows, by_columns])[:, ~torch.eye(n, dtype=torch.bool)].min())


@every_backend_and_dtype
@pytest.mark.parametrize("name", LOSSES)
def test_a_copy_of_the_positive_is_never_a_negative(name, dtype, backend, device):
    q, k = (x.to(dtype) for x in twins())
    units = (torch.nn.functional.normalize(x.double()) for x in (q, k))
    assert clear_of_guards(*units) > 5e-3
    exact = [x.double().requires_grad_() for x in (q, k)]
    half = {"compute_dtype": dtype} if dtype.itemsize == 2 else {}
    expected = without_twins(name, *exact, **half)
    expected.backward()
    place = "cpu" if backend == "native" else device
    mine = [x.to(place).requires_grad_() for x in (q, k)]
    function, options = LOSSES[name]
    found = getattr(functional, function)(*mine, exclude_above=0.0, backend=backend, **options)
    found.backward()
    allowed = TOLERANCES[dtype]
    assert abs(found.item() - expected.item()) <= 4 * allowed.value * max(1, abs(expected.item()))
    for ours, theirs in zip(mine, exact, strict=True):
        assert_close("gradient", ours.grad, theirs.grad, 4 * allowed.gradient)
    # The reference itself, which compares in this precision.
    again = getattr(reference, function)(q, k, exclude_above=0.0, **options, **half)
    assert again.item() == pytest.approx(expected.item(), rel=1e-5, abs=1e-6)


@every_backend_and_dtype
def test_the_worked_case(backend, dtype, device):
    """Values: by the reference in float64 without the copies."""
    torch.manual_seed(0)
    q, k = torch.randn(8, 16, dtype=torch.float64), torch.randn(8, 16, dtype=torch.float64)
    k[1::2] = k[::2]
    copies = Positives.from_index(torch.arange(8) ^ 1, 8)
    plain = reference.softmax_loss(q, k, exclude=copies, exclude_above=0.0)
    assert plain.item() == pytest.approx(0.2755668, abs=1e-7)
    place = "cpu" if backend == "native" else device
    mine = q.to(place, dtype), k.to(place, dtype)
    found = functional.softmax_loss(*mine, temperature=0.05, exclude_above=0.0, backend=backend)
    assert found.item() == pytest.approx(plain.item(), abs=5e-3 if dtype.itemsize == 2 else 1e-6)
    _, index = functional.hardest_negatives(*mine, k=8, exclude_above=0.0, backend=backend)
    assert not (index == torch.arange(8, device=place)[:, None] ^ 1).any()


@every_backend_and_dtype
@pytest.mark.parametrize("name", ["triplet", "decoupled", "tcm"])
def test_rows_of_any_length_have_a_guard_of_their_own_size(name, dtype, backend, device):
    """Plain inner products, lengths from 1 to 1,000: what is allowed for follows both rows'."""
    q, k = (x.to(dtype) for x in twins(spread=1e3 if dtype != torch.float16 else 1e2))
    scale = 1e-3
    exact = [x.double().requires_grad_() for x in (q, k)]
    options = {"normalize": False}
    if name == "tcm":
        options |= {"positive_margin": 9.7, "negative_margin": 1.3}
    if name == "triplet":
        options |= {"margin": 5.3, "weight_temperature": 20.0}
    if name == "decoupled":
        options |= {"temperature": 50.0}
    half = {"compute_dtype": dtype} if dtype.itemsize == 2 else {}
    assert clear_of_guards(*(x.detach() for x in exact)) > scale
    expected = without_twins(name, *exact, **half, **options)
    expected.backward()
    place = "cpu" if backend == "native" else device
    mine = [x.to(place).requires_grad_() for x in (q, k)]
    function, given = LOSSES[name]
    settings = {**given, **options}
    found = getattr(functional, function)(*mine, exclude_above=0.0, backend=backend, **settings)
    found.backward()
    allowed = TOLERANCES[dtype]
    assert found.item() == pytest.approx(expected.item(), rel=8 * allowed.value)
    for ours, theirs in zip(mine, exact, strict=True):
        assert_close("gradient", ours.grad, theirs.grad, 8 * allowed.gradient)
    again = getattr(reference, function)(q, k, exclude_above=0.0, **settings, **half)
    assert again.item() == pytest.approx(expected.item(), rel=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_huge_label_does_not_widen_the_guard_of_the_others(backend, device):
    place = "cpu" if backend == "native" else device
    q = torch.tensor([[1.0, 0.0, 0.0]], device=place)
    k = torch.tensor([[1.0, 0.0, 0.0], [1.0 - 2.0**-15, 0.0, 0.0], [0.0, 0.0, 1e12]], device=place)
    own = torch.tensor([0], device=place)
    for module, more in ((functional, {"backend": backend}), (reference, {})):
        scores, index = module.hardest_negatives(
            q, k, own, k=2, normalize=False, exclude_above=0.0, **more
        )
        # The huge label's own score, 0, may be off by more than the distance to the guard.
        assert index.tolist() == [[1, -1]] and scores[0, 0].item() == 1.0 - 2.0**-15
        _, index = module.hardest_negatives(q, k, own, k=2, exclude_above=0.0, **more)
        assert index.tolist() == [[2, -1]]  # of unit length the second is a copy, the third not


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scaled", [True, False], ids=["unit", "any-length"])
def test_every_width_of_an_embedding_has_its_own(scaled, backend, device):
    place = "cpu" if backend == "native" else device
    g = torch.Generator().manual_seed(3)
    q, k = (torch.randn(8, 24, generator=g) for _ in range(2))
    k[1::2, :16] = k[::2, :16]  # copies up to a width of 16
    widths = (8, 16, 24)
    settings: dict[str, Any] = {
        "base": Softmax(0.2, symmetric=True),
        "threshold": ThresholdMargin(0.93, 0.07),
    }
    loss = ALCLoss(24, auxiliary=None, backend=backend, normalize=scaled, **settings)
    exact = [x.double().requires_grad_() for x in (q, k)]
    expected = reference.matryoshka_loss(
        *exact, widths=widths, exclude_above=0.0, normalize=scaled, **settings
    )
    expected.backward()
    mine = [x.to(place).requires_grad_() for x in (q, k)]
    found = MatryoshkaLoss(loss, widths)(*mine, exclude_above=0.0)
    found.backward()
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    for ours, theirs in zip(mine, exact, strict=True):
        assert_close("gradient", ours.grad, theirs.grad, 2e-5)
    plain = [
        functional.hardest_negatives(
            mine[0][:, :w],
            mine[1][:, :w],
            k=8,
            exclude_above=0.0,
            normalize=scaled,
            backend=backend,
        )[1]
        for w in widths
    ]
    copy = torch.arange(8, device=place)[:, None] ^ 1
    assert [bool((index == copy).any()) for index in plain] == [False, False, True]


def test_the_size_of_the_allowance():
    assert rounding(16, torch.float64) == 40 * 2.0**-53
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert rounding(16, dtype) == 40 * 2.0**-24
    before = torch.get_float32_matmul_precision()
    try:
        for precision, more in (("high", 2.0**-9), ("medium", 2.0**-7)):
            torch.set_float32_matmul_precision(precision)
            assert rounding(16, torch.float32) == 40 * 2.0**-24 + more
            assert rounding(16, torch.bfloat16) == 40 * 2.0**-24  # its products are exact
            q = torch.eye(2, 4)
            batch = reference.batch.prepare(q, q)
            assert batch.rounding.item() == pytest.approx(16 * 2.0**-24 + more, rel=1e-6)
    finally:
        torch.set_float32_matmul_precision(before)
    rows = torch.tensor([[3.0, 4.0], [0.0, 0.0], [3e30, 4e30]])
    assert norms(rows).tolist() == pytest.approx([5.0, 0.0, 5e30])
    assert norms(torch.zeros(2, 0)).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_factor_that_may_be_rounded_to_tf32_widens_it(backend, device):
    """A negative 0.001 below the guard is one that rounded products may lift over it."""
    place = "cpu" if backend == "native" else device
    q = torch.tensor([[1.0, 0.0]], device=place)
    k = torch.tensor([[1.0, 0.0], [0.999, (1 - 0.999**2) ** 0.5]], device=place)
    own = torch.tensor([0], device=place)
    before = torch.get_float32_matmul_precision()
    found = {}
    try:
        for precision in ("highest", "high"):
            torch.set_float32_matmul_precision(precision)
            for module, more in ((functional, {"backend": backend}), (reference, {})):
                index = module.hardest_negatives(q, k, own, exclude_above=0.0, **more)[1]
                found.setdefault(precision, []).append(index.item())
    finally:
        torch.set_float32_matmul_precision(before)
    assert found == {"highest": [1, 1], "high": [-1, -1]}
