"""TF-IDF top-k against a plain sort."""

from __future__ import annotations

import numpy as np
import pytest

from alc_kernels.trainer.data import generate_catalogue
from alc_kernels.trainer.evaluation.scoring import TfidfBaseline, _topk


@pytest.mark.parametrize("k", [1, 2, 5, 7])
def test_topk_sorts_ties_by_smaller_index(k: int) -> None:
    scores = np.random.default_rng(k).integers(0, 4, (50, 7)).astype(np.float32)
    values, indices = _topk(scores, k)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :k]
    np.testing.assert_array_equal(indices, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(scores, expected, 1))


def test_chunks_do_not_change_the_result() -> None:
    data = generate_catalogue(120, 500)
    texts = [*data.train.queries, *data.labels]
    whole = TfidfBaseline(chunk_size=1000).fit(texts).topk(data.test.queries, data.labels, 3)
    parts = TfidfBaseline(chunk_size=7).fit(texts).topk(data.test.queries, data.labels, 3)
    np.testing.assert_array_equal(whole[1], parts[1])
    np.testing.assert_allclose(whole[0], parts[0])
    assert whole[0].dtype == np.float32 and whole[1].dtype == np.int64
    assert (whole[0] <= 1 + 1e-5).all()  # cosines


def test_nothing_of_held_out_names_is_fitted() -> None:
    data = generate_catalogue(120, 500)
    fitted = TfidfBaseline.from_dataset(data).vectorizer
    again = TfidfBaseline().fit([*data.train.queries, *data.open_catalogue().texts]).vectorizer
    leaky = TfidfBaseline().fit([*data.train.queries, *data.labels]).vectorizer
    assert fitted.vocabulary_ == again.vocabulary_ != leaky.vocabulary_


@pytest.mark.parametrize("k", [0, 4])
def test_k_out_of_range(k: int) -> None:
    with pytest.raises(ValueError, match=r"expected 1 to 3"):
        TfidfBaseline().fit(["abc", "bcd"]).topk(["abc"], ["a", "b", "c"], k)
