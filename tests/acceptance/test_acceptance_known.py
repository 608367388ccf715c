"""Text features at their edges: catalogues without a known title, ties, threads."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from alc_kernels.acceptance import TextFeatures
from alc_kernels.acceptance.models import Boosting
from alc_kernels.acceptance.similarity import _largest


def test_another_catalogue_has_the_same_columns() -> None:
    labels = [f"nova phone {n}" for n in range(8)]
    titles = [f"phone nova {n} new" for n in range(8)]
    own = TextFeatures.learned(labels, titles, np.arange(8))
    other = TextFeatures(["luma kettle 1", "luma kettle 2"], own.state)
    made = [texts(["kettle 2"], np.array([[0, 1]])) for texts in (own, other)]
    assert made[0].names == made[1].names
    known = made[1].values[:, :, made[1].names.index("known")]
    assert np.isnan(known).all()
    assert "known" not in TextFeatures(labels)(["kettle 2"], np.array([[0, 1]])).names


@given(
    st.tuples(st.integers(1, 5), st.integers(1, 9)).flatmap(
        lambda shape: st.tuples(
            arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.25, 0.5, 1.0])),
            st.integers(1, shape[1]),
        )
    )
)
def test_the_largest_of_each_row_ties_to_the_smaller_column(case: tuple[np.ndarray, int]) -> None:
    dense, k = case
    expected = np.argsort(-dense, axis=1, kind="stable")[:, :k]
    found, values = _largest(dense, k)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(values, np.take_along_axis(dense, expected, axis=1))


def test_scores_of_trees_do_not_depend_on_threads() -> None:
    draw = np.random.default_rng(0)
    values = draw.normal(size=(3000, 6)).astype(np.float32)
    model = Boosting.fit(values, values[:, 0] + values[:, 1] > 0, rounds=20)
    rows = values.astype(np.float64)
    for threads in (1, 2, 5):
        one = model.booster.predict(rows, raw_score=True, num_threads=threads)
        np.testing.assert_array_equal(one, model.logits(values))
