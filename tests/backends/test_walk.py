"""The walk and the positive pass, on every backend, against the dense evaluation in float64."""

from __future__ import annotations

import dataclasses
import itertools
from contextlib import nullcontext

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alc_kernels.engine.interface import Problem, RowStatistics, WalkRequest
from alc_kernels.positives import Positives
from tests.backends.common import (
    BACKENDS,
    DTYPES,
    assert_close,
    backend,
    random_problem,
)
from tests.backends.dense import add_margin_totals, dense_positive_pass, dense_walk
from tests.backends.relations import KINDS, random_relation

every_backend = pytest.mark.parametrize("name", BACKENDS)


def small_tiles(name: str):
    """Many tiles in a small problem (other backends: nothing)."""
    if name != "triton":
        return nullcontext()
    from alc_kernels.backends.triton.launch import Tile, override_tile

    return override_tile(Tile(rows=16, cols=16, depth=16, warps=4, stages=2))


def everything(problem: Problem, *, top_k: int = 3, softmax="all", offset=True) -> WalkRequest:
    """A request for all that a walk can find."""
    device, m = problem.queries.device, problem.labels.shape[0]
    generator = torch.Generator().manual_seed(m)

    def scalar(value: float) -> torch.Tensor:
        return torch.tensor(value, device=device)

    return WalkRequest(
        top_k=top_k,
        hardest_positive=True,
        softmax=softmax,
        inverse_temperature=scalar(20.0),
        label_offset=torch.randn(m, generator=generator).to(device) if offset else None,
        sigmoid=True,
        scale=scalar(10.0),
        bias=scalar(-10.0),
        positive_margin=0.61,
        negative_margin=0.13,
    )


def check(name: str, problem: Problem, request: WalkRequest, *, tiles=None) -> RowStatistics:
    """Walk and compare every field; returns what was found."""
    with small_tiles(name) if tiles is None else tiles:
        found = backend(name).walk(problem, request)
    exact = dense_walk(problem, request)
    plain = dense_walk(problem, request, torch.float32)
    if found.margin_sums is not None:
        add_margin_totals(exact)
        add_margin_totals(plain)
    for field in dataclasses.fields(RowStatistics):
        a, b, c = (getattr(x, field.name) for x in (found, exact, plain))
        if b is None:
            assert a is None, field.name
            continue
        assert a.shape == b.shape, field.name
        if b.dtype == torch.int64:
            assert a.dtype == torch.int64, field.name
            assert torch.equal(a.cpu(), b.cpu()), (field.name, a, b)
            continue
        assert a.dtype == torch.float32, field.name
        finite = torch.isfinite(b)
        assert torch.equal(a.double()[~finite], b[~finite]), field.name
        assert_close(a[finite], b[finite], c[finite])
    return found


