"""All labels in the loss: live vectors replace their rows, held-out labels have none."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data import Dataset, generate_catalogue
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.training.sampler import make_batch
from alc_kernels.trainer.training.training_set import LabelCache, TrainingSet


@pytest.fixture(scope="module")
def data() -> Dataset:
    """6 labels, of which 1 and 4 are held out; excluded pairs with and without a held-out one."""
    made = generate_catalogue(60, 300)
    labels = [f"label {i}" for i in range(6)]
    rows = [[0, 2], [3], [2, 5, 0], []]
    left_out = [[4, 5], [], [3], [1]]
    held_out = np.array([False, True, False, False, True, False])

    def split(rows: list[list[int]], left_out: list[list[int]]) -> object:
        kind = type(made.train)
        return kind(
            [f"query {i}" for i in range(len(rows))],
            relation_from_rows(rows, 6),
            relation_from_rows(left_out, 6),
        )

    splits = {
        "train": split(rows, left_out),
        "validation": split([[0]], [[]]),
        "test": split([[1]], [[]]),
    }
    return dataclasses.replace(
        made, labels=labels, splits=splits, held_out=held_out, _catalogues={}
    )


@pytest.fixture
def cache(data: Dataset) -> LabelCache:
    made = LabelCache(TrainingSet(data, TrainConfig(keep_unmatched=True)), 2, torch.device("cpu"))
    made.refresh(torch.arange(8.0).reshape(4, 2))
    return made


def test_live_vectors_replace_their_rows_and_alone_get_gradients(
    data: Dataset, cache: LabelCache
) -> None:
    batch = make_batch(data.train.relation, np.array([0, 1]), np.array([2, 3]))
    live = torch.tensor([[10.0, 11.0], [12.0, 13.0]], requires_grad=True)
    before = cache.vectors
    vectors = cache.with_live(batch, live)
    # Labels 0, 2, 3, 5 have places 0 .. 3.
    expected = [[0.0, 1.0], [10.0, 11.0], [12.0, 13.0], [6.0, 7.0]]
    assert vectors.tolist() == expected and cache.vectors.tolist() == expected
    assert not cache.vectors.requires_grad
    (vectors * torch.arange(4.0)[:, None]).sum().backward()
    assert live.grad is not None and live.grad.tolist() == [[1.0, 1.0], [2.0, 2.0]]
    assert before.tolist() == torch.arange(8.0).reshape(4, 2).tolist()  # the graph's stays whole


def test_positives_are_the_whole_relation_the_sampled_label_first(
    data: Dataset, cache: LabelCache
) -> None:
    rows = np.array([2, 0, 3])
    batch = make_batch(data.train.relation, rows, np.array([5, 0, -1]))
    found = cache.positives(batch)
    open_labels = np.flatnonzero(~data.held_out)
    expected = data.train.relation[rows][:, open_labels].toarray()
    np.testing.assert_array_equal(found.to_dense().numpy(), expected)
    assert found.first().tolist() == [3, 0, -1]


def test_excluded_pairs_without_held_out_labels(data: Dataset, cache: LabelCache) -> None:
    batch = make_batch(data.train.relation, np.array([0, 2, 3]), np.array([0, 5, -1]))
    found = cache.exclude(batch)
    assert found is not None
    # Query 0 leaves out label 5 (place 3; label 4 is held out), query 2 label 3 (place 2).
    assert found.to_dense().nonzero().tolist() == [[0, 3], [1, 2]]


def test_state(cache: LabelCache, data: Dataset) -> None:
    other = LabelCache(TrainingSet(data, TrainConfig()), 2, torch.device("cpu"))
    other.load_state_dict(cache.state_dict())
    assert torch.equal(other.vectors, cache.vectors)
