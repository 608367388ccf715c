"""The acceptance model of a run: candidates, out-of-fold predictions, files."""

import dataclasses

import numpy as np
import pytest
from evaluation_cases import ToyModel, make_dataset, with_several_labels

from alc_kernels.acceptance import TextFeatures, load_acceptance
from alc_kernels.trainer.data import generate_catalogue
from alc_kernels.trainer.evaluation import RunError, data_fingerprint, score_model, topk_labels
from alc_kernels.trainer.evaluation.acceptance import Acceptance, save_accepted
from alc_kernels.trainer.evaluation.candidates import OWN, TFIDF, CandidateSearch
from alc_kernels.trainer.evaluation.predictions import load_predictions
from alc_kernels.trainer.evaluation.results import Kept


@pytest.fixture(scope="module")
def toy():
    """(data set, acceptance, what it fitted on the toy model)."""
    dataset, model = make_dataset(), ToyModel()
    acceptance = Acceptance(dataset)
    fitted = acceptance.fit(model.encode_queries, model.encode_labels(dataset.labels))
    return dataset, acceptance, fitted


def search_of(dataset, model=None):
    texts = TextFeatures(list(dataset.labels))
    if model is None:
        return CandidateSearch(texts)
    return CandidateSearch(texts, model.encode_queries, model.encode_labels(dataset.labels))


def test_candidates_are_the_union_of_both_searches():
    dataset, model = make_dataset(held_out=False), ToyModel()
    search = search_of(dataset, model)
    titles = list(dataset.test.queries)
    made = search(titles)
    queries, labels = model.encode_queries(titles), model.encode_labels(dataset.labels)
    own, scores = topk_labels(queries, labels, OWN)
    tfidf, _ = search.texts.search(titles, TFIDF)
    for row in range(len(titles)):
        found = made.labels[row][made.labels[row] >= 0]
        assert set(found) == {*own[row], *tfidf[row]} and len(set(found)) == len(found)
        best = made.labels[row, made.scores[row].argmax()]
        assert best == own[row, 0]
        np.testing.assert_allclose(made.scores[row].max(), scores[row, 0], rtol=1e-6)
    np.testing.assert_array_equal(made.features.candidates, made.labels)
    exact = (queries.double() @ labels.double().T).numpy()
    there = made.labels >= 0
    expected = np.take_along_axis(exact, np.maximum(made.labels, 0), axis=1)
    np.testing.assert_allclose(made.scores[there], expected[there], rtol=1e-6)
    column = made.features.values[:, :, made.features.names.index("score")]
    np.testing.assert_array_equal(column[there], made.scores[there])


def test_tfidf_alone_and_small_catalogues():
    dataset = make_dataset(held_out=False)
    search = search_of(dataset)
    made = search(["product 3 offer"])
    assert made.labels.shape == (1, OWN + TFIDF)
    np.testing.assert_array_equal(made.labels, search.texts.search(["product 3 offer"], 10)[0])
    small = CandidateSearch(TextFeatures(["only one"]))
    assert small(["another", "only one"]).labels.tolist() == [[0], [0]]
    with pytest.raises(ValueError, match="expected both, or neither"):
        CandidateSearch(search.texts, ToyModel().encode_queries)
    with pytest.raises(ValueError, match=r"found 3, expected 160 \(labels\)"):
        CandidateSearch(
            search.texts, ToyModel().encode_queries, ToyModel().encode_labels(dataset.labels[:3])
        )


@pytest.mark.parametrize("model", [None, ToyModel()])
def test_pairs_that_are_left_out_are_no_candidates(model):
    dataset = with_several_labels()
    search = search_of(dataset, model)
    excluded = dataset.test.excluded
    made = search(list(dataset.test.queries), excluded)
    bare = search(list(dataset.test.queries))
    out = excluded.toarray().astype(bool)
    rows = np.arange(len(out))[:, None]
    assert not (out[rows, np.maximum(made.labels, 0)] & (made.labels >= 0)).any()
    assert (out[rows, np.maximum(bare.labels, 0)] & (bare.labels >= 0)).any()
    assert (made.labels >= 0).sum(axis=1).min() >= OWN
    assert np.isneginf(made.scores[made.labels < 0]).all()


