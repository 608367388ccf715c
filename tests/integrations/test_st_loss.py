"""The sentence-transformers losses beside the library's own, and inside its modifiers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest
import torch

st = pytest.importorskip("sentence_transformers")
from sentence_transformers.sentence_transformer.losses import (  # noqa: E402
    CachedMultipleNegativesRankingLoss,
    MatryoshkaLoss,
    MultipleNegativesRankingLoss,
)

from alc_kernels import ALCLoss, Auxiliary, Positives, Sigmoid, Softmax  # noqa: E402
from alc_kernels.integrations.sentence_transformers import (  # noqa: E402
    ALCRankingLoss,
    CachedALCRankingLoss,
)

QUERY = ["nova 8", "pico 9 gb red", "luma case", "nova 64 gb", "red camera"]
POSITIVE = ["nova 8 phone", "pico camera", "luma", "nova 64 phone", "camera red case"]
NEGATIVE = ["red", "blue phone", "128 gb", "nova 128 gb phone", "blue camera"]
NO_DROPOUT = Auxiliary(dropout=0.0, context_heads=2)
BOTH_WAYS = ("query_to_doc", "doc_to_query")


def columns(model: object, *texts: list[str]) -> list[dict[str, torch.Tensor]]:
    return [model.preprocess(side) for side in texts]


def gradients(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def step(loss: torch.nn.Module, *texts: list[str], labels: object = None, scale: float = 1.0):
    loss.zero_grad()
    value = loss(columns(loss.model, *texts), labels)
    (value * scale).backward()
    return value.detach(), gradients(loss)


@pytest.mark.parametrize("sides", [(QUERY, POSITIVE), (QUERY, POSITIVE, NEGATIVE)])
@pytest.mark.parametrize("cached", [False, True])
def test_softmax_is_multiple_negatives_ranking(
    make_model: Callable, sides: tuple, cached: bool
) -> None:
    plain = {"base": Softmax(1 / 20), "auxiliary": None, "threshold": None, "duplicates": None}
    if cached:
        theirs = CachedMultipleNegativesRankingLoss(make_model(), mini_batch_size=2)
        ours = CachedALCRankingLoss(make_model(), mini_batch_size=2, **plain)
    else:
        theirs, ours = (
            MultipleNegativesRankingLoss(make_model()),
            ALCRankingLoss(make_model(), **plain),
        )
    expected, expected_gradients = step(theirs, *sides)
    value, found = step(ours, *sides)
    torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert found.keys() == expected_gradients.keys()
    torch.testing.assert_close(found, expected_gradients, rtol=1e-3, atol=1e-5)


def test_value_is_that_of_alc_loss_on_the_embeddings(make_model: Callable) -> None:
    loss = ALCRankingLoss(make_model(), auxiliary=NO_DROPOUT)
    value, found = step(loss, QUERY, POSITIVE, NEGATIVE)
    assert any(name.startswith("losses.16.pair_head") for name in found)
    embedded = [loss.model(x)["sentence_embedding"] for x in columns(loss.model, QUERY, POSITIVE,
                                                                     NEGATIVE)]  # fmt: skip
    alc = ALCLoss(16, auxiliary=NO_DROPOUT)
    alc.load_state_dict(loss.losses["16"].state_dict())
    expected = alc(embedded[0], torch.cat(embedded[1:]), Positives.from_index(torch.arange(5), 10))
    torch.testing.assert_close(value, expected.detach(), rtol=1e-5, atol=1e-6)


def test_a_copy_of_the_positive_is_no_negative(make_model: Callable) -> None:
    # Rows 0 and 1 have the same positive: as negatives of each other they could not be told apart.
    same = ["nova 8 phone", "nova 8 phone", *POSITIVE[2:]]
    settings = {"base": Softmax(), "auxiliary": None, "threshold": None}
    model = make_model()
    found = {
        kind: step(ALCRankingLoss(model, duplicates=kind, **settings), QUERY, same)[0]
        for kind in ("positive", "exclude", None)
    }
    q, p = (model(x)["sentence_embedding"] for x in columns(model, QUERY, same))
    own = torch.arange(5)
    loss = ALCLoss(base=Softmax(), auxiliary=None, threshold=None)
    twins = Positives.from_ids(torch.tensor([0, 0, 2, 3, 4]), torch.tensor([0, 0, 2, 3, 4]))
    torch.testing.assert_close(found["positive"], loss(q, p, twins).detach())
    torch.testing.assert_close(found["exclude"], loss(q, p, own, twins).detach())
    torch.testing.assert_close(found[None], loss(q, p, own).detach())
    assert found["exclude"] < found[None]


def test_ids_from_labels(make_model: Callable) -> None:
    model, ids = make_model(), torch.tensor([4, 4, 5, 6, 4])
    settings = {"base": Softmax(), "auxiliary": None, "threshold": None, "duplicates": None}
    loss = ALCRankingLoss(model, ids_from_labels=True, **settings)
    value, _ = step(loss, QUERY, POSITIVE, labels=ids)
    q, p = (model(x)["sentence_embedding"] for x in columns(model, QUERY, POSITIVE))
    plain = ALCLoss(base=Softmax(), auxiliary=None, threshold=None)
    torch.testing.assert_close(value, plain(q, p, Positives.from_ids(ids, ids)).detach())


@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_cached_equals_the_whole_batch_heads_included(make_model: Callable, scale: float) -> None:
    whole = ALCRankingLoss(make_model(), auxiliary=NO_DROPOUT)
    cached = CachedALCRankingLoss(make_model(), auxiliary=NO_DROPOUT, mini_batch_size=2)
    cached.losses.load_state_dict(whole.losses.state_dict())
    sides = (QUERY, POSITIVE, NEGATIVE)
    expected, expected_gradients = step(whole, *sides, scale=scale)
    value, found = step(cached, *sides, scale=scale)
    torch.testing.assert_close(value, expected)
    assert found.keys() == expected_gradients.keys()
    assert any("context_layer" in name for name in found)
    torch.testing.assert_close(found, expected_gradients, rtol=1e-3, atol=1e-6)
    with torch.no_grad():
        torch.testing.assert_close(cached(columns(cached.model, *sides)), expected)


@pytest.mark.parametrize("cached", [False, True])
def test_inside_matryoshka_loss(make_model: Callable, cached: bool) -> None:
    """The sum over widths, with weights, and every gradient: those of the loss done by hand."""
    widths, weights = [16, 8, 4], [1.0, 0.5, 2.0]
    settings = {"auxiliary": NO_DROPOUT, "matryoshka_dims": widths}
    made = {True: CachedALCRankingLoss, False: ALCRankingLoss}[cached]
    more = {"mini_batch_size": 2} if cached else {}
    inner = made(make_model(), **settings, **more)
    value, found = step(MatryoshkaLoss(inner.model, inner, widths, weights), QUERY, POSITIVE)
    found = {n.removeprefix("loss."): g for n, g in found.items()}

    plain = ALCRankingLoss(make_model(), **settings)
    plain.losses.load_state_dict(inner.losses.state_dict())
    q, p = (plain.model(x)["sentence_embedding"] for x in columns(plain.model, QUERY, POSITIVE))
    total = sum(
        weight * plain.losses[str(width)](q[:, :width], p[:, :width])
        for width, weight in zip(widths, weights, strict=True)
    )
    total.backward()
    torch.testing.assert_close(value, total.detach(), rtol=1e-5, atol=1e-6)
    expected = gradients(plain)
    assert sum(name.startswith("losses.") for name in expected) > 3 * 4
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=2e-3, atol=2e-6, msg=name)


def test_heads_sleep_with_the_model(make_model: Callable) -> None:
    loss = ALCRankingLoss(make_model(), auxiliary=Auxiliary(dropout=0.9, context_heads=2))
    loss.model.eval()
    values = [loss(columns(loss.model, QUERY, POSITIVE)).item() for _ in range(2)]
    assert values[0] == values[1]
    loss.model.train()
    values = [loss(columns(loss.model, QUERY, POSITIVE)).item() for _ in range(2)]
    assert values[0] != values[1]


def test_bfloat16_model(make_model: Callable) -> None:
    loss = ALCRankingLoss(make_model().bfloat16(), auxiliary=NO_DROPOUT)
    value, found = step(loss, QUERY, POSITIVE)
    assert value.dtype == torch.float32 and bool(torch.isfinite(value))
    assert found["losses.16.pair_head.weight"].dtype == torch.float32


def test_learnable_scalars_are_parameters(make_model: Callable) -> None:
    loss = ALCRankingLoss(make_model(), base=Sigmoid(), auxiliary=None, threshold=None)
    names = {n for n, _ in loss.named_parameters() if not n.startswith("model.")}
    assert names == {"losses.None.log_scale", "losses.None.bias"}


@pytest.mark.parametrize(
    ("settings", "labels", "words"),
    [
        ({"duplicates": "negative"}, None, "duplicates='negative'"),
        ({}, torch.arange(5), "label column"),
        ({"ids_from_labels": True}, None, "needs a label column"),
        ({"ids_from_labels": True}, torch.rand(5), "integer ids"),
    ],
)
def test_errors(make_model: Callable, settings: dict, labels: object, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        loss = ALCRankingLoss(make_model(), **settings)
        loss(columns(loss.model, QUERY, POSITIVE), labels)


def test_errors_of_shape(make_model: Callable) -> None:
    loss = ALCRankingLoss(make_model())
    with pytest.raises(ValueError, match=r"columns: expected \(query, positive\)"):
        loss(columns(loss.model, QUERY))
    matryoshka = MatryoshkaLoss(loss.model, loss, [16, 8])
    with pytest.raises(
        ValueError, match=r"width 8: there are heads for 16 only; .*matryoshka_dims"
    ):
        matryoshka(columns(loss.model, QUERY, POSITIVE), None)
    with pytest.raises(ValueError, match="mini_batch_size=0"):
        CachedALCRankingLoss(make_model(), mini_batch_size=0)


def test_static_embeddings(make_model: Callable) -> None:
    """Their inputs have no row per text: texts cannot be compared, mini-batches not cut."""
    from sentence_transformers.sentence_transformer.modules import StaticEmbedding

    words = make_model().tokenizer.backend_tokenizer
    model = st.SentenceTransformer(modules=[StaticEmbedding(words, embedding_dim=16)], device="cpu")
    with pytest.raises(ValueError, match=r"column 0: equal texts.*pass duplicates=None"):
        ALCRankingLoss(model)(columns(model, QUERY, POSITIVE))
    value, found = step(ALCRankingLoss(model, duplicates=None), QUERY, POSITIVE)
    assert value > 0 and any(name.startswith("model.") for name in found)
    with pytest.raises(ValueError, match="cannot be cut into mini-batches"):
        CachedALCRankingLoss(model)


def test_model_card_entries(make_model: Callable) -> None:
    found = CachedALCRankingLoss(make_model(), mini_batch_size=7).get_config_dict()
    assert found["mini_batch_size"] == 7 and found["duplicates"] == "positive"
    assert found["base"].startswith("Triplet(margin=0.3")
    assert "2510.04551" in ALCRankingLoss(make_model()).citation


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scale", [1.0, 20.0, 50.0])
@pytest.mark.parametrize("negatives", [0, 1, 3])
@pytest.mark.parametrize("size", [2, 5, 64])
def test_many_batches_of_multiple_negatives_ranking(
    make_model: Callable, seed: int, scale: float, negatives: int, size: int
) -> None:
    """Other texts, scales, hard negatives and mini-batches, cached and not, in one direction
    and in both."""
    g = torch.Generator().manual_seed(seed)
    words = [*QUERY, *POSITIVE, *NEGATIVE]

    def texts() -> list[str]:
        drawn = torch.randint(len(words), (7, 2), generator=g).tolist()
        return [f"{words[i]} {words[j]}" for i, j in drawn]

    sides = [texts() for _ in range(2 + negatives)]
    plain = {"auxiliary": None, "threshold": None, "duplicates": None}
    kinds = [
        (MultipleNegativesRankingLoss, ALCRankingLoss, {}, False),
        (
            CachedMultipleNegativesRankingLoss, CachedALCRankingLoss,
            {"mini_batch_size": size}, False,
        ),
    ]  # fmt: skip
    if negatives == 0:
        ways = {"directions": BOTH_WAYS, "partition_mode": "per_direction"}
        theirs = partial(MultipleNegativesRankingLoss, **ways)
        kinds.append((theirs, ALCRankingLoss, {}, True))
    for theirs, ours, more, symmetric in kinds:
        expected, expected_gradients = step(theirs(make_model(), scale=scale, **more), *sides)
        base = Softmax(1 / scale, symmetric=symmetric)
        value, found = step(ours(make_model(), base=base, **plain, **more), *sides)
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert found.keys() == expected_gradients.keys()
        torch.testing.assert_close(found, expected_gradients, rtol=2e-3, atol=2e-5)
