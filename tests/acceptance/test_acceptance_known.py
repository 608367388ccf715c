"""Features do not depend on whether the catalogue at hand has a label of a known title."""

from __future__ import annotations

import numpy as np

from alc_kernels.acceptance import TextFeatures


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