def integer_problem(
    b: int,
    m: int,
    d: int,
    dtype: torch.dtype,
    device: torch.device,
    *,
    positives: str = "empty",
    exclude: str = "empty",
    guard: bool | str = False,
    seed: int = 0,
) -> Problem:
    """Embeddings of a few quarters: similarities are exact in any order, and many are equal."""
    generator = torch.Generator().manual_seed(seed)
    queries = torch.randint(-2, 3, (b, d), generator=generator) / 4
    labels = torch.randint(-2, 3, (m, d), generator=generator) / 4
    if m > 3:
        labels[m // 2 :] = labels[: m - m // 2].clone()  # duplicates, far apart
    limit = torch.randint(-1, 3, (b,), generator=generator) / 4
    made = Problem(
        queries.to(device, dtype),
        labels.to(device, dtype),
        random_relation(positives, b, m, generator, device=device),
        random_relation(exclude, b, m, generator, device=device),
        limit.float().to(device) if guard else None,
    )
    if guard == "slack":
        numbers = (torch.randint(0, 3, (n,), generator=generator) / 4 for n in (b, m))
        by_row, by_column = (x.to(device) for x in numbers)
        made = dataclasses.replace(made, slack=(by_row, by_column))
    return made


@every_backend
@pytest.mark.parametrize("positives", KINDS)
@pytest.mark.parametrize("exclude", KINDS)
def test_relations(name, positives, exclude, device):
    """Every kind of relation with every other; half of them with a guard."""
    at = KINDS.index(positives) * len(KINDS) + KINDS.index(exclude)
    guard = (False, True, False, "slack")[at % 4]
    size = (21, 21) if "diagonal" in (positives, exclude) else [(19, 53), (37, 18)][at % 2]
    problem = random_problem(
        *size, 24, DTYPES[at % 3], device, positives=positives, exclude=exclude, guard=guard
    )
    softmax = ("all", "negatives")[at // 2 % 2]
    check(name, problem, everything(problem, softmax=softmax, offset=at % 3 == 0))


@every_backend
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("size", [(1, 1, 1), (5, 33, 70), (33, 5, 16)])
def test_shapes(name, dtype, size, device):
    problem = random_problem(*size, dtype, device, positives="index", guard=True)
    check(name, problem, everything(problem))


@every_backend
@pytest.mark.parametrize("k", [1, 2, 3, 10, 17, 60])
@pytest.mark.parametrize("guard", [False, True, "slack"])
def test_top_k_with_ties(name, k, guard, device):
    """Equal similarities by smaller label, for k up to more than there are negatives."""
    problem = integer_problem(
        18, 50, 5, DTYPES[k % 3], device, positives="csr", exclude="index", guard=guard
    )
    check(name, problem, WalkRequest(top_k=k, hardest_positive=True))


@every_backend
def test_long_lists(name, device):
    problem = integer_problem(5, 150, 5, torch.float32, device, positives="ids")
    check(name, problem, WalkRequest(top_k=128))


@every_backend
@pytest.mark.parametrize("margin", [-0.25, 0.0, 0.5])
def test_margins_are_inclusive(name, margin, device):
    problem = integer_problem(20, 40, 4, torch.float16, device, positives="csr", exclude="csr")
    exact = problem.queries.double() @ problem.labels.double().T
    assert (exact == margin).any()
    check(name, problem, WalkRequest(positive_margin=margin, negative_margin=margin))


@every_backend
def test_equal_rows_and_signed_zeros(name, device):
    """All labels equal: the order is that of the labels; -0 and 0 are equal."""
    labels = torch.ones(40, 4, device=device)
    queries = torch.tensor([[1.0, 0, 0, 0], [0.0, 0, 0, 0], [-1.0, 0, 0, 0]], device=device)
    labels[::2, 1:] = -1.0
    labels[1::2, 0] = 1.0
    positives = Positives.from_index(torch.tensor([0, 1, 39]), 40).to(device)
    problem = Problem(queries, labels, positives, Positives._empty(3, 40), None)
    found = check(name, problem, WalkRequest(top_k=4, hardest_positive=True))
    assert found.top_index.tolist() == [[1, 2, 3, 4], [0, 2, 3, 4], [0, 1, 2, 3]]


@every_backend
@pytest.mark.parametrize("softmax", ["all", "negatives"])
def test_rows_without_negatives(name, softmax, device):
    """Where every label is positive or excluded, sums over the negatives are empty."""
    problem = random_problem(20, 35, 8, torch.float32, device)
    mask = torch.zeros(20, 35, dtype=torch.bool)
    mask[3:9] = True
    excluded = torch.zeros(20, 35, dtype=torch.bool)
    excluded[6:14] = True
    problem = dataclasses.replace(
        problem,
        positives=Positives.from_dense(mask).to(device),
        exclude=Positives.from_dense(excluded).to(device),
    )
    found = check(name, problem, everything(problem, softmax=softmax, offset=False))
    assert (found.num_negatives[3:14] == 0).all()
    assert (found.top_index[3:14] == -1).all()


@every_backend
def test_large_logits(name, device):
    """A temperature of 0.002 and offsets of hundreds: nothing overflows."""
    problem = random_problem(17, 40, 16, torch.float32, device, positives="diagonal", guard=True)
    request = WalkRequest(
        softmax="negatives",
        inverse_temperature=torch.tensor(500.0, device=device),
        label_offset=torch.linspace(-300, 300, 40, device=device),
        sigmoid=True,
        scale=torch.tensor(-200.0, device=device),
        bias=torch.tensor(50.0, device=device),
    )
    check(name, problem, request)


@every_backend
def test_small_sigmoid_terms_are_kept(name, device):
    """Terms of 1e-9 each: 1 + e^x would round all of them away."""
    problem = random_problem(16, 64, 8, torch.float32, device)
    request = WalkRequest(
        sigmoid=True,
        scale=torch.tensor(1.0, device=device),
        bias=torch.tensor(-20.0, device=device),
    )
    check(name, problem, request)


@every_backend
@pytest.mark.parametrize("size", [(0, 7, 4), (7, 0, 4), (0, 0, 4)])
def test_empty_problems(name, size, device):
    problem = random_problem(*size, torch.float32, device)
    check(name, problem, everything(problem))


@every_backend
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_non_finite_inputs_stay_in_bounds(name, value, device):
    """The result means nothing (the caller makes it NaN), but every index can be used."""
    problem = random_problem(20, 40, 8, torch.float32, device, positives="csr", exclude="ids")
    problem.queries[3] = value
    problem.labels[7, 2] = value
    with small_tiles(name):
        found = backend(name).walk(problem, everything(problem, top_k=4))
    for index in (found.top_index, found.positive_index):
        assert int(index.min()) >= -1
        assert int(index.max()) < 40


@every_backend
def test_scores_are_those_of_the_indices(name, device):
    problem = random_problem(33, 70, 40, torch.bfloat16, device, positives="csr")
    found = check(name, problem, WalkRequest(top_k=5))
    exact = (problem.queries.double() @ problem.labels.double().T).cpu()
    member = found.top_index >= 0
    chosen = exact.gather(1, found.top_index.clamp(min=0).cpu())
    assert torch.allclose(found.top_score.double().cpu()[member], chosen[member], atol=1e-6)


@every_backend
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("offset", [False, True])
def test_positive_pass(name, kind, offset, device):
    size = (23, 23) if kind == "diagonal" else (23, 30)
    dtype = DTYPES[KINDS.index(kind) % 3]
    problem = random_problem(*size, 40, dtype, device, positives=kind)
    generator = torch.Generator().manual_seed(5)
    lse = 10 * torch.randn(23, generator=generator)
    lse[4] = -float("inf")
    arguments = (
        lse.to(device),
        torch.tensor(20.0, device=device),
        torch.randn(size[1], generator=generator).to(device) if offset else None,
    )
    found = backend(name).positive_pass(problem, *arguments)
    exact = dense_positive_pass(problem, *arguments)
    plain = dense_positive_pass(problem, *arguments, dtype=torch.float32)
    for a, b, c in zip(found, exact, plain, strict=True):
        assert a.dtype == torch.float32
        assert_close(a, b, c)


@every_backend
@settings(
    max_examples=15,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_any_problem(name, device, data):
    """Exact inputs of any shape, relation and request: every number and index agrees."""
    b, m = data.draw(st.integers(1, 36)), data.draw(st.integers(1, 40))
    if data.draw(st.booleans()):
        m = b
    problem = integer_problem(
        b,
        m,
        data.draw(st.integers(1, 20)),
        data.draw(st.sampled_from(DTYPES)),
        device,
        positives=data.draw(st.sampled_from(KINDS)),
        exclude=data.draw(st.sampled_from(KINDS)),
        guard=data.draw(st.booleans()),
        seed=data.draw(st.integers(0, 1000)),
    )
    request = WalkRequest(
        top_k=data.draw(st.sampled_from([0, 1, 2, 5, 33])),
        hardest_positive=data.draw(st.booleans()),
        softmax=data.draw(st.sampled_from([None, "all", "negatives"])),
        inverse_temperature=torch.tensor(2.0, device=device),
        positive_margin=data.draw(st.sampled_from([None, 0.25])),
        negative_margin=data.draw(st.sampled_from([None, 0.25])),
    )
    check(name, problem, request)


# -- Triton only --------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [1, 2])
def test_column_splits(length, device, monkeypatch):
    """Splits of one or two tiles change nothing but the rounding of sums."""
    from alc_kernels.backends.triton.walk import launch as walk_launch

    seen = []

    def fixed(row_blocks: int, tiles: int, slots: int, cols: int) -> int:
        seen.append(tiles)
        return length

    monkeypatch.setattr(walk_launch, "split_tiles", fixed)
    problem = integer_problem(
        20, 75, 5, torch.float16, device, positives="csr", exclude="ids", guard=True
    )
    check("triton", problem, everything(problem, top_k=7))
    problem = random_problem(20, 75, 24, torch.float32, device, positives="ids", exclude="csr")
    check("triton", problem, everything(problem, top_k=1, softmax="negatives"))
    assert min(seen) > 2


def test_split_lengths():
    """Every tile is covered once, and splits fill the device."""
    from alc_kernels.backends.triton.walk.launch import split_tiles

    for blocks, tiles, slots in itertools.product((1, 7, 132, 133, 256), (1, 5, 256), (4, 132)):
        length = split_tiles(blocks, tiles, slots, 128)
        splits = -(-tiles // length)
        assert 1 <= length <= tiles
        assert (splits - 1) * length < tiles <= splits * length
    assert split_tiles(256, 256, 132, 128) == 256  # two full rounds need no split
    assert split_tiles(8, 4096, 132, 128) <= 4096 // 16  # 8 row blocks fill 128 of 132
    assert split_tiles(10**6, 10**8, 132, 128) * 128 < 2**31


def shipped_tiles():
    """Every configuration that a launch can choose."""
    from alc_kernels.backends.triton.launch import all_tiles

    return all_tiles()


@pytest.mark.parametrize("tile", shipped_tiles(), ids=str)
def test_shipped_tiles(tile, device):
    from alc_kernels.backends.triton.launch import override_tile

    if device.type == "cuda":
        pytest.skip("not every configuration fits every GPU; the launch chooses one that does")
    for d in (24, tile.depth + 8):
        problem = random_problem(
            tile.rows + 9, 2 * tile.cols + 5, d, torch.float32, device, positives="ids",
            exclude="index", guard=True,
        )  # fmt: skip
        request = everything(problem, top_k=2, softmax="negatives")
        check("triton", problem, request, tiles=override_tile(tile))
