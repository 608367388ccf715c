"""The auxiliary parts against torch's own modules and by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from alc_kernels import Auxiliary, Positives, Triplet
from alc_kernels import reference as ref
from alc_kernels.reference.auxiliary import encoder_layer, pair_features

D, C = 6, 8


class Heads(nn.Module):
    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.pair_head = nn.Linear(4 * D, 1)
        self.context_in = nn.Linear(4 * D, C)
        self.context_layer = nn.TransformerEncoderLayer(
            C, 4, 2 * C, dropout, "gelu", batch_first=True, norm_first=False
        )
        self.context_head = nn.Linear(C, 1)


@pytest.fixture
def heads() -> Heads:
    torch.manual_seed(3)
    return Heads().double()


def example(b: int = 7, m: int = 9) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Embeddings and mined indices; rows 2 and 4 are outside R."""
    torch.manual_seed(1)
    queries = torch.randn(b, D, dtype=torch.float64, requires_grad=True)
    labels = torch.randn(m, D, dtype=torch.float64, requires_grad=True)
    positive, negative = torch.randint(m, (b,)), torch.randint(m, (b,))
    positive[2], negative[4] = -1, -1
    return queries, labels, positive, negative


def bce(logits: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(
        logits, torch.full_like(logits, target), reduction="sum"
    )


def test_pair_features() -> None:
    a, b = torch.tensor([1.0, 2.0]), torch.tensor([3.0, -1.0])
    assert pair_features(a, b).tolist() == [1, 2, 3, -1, 2, 3, 3, -2]
    a = torch.tensor([1.0], requires_grad=True)  # equal: |a - b| has gradient 0
    pair_features(a, torch.tensor([1.0]))[2].backward()
    assert a.grad.item() == 0.0


def test_pair_by_hand() -> None:
    # unit rows a = (1, 0), b+ = (1, 0), b- = (0, 1); weights pick one entry of each part
    head = nn.Linear(8, 1).double()
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0, 0, 0, 2.0, 3.0, 0, 4.0, 0]]))
        head.bias.fill_(0.5)
    queries = torch.tensor([[2.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([[3.0, 0.0], [0.0, 5.0]], dtype=torch.float64)
    # f+ = 1 + 0 + 0 + 4 + .5 = 5.5;  f- = 1 + 2*1 + 3*1 + 0 + .5 = 6.5
    got = ref.pair_loss(queries, labels, torch.tensor([0]), torch.tensor([1]), None, head)
    want = 0.5 * (math.log(1 + math.exp(-5.5)) + math.log(1 + math.exp(6.5)))
    assert got.item() == pytest.approx(want, rel=1e-12)


def test_pair_against_torch(heads: Heads) -> None:
    queries, labels, positive, negative = example()
    rows = (positive >= 0) & (negative >= 0)
    rows[0] = False
    got = ref.pair_loss(queries, labels, positive, negative, rows, heads.pair_head)
    a, b = F.normalize(queries, dim=1), F.normalize(labels, dim=1)
    want = 0.0
    for i in [1, 3, 5, 6]:
        for target, j in ((1.0, positive[i]), (0.0, negative[i])):
            x = torch.cat([a[i], b[j], (a[i] - b[j]).abs(), a[i] * b[j]])
            want += bce(heads.pair_head(x), target) / (2 * 4)
    assert got.item() == pytest.approx(want.item(), rel=1e-12)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 100, None])
def test_batch_against_torch(heads: Heads, size: int | None) -> None:
    """Groups one by one through torch's own layer, with only the rows of R as tokens."""
    queries, labels, positive, negative = example()
    got = ref.batch_loss(
        queries,
        labels,
        positive,
        negative,
        None,
        heads.context_in,
        heads.context_layer,
        heads.context_head,
        context_size=size,
    )
    a, b = F.normalize(queries, dim=1), F.normalize(labels, dim=1)
    want = torch.zeros((), dtype=torch.float64)
    step = size or 7
    for start in range(0, 7, step):
        members = [i for i in range(start, min(start + step, 7)) if i not in (2, 4)]
        if not members:
            continue
        x = torch.cat([pair_features(a[members], b[j[members]]) for j in (positive, negative)])
        out = heads.context_head(heads.context_layer(heads.context_in(x)[None]))[0, :, 0]
        n = len(members)
        want = want + bce(out[:n], 1.0) + bce(out[n:], 0.0)
    want = want / (2 * 5)
    assert got.item() == pytest.approx(want.item(), rel=1e-10)
    inputs = (queries, labels, *list(heads.parameters())[2:])
    names = ["queries", "labels", *[n for n, _ in heads.named_parameters()][2:]]
    pairs = zip(torch.autograd.grad(got, inputs), torch.autograd.grad(want, inputs), strict=True)
    for name, (mine, theirs) in zip(names, pairs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-8, atol=1e-12, msg=name)


def test_dropout_follows_the_training_flag() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 2 * C, 0.5, "gelu", batch_first=True)
    x, keys = torch.randn(2, 6, C), torch.ones(2, 6, dtype=torch.bool)
    layer.train()
    assert not torch.equal(encoder_layer(x, keys, layer), encoder_layer(x, keys, layer))
    layer.eval()
    torch.testing.assert_close(encoder_layer(x, keys, layer), layer(x), rtol=1e-5, atol=1e-5)


