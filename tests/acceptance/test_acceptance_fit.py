"""Fitting on validation, the file, and the reasons given for a match."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.acceptance import (
    AcceptanceError,
    Features,
    TextFeatures,
    fit_acceptance,
    load_acceptance,
)
from tests.acceptance.acceptance_cases import LABELS, Case, case


@pytest.fixture(scope="module")
def some() -> Case:
    return case()


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_better_than_the_score(some: Case, kind: str) -> None:
    fitted = fit_acceptance(some.features, some.right, some.product, kind=kind)
    rows = np.arange(len(some.queries))
    score = np.nan_to_num(some.features.values[:, :, some.features.names.index("score")], nan=-1)
    by_score = some.right[rows, score.argmax(axis=1)].mean()
    assert some.right[rows, fitted.top].mean() > by_score + 0.02
    told = fitted.probabilities[some.features.candidates >= 0]
    assert told.min() >= 0 and told.max() <= 1
    # Calibrated enough: what is said to be right on average is right that often.
    assert abs(fitted.top_probability.mean() - some.right[rows, fitted.top].mean()) < 0.06


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_a_product_does_not_judge_itself(some: Case, kind: str) -> None:
    fitted = fit_acceptance(some.features, some.right, some.product, kind=kind)
    changed = some.right.copy()
    own = some.product == some.product[0]
    changed[own] = ~changed[own]
    again = fit_acceptance(some.features, changed, some.product, kind=kind)
    np.testing.assert_array_equal(fitted.probabilities[own], again.probabilities[own])
    assert (fitted.probabilities[~own] != again.probabilities[~own]).any()
    assert (
        fitted.model.probabilities(some.features) != again.model.probabilities(some.features)
    ).any()


def test_noise_features_promise_nothing() -> None:
    """Out of fold, features without meaning do not look better than chance."""
    draw = np.random.default_rng(0)
    candidates = np.arange(1200).reshape(400, 3)
    features = Features(("score", "noise"), draw.normal(size=(400, 3, 2)), candidates)
    right = np.eye(3, dtype=bool)[draw.integers(3, size=400)]
    fitted = fit_acceptance(features, right, kind="boosting")
    top = right[np.arange(400), fitted.top]
    assert abs(top.mean() - 1 / 3) < 0.09
    inside = fitted.model.probabilities(features).argmax(axis=1)
    assert right[np.arange(400), inside].mean() > 0.6  # while the refit has seen them


@pytest.mark.parametrize(("queries", "kind"), [(40, "none"), (200, "logistic"), (900, "boosting")])
def test_kind_by_answered_queries(queries: int, kind: str) -> None:
    made = case(queries, known=0)
    fitted = fit_acceptance(made.features, made.right, made.product)
    assert fitted.model.kind == kind
    assert f"{made.right.any(axis=1).sum():,} validation queries" in fitted.reason
    if kind == "none":
        score = made.features.values[:, :, 0]
        np.testing.assert_array_equal(fitted.probabilities, score)
        assert "the score decides" in fitted.reason


@pytest.mark.parametrize("kind", ["logistic", "boosting", "none"])
def test_file_gives_the_same_bits(some: Case, kind: str, tmp_path: Path) -> None:
    fitted = fit_acceptance(some.features, some.right, some.product, kind=kind, seed=3)
    again = fit_acceptance(some.features, some.right, some.product, kind=kind, seed=3)
    first, second, third = (tmp_path / name for name in ("first", "second", "third"))
    fitted.model.save(first, some.texts)
    again.model.save(second, some.texts)
    assert first.read_bytes() == second.read_bytes()
    model, state = load_acceptance(first)
    texts = TextFeatures(LABELS, state)
    model.save(third, texts)
    assert first.read_bytes() == third.read_bytes()
    score = some.features.values[:, :, some.features.names.index("score")]
    features = texts(some.queries, some.features.candidates, {"score": score})
    np.testing.assert_array_equal(features.values, some.features.values)
    np.testing.assert_array_equal(
        model.probabilities(features), fitted.model.probabilities(some.features)
    )


def test_damaged_files_are_refused(some: Case, tmp_path: Path) -> None:
    path = tmp_path / "acceptance.json"
    fit_acceptance(some.features, some.right, some.product).model.save(path, some.texts)
    text = path.read_text()
    for changed, words in [
        (text[: len(text) // 2], "cut off"),
        (text.replace('"answered": ', '"answered": 1', 1), "its checksum does not fit"),
        (text.replace('"format": 1', '"format": 7', 1), "format 7, expected 1"),
        ("[1]", "not an acceptance file"),
        ("", "cut off"),
        (json.dumps({"format": 1, "sha256": "0", "body": []}), "changed since"),
    ]:
        path.write_text(changed)
        with pytest.raises(AcceptanceError, match=words) as error:
            load_acceptance(path)
        assert str(error.value).startswith(f"{path}: ") and "\n" not in str(error.value)
    with pytest.raises(AcceptanceError, match="cannot be read"):
        load_acceptance(tmp_path / "none.json")
    path.write_bytes(b"\x80\x04\x95")
    with pytest.raises(AcceptanceError, match="not an acceptance file"):
        load_acceptance(path)


@pytest.mark.parametrize("kind", ["logistic", "boosting"])
def test_reasons_add_up_to_the_logit(some: Case, kind: str) -> None:
    model = fit_acceptance(some.features, some.right, some.product, kind=kind).model
    assert model.classifier is not None
    values = some.features.values[some.features.candidates >= 0]
    rest = model.classifier.logits(values) - model.classifier.contributions(values).sum(axis=1)
    np.testing.assert_allclose(rest, rest[0], rtol=0, atol=1e-6)  # the bias
    for line in model.explain(some.features):
        assert line.startswith("for: ") and "\n" not in line
    first = model.explain(some.features.take(np.arange(1)), np.array([4]))
    assert any(name in first[0] for name in model.names)


def test_ranks_by_probability(some: Case) -> None:
    model = fit_acceptance(some.features, some.right, some.product).model
    labels, probabilities = model.rank(some.features)
    assert (np.diff(probabilities, axis=1) <= 0).all()
    assert (np.sort(labels, axis=1) == np.sort(some.features.candidates, axis=1)).all()


def test_columns_may_come_in_any_order(some: Case) -> None:
    model = fit_acceptance(some.features, some.right, some.product).model
    turned = some.features.select(some.features.names[::-1])
    np.testing.assert_array_equal(model.probabilities(turned), model.probabilities(some.features))
    with pytest.raises(ValueError, match="features: chars missing"):
        model.probabilities(some.features.select([n for n in some.features.names if n != "chars"]))


def test_bad_arguments(some: Case) -> None:
    features, right = some.features, some.right
    wrong = np.zeros_like(right)
    for arguments, words in [
        ({"right": right[:, :2]}, "right: found shape"),
        ({"right": right.astype(float)}, "right: found shape .* dtype float64"),
        ({"kind": "trees"}, "kind='trees': expected one of"),
        ({"folds": 1}, "folds=1"),
        ({"groups": some.product[1:]}, "groups: found shape"),
        ({"right": wrong, "kind": "logistic"}, "all candidates are wrong"),
    ]:
        with pytest.raises(ValueError, match=words):
            fit_acceptance(features, **{"right": right, "groups": some.product, **arguments})
    with pytest.raises(ValueError, match="'score' decides: it is missing"):
        fit_acceptance(features.select(["chars"]), right, kind="none")
    with pytest.raises(ValueError, match="values have shape"):
        Features(("one",), features.values, features.candidates)
    with pytest.raises(ValueError, match="infinite"):
        Features(("one",), np.full((2, 2, 1), np.inf), np.zeros((2, 2), int))
