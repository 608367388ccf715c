"""Gradients in float64 against finite differences, over the options."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.autograd import gradcheck, gradgradcheck

from alc_kernels import Auxiliary, Positives
from alc_kernels import reference as ref

B, M, D = 5, 7, 3


def rows(n: int, d: int, step: float) -> Tensor:
    """Fixed irregular numbers, the same in every version of torch; no two scores nearly equal."""
    return torch.sin(torch.arange(n * d, dtype=torch.float64) * step + 0.3).reshape(n, d) * 1.7


def example() -> tuple[Tensor, Tensor, Positives, Positives]:
    """Rows with two, one and no positives; excluded pairs, one of them positive as well."""
    positives = Positives.from_pairs(
        torch.tensor([0, 0, 1, 2, 4, 4]), torch.tensor([5, 1, 2, 0, 6, 3]), (B, M)
    )
    exclude = Positives.from_pairs(torch.tensor([0, 1, 2]), torch.tensor([5, 4, 3]), (B, M))
    queries = rows(B, D, 2.3).requires_grad_()
    labels = rows(M, D, 1.1).requires_grad_()
    return queries, labels, positives, exclude


def check(function: Any, *more: Tensor, order: int = 1, **options: Any) -> None:
    """gradcheck for queries, labels and ``more``; the gradient must not be all zero."""
    queries, labels, positives, exclude = example()

    def call(q: Tensor, k: Tensor, *rest: Tensor) -> Tensor:
        return function(q, k, positives, exclude, *rest, **options)

    inputs = (queries, labels, *more)
    assert gradcheck(call, inputs)
    if order == 2:
        assert gradgradcheck(call, inputs)
    for grad in torch.autograd.grad(call(*inputs).sum(), inputs):
        assert grad.abs().max() > 1e-6


TRIPLET: list[dict[str, Any]] = [
    {},
    {"num_negatives": 2, "normalize": False, "margin": 1.0},
    {"weight_temperature": None},
    {"positive": "hardest", "symmetric": "sum"},
    {"symmetric": "mean", "exclude_above": 0.05},
    # with min = max the margin is one number, as finite differences see it
    {"dynamic_margin": (0.2, 0.2)},
    {"dynamic_margin": (0.2, 0.2), "weight_temperature": None, "positive": "hardest"},
    {"reduction": "none", "margin": 0.6},
]


@pytest.mark.parametrize("options", TRIPLET, ids=str)
def test_triplet(options: dict[str, Any]) -> None:
    check(ref.triplet_loss, order=1 + (options == {}), **options)


@pytest.mark.parametrize("decoupled", [False, True])
@pytest.mark.parametrize("symmetric", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
def test_softmax(decoupled: bool, symmetric: bool, normalize: bool) -> None:
    temperature = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)

    def loss(q: Tensor, k: Tensor, p: Any, x: Any, t: Tensor, **options: Any) -> Tensor:
        return ref.softmax_loss(q, k, p, x, temperature=t, **options)

    check(
        loss,
        temperature,
        order=1 + (symmetric and normalize),
        decoupled=decoupled,
        symmetric=symmetric,
        normalize=normalize,
        label_offset=torch.linspace(-1, 1, M, dtype=torch.float64),
        exclude_above=-0.5,
    )


def test_softmax_reduction_none() -> None:
    weight = torch.linspace(0.5, 2.0, B, dtype=torch.float64)
    check(ref.softmax_loss, reduction="none", row_weight=weight, temperature=0.5)


@pytest.mark.parametrize("options", [{}, {"normalize": False}, {"reduction": "none"}], ids=str)
def test_sigmoid(options: dict[str, Any]) -> None:
    scale = torch.tensor(3.0, dtype=torch.float64, requires_grad=True)
    bias = torch.tensor(-1.0, dtype=torch.float64, requires_grad=True)

    def loss(q: Tensor, k: Tensor, p: Any, x: Any, a: Tensor, b: Tensor, **more: Any) -> Tensor:
        return ref.sigmoid_loss(q, k, p, x, scale=a, bias=b, **more)

    check(loss, scale, bias, order=2, **options)


@pytest.mark.parametrize("scope", ["all", "hardest"])
@pytest.mark.parametrize("reduction", ["active", "rows"])
def test_threshold_margin(scope: str, reduction: str) -> None:
    check(
        ref.threshold_margin_loss,
        negative_scope=scope,
        reduction=reduction,
        negative_weight=0.7,
        order=1 + (scope == "all"),
    )


def test_mined_scores() -> None:
    def scores(q: Tensor, k: Tensor, p: Any, x: Any) -> Tensor:
        found, index = ref.hardest_negatives(q, k, p, x, M)
        return torch.where(index < 0, 0.0, found)

    def top(q: Tensor, k: Tensor, p: Any, x: Any) -> Tensor:
        return ref.topk_similarity(q, k, 2, x)[0]

    check(scores)
    check(top)


class Heads(nn.Module):
    """The head parameters of losses 4, in float64."""

    def __init__(self, d: int, context: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.pair_head = nn.Linear(4 * d, 1)
        self.context_in = nn.Linear(4 * d, context)
        self.context_layer = nn.TransformerEncoderLayer(
            context, 2, 2 * context, dropout, "gelu", batch_first=True
        )
        self.context_head = nn.Linear(context, 1)
        with torch.no_grad():
            for number, p in enumerate(self.parameters()):
                step = torch.arange(p.numel(), dtype=torch.float64) + number
                p.copy_((torch.sin(1.7 * step) * 0.4).reshape(p.shape))
        self.double()


@pytest.mark.parametrize("size", [2, None])
def test_auxiliary(size: int | None) -> None:
    heads = Heads(D, 4)
    positive, negative = torch.tensor([5, 2, 0, -1, 3]), torch.tensor([0, 1, 4, 2, 5])

    def pair(q: Tensor, k: Tensor, p: Any, x: Any) -> Tensor:
        return ref.pair_loss(q, k, positive, negative, None, heads.pair_head)

    def batch(q: Tensor, k: Tensor, p: Any, x: Any) -> Tensor:
        return ref.batch_loss(
            q,
            k,
            positive,
            negative,
            None,
            heads.context_in,
            heads.context_layer,
            heads.context_head,
            context_size=size,
        )

    check(pair, order=2)
    check(batch, order=2)


@pytest.mark.parametrize("part", ["pair", "batch"])
def test_head_parameters(part: str) -> None:
    """Finite differences of every head parameter."""
    queries, labels, positives, exclude = example()
    heads = Heads(D, 4)
    names = [n for n, _ in heads.named_parameters() if n.startswith("pair") == (part == "pair")]
    values = [heads.get_parameter(n).detach().requires_grad_() for n in names]

    def call(*new: Tensor) -> Tensor:
        run = functools.partial(
            ref.alc_loss,
            queries.detach(),
            labels.detach(),
            positives,
            exclude,
            auxiliary=_weights(part),
        )
        return _with_parameters(heads, dict(zip(names, new, strict=True)), run)

    assert gradcheck(call, tuple(values))
    grads = torch.autograd.grad(call(*values), values)
    moved = [n for n, g in zip(names, grads, strict=True) if g.abs().max() > 1e-8]
    assert set(moved) == set(names)


def _weights(part: str) -> Any:
    return Auxiliary(float(part == "pair"), float(part == "batch"), context_size=None)


def _with_parameters(heads: Heads, new: dict[str, Tensor], run: Any) -> Tensor:
    class Bound(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.heads = heads

        def forward(self) -> Tensor:
            return run(heads=self.heads).total

    renamed = {f"heads.{name}": value for name, value in new.items()}
    return torch.func.functional_call(Bound(), renamed)
