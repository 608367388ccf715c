"""Scoring a data set, what is kept of it, and the fingerprint of the data."""

import dataclasses

import numpy as np
import pytest
from evaluation_cases import NAMES, ToyModel, make_dataset, with_several_labels

from alc_kernels.metrics import coverage_at_precision
from alc_kernels.metrics.inputs import as_relation
from alc_kernels.trainer.data import Split
from alc_kernels.trainer.data.text.sparse import first_labels, relation_from_rows
from alc_kernels.trainer.errors import DataError
from alc_kernels.trainer.evaluation import (
    data_fingerprint,
    score_model,
    score_ranker,
    scoring,
    validation_check,
)
from alc_kernels.trainer.evaluation.predictions import (
    CATALOGUES,
    SPLITS,
    Predictions,
    leading_catalogue,
    load_predictions,
    save_predictions,
)


def test_perfect_encoder_is_right_wherever_it_can_be():
    dataset = make_dataset()
    found = score_model(ToyModel(noise=0.0), dataset)
    for split in SPLITS:
        truth = dataset.splits[split].relation.indices
        closed, opened = found["closed"][split], found["open"][split]
        np.testing.assert_array_equal(closed.indices[:, 0], truth)
        assert closed.correct.all() and closed.answerable.all()
        missing = dataset.held_out[truth]
        assert missing.any()
        np.testing.assert_array_equal(opened.correct, ~missing)
        np.testing.assert_array_equal(opened.answerable, ~missing)
        # The unit of the bootstrap is the true label, also where the catalogue lacks it.
        np.testing.assert_array_equal(opened.group, truth)
        assert not dataset.held_out[opened.indices].any()


class FirstLabels:
    """Ranks the labels in the order given."""

    def topk(self, queries, labels, k):
        places = np.tile(np.arange(k), (len(queries), 1))
        return 1.0 - places / 100.0, places


def test_a_ranker_is_read_in_the_catalogues_own_numbering():
    dataset = make_dataset()
    found = score_ranker(FirstLabels(), dataset, k=3)
    # Label 0 is held out, so the open catalogue begins with label 1.
    assert found["open"]["test"].indices[0].tolist() == [1, 2, 3]
    assert found["closed"]["test"].indices[0].tolist() == [0, 1, 2]
    truth = dataset.test.relation.indices
    np.testing.assert_array_equal(found["open"]["test"].hits[:, 1], truth == 2)
    np.testing.assert_allclose(found["open"]["test"].scores[0], [1.0, 0.99, 0.98])


def test_membership_and_first_labels_with_empty_and_crowded_rows():
    relation = relation_from_rows([[4, 1], [], [2]], 5)
    columns = np.array([[1, 0], [-1, 4], [2, -1]])
    assert as_relation(relation, "relation").contains(columns).tolist() == [
        [True, False],
        [False, False],
        [True, False],
    ]
    assert first_labels(relation).tolist() == [1, -1, 2]


def test_filter_pairs_are_removed_before_ranking():
    """What remains is the unfiltered ranking with the pairs taken out, for model and ranker."""
    dataset = with_several_labels()
    bare = {n: dataclasses.replace(s, excluded=None) for n, s in dataset.splits.items()}
    bare = dataclasses.replace(dataset, splits=bare)
    scored = [
        (score_model(ToyModel(), dataset), score_model(ToyModel(), bare, k=len(NAMES))),
        (score_ranker(FirstLabels(), dataset), score_ranker(FirstLabels(), bare, k=35)),
    ]
    for filtered, whole in scored:
        for catalogue in CATALOGUES:
            found, every = filtered[catalogue]["test"], whole[catalogue]["test"]
            assert found.indices.shape == (200, 10)
            excluded = dataset.test.excluded.toarray().astype(bool)
            for row in range(200):
                left = [i for i in every.indices[row] if i >= 0 and not excluded[row, i]][:10]
                assert found.indices[row].tolist() == left
                right = dataset.test.relation[row].indices
                assert found.hits[row].tolist() == [i in right for i in left]


def test_queries_are_scored_in_parts(monkeypatch):
    dataset = with_several_labels()
    whole = score_model(ToyModel(), dataset)
    monkeypatch.setattr(scoring, "QUERIES_PER_PASS", 64)
    parts = score_model(ToyModel(), dataset)
    for field in dataclasses.fields(Predictions):
        np.testing.assert_array_equal(
            getattr(whole["open"]["test"], field.name), getattr(parts["open"]["test"], field.name)
        )


