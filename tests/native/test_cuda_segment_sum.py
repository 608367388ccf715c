"""Repeatable accumulation by the CUDA kernels: segments of any length, and pair gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alc_kernels.backends.cuda import operators
from alc_kernels.backends.cuda.operators import add_pair_gradients
from tests.backends.common import error, random_problem
from tests.native.cuda import ORDERS, set_order

DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def expected(offsets, order, row, coefficient, source, grad) -> Tensor:
    """The same in float64."""
    out = grad.double().clone()
    for segment in range(len(grad)):
        for at in range(int(offsets[segment]), int(offsets[segment + 1])):
            entry = at if order is None else int(order[at])
            out[segment] += coefficient[entry].double() * source[row[entry]].double()
    return out


def case(lengths: list[int], d: int, dtype: torch.dtype, *, ordered: bool, first: int = 0):
    """Segments of the given lengths, the first from entry ``first`` on."""
    generator = torch.Generator().manual_seed(d)
    offsets = torch.tensor([0, *lengths]).cumsum(0) + first
    total = int(offsets[-1])
    order = torch.randperm(total, generator=generator) if ordered else None
    row = torch.randint(0, 50, (total,), generator=generator)
    coefficient = torch.randn(total, generator=generator)
    source = torch.randn(50, d, generator=generator).to(dtype)
    grad = torch.randn(len(lengths), d, generator=generator)
    return offsets, order, row, coefficient, source, grad


def run(arguments, device, *, long_segments: bool = True) -> Tensor:
    *rest, grad = (None if x is None else x.to(device) for x in arguments)
    grad = grad.clone()
    operators.segment_sum(*rest, grad, long_segments)
    return grad.cpu()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("d", [1, 8, 33, 64, 520])
@pytest.mark.parametrize("ordered", [False, True])
def test_short_segments(cuda_device, dtype, d, ordered):
    arguments = case([3, 0, 1, 4, 5, 0, 17], d, dtype, ordered=ordered)
    got = run(arguments, cuda_device)
    assert error(got, expected(*arguments)) < 1e-6


@pytest.mark.parametrize("first", [0, 5, 128])
@pytest.mark.parametrize(
    "lengths",
    [[128], [127, 129], [300, 1, 700], [100, 28, 256, 255, 2], [0, 1000, 0], [1] * 130 + [140]],
)
def test_long_segments_are_cut_into_runs(cuda_device, lengths, first):
    arguments = case(lengths, 24, torch.float32, ordered=True, first=first)
    exact = expected(*arguments)
    for long_segments in (True, False):
        got = run(arguments, cuda_device, long_segments=long_segments)
        assert error(got, exact) < 2e-6


@pytest.mark.parametrize("order", ORDERS[1:])
def test_bitwise_the_same_in_any_order_of_blocks(cuda_device, order):
    arguments = case([300, 1, 700, 0, 3], 40, torch.bfloat16, ordered=True)
    before = run(arguments, cuda_device)
    set_order(order)
    assert torch.equal(run(arguments, cuda_device), before)


def test_rows_without_entries_are_not_touched(cuda_device):
    arguments = list(case([0, 2, 0], 16, torch.float32, ordered=False))
    arguments[-1][0], arguments[-1][2] = float("nan"), -0.0
    got = run(arguments, cuda_device)
    assert got[0].isnan().all() and torch.signbit(got[2]).all()


def test_nothing(cuda_device):
    for lengths, d in (([], 8), ([0, 0], 8), ([1], 0)):
        arguments = case(lengths, d, torch.float32, ordered=False)
        assert torch.equal(run(arguments, cuda_device), arguments[-1])


def listed(problem, t: int, *, hot: bool):
    """Pairs of which some are missing, some have no effect, and (hot) most share a label."""
    b, m = problem.queries.shape[0], problem.labels.shape[0]
    generator = torch.Generator().manual_seed(b)
    index = torch.randint(0, m, (b, t), generator=generator)
    if hot:
        index[torch.rand(b, t, generator=generator) < 0.8] = m // 2
    index[torch.rand(b, t, generator=generator) < 0.2] = -1
    coefficient = torch.randn(b, t, generator=generator)
    coefficient[torch.rand(b, t, generator=generator) < 0.3] = 0.0
    coefficient[index < 0] = float("nan")
    return index, coefficient


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("hot", [False, True])
@pytest.mark.parametrize("size", [(1, 1, 1, 1), (37, 23, 40, 3), (120, 31, 24, 6)])
def test_pair_gradients(cuda_device, dtype, hot, size):
    problem = random_problem(*size[:3], dtype, cuda_device)
    index, coefficient = listed(problem, size[3], hot=hot)
    valid = index >= 0
    dense = torch.zeros(size[0], size[1], dtype=torch.float64)
    dense.index_put_(
        (torch.arange(size[0])[:, None].expand_as(index)[valid], index[valid]),
        coefficient[valid].double(), accumulate=True,
    )  # fmt: skip
    start = [torch.randn(n, size[2], generator=torch.Generator().manual_seed(n)) for n in size[:2]]
    exact = (
        start[0].double() + dense @ problem.labels.double().cpu(),
        start[1].double() + dense.T @ problem.queries.double().cpu(),
    )
    moved = index.to(cuda_device), coefficient.to(cuda_device)
    results = []
    for order in (0, 7):
        set_order(order)
        grads = [x.clone().to(cuda_device) for x in start]
        add_pair_gradients(problem, *moved, *grads)
        results.append([grad.cpu() for grad in grads])
    for got, again, truth in zip(*results, exact, strict=True):
        assert error(got, truth) < 2e-6
        assert torch.equal(got, again)
    alone = start[1].clone().to(cuda_device)
    add_pair_gradients(problem, *moved, None, alone)
    assert torch.equal(alone.cpu(), results[0][1])
