"""PRIME: prototypes, their centroids and what is added to the loss."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from alc_kernels import Positives, reference
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.errors import ConfigError
from alc_kernels.trainer.methods import METHODS
from alc_kernels.trainer.methods import prime as prototype_margin
from alc_kernels.trainer.methods.prime import Prototypes, prototype_margin_loss, similarities_at
from tests.xmc.methods_cases import DIM, LABELS, SEEN, generator, snapshot, unit

pytest.importorskip("faiss")
CONFIG = TrainConfig.resolve({"method": "prime", "backend": "torch", "num_negatives": 7})
IDS = torch.tensor([5, 0, 39, 31, 33])


def side(train: bool = False, trained: bool = True, **changes: Any) -> Prototypes:
    """With centroids, and with random instead of zero weights where ``trained``."""
    torch.manual_seed(1)
    made = Prototypes(CONFIG.replace(**changes), DIM, LABELS).train(train)
    made.refresh(snapshot(), generator())
    if trained:
        with torch.no_grad():
            for weight in (made.network.output.weight, made.network.absent, made.free.table):
                weight.copy_(torch.randn(weight.shape, generator=generator(2)) * 0.5)
    return made


def test_centroids_are_the_normalised_means_of_the_labels_queries() -> None:
    made, taken = side(), snapshot()
    dense = torch.from_numpy(taken.relation.toarray())
    expected = F.normalize(dense.T @ taken.queries, dim=1)
    torch.testing.assert_close(made.centroid, expected)
    assert not made.centroid[SEEN:].any()
    assert torch.equal(made.seen, torch.arange(LABELS) < SEEN)
    made.refresh(snapshot(seed=4), generator())
    dense_new = F.normalize(dense.T @ snapshot(seed=4).queries, dim=1)
    torch.testing.assert_close(made.centroid, dense_new)


def test_a_refresh_forgets_labels_that_lost_their_queries() -> None:
    made = side()
    made.refresh(snapshot(seen=20), generator())
    assert torch.equal(made.seen, torch.arange(LABELS) < 20)


@pytest.mark.parametrize("train", [False, True])
def test_prototypes_start_as_the_text_vectors(train: bool) -> None:
    text = unit(5, 3)
    torch.testing.assert_close(side(train, trained=False)(text, IDS), text)
    fresh = Prototypes(CONFIG, DIM, LABELS).train(train)  # no snapshot yet
    torch.testing.assert_close(fresh(text, IDS), text)


def test_prototypes_use_centroid_and_free_vector_of_seen_labels_only() -> None:
    made, text = side(), unit(5, 3)
    before = made(text, IDS)
    torch.testing.assert_close(before.norm(dim=1), torch.ones(5))
    seen = IDS < SEEN
    for stored in (made.centroid, made.free.table):
        kept = stored.detach().clone()
        with torch.no_grad():
            stored.copy_(torch.randn(stored.shape, generator=generator(7)))
        moved = (made(text, IDS) - before).norm(dim=1) > 1e-3
        assert torch.equal(moved, seen)
        with torch.no_grad():
            stored.copy_(kept)
    assert bool(((before - text).norm(dim=1) > 1e-3).all())
    assert made(text.half().float().to(torch.bfloat16), IDS).dtype == torch.bfloat16
    assert made(text[:0], IDS[:0]).shape == (0, DIM)


def test_hidden_labels_look_like_unseen_ones() -> None:
    """Evaluation hides nothing; training hides the wanted share, by PyTorch's generator."""
    made = side(prototype_dropout=0.5)
    for module in made.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    ids = torch.arange(SEEN).repeat(20)
    text = unit(SEEN, 3).repeat(20, 1)
    shown = made(text, ids)
    made.seen.zero_()
    hidden = made(text, ids)
    made.seen[:SEEN] = True
    torch.manual_seed(3)
    drawn = made.train()(text, ids)
    is_shown = (drawn - shown).norm(dim=1) < 1e-4
    is_hidden = (drawn - hidden).norm(dim=1) < 1e-4
    assert bool((is_shown ^ is_hidden).all())
    assert 0.4 < is_hidden.float().mean() < 0.6
    torch.manual_seed(3)
    assert torch.equal(made(text, ids), drawn)


def test_gradients_reach_every_part() -> None:
    made = side(prototype_dropout=0.0).train()
    text = unit(5, 3).requires_grad_()
    (made(text, IDS) * unit(5, 4)).sum().backward()
    gradient = made.free.table.grad
    assert gradient is not None and gradient.is_sparse
    gradient = gradient.coalesce()
    moved = gradient.indices()[0][gradient.values().norm(dim=1) > 0]
    seen = made.free.cluster[IDS[IDS < SEEN]].unique()
    assert torch.equal(moved, seen)  # none of labels outside of the batch, none of unseen ones
    for name, parameter in made.network.named_parameters():
        assert parameter.grad is not None and parameter.grad.norm() > 0, name
    assert text.grad is not None and bool((text.grad.norm(dim=1) > 0).all())
    assert [p is made.free.table for p in made.table_parameters()] == [True]