def test_mean_of_dropout_is_the_layer_of_torch() -> None:
    """With dropout on, both draw from the same distribution: compare means over many draws."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(C, 2, 2 * C, 0.4, "gelu", batch_first=True).train()
    x = torch.randn(1, 5, C).expand(20000, 5, C)
    keys = torch.ones(20000, 5, dtype=torch.bool)
    with torch.no_grad():
        mine, theirs = encoder_layer(x, keys, layer), layer(x)
    torch.testing.assert_close(mine.mean(0), theirs.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(mine.std(0), theirs.std(0), rtol=0.05, atol=0.02)


def test_no_rows(heads: Heads) -> None:
    """R empty: 0 with zero gradients for embeddings and heads alike."""
    queries, labels, _, _ = example()
    none = Positives.from_dense(torch.zeros(7, 9))
    terms = ref.alc_loss(queries, labels, none, auxiliary=Auxiliary(), heads=heads)
    terms.total.backward()
    assert terms.total.item() == terms.pair.item() == terms.batch.item() == 0.0
    for x in (queries, labels, *heads.parameters()):
        assert x.grad is not None and x.grad.count_nonzero() == 0


def test_whole_loss(heads: Heads) -> None:
    """alc_loss mines the hardest pairs of R and adds the weighted parts."""
    queries, labels, _, _ = example()
    dense = torch.zeros(7, 9, dtype=torch.bool)
    for i, columns in enumerate([[0, 1], [2], [], [3, 8], [0, 4], [5], [6, 7]]):
        dense[i, columns] = True
    dense_x = torch.zeros(7, 9, dtype=torch.bool)
    dense_x[5] = True  # row 5 has a positive and no negative
    s = F.normalize(queries, dim=1) @ F.normalize(labels, dim=1).T
    positive = torch.where(dense, s, torch.inf).argmin(1)
    negative = torch.where(dense | dense_x, -torch.inf, s).argmax(1)
    positive[2], negative[5] = -1, -1
    context = heads.context_in, heads.context_layer, heads.context_head
    pair = ref.pair_loss(queries, labels, positive, negative, None, heads.pair_head)
    batch = ref.batch_loss(queries, labels, positive, negative, None, *context, context_size=4)
    relation = Positives.from_dense(dense), Positives.from_dense(dense_x)
    base = ref.triplet_loss(queries, labels, *relation)
    settings = Auxiliary(0.5, 2.0, context_size=4)
    terms = ref.alc_loss(
        queries, labels, *relation, base=Triplet(), auxiliary=settings, heads=heads
    )
    assert terms.pair.item() == pytest.approx(pair.item(), rel=1e-12)
    assert terms.batch.item() == pytest.approx(batch.item(), rel=1e-12)
    want = base + 0.5 * pair + 2.0 * batch
    assert terms.total.item() == pytest.approx(want.item(), rel=1e-12)

    class OnlyPair:
        pair_head = heads.pair_head

    only = ref.alc_loss(queries, labels, *relation, auxiliary=Auxiliary(1.0, 0.0), heads=OnlyPair())
    assert only.total.item() == pytest.approx(pair.item(), rel=1e-12)
    assert only.batch.item() == 0.0


def test_wrong_shape(heads: Heads) -> None:
    queries, labels, positive, negative = example()
    with pytest.raises(ValueError, match=r"negative_index: expected shape \(7,\), got \(3,\)"):
        ref.pair_loss(queries, labels, positive, negative[:3], positive > 0, heads.pair_head)