def test_predictions_are_out_of_fold_on_validation(toy):
    dataset, acceptance, fitted = toy
    assert fitted.model.kind == "logistic" and "logistic regression" in fitted.reason
    assert set(fitted.predictions) == {"open", "closed"}
    cosine = score_model(ToyModel(), dataset)
    for catalogue, splits in fitted.predictions.items():
        for split, part in splits.items():
            assert (part.scores[:, 1:] <= part.scores[:, :-1]).all()
            assert part.scores[:, 0].min() >= 0 and part.scores[:, 0].max() <= 1
            other = cosine[catalogue][split]
            np.testing.assert_array_equal(part.group, other.group)
            np.testing.assert_array_equal(part.num_positives, other.num_positives)
            assert part.correct.mean() > other.correct.mean()
    for name in fitted.predictions:  # the refit, which has seen these titles, says other numbers
        own = dataset.catalogues()[name]
        vectors = ToyModel().encode_labels(list(own.texts))
        search = CandidateSearch(acceptance.texts[name], ToyModel().encode_queries, vectors)
        refit = acceptance.scored(name, "validation", search, fitted.model)
        assert (refit.top_score != fitted.predictions[name]["validation"].top_score).mean() > 0.9


def test_the_same_bits_and_parts(toy, monkeypatch):
    dataset, _, fitted = toy
    model = ToyModel()
    monkeypatch.setattr("alc_kernels.trainer.evaluation.acceptance.TITLES_PER_PASS", 37)
    again = Acceptance(dataset).fit(model.encode_queries, model.encode_labels(dataset.labels))
    for catalogue, splits in fitted.predictions.items():
        for split, part in splits.items():
            np.testing.assert_array_equal(part.scores, again.predictions[catalogue][split].scores)
            np.testing.assert_array_equal(part.indices, again.predictions[catalogue][split].indices)


def test_too_few_titles_leave_it_to_the_score(tmp_path):
    dataset = make_dataset(queries=50)
    fitted = Acceptance(dataset).fit()
    assert fitted.model.kind == "none" and "at least 60 are needed" in fitted.reason
    kept = Kept(tmp_path)
    kept.model.write_text("left by an earlier one")
    save_accepted(kept, fitted, data_fingerprint(dataset))
    assert not list(tmp_path.iterdir()) and kept.load("any") is None


def test_files_come_back_and_belong_together(toy, tmp_path):
    dataset, _, fitted = toy
    mark, kept = data_fingerprint(dataset), Kept(tmp_path)
    save_accepted(kept, fitted, mark)
    loaded = kept.load(mark)
    for catalogue, splits in fitted.predictions.items():
        for split, part in splits.items():
            for field in dataclasses.fields(part):
                np.testing.assert_array_equal(
                    getattr(loaded[catalogue][split], field.name), getattr(part, field.name)
                )
    model, state = load_acceptance(kept.model)
    texts = TextFeatures(list(dataset.open_catalogue().texts), state)
    toys = ToyModel()
    vectors = toys.encode_labels(dataset.open_catalogue().texts)
    made = CandidateSearch(texts, toys.encode_queries, vectors)(list(dataset.test.queries))
    labels, sure = model.rank(made.features)
    part = loaded["open"]["test"]
    np.testing.assert_array_equal(sure.astype(np.float32)[:, 0], part.scores[:, 0])
    ids = dataset.open_catalogue().label_ids
    np.testing.assert_array_equal(ids[labels[:, 0]], part.indices[:, 0])

    whole = {path: path.read_bytes() for path in (kept.model, kept.predictions)}

    def refused(words, fingerprint=mark):
        with pytest.raises(RunError, match=words) as error:
            kept.load(fingerprint)
        assert "\n" not in str(error.value) and str(tmp_path) in str(error.value)
        for path, content in whole.items():
            path.write_bytes(content)

    refused("is of other data", "other")
    kept.model.write_bytes(whole[kept.model].replace(b'"answered": ', b'"answered": 1'))
    refused("not made by the acceptance model beside it")
    kept.predictions.write_bytes(whole[kept.predictions][:-20])
    refused("damaged or not a predictions file")
    kept.predictions.unlink()
    refused("acceptance.npz: is missing beside acceptance.json")
    kept.model.unlink()
    refused("acceptance.json: is missing beside acceptance.npz")
    with np.load(kept.predictions) as archive:
        arrays = dict(archive)
    arrays["open/validation/hits"] = ~arrays["open/validation/hits"]
    np.savez_compressed(kept.predictions, **arrays)
    refused("changed since it was written")
    with pytest.raises(ValueError, match="was not made by"):
        load_predictions(kept.predictions, "another")


def test_on_generated_products_it_beats_the_cosine_of_tfidf():
    dataset = generate_catalogue(200, 2000)
    fitted = Acceptance(dataset).fit()
    part = fitted.predictions["open"]["test"]
    assert fitted.model.kind in ("logistic", "boosting")
    labels = fitted.texts.search(list(dataset.test.queries), 1)[0]
    ids = dataset.open_catalogue().label_ids[labels[:, 0]]
    first = dataset.test.relation[np.arange(len(ids)), ids].A1 > 0
    assert part.correct.mean() > first.mean() + 0.02
