"""The criteria for other XMC code: their values in plain formulas, and both calls agree."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from alc_kernels import (
    ALCLoss,
    Auxiliary,
    DynamicTriplet,
    Positives,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
)
from alc_kernels.integrations.xmc import EmbeddingCriterion, SimilarityCriterion

B, M, D, K = 12, 12, 8, 4


def batch(columns: int = M) -> tuple[torch.Tensor, ...]:
    torch.manual_seed(0)
    q = torch.randn(B, D, dtype=torch.float64, requires_grad=True)
    k = torch.randn(columns, D, dtype=torch.float64, requires_grad=True)
    target = (torch.rand(B, columns) < 0.15).float()
    target.fill_diagonal_(1.0)
    return q, k, target


def similarity(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor:
    return F.normalize(q) @ F.normalize(k).T


def weighted_hinge(s, target, s_positive, margin, k):
    """Hinges over the k hardest negatives, weighted by a softmax (tau 0.1) of the active ones.

    At a tie the maximum passes half the gradient, which counts in the band of a dynamic margin.
    """
    hardest = s.masked_fill(target > 0, -100).topk(k, dim=1).values
    hinge = hardest - s_positive + margin(s_positive - hardest)
    hinge = torch.maximum(torch.zeros_like(hinge), hinge)
    weight = (hardest / 0.1).masked_fill(hinge == 0, -500).softmax(dim=1)
    return hinge * weight  # (B, k)


def test_value_of_dexa() -> None:
    q, k, target = batch()
    s = similarity(q, k)
    expected = weighted_hinge(s, target, s.diagonal()[:, None], lambda _: 0.3, K).mean()
    criterion = SimilarityCriterion(Triplet(0.3, num_negatives=K), None, base_weight=1 / K)
    agree(criterion(s, target, None), expected, q, k)


def agree(found: torch.Tensor, expected: torch.Tensor, *leaves: torch.Tensor) -> None:
    torch.testing.assert_close(found, expected)
    grads = [torch.autograd.grad(x, leaves, retain_graph=True) for x in (found, expected)]
    torch.testing.assert_close(*grads)


@pytest.mark.parametrize("transposed", [False, True])
def test_value_of_prime(transposed: bool) -> None:
    q, k, _ = batch()
    target = torch.eye(B)[torch.randperm(B)]  # one positive a row: nothing is drawn
    s = similarity(q, k)
    if transposed:
        s, target = s.T, target.T
    p = s[target > 0][:, None]
    expected = weighted_hinge(s, target, p, lambda lead: lead.detach().abs().clamp(0.1, 0.3), K)
    criterion = SimilarityCriterion(DynamicTriplet(num_negatives=K), None, positive="random")
    agree(criterion(s, target), expected.sum(dim=1).mean(), q, k)


def test_value_of_vixml() -> None:
    q, k, target = batch()
    s = similarity(q, k)
    hinge = weighted_hinge(
        s, target, s.diagonal()[:, None], lambda lead: lead.detach().abs().clamp(0.1, 0.3), K
    )
    criterion = SimilarityCriterion(DynamicTriplet(0.1, 0.3, K), None, 1 / K)
    agree(criterion(s, target), hinge.mean(), q, k)
    agree(criterion.on_embeddings(auxiliary=None)(q, k, target), hinge.mean(), q, k)


def test_violators_of_vixml() -> None:
    q, k, target = batch()
    s = similarity(q, k)
    for base, least in ((Triplet(0.2, num_negatives=K), 0.2), (DynamicTriplet(0.1, 0.3, K), 0.1)):
        _, found = SimilarityCriterion(base, num_violators=True)(s, target)
        hardest = s.masked_fill(target > 0, -100).topk(K, dim=1).values
        expected = (s.diagonal()[:, None] - hardest < least).sum(dim=1).double().mean()
        assert found == expected and 0 < found < K


BASES = [Triplet(), DynamicTriplet(), Softmax(), Sigmoid(), Triplet(symmetric="mean"), None]


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("masked", [False, True])
def test_matrix_and_embeddings_agree(base: object, masked: bool) -> None:
    q, k, target = batch(columns=20)
    target[3] = 0  # a row without positives
    mask = torch.rand(B, 20) < 0.8 if masked else None
    threshold = ThresholdMargin(0.6, 0.1)
    first = SimilarityCriterion(base, threshold, 0.5)
    second = EmbeddingCriterion(None, base, None, threshold, 0.5)
    found = first(similarity(q, k), target, mask)
    gradients = torch.autograd.grad(found, (q, k))
    expected = second(q, k, target, mask)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(gradients, torch.autograd.grad(expected, (q, k)))


def test_embedding_call_is_alc_loss() -> None:
    q, k, target = batch()
    target.fill_diagonal_(0)
    torch.manual_seed(1)
    criterion = EmbeddingCriterion(D, auxiliary=Auxiliary(dropout=0.0, context_heads=2)).double()
    assert {n.split(".")[1] for n, _ in criterion.named_parameters()} == {
        "pair_head", "context_in", "context_layer", "context_head",
    }  # fmt: skip
    found = criterion(q, k, target)
    torch.testing.assert_close(found, criterion.loss(q, k, Positives.from_dense(target)))
    sparse = Positives.from_pairs(*target.nonzero(as_tuple=True), (B, M))
    torch.testing.assert_close(criterion(q, k, sparse), found)


def test_first_positive_is_on_the_diagonal() -> None:
    q, k, _ = batch()
    target = torch.ones(B, 2 * M)
    target[:, M:] = 0
    k = torch.cat([k, torch.randn_like(k)])
    own = ALCLoss(base=Triplet(), auxiliary=None, threshold=None)
    exclude = Positives.from_dense((target > 0) & ~torch.eye(B, 2 * M, dtype=torch.bool))
    expected = own(q, k, torch.arange(B), exclude)
    found = EmbeddingCriterion(None, Triplet(), None, None)(q, k, target)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        SimilarityCriterion(Triplet(), None)(similarity(q, k), target), expected
    )


@pytest.mark.parametrize("call", ["matrix", "embeddings"])
def test_random_positive_is_drawn_evenly(call: str) -> None:
    """With two positives per row the mean over draws is the mean of both, and rows differ."""
    q, k, _ = batch()
    target = torch.eye(B).repeat(1, 2)
    k = torch.cat([k, torch.randn_like(k)]).detach()
    base = Triplet(2.0, num_negatives=1, weight_temperature=None)  # always active: linear in s_p
    s = similarity(q, k).detach()
    hardest = s.masked_fill(target > 0, -100).amax(dim=1)
    per_row = torch.stack(
        [2.0 - s[:, :M].diagonal() + hardest, 2.0 - s[:, M:].diagonal() + hardest]
    )
    torch.manual_seed(0)
    if call == "matrix":
        criterion = SimilarityCriterion(base, None, positive="random")
        draws = torch.stack([criterion(s, target) for _ in range(400)])
    else:
        criterion = EmbeddingCriterion(None, base, None, None, positive="random")
        draws = torch.stack([criterion(q.detach(), k, target) for _ in range(400)])
    spread = (per_row[0] - per_row[1]).square().sum().sqrt() / (2 * B)  # of one draw
    assert (draws.mean() - per_row.mean()).abs() < 4 * spread / 20
    assert draws.std() > 0.7 * spread


def test_in_a_training_step_with_autocast() -> None:
    torch.manual_seed(0)
    encoder = nn.Linear(D, D)
    criterion = SimilarityCriterion()
    x, y = torch.randn(B, D), torch.randn(M, D)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = F.normalize(encoder(x)) @ F.normalize(encoder(y)).T
        loss = criterion(output, torch.eye(B))
    assert output.dtype == torch.bfloat16 and loss.dtype == torch.float32
    loss.backward()
    assert bool(torch.isfinite(encoder.weight.grad).all()) and encoder.weight.grad.abs().max() > 0


def test_a_bad_element_makes_the_loss_nan() -> None:
    q, k, target = batch()
    s = similarity(q, k).detach()
    s[2, 3] = torch.inf
    s.requires_grad_()
    loss = SimilarityCriterion()(s, target)
    loss.backward()
    assert loss.isnan() and bool(s.grad.isnan().all())


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (lambda: SimilarityCriterion(positive="first"), "positive='first'"),
        (lambda: SimilarityCriterion(Softmax(), num_violators=True), "num_violators"),
        (lambda: SimilarityCriterion()(torch.ones(3), torch.ones(3)), "output: expected"),
        (lambda: SimilarityCriterion()(torch.ones(3, 3), torch.ones(3, 2)), "target: expected"),
        (
            lambda: SimilarityCriterion()(torch.ones(3, 3), torch.ones(3, 3), torch.ones(3, 3)),
            "mask: expected booleans",
        ),
        (
            lambda: EmbeddingCriterion(None, auxiliary=None)(
                torch.ones(3, 2), torch.ones(4, 2), torch.ones(3, 3)
            ),
            r"target: expected shape \(3, 4\)",
        ),
    ],
)
def test_errors(made, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        made()