def test_state_round_trip() -> None:
    made, text = side(), unit(5, 3)
    restored = Prototypes(CONFIG, DIM, LABELS).eval()
    restored.load_state_dict(made.state_dict())
    assert torch.equal(restored(text, IDS), made(text, IDS))
    for one in (made, restored):
        one.refresh(snapshot(seed=8), generator(1))
    assert all(
        torch.equal(value, restored.state_dict()[name]) for name, value in made.state_dict().items()
    )


def case() -> tuple[Tensor, Tensor, Tensor, Positives, Positives]:
    """Queries, texts and prototypes near their first positive, and relations with all kinds."""
    text, shift = unit(12, 1), unit(12, 2)
    prototypes = F.normalize(text + 0.4 * shift, dim=1)
    # Row 7 has no positive, row 3 two, row 9 every label: no negative.
    col = [[i] for i in range(12)]
    col[3], col[7], col[9] = [11, 3], [], list(range(12))
    queries = F.normalize(text + 1.2 * unit(12, 3), dim=1)
    crow = torch.from_numpy(np.cumsum([0, *map(len, col)]))
    positives = Positives.from_csr(crow, torch.tensor([j for row in col for j in row]), 12)
    exclude = Positives.from_pairs(torch.tensor([0, 1, 2]), torch.tensor([5, 8, 2]), (12, 12))
    return queries, text, prototypes, positives, exclude


def by_hand(margin: float, k: int, above: float | None) -> float:
    """The formula of the docstring, term by term."""
    queries, text, prototypes, positives, exclude = case()
    y, x, first = positives.to_dense(), exclude.to_dense(), positives.first()
    good, bad = [], []
    for i in range(12):
        s, t = prototypes @ queries[i], text @ queries[i]
        p = int(first[i])
        allowed = [j for j in range(12) if not y[i, j] and not x[i, j]]
        if p >= 0:
            good.append(float(t[p] - s[p]) + margin)
            if above is not None:
                allowed = [j for j in allowed if s[j] <= s[p] - above]
        hardest = sorted(allowed, key=lambda j: -float(s[j]))[:k]
        bad += [float(s[j] - t[j]) + margin for j in hardest]
    means = [np.mean([v for v in values if v > 0] or [0.0]) for values in (good, bad)]
    return float(sum(means)) / 2


@pytest.mark.parametrize(("margin", "k", "above"), [(0.3, 7, None), (0.05, 3, 0.1), (-3, 2, None)])
def test_the_regulariser_is_the_hand_computed_one(
    margin: float, k: int, above: float | None
) -> None:
    queries, text, prototypes, positives, exclude = case()
    found = prototype_margin_loss(
        queries, text, prototypes, positives, exclude,
        SimpleNamespace(prototype_margin=margin, num_negatives=k, backend="torch"), above,
    )  # fmt: skip
    assert float(found) == pytest.approx(by_hand(margin, k, above), abs=1e-6)
    if margin < 0:
        assert float(found) == 0


def test_similarities_in_chunks_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    index = torch.randint(0, 12, (12, 4), generator=generator())
    results = []
    for chunk in (2**24, 12 * 5, 1):  # at once, 5 rows, 1 row
        monkeypatch.setattr(prototype_margin, "CHUNK", chunk)
        queries, labels = unit(12, 1).requires_grad_(), unit(12, 2).requires_grad_()
        made = similarities_at(queries, labels, index)
        (made * unit(12, 3, 4)).sum().backward()
        results.append((made, queries.grad, labels.grad))
    expected = torch.einsum("bd,bkd->bk", unit(12, 1), unit(12, 2)[index])
    torch.testing.assert_close(results[0][0], expected)
    for one in results[1:]:
        torch.testing.assert_close(one, results[0])


def test_the_penalty_is_text_part_plus_regulariser() -> None:
    queries, text, prototypes, positives, exclude = case()
    assert CONFIG.prototype_margin == 0.1  # the authors train with it; max_margin is another
    changed = CONFIG.replace(prototype_weight=0.7, prototype_regularizer=0.2, prototype_margin=0.15)
    made = Prototypes(changed, DIM, LABELS)
    text_part = reference.triplet_loss(
        queries, text, positives, exclude,
        dynamic_margin=(0.1, 0.3), num_negatives=7, symmetric="sum", exclude_above=-0.1,
    )  # fmt: skip
    assert float(text_part) > 0.01
    found = made.penalty(queries, text, prototypes, positives, exclude, -0.1)
    assert found is not None
    expected = 0.7 * float(text_part) + 0.2 * by_hand(0.15, 7, -0.1)
    assert float(found) == pytest.approx(expected, abs=1e-6)
    nothing = CONFIG.replace(prototype_weight=0.0, prototype_regularizer=0.0)
    made.config = nothing
    assert made.penalty(queries, text, prototypes, positives) is None
    for one in ({"prototype_weight": 1.0}, {"prototype_regularizer": 1.0}):
        made.config = nothing.replace(**one)
        assert made.penalty(queries, text, prototypes, positives) is not None


def test_base_loss_and_bad_heads() -> None:
    base = METHODS["prime"].base_loss(TrainConfig.resolve({"method": "prime"}))
    assert (base.min_margin, base.max_margin, base.num_negatives) == (0.1, 0.3, 100)
    assert base.symmetric is False  # the text part has the second direction
    with pytest.raises(ConfigError, match=r"prototype_heads = 4: expected a divisor of .* 30"):
        Prototypes(CONFIG, 30, LABELS)
