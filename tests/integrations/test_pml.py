"""The pytorch-metric-learning adapters beside the library's own losses and miner."""

from __future__ import annotations

import pytest
import torch

pytest.importorskip("pytorch_metric_learning")
from pytorch_metric_learning import distances, losses, miners, reducers, regularizers

from alc_kernels import (
    ALCLoss,
    Auxiliary,
    DynamicTriplet,
    Positives,
    Sigmoid,
    Softmax,
    ThresholdMargin,
    Triplet,
    reference,
)
from alc_kernels.integrations.pytorch_metric_learning import (
    FusedALCLoss,
    FusedLoss,
    FusedThresholdMarginLoss,
    HardestMiner,
)

COSINE = distances.CosineSimilarity
MEAN = reducers.MeanReducer
HARD = Triplet(0.2, num_negatives=1, weight_temperature=None, positive="hardest")

# ours, theirs, and the miner they need (None: all pairs)
EQUAL = {
    "SupCon": (
        lambda: FusedLoss(Softmax(0.1), reducer=reducers.AvgNonZeroReducer()),
        lambda: losses.SupConLoss(0.1),
    ),
    "NTXent": (
        lambda: FusedLoss(Softmax(0.2, decoupled=True)),
        lambda: losses.NTXentLoss(0.2, reducer=reducers.PerAnchorReducer(reducer=MEAN())),
    ),
    "dot product": (
        lambda: FusedLoss(
            Softmax(0.5), distance=distances.DotProductSimilarity(normalize_embeddings=False)
        ),
        lambda: losses.SupConLoss(
            0.5, distance=distances.DotProductSimilarity(normalize_embeddings=False)
        ),
    ),
    "TCM": (
        lambda: FusedThresholdMarginLoss(0.6, 0.1),
        lambda: losses.ThresholdConsistentMarginLoss(margin_plus=0.6, margin_minus=0.1),
    ),
}


