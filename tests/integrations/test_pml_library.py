"""Losses and miner against the installed pytorch-metric-learning, over many label layouts."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
import torch
from pytorch_metric_learning import distances, losses, miners, reducers
from pytorch_metric_learning.utils import loss_and_miner_utils as pairs_of
from torch import Tensor

from alc_kernels import Softmax, Triplet
from alc_kernels.integrations.pytorch_metric_learning import (
    FusedLoss,
    FusedThresholdMarginLoss,
    HardestMiner,
)

Cosine, Dot = distances.CosineSimilarity, distances.DotProductSimilarity
HARD = Triplet(0.2, num_negatives=1, weight_temperature=None, positive="hardest")
Batch = tuple[Tensor, Tensor]

# Label layouts of n rows; every kind of number that the library takes.
LAYOUTS: dict[str, Callable[[int, torch.Generator], Tensor]] = {
    "few classes": lambda n, g: torch.randint(4, (n,), generator=g),
    "many classes": lambda n, g: torch.randint(n, (n,), generator=g),
    "pairs": lambda n, g: torch.arange(n) % (n // 2),
    "one and a rest": lambda n, g: (torch.arange(n) == 0).long() * 7 - 3,
    "two booleans": lambda n, g: torch.rand(n, generator=g) < 0.4,
    "floats": lambda n, g: torch.randint(4, (n,), generator=g) * 0.5 - 0.5,
    "small integers": lambda n, g: torch.randint(3, (n,), generator=g).to(torch.uint8),
    "far apart": lambda n, g: torch.randint(3, (n,), generator=g) * 2**40 - 2**40,
}


def batch(layout: str, rows: int, seed: int, width: int = 6) -> Batch:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, width, generator=g, dtype=torch.float64, requires_grad=True)
    return x, LAYOUTS[layout](rows, g)


def agree(found: Tensor, expected: Tensor, leaf: Tensor, rtol: float = 1e-6) -> None:
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-9)
    ours, theirs = (torch.autograd.grad(value + leaf.sum() * 0, leaf, retain_graph=True)[0]
                    for value in (found, expected))  # fmt: skip
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-7)


def calls(seed: int) -> Iterator[tuple[str, list]]:
    """Arguments of both libraries: (embeddings, labels[, tuple, ref_emb, ref_labels])."""
    for layout in LAYOUTS:
        x, labels = batch(layout, 14, seed)
        yield f"{layout}, itself", [x, labels]
        for rows in (9, 14, 23):
            ref, ref_labels = batch(layout, rows, seed + 50)
            yield f"{layout}, {rows} references", [x, labels, None, ref, ref_labels]


def tuples(x: Tensor, labels: Tensor, g: torch.Generator) -> Iterator[tuple[str, tuple]]:
    """Index tuples: pairs and triplets, each once and some of them several times."""
    pairs = pairs_of.get_all_pairs_indices(labels)
    triplets = pairs_of.get_all_triplets_indices(labels)
    if len(triplets[0]) == 0:
        return
    yield "pairs", pairs
    yield "triplets", triplets
    drawn = torch.randint(len(triplets[0]), (7,), generator=g)
    yield "7 triplets, repeated pairs", tuple(part[drawn] for part in triplets)
    a, p, b, n = pairs
    i = torch.randint(len(a), (9,), generator=g)
    j = torch.randint(len(b), (30,), generator=g)
    yield "repeated pairs", (a[i], p[i], b[j], n[j])


def per_anchor(loss: losses.NTXentLoss, *args) -> Tensor:
    """Mean over anchors with both of the mean over their (distinct) positives."""
    found = loss(*args)["loss"]
    if found["indices"] is None:  # nothing to compare
        return args[0].sum() * 0
    anchors, others = found["indices"]
    rows = args[0].shape[0]
    columns = int(others.max()) + 1
    # A pair that is named again has the same value again. (The library's PerAnchorReducer assigns
    # them to one place, which keeps one value and gives each of them the gradient.)
    zeros = torch.zeros(rows, columns, dtype=args[0].dtype)
    total = zeros.index_put((anchors, others), found["losses"], accumulate=True)
    count = zeros.index_put((anchors, others), zeros.new_ones(()), accumulate=True)
    known = count > 0
    means = (total / count.clamp(min=1)).sum(dim=1) / known.sum(dim=1)
    indices = args[2] if len(args) > 2 else None
    ref_labels = args[4] if len(args) > 4 else None
    negatives = torch.zeros(rows, dtype=torch.bool)
    negatives[pairs_of.convert_to_pairs(indices, args[1], ref_labels)[2]] = True
    return means[known.any(dim=1) & negatives].mean()


def ntxent(t: float) -> losses.NTXentLoss:
    return losses.NTXentLoss(t, reducer=reducers.DoNothingReducer())


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_ntxent(seed: int) -> None:
    ours = FusedLoss(Softmax(0.2, decoupled=True))
    compared = 0
    for _, args in calls(seed):
        expected = per_anchor(ntxent(0.2), *args)
        if expected.isnan():
            continue
        agree(ours(*args), expected, args[0])
        compared += 1
    assert compared > 20


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_ntxent_with_tuples_counts_repeats(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    ours, compared = FusedLoss(Softmax(0.2, decoupled=True)), set()
    for layout in LAYOUTS:
        x, labels = batch(layout, 10, seed)
        for name, indices in tuples(x, labels, g):
            expected = per_anchor(ntxent(0.2), x, labels, indices)
            if not expected.isnan():
                agree(ours(x, labels, indices), expected, x)
                agree(ours(x, None, indices), expected, x)  # the tuple says all
                compared.add(name)
    assert len(compared) == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("distance", [Cosine(), Dot(), Dot(normalize_embeddings=False)])
def test_supcon_with_reducers(seed: int, distance: object) -> None:
    """Where every anchor has both, all reducers of single values agree."""
    made = {
        "mean": reducers.MeanReducer,
        "non-zero": reducers.AvgNonZeroReducer,
        "sum": reducers.SumReducer,
        "threshold": lambda: reducers.ThresholdReducer(low=1.2),
        "per anchor": reducers.PerAnchorReducer,
        "classes": lambda: reducers.ClassWeightedReducer(torch.linspace(0.5, 2.0, 14)),
    }
    compared = 0
    for _, args in calls(seed):
        x, labels = args[:2]
        ref_labels = args[4] if len(args) > 2 else labels
        same = (labels[:, None] == ref_labels).sum(dim=1) - int(len(args) == 2)
        several = labels[:, None] != ref_labels
        if not bool((same > 0).all() & several.any(dim=1).all()):
            continue
        for name, reducer in made.items():
            if name == "classes" and labels.dtype != torch.int64:
                continue  # its weights are looked up by label
            if name == "classes" and not 0 <= int(labels.min()) <= int(labels.max()) < 14:
                continue
            theirs = losses.SupConLoss(0.5, distance=distance, reducer=reducer())
            ours = FusedLoss(Softmax(0.5), distance=distance, reducer=reducer())
            agree(ours(*args), theirs(*args), x)
            compared += 1
    assert compared > 30


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_threshold_margin_with_tuples_counts_repeats(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    compared = set()
    for layout in LAYOUTS:
        x, labels = batch(layout, 10, seed)
        every = [("none", None), *tuples(x, labels, g)]
        for margins in ((0.9, 0.5), (0.6, 0.1), (0.2, -0.3)):
            theirs = losses.ThresholdConsistentMarginLoss(
                margin_plus=margins[0], margin_minus=margins[1]
            )
            for name, indices in every:
                agree(FusedThresholdMarginLoss(*margins)(x, labels, indices),
                      theirs(x, labels, indices), x)  # fmt: skip
                compared.add(name)
    assert len(compared) == 5


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(6))
def test_miner_statistics_and_hardest_triplets(seed: int) -> None:
    names = [f"{end}_{what}" for end in ("hardest", "easiest")
             for what in ("triplet", "pos_pair", "neg_pair")]  # fmt: skip
    for distance in (Cosine(), Dot(normalize_embeddings=False)):
        theirs = miners.BatchHardMiner(distance=distance, collect_stats=True)
        ours = HardestMiner(distance=distance, collect_stats=True)
        for name, args in calls(seed):
            given = [*args[:2], *args[3:]]
            expected, found = theirs(*given), ours(*given)
            for a, b in zip(found, expected, strict=True):
                assert torch.equal(a, b), name
            for stat in names:
                assert getattr(ours, stat) == pytest.approx(getattr(theirs, stat), abs=1e-12), name
            assert set(theirs._record_these_stats) == set(ours._record_these_stats) >= set(names)
            assert ours.num_triplets == theirs.num_triplets
            if not len(expected[0]):
                continue
            triplet = losses.TripletMarginLoss(
                0.2, distance=distance, reducer=reducers.MeanReducer()
            )
            loss = FusedLoss(HARD, distance=distance)
            agree(loss(*args), triplet(*args[:2], expected, *args[3:]), args[0])
