"""DynamicTriplet in its band against the authors' hinge: max(l, 0) as torch differentiates it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from alc_kernels import ALCLoss, DynamicTriplet, MatryoshkaLoss, Positives, functional, reference
from alc_kernels.integrations.xmc import SimilarityCriterion
from tests.backends.common import NATIVE

BACKENDS = [
    "torch",
    pytest.param("native", marks=pytest.mark.skipif(NATIVE is not None, reason=str(NATIVE))),
    "triton",
]


def scores_as_rows(s: Tensor) -> tuple[Tensor, Tensor]:
    """Q and K with Q K^T = S exactly."""
    return torch.eye(len(s), dtype=s.dtype, device=s.device), s.T.contiguous()


def tied_hinge(
    s: Tensor, own: Tensor, low: float, high: float, k: int, temperature: float | None
) -> Tensor:
    """PRIME's loss of the rows of S, one positive each, by autograd alone.

    ``torch.maximum`` gives each side of a tie half of the gradient. The weights are a softmax in
    which what has no loss is filled with one low value, so that a row of them alone is uniform.
    """
    leading = s.gather(1, own[:, None])
    hardest = s.scatter(1, own[:, None], -9.0).topk(min(k, s.shape[1] - 1), dim=1).values
    lead = leading - hardest
    margin = lead.detach().abs().clamp(low, high)
    loss = torch.maximum(margin - lead, torch.zeros_like(lead))
    if temperature is None:
        return loss.mean(dim=1).mean()
    logits = torch.where(loss != 0, hardest / temperature, torch.full_like(hardest, -1e6))
    return (logits.softmax(dim=1) * loss).sum(dim=1).mean()


@pytest.mark.parametrize("symmetric", [False, "mean", "sum"])
@pytest.mark.parametrize("temperature", [0.1, 0.3, None])
@pytest.mark.parametrize("k", [3, 40])  # 40: fewer negatives than asked for
def test_value_and_gradient_are_those_of_the_tied_hinge(k, temperature, symmetric):
    g = torch.Generator().manual_seed(k)
    kinds = {"band": 0, "active": 0, "above": 0}
    for _ in range(30):
        n = int(torch.randint(2, 9, (), generator=g))
        s = torch.rand(n, n, generator=g, dtype=torch.float64)
        s += torch.rand((), generator=g, dtype=torch.float64) * torch.eye(n)
        own = torch.arange(n)
        options = {"low": 0.1, "high": 0.3, "k": k, "temperature": temperature}
        plain = s.clone().requires_grad_()
        expected = tied_hinge(plain, own, **options)
        if symmetric:
            share = 0.5 if symmetric == "mean" else 1.0
            expected = share * (expected + tied_hinge(plain.T, own, **options))
        expected.backward()
        lead = s.diagonal()[:, None] - s
        for name, found in (
            ("active", lead[~torch.eye(n, dtype=torch.bool)] < 0.1),
            ("above", lead > 0.3),
            ("band", (lead >= 0.1) & (lead <= 0.3)),
        ):
            kinds[name] += int(found.sum())

        for module, more in (
            (reference, {}), (functional, {"backend": "torch"}), (functional, {"backend": "native"})
        ):  # fmt: skip
            if more.get("backend") == "native" and NATIVE is not None:
                continue
            q, labels = scores_as_rows(s)
            labels.requires_grad_()
            loss = module.triplet_loss(
                q, labels, normalize=False, dynamic_margin=(0.1, 0.3), num_negatives=k,
                weight_temperature=temperature, symmetric=symmetric, **more,
            )  # fmt: skip
            loss.backward()
            torch.testing.assert_close(loss, expected.detach(), rtol=1e-13, atol=1e-14)
            torch.testing.assert_close(labels.grad.T, plain.grad, rtol=1e-12, atol=1e-14)
        criterion = SimilarityCriterion(
            DynamicTriplet(0.1, 0.3, k, temperature, symmetric=symmetric), None
        )
        stored = s.clone().requires_grad_()
        criterion(stored, torch.eye(n)).backward()
        torch.testing.assert_close(stored.grad, plain.grad, rtol=1e-12, atol=1e-14)
    assert min(kinds.values()) > 20  # every kind of negative was met


def case() -> Tensor:
    """(6, 6): .6 to the positive, .4 and noise to the others; all negatives in the band."""
    g = torch.Generator().manual_seed(0)
    s = 0.4 + 0.01 * torch.rand(6, 6, generator=g, dtype=torch.float64)
    return s.fill_diagonal_(0.6)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_row_in_the_band_pulls_with_half_of_equal_weights(backend, device):
    s = case().to(device)
    if backend == "triton":
        s = s.float()
    q, labels = scores_as_rows(s)
    labels.requires_grad_()
    loss = functional.triplet_loss(
        q, labels, normalize=False, dynamic_margin=(0.1, 0.3), num_negatives=4, backend=backend
    )
    loss.backward()
    assert loss.item() == 0.0
    row = labels.grad.T[0]
    assert row[0].item() == pytest.approx(-1 / 12, rel=1e-6)
    pulled = s[0].topk(5).indices[1:]
    assert row[pulled].tolist() == pytest.approx([1 / 48] * 4, rel=1e-6)
    assert (row != 0).sum() == 5


@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_weighted_rows_and_single_rows(reduction):
    s = case()
    weight = torch.arange(1.0, 7.0, dtype=torch.float64)
    found = []
    for module in (reference, functional):
        q, labels = scores_as_rows(s)
        labels.requires_grad_()
        loss = module.triplet_loss(
            q, labels, normalize=False, dynamic_margin=(0.1, 0.3), num_negatives=4,
            row_weight=weight, reduction=reduction,
        )  # fmt: skip
        loss.sum().backward()
        found.append(labels.grad.T.diagonal())
    want = -0.5 * weight / (weight.sum() if reduction == "mean" else 1.0)
    for diagonal in found:
        torch.testing.assert_close(diagonal, want)


def test_an_active_negative_takes_the_weight_from_the_band():
    """With equal weights (no temperature) the band pulls beside it."""
    s = torch.tensor([[0.5, 0.4375, 0.25]], dtype=torch.float64)  # leads 1/16 and 1/4
    own = Positives.from_index(torch.tensor([0]), 3)
    for temperature, want in ((0.1, [-1.0, 1.0, 0.0]), (None, [-0.75, 0.5, 0.25])):
        labels = s.T.contiguous().requires_grad_()
        functional.triplet_loss(
            torch.ones(1, 1, dtype=torch.float64), labels, own, normalize=False,
            dynamic_margin=(0.125, 0.25), weight_temperature=temperature,
        ).backward()  # fmt: skip
        assert labels.grad[:, 0].tolist() == pytest.approx(want)


def test_widths_of_an_embedding_have_the_band_as_well():
    g = torch.Generator().manual_seed(1)
    q = torch.randn(5, 8, generator=g, dtype=torch.float64, requires_grad=True)
    labels = (
        q.detach() + 0.8 * torch.randn(5, 8, generator=g, dtype=torch.float64)
    ).requires_grad_()
    base = DynamicTriplet(0.1, 1.5)
    loss_fn = ALCLoss(8, base=base, auxiliary=None, threshold=None)
    MatryoshkaLoss(loss_fn, [4, 8])(q, labels).backward()
    found = q.grad.clone()
    q.grad = None
    for width in (4, 8):
        reference.triplet_loss(
            q[:, :width], labels[:, :width], dynamic_margin=(0.1, 1.5)
        ).backward()
    torch.testing.assert_close(found, q.grad)