def batch(rows: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    return x, torch.randint(0, 6, (rows,), generator=generator)


def both(ours, theirs, *args, rtol: float = 1e-6):
    """Value and gradients of both losses are equal; returns the value."""
    leaves = [x for x in args if isinstance(x, torch.Tensor) and x.requires_grad]
    found = ours(*args)
    gradients = torch.autograd.grad(found, leaves)
    expected = theirs(*args)
    torch.testing.assert_close(found, expected, rtol=rtol, atol=1e-9)
    expected_gradients = torch.autograd.grad(expected, leaves)
    torch.testing.assert_close(gradients, expected_gradients, rtol=1e-4, atol=1e-7)
    assert found > 0
    return found


@pytest.mark.parametrize("name", EQUAL)
def test_equals_the_library(name: str) -> None:
    ours, theirs = (make() for make in EQUAL[name])
    both(ours, theirs, *batch(31))


@pytest.mark.parametrize("name", [name for name in EQUAL if name != "TCM"])
def test_equals_the_library_with_ref_emb(name: str) -> None:
    ours, theirs = (make() for make in EQUAL[name])
    # Their PerAnchorReducer has room for as many references as anchors, and counts anchors
    # without a positive as 0.
    (x, labels), (ref, _) = batch(40), batch(19, seed=1)
    ref_labels = torch.arange(19) % 6
    both(ours, theirs, x, labels, None, ref, ref_labels)


@pytest.mark.parametrize("name", EQUAL)
def test_equals_the_library_on_mined_pairs(name: str) -> None:
    ours, theirs = (make() for make in EQUAL[name])
    x, labels = batch(31)
    mined = miners.PairMarginMiner(0.3, 0.1, distance=COSINE())(x, labels)
    every = miners.PairMarginMiner(2, -2, distance=COSINE())(x, labels)
    assert 0 < len(mined[0]) < len(every[0]) and 0 < len(mined[2]) < len(every[2])
    if name == "SupCon":  # theirs keeps anchors that have positives but no negative
        keep = torch.isin(mined[0], mined[2])
        mined = (mined[0][keep], mined[1][keep], *mined[2:])
    both(ours, theirs, x, labels, mined)
    both(ours, theirs, x, None, mined)  # the tuple says all


def test_hardest_triplets_are_batch_hard() -> None:
    theirs = losses.TripletMarginLoss(0.2, distance=COSINE(), reducer=MEAN())
    miner = miners.BatchHardMiner(distance=COSINE())
    (x, labels), (ref, ref_labels) = batch(31), batch(40, seed=1)
    both(FusedLoss(HARD), lambda *a: theirs(*a, miner(*a)), x, labels)
    both(
        lambda *a: FusedLoss(HARD)(a[0], a[1], None, *a[2:]),
        lambda *a: theirs(a[0], a[1], miner(*a), *a[2:]),
        x, labels, ref, ref_labels,
    )  # fmt: skip
    triplets = miner(x, labels)
    both(FusedLoss(HARD), theirs, x, labels, triplets)


def test_all_triplets() -> None:
    # One positive and equally many negatives for each anchor: the mean over all triplets.
    x, _ = batch(24)
    labels = torch.arange(12).repeat(2)
    ours = FusedLoss(Triplet(0.1, num_negatives=24, weight_temperature=None))
    both(ours, losses.TripletMarginLoss(0.1, distance=COSINE(), reducer=MEAN()), x, labels)


@pytest.mark.parametrize("num_negatives", [1, 3])
@pytest.mark.parametrize("with_ref", [False, True])
def test_miner(num_negatives: int, with_ref: bool) -> None:
    (x, labels), (ref, ref_labels) = batch(31), batch(40, seed=1)
    labels[0] = 99  # no positive
    more = (ref, ref_labels) if with_ref else ()
    miner = HardestMiner(num_negatives)
    a, p, n = miner(x, labels, *more)
    assert miner.num_triplets if miner.collect_stats else True
    ba, bp, bn = miners.BatchHardMiner(distance=COSINE())(x, labels, *more)
    first = torch.arange(0, a.numel(), num_negatives)
    assert torch.equal(a[first], ba) and torch.equal(p[first], bp) and torch.equal(n[first], bn)
    assert not bool((a == 0).any())
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(more[0] if more else x).T
    other = labels[:, None] != (ref_labels if with_ref else labels)
    best = s.masked_fill(~other, -2).topk(num_negatives).indices
    assert torch.equal(n.view(-1, num_negatives), best[ba])


def test_miner_with_few_negatives() -> None:
    x, _ = batch(6)
    a, p, n = HardestMiner(5)(x, torch.tensor([0, 0, 0, 0, 1, 2]))
    assert torch.bincount(a, minlength=6).tolist() == [2, 2, 2, 2, 0, 0]
    assert set(n.tolist()) <= {4, 5} and set(p.tolist()) <= {0, 1, 2, 3}
    a, p, n = HardestMiner()(x, torch.zeros(6, dtype=torch.int64))
    assert a.numel() == p.numel() == n.numel() == 0


def test_threshold_margin_takes_its_positives_from_ref_emb() -> None:
    (x, labels), (ref, ref_labels) = batch(19), batch(40, seed=1)
    found = FusedThresholdMarginLoss(0.6, 0.1)(x, labels, None, ref, ref_labels)
    expected = reference.threshold_margin_loss(
        x, ref, Positives.from_ids(labels, ref_labels), positive_margin=0.6, negative_margin=0.1
    )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("base", [Triplet(), DynamicTriplet(), Softmax(), Sigmoid(), "triplet"])
def test_every_base_over_anchors_with_both(base: object) -> None:
    x, labels = batch(31)
    labels[:2] = torch.tensor([77, 78])
    found = FusedLoss(base)(x, labels)
    same = labels[:, None] == labels
    own = torch.arange(31)
    relation = Positives.from_dense(same & ~torch.eye(31, dtype=torch.bool))
    alc = ALCLoss(base=base, auxiliary=None, threshold=None)
    torch.testing.assert_close(found, alc(x, x, relation, own))


def test_alc_and_its_heads() -> None:
    x, labels = batch(31)
    loss = FusedALCLoss(8, auxiliary=Auxiliary(dropout=0.0, context_heads=2)).double()
    found = loss(x, labels)
    found.backward()
    assert all(p.grad is not None for p in loss.loss.pair_head.parameters())
    same = (labels[:, None] == labels) & ~torch.eye(31, dtype=torch.bool)
    expected = loss.loss(x, x, Positives.from_dense(same), torch.arange(31))
    torch.testing.assert_close(found, expected)


def test_reducers_and_regularizers() -> None:
    x, labels = batch(31)
    values = FusedLoss(Softmax(), reducer=reducers.DoNothingReducer())(x, labels)["loss"]
    rows = values["losses"]
    assert rows.shape == values["indices"].shape and values["reduction_type"] == "element"
    torch.testing.assert_close(FusedLoss(Softmax())(x, labels), rows.mean())
    low = FusedLoss(Softmax(), reducer=reducers.ThresholdReducer(low=rows.median().item()))
    torch.testing.assert_close(low(x, labels), rows[rows > rows.median()].mean())
    regular = FusedLoss(Softmax(), embedding_regularizer=regularizers.LpRegularizer())
    torch.testing.assert_close(regular(x, labels), rows.mean() + x.norm(dim=1).mean())
    tcm = FusedThresholdMarginLoss(reducer=MEAN())(x, labels)
    settings = ThresholdMargin()
    assert settings.positive_margin == 0.9 and tcm > 0


def test_learnable_scalars_train() -> None:
    loss = FusedLoss(Sigmoid())
    x, labels = batch(31)
    loss(x, labels).backward()
    assert {n for n, p in loss.named_parameters() if p.grad is not None} == {
        "settings.log_scale",
        "settings.bias",
    }


@pytest.mark.parametrize("labels", [torch.arange(9), torch.zeros(9, dtype=torch.int64)])
def test_nothing_to_learn_from_is_zero_with_a_graph(labels: torch.Tensor) -> None:
    x, _ = batch(9)
    for loss in (FusedLoss("softmax"), FusedLoss(HARD)):
        value = loss(x, labels)
        value.backward()
        assert value == 0 and torch.equal(x.grad, torch.zeros_like(x))


def test_distributed_wrapper_accepts_them() -> None:
    from pytorch_metric_learning.utils.distributed import (
        DistributedLossWrapper,
        DistributedMinerWrapper,
    )

    DistributedMinerWrapper(HardestMiner())
    x, labels = batch(9)
    with pytest.warns(UserWarning, match="non-distributed"):
        value = DistributedLossWrapper(FusedLoss())(x, labels)
    torch.testing.assert_close(value, FusedLoss()(x, labels))


def test_errors() -> None:
    x, labels = batch(9)
    with pytest.raises(ValueError, match="FusedLoss: expected distance CosineSimilarity"):
        FusedLoss(distance=distances.LpDistance())
    with pytest.raises(ValueError, match="power=1"):
        HardestMiner(distance=COSINE(power=2))
    with pytest.raises(ValueError, match="symmetric=False"):
        FusedLoss(Softmax(symmetric=True))
    with pytest.raises(ValueError, match="k=0"):
        HardestMiner(0)
    with pytest.raises(ValueError, match=r"^labels: expected"):
        FusedLoss()(x)
    with pytest.raises(ValueError, match="ref_labels: expected"):
        FusedLoss()(x, labels, ref_emb=x.detach().clone())
    with pytest.raises(ValueError, match="got 2 tensors"):
        FusedLoss()(x, labels, (labels, labels))


NUMBERS = [torch.float32, torch.float64, torch.bfloat16, torch.bool, torch.int32, torch.uint8]


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize("with_ref", [False, True])
def test_labels_of_every_kind(dtype: torch.dtype, with_ref: bool) -> None:
    """As with the integers that they stand for, in the losses and in the miner."""
    (x, labels), (ref, ref_labels) = batch(31), batch(40, seed=1)
    if dtype == torch.bool:
        labels, ref_labels = labels % 2, ref_labels % 2
    more = (ref, ref_labels) if with_ref else ()
    other = labels.to(dtype), *((ref, ref_labels.to(dtype)) if with_ref else ())
    for loss in (FusedLoss(), FusedThresholdMarginLoss(0.6, 0.1)):
        expected = loss(x, labels, None, *more)
        assert torch.equal(loss(x, other[0], None, *other[1:]), expected) and expected > 0
    for a, b in zip(HardestMiner()(x, *other), HardestMiner()(x, labels, *more), strict=True):
        assert torch.equal(a, b) and a.numel() > 20


def test_float_labels_are_equal_as_numbers_are() -> None:
    x, _ = batch(6)
    nan = float("nan")
    found = FusedLoss("softmax")(x, torch.tensor([0.0, -0.0, nan, nan, 1.5, 1.5]))
    expected = FusedLoss("softmax")(x, torch.tensor([0, 0, 2, 3, 4, 4]))
    assert torch.equal(found, expected) and expected > 0
    ref, _ = batch(4, seed=1)
    found = FusedLoss()(x, torch.tensor([0, 1, 2, 3, 4, 5]), None, ref,
                        torch.tensor([-0.0, nan, 2.0, 9.0]))  # fmt: skip
    expected = FusedLoss()(x, torch.arange(6), None, ref, torch.tensor([0, 77, 2, 9]))
    assert torch.equal(found, expected) and expected > 0


def test_pairs_that_a_tuple_names_again() -> None:
    """NTXent's negatives and TCM's pairs count as often as they are named; else once."""
    x, labels = batch(6)
    labels = torch.tensor([0, 0, 0, 1, 1, 1])
    triplets = tuple(torch.tensor(t) for t in ([0, 0, 0, 1, 3, 3, 3], [1, 1, 2, 2, 4, 4, 5],
                                               [3, 3, 4, 5, 0, 0, 0]))  # fmt: skip
    once = tuple(part[torch.tensor([0, 2, 3, 4, 6])] for part in triplets)
    ntxent = FusedLoss(Softmax(0.2, decoupled=True))
    theirs = losses.NTXentLoss(0.2, reducer=reducers.PerAnchorReducer(reducer=MEAN()))
    with torch.no_grad():  # theirs counts the three anchors without a positive as 0
        torch.testing.assert_close(ntxent(x, labels, triplets), theirs(x, labels, triplets) * 2)
    # Written out for anchor 3: its negative 0 is named three times.
    s = torch.nn.functional.normalize(x) @ torch.nn.functional.normalize(x).T / 0.2
    alone = tuple(part[4:] for part in triplets)
    rows = [torch.logaddexp(s[3, p], s[3, 0] + torch.tensor(3.0).log()) - s[3, p] for p in (4, 5)]
    both(ntxent, lambda *_: (rows[0] + rows[1]) / 2, x, labels, alone)
    both(FusedThresholdMarginLoss(0.6, -0.9),
         losses.ThresholdConsistentMarginLoss(margin_plus=0.6, margin_minus=-0.9),
         x, labels, triplets)  # fmt: skip
    for loss in (FusedLoss("softmax"), FusedLoss(HARD), FusedALCLoss(auxiliary=None)):
        torch.testing.assert_close(loss(x, labels, triplets), loss(x, labels, once))
        assert loss(x, labels, once) > 0


def test_a_pair_named_as_both_counts_as_both_in_ntxent() -> None:
    x, _ = batch(4)
    pairs = tuple(torch.tensor(t) for t in ([0, 1], [1, 2], [0, 1, 1], [1, 3, 3]))
    theirs = losses.NTXentLoss(0.2, reducer=MEAN())
    both(FusedLoss(Softmax(0.2, decoupled=True)), theirs, x, None, pairs)


def test_statistics_of_the_miner() -> None:
    x, labels = batch(31)
    for distance in (COSINE(), distances.DotProductSimilarity(normalize_embeddings=False)):
        theirs = miners.BatchHardMiner(distance=distance, collect_stats=True)
        for num_negatives in (1, 3):
            ours = HardestMiner(num_negatives, distance=distance, collect_stats=True)
            theirs(x, labels), ours(x, labels)
            for end in ("hardest", "easiest"):
                for what in ("pos_pair", "neg_pair", "triplet"):
                    name = f"{end}_{what}"
                    assert name in ours._record_these_stats
                    expected = pytest.approx(getattr(theirs, name), rel=1e-12)
                    assert getattr(ours, name) == expected != 0
    ours(x, torch.arange(31))  # no positive: reset
    assert ours.hardest_triplet == ours.easiest_neg_pair == 0 == ours.num_triplets


def test_half_embeddings_give_a_float32_loss() -> None:
    x, labels = batch(31)
    half = x.detach().bfloat16().requires_grad_()
    loss = FusedLoss("softmax")(half, labels)
    loss.backward()
    assert loss.dtype == torch.float32 and half.grad.dtype == torch.bfloat16
