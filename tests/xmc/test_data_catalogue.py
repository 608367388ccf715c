"""The generated catalogue: the same everywhere, and as hard as it is meant to be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.data.protocol import is_held_out, split_of
from alc_kernels.trainer.errors import DataError
from alc_kernels.trainer.evaluation.scoring import TfidfBaseline


def fingerprint(data: Dataset) -> str:
    parts = [*data.labels]
    for split in data.splits.values():
        parts += split.queries
        parts.append(str(split.relation.indices.tolist()))
    return hashlib.sha1("\n".join(parts).encode()).hexdigest()[:16]


@pytest.fixture(scope="module")
def data() -> Dataset:
    return generate_catalogue(600, 2000)


def test_same_arguments_same_data_on_every_platform(data: Dataset) -> None:
    assert fingerprint(data) == fingerprint(generate_catalogue(600, 2000))
    assert fingerprint(data) == "64ac15666cebf7ec"
    assert fingerprint(data) != fingerprint(generate_catalogue(600, 2000, seed=1))


def test_sizes_and_protocol(data: Dataset) -> None:
    assert data.generated and data.num_labels == 600
    assert len({label.lower() for label in data.labels}) == 600
    assert 0.08 < data.held_out.mean() < 0.22
    assert [is_held_out(label) for label in data.labels] == data.held_out.tolist()
    for name, split in data.splits.items():
        assert {split_of(query) for query in split.queries} == {name}
    everything = generate_catalogue(600, 2000, keep_unmatched=True)
    assert sum(len(split) for split in everything.splits.values()) == 2000
    assert everything.train.unmatched.any() and not data.train.unmatched.any()


def test_titles_are_texts_on_one_line(data: Dataset) -> None:
    for split in data.splits.values():
        for query in split.queries:
            assert query == " ".join(query.split()) and query


def test_as_hard_as_it_is_meant_to_be(data: Dataset) -> None:
    """Most products are found, but look-alikes and missing products leave many mistakes."""
    catalogue = data.open_catalogue()
    _, indices = TfidfBaseline.from_dataset(data).topk(data.test.queries, catalogue.texts, 1)
    relation = catalogue.relations["test"]
    correct = np.asarray(relation[np.arange(len(indices)), indices[:, 0]])[0] > 0
    answerable = np.diff(relation.indptr) > 0
    assert 0.08 < 1 - answerable.mean() < 0.25
    assert 0.55 < correct.mean() < 0.85
    assert 0.7 < correct[answerable].mean() < 0.97


@pytest.mark.parametrize("sizes", [(19, 100), (100, 99)])
def test_too_small(sizes: tuple[int, int]) -> None:
    with pytest.raises(DataError, match="expected at least"):
        generate_catalogue(*sizes)
