"""examples/two_tower.py: its data are as it says, its methods train."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from alc_kernels.selfsupervised import mutual_information

FILE = Path(__file__).parents[2] / "examples" / "two_tower.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("two_tower", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_have_a_long_tail_and_groups(example):
    data = example.generate(400, 1000, 12)
    counts = torch.bincount(data.train[:, 1], minlength=1000)
    assert data.head.sum() < 200  # under a fifth of the items make half of the interactions
    assert counts[data.head].sum() > 0.45 * counts.sum()
    together = torch.cat([data.train, data.validation, data.test])
    assert len(together.unique(dim=0)) == len(together)  # nothing of test is in training
    information = mutual_information(data.features).fill_diagonal_(0)
    assert information.argmax(dim=1).tolist() == [1, 0, 3, 2, 5, 4, 7, 6]


def test_recall_and_reciprocal_rank(example):
    ranks, counted = np.array([1, 20, 21, 101]), np.array([1.0, 1, 1, 1])
    assert example.recall(ranks, counted) == pytest.approx(50)
    assert example.mrr(ranks, counted) == pytest.approx(25 * (1 + 1 / 20 + 1 / 21))
    assert example.recall(ranks, np.array([0.0, 1, 0, 1])) == pytest.approx(50)


def test_training_learns_and_every_objective_changes_it(example):
    data = example.generate(200, 300, 10)
    plain = example.train(data, example.Method(), seed=0, epochs=12, batch=64)
    found = example.ranks(plain, data, data.test)
    assert example.recall(found, np.ones(200)) > 2 * 100 * 20 / 300  # twice what chance finds
    for options in list(example.METHODS.values())[2:]:
        model = example.train(data, options[0], seed=0, epochs=1, batch=256)
        again = example.train(data, options[0], seed=0, epochs=1, batch=256)
        same = example.train(data, example.Method(), seed=0, epochs=1, batch=256)
        assert torch.equal(model.tower[0].weight, again.tower[0].weight)
        assert not torch.equal(model.tower[0].weight, same.tower[0].weight)
