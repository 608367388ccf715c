"""The gradient of active pairs on Triton: bits, lists and the product over listed rows."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import Tensor

from alc_kernels import ALCLoss, ThresholdMargin, Triplet
from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.triton import launch as workspace
from alc_kernels.backends.triton.active import lists as active_lists
from alc_kernels.backends.triton.active import product as active_product
from alc_kernels.backends.triton.active.lists import SHARE, list_labels, list_rows
from alc_kernels.backends.triton.tile.bits import BLOCK, ActiveBits, rows_that_fit
from alc_kernels.engine.interface import GradientRequest, Problem, RowStatistics, WalkRequest
from tests.backends.common import DTYPES, assert_close, error, random_problem
from tests.backends.dense import negatives_of, similarities
from tests.backends.relations import KINDS

MARGINS = {"positive_margin": 0.61, "negative_margin": 0.13}


def masks(problem: Problem, negative_margin: float, positive_margin: float = 0.61):
    """(B, M) active positives and negatives; no pair lies within rounding of a margin."""
    s = similarities(problem)
    positive, negative = negatives_of(problem, s)
    return positive & (s <= positive_margin), negative & (s >= negative_margin)


def gradients(
    problem: Problem, active: object, *, positives: bool = True, **margins: float
) -> tuple[Tensor, Tensor]:
    """dQ and dK of -0.02 (sum over positives) + 0.01 (sum over negatives)."""
    device = problem.queries.device
    request = GradientRequest(
        kind=None,
        positive_margin=margins["positive_margin"] if positives else None,
        positive_margin_scale=torch.tensor(0.02, device=device),
        negative_margin=margins["negative_margin"],
        negative_margin_scale=torch.tensor(0.01, device=device),
        active=active,
    )
    of_queries = torch.full(problem.queries.shape, 0.25, device=device)
    of_labels = torch.full(problem.labels.shape, 0.25, device=device)
    triton_backend.dense_gradient(problem, request, of_queries, of_labels)
    return of_queries - 0.25, of_labels - 0.25


def check(problem: Problem, *, rounds: int = 1, **margins: float) -> RowStatistics:
    """Walk, take the gradient with and without the kept bits, compare with all of S."""
    request = WalkRequest(keep_active=True, **margins)
    found = triton_backend.walk(problem, request)
    positive, negative = masks(problem, margins["negative_margin"], margins["positive_margin"])
    assert torch.equal(found.negative_margin_count.cpu(), negative.sum(1).cpu())
    several = problem.positives.kind not in ("diagonal", "index")
    coefficient = 0.01 * negative.double() - 0.02 * positive.double() * several
    queries, labels = problem.queries.double(), problem.labels.double()
    exact = coefficient @ labels, coefficient.T @ queries
    plain = (coefficient.float() @ labels.float(), coefficient.float().T @ queries.float())
    results = [
        gradients(problem, active, positives=several, **margins)
        for active in (found.active, None)
        for _ in range(rounds)
    ]
    for made in results:
        for side, exact_side, plain_side in zip(made, exact, plain, strict=True):
            # 0.25 is there before: float32 rounds what is added to it.
            assert error(side, exact_side) <= 1e-4 or float(exact_side.norm()) == 0.0
            assert_close(side, exact_side, plain_side, floor=1e-4)
        assert all(torch.equal(a, b) for a, b in zip(made, results[0], strict=True))
    return found


@pytest.mark.parametrize(
    ("dtype", "negative_margin"),
    [*zip(DTYPES, (2.0, 0.45, -2.0), strict=True), (torch.bfloat16, 0.13)],
)
def test_every_density(dtype, negative_margin, device):
    """No pair, a few, all and a third, each bit for bit the same again."""
    problem = random_problem(40, 45, 24, dtype, device, positives="csr", exclude="index")
    check(problem, rounds=2, positive_margin=0.61, negative_margin=negative_margin)


@pytest.mark.parametrize(
    ("positives", "exclude"),
    [
        *zip(KINDS, (*KINDS[1:], "empty"), strict=True),
        pytest.param("csr", "csr", marks=pytest.mark.slow),
        pytest.param("ids", "ids", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("guard", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_every_relation(positives, exclude, guard, device):
    size = (33, 33) if "diagonal" in (positives, exclude) else (35, 61)
    problem = random_problem(
        *size, 16, torch.float32, device, positives=positives, exclude=exclude, guard=guard
    )
    kept = check(problem, **MARGINS).active
    assert isinstance(kept, ActiveBits)
    assert (kept.positive is not None) == (positives in ("ids", "csr"))


def blocks_problem(device: torch.device) -> Problem:
    """Every label active with the first block of queries, few with the others."""
    problem = random_problem(2 * BLOCK + 3, 1100, 4, torch.float32, device, positives="index")
    queries, labels = problem.queries.clone(), problem.labels.clone()
    labels[:, 0] = labels[:, 0].abs() + 0.5
    queries[:BLOCK] = 0.0
    queries[:BLOCK, 0] = 1.0
    queries[BLOCK:] *= 0.01
    queries[BLOCK + 5] *= 70
    queries[2 * BLOCK + 1] *= 70
    return dataclasses.replace(problem, queries=queries, labels=labels)


def test_one_block_of_rows_overflows_its_list_and_others_do_not(device):
    problem = blocks_problem(device)
    found = check(problem, positive_margin=0.61, negative_margin=0.45)
    bits = found.active.negative
    counts = list_labels(bits, len(problem.queries), 1100, 1).counts[:, 0].tolist()
    assert counts[0] > 1100 // SHARE.value and 0 < counts[1] < 1100 // SHARE.value


def test_lists_name_what_is_active(device):
    problem = blocks_problem(device)
    found = triton_backend.walk(
        problem, WalkRequest(keep_active=True, positive_margin=0.61, negative_margin=0.55)
    )
    _, negative = masks(problem, 0.55)
    b, m = negative.shape
    by_label = list_labels(found.active.negative, b, m, 2)
    assert by_label.segments == 2
    for block, segment in ((1, 0), (1, 1), (2, 0)):
        part = negative[block * BLOCK : (block + 1) * BLOCK, segment * 1024 : (segment + 1) * 1024]
        expected = part.any(0).nonzero()[:, 0] + segment * 1024
        count = int(by_label.counts[block, segment])
        assert count == len(expected) <= by_label.entries.shape[2]
        listed = by_label.entries[block, segment, :count].long()
        assert torch.equal(listed, expected)
        words = by_label.masks[block, segment, :count]
        bits = (words[:, :, None] >> torch.arange(32, device=device)) & 1
        rows = negative[block * BLOCK : (block + 1) * BLOCK, listed].T
        assert torch.equal(bits.flatten(1)[:, : rows.shape[1]].bool(), rows)
    by_row = list_rows(found.active.negative, b, m, 1, words=BLOCK // 32)
    for block in range(by_row.counts.shape[0]):
        expected = negative[:, block * BLOCK : (block + 1) * BLOCK].any(1).nonzero()[:, 0]
        count = int(by_row.counts[block, 0])
        assert count == len(expected)
        listed = by_row.entries[block, 0, :count]
        assert torch.equal(listed.long(), expected[: listed.numel()])


@pytest.mark.slow
def test_partial_sums_of_segments(device, monkeypatch):
    """Few blocks: lists are cut, and each segment may be dense or not."""
    monkeypatch.setattr(active_product, "segments_for", lambda blocks, slabs, device: 3)
    monkeypatch.setattr(active_lists, "STEP_ROWS", 32)
    check(blocks_problem(device), positive_margin=0.61, negative_margin=0.45)


def test_chunks_of_rows_where_the_bits_of_all_do_not_fit(device, monkeypatch):
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", 1)
    problem = random_problem(2 * BLOCK + 40, 45, 8, torch.float16, device, positives="ids")
    assert rows_that_fit(45, 2) == BLOCK
    found = check(problem, **MARGINS)
    assert found.active is None


def test_one_side_only(device):
    problem = random_problem(40, 50, 8, torch.float32, device, positives="csr")
    found = triton_backend.walk(problem, WalkRequest(keep_active=True, **MARGINS))
    both = gradients(problem, found.active, **MARGINS)
    request = GradientRequest(
        kind=None, active=found.active, want_scalars=True, **MARGINS,
        positive_margin_scale=torch.tensor(0.02, device=device),
        negative_margin_scale=torch.tensor(0.01, device=device),
    )  # fmt: skip
    queries = torch.full_like(both[0], 0.25)
    result = triton_backend.dense_gradient(problem, request, queries, None)
    assert torch.equal(queries - 0.25, both[0])
    assert not result.weighted_sum.any() and not result.plain_sum.any()
    labels = torch.full_like(both[1], 0.25)
    triton_backend.dense_gradient(problem, request, None, labels)
    assert torch.equal(labels - 0.25, both[1])


def test_bits_that_miss_a_side_are_not_taken_for_all(device):
    """A walk that kept negatives only cannot answer for positives."""
    problem = random_problem(40, 50, 8, torch.float32, device, positives="csr")
    kept = triton_backend.walk(problem, WalkRequest(keep_active=True, negative_margin=0.13)).active
    whole = triton_backend.walk(problem, WalkRequest(keep_active=True, **MARGINS)).active
    found, expected = (gradients(problem, active, **MARGINS) for active in (kept, whole))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_nothing_is_kept_where_every_pair_has_a_gradient(device):
    problem = random_problem(20, 30, 8, torch.float32, device, positives="csr")
    request = WalkRequest(
        keep_active=True,
        softmax="all",
        inverse_temperature=torch.ones((), device=device),
        **MARGINS,
    )
    assert triton_backend.walk(problem, request).active is None
    assert triton_backend.walk(problem, WalkRequest(**MARGINS)).active is None


@pytest.mark.parametrize("labels", [1_000, 32_768, 2**20, 2**31 - 2**10])
@pytest.mark.parametrize("mebibytes", [48, 256])
def test_bits_and_lists_fit_the_workspace(labels, mebibytes, monkeypatch):
    monkeypatch.setattr(workspace, "WORKSPACE_BYTES", mebibytes << 20)
    rows = rows_that_fit(labels, 1)
    bits = rows * labels / 8
    lists = rows / BLOCK * labels / SHARE.value * (4 + BLOCK / 8)
    assert rows >= BLOCK and rows % BLOCK == 0
    assert bits + lists <= mebibytes << 20 or rows == BLOCK


@pytest.mark.parametrize("scope", ["all", "hardest"])
def test_the_only_positive_is_not_scored_again(scope, device, monkeypatch):
    """The walk has met it: no separate pass over the pairs."""

    def never(*_: object) -> Tensor:
        raise AssertionError("score_pairs was called")

    monkeypatch.setattr(triton_backend, "score_pairs", never)
    loss = ALCLoss(
        base=Triplet(num_negatives=2),
        auxiliary=None,
        threshold=ThresholdMargin(negative_scope=scope),
        backend="triton",
    )
    generator = torch.Generator().manual_seed(0)
    queries, labels = (torch.randn(20, 8, generator=generator).to(device) for _ in range(2))
    queries.requires_grad_()
    loss(queries, labels).backward()
    assert queries.grad.norm() > 0