def test_membership_is_counted_in_64_bits():
    """Row times width passes 2^31 long before the data do not fit."""
    width = 1 << 20
    relation = relation_from_rows([[] for _ in range(4095)] + [[5, width - 1]], width)
    relation.indices = relation.indices.astype(np.int32)
    relation.indptr = relation.indptr.astype(np.int32)
    columns = np.full((4096, 2), [5, width - 1], np.int64)
    found = as_relation(relation, "relation").contains(columns)
    assert found[-1].all() and not found[:-1].any()


def test_without_held_out_labels_there_is_the_closed_catalogue_alone(tmp_path):
    dataset = make_dataset(held_out=False)
    found = score_model(ToyModel(), dataset)
    assert list(found) == ["closed"] and leading_catalogue(found) == "closed"
    assert list(score_ranker(FirstLabels(), dataset, k=3)) == ["closed"]
    save_predictions(tmp_path / "p.npz", found, "abc")
    loaded, _ = load_predictions(tmp_path / "p.npz")
    assert list(loaded) == ["closed"]
    np.testing.assert_array_equal(loaded["closed"]["test"].gains, found["closed"]["test"].gains)


@pytest.mark.parametrize("held_out", [True, False])
def test_validation_check_agrees_with_the_predictions(held_out):
    dataset = make_dataset(held_out=held_out)
    found = score_model(ToyModel(), dataset)
    split = found[leading_catalogue(found)]["validation"]
    made = validation_check(dataset)(ToyModel())
    assert made == {
        "p1": split.correct.mean(),
        "coverage_90": coverage_at_precision(split.top_score, split.correct, 0.9),
        "coverage_95": coverage_at_precision(split.top_score, split.correct, 0.95),
    }


def test_a_propensity_that_cannot_be_computed_names_the_data():
    dataset = make_dataset()
    train = Split(list(dataset.train.queries[:2]), dataset.train.relation[:2])
    small = dataclasses.replace(dataset, splits=dataset.splits | {"train": train})
    with pytest.raises(DataError, match=r"toy <data>.*inverse propensity.*at least 3"):
        score_model(ToyModel(), small)


def test_predictions_survive_the_file(tmp_path):
    found = score_model(ToyModel(), make_dataset())
    save_predictions(tmp_path / "p.npz", found, "abc")
    loaded, fingerprint = load_predictions(tmp_path / "p.npz")
    assert fingerprint == "abc"
    assert [path.name for path in tmp_path.iterdir()] == ["p.npz"]
    for catalogue in CATALOGUES:
        for split in SPLITS:
            for field in dataclasses.fields(Predictions):
                before = getattr(found[catalogue][split], field.name)
                after = getattr(loaded[catalogue][split], field.name)
                np.testing.assert_array_equal(before, after)
                assert before.dtype == after.dtype


@pytest.mark.parametrize("cut", [0, 40, 2000])
def test_a_truncated_file_is_named(tmp_path, cut):
    path = tmp_path / "p.npz"
    save_predictions(path, score_model(ToyModel(), make_dataset()), "abc")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"p\.npz"):
        load_predictions(path)


def test_a_foreign_archive_is_named(tmp_path):
    np.savez(tmp_path / "p.npz", other=np.arange(3))
    with pytest.raises(ValueError, match=r"p\.npz: damaged or not a predictions file"):
        load_predictions(tmp_path / "p.npz")


def test_fingerprint_tells_data_apart_and_ignores_training():
    base = make_dataset()
    assert data_fingerprint(base) == data_fingerprint(make_dataset())
    relation = base.train.relation[:10]
    shorter = base.splits | {"train": Split(list(base.train.queries[:10]), relation)}
    assert data_fingerprint(dataclasses.replace(base, splits=shorter)) == data_fingerprint(base)

    others = [make_dataset(seed=1), dataclasses.replace(base, labels=[n + "!" for n in NAMES])]
    held = base.held_out.copy()
    held[0] = False
    others.append(dataclasses.replace(base, held_out=held))
    # The same letters, cut between two texts at another place.
    moved = list(base.test.queries)
    moved[0], moved[1] = moved[0] + moved[1][0], moved[1][1:]
    split = Split(moved, base.test.relation)
    others.append(dataclasses.replace(base, splits=base.splits | {"test": split}))
    prints = {data_fingerprint(data) for data in [base, *others]}
    assert len(prints) == 5
