"""Small data sets and runs, shared by the tests of evaluation, report and command line."""

import dataclasses

import numpy as np
import torch

from alc_kernels.trainer.data import Dataset, Split
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.evaluation import Scored, data_fingerprint, score_model
from alc_kernels.trainer.evaluation.results import describe_data

NAMES = [f"product {number} <b>&{number}</b>" for number in range(160)]


def make_dataset(seed=0, queries=200, held_out=True):
    """Titles are a product's name with a number of its own; every eighth product is held out."""
    generator = np.random.default_rng(seed)
    held_out = (np.arange(len(NAMES)) % 8 == 0) & held_out
    splits = {}
    for split in ("train", "validation", "test"):
        labels = generator.integers(len(NAMES), size=queries)
        if split == "train":
            labels = labels[~held_out[labels]]
        titles = [f"{NAMES[label]} offer {place}" for place, label in enumerate(labels)]
        splits[split] = Split(titles, relation_from_rows([[label] for label in labels], len(NAMES)))
    return Dataset("toy <data>", NAMES, splits, held_out, generated=True)


def with_several_labels(seed=0):
    """Queries with no to four labels, and filter pairs beside them."""
    dataset, generator = make_dataset(), np.random.default_rng(seed)
    splits = {"train": dataset.train}
    for name in ("validation", "test"):
        rows = [generator.permutation(len(NAMES)) for _ in dataset.splits[name].queries]
        for row, text in zip(rows, dataset.splits[name].queries, strict=True):
            own = int(text.split()[1])  # the product that the title names comes first
            place = int(np.flatnonzero(row == own)[0])
            row[[0, place]] = row[[place, 0]]
        counts = generator.integers(5, size=len(rows))
        count = len(NAMES)
        right = relation_from_rows([row[:n] for row, n in zip(rows, counts, strict=True)], count)
        left_out = relation_from_rows(
            [row[count - 5 - n :] for row, n in zip(rows, counts, strict=True)], count
        )
        splits[name] = Split(dataset.splits[name].queries, right, left_out)
    return dataclasses.replace(dataset, splits=splits, propensity=(0.6, 2.6))


class ToyModel:
    """Unit vectors: a name's own direction, and noise that depends on the text."""

    def __init__(self, noise=1.0):
        self.noise = noise

    def encode_queries(self, texts):
        rows = []
        for text in texts:
            name = int(text.split()[1])
            direction = np.random.default_rng(name).normal(size=16)
            seed = sum((place + 1) * ord(letter) for place, letter in enumerate(text))
            # Some titles are noisier than others, and scores tell.
            own = np.random.default_rng(seed).normal(size=16) if "offer" in text else 0.0
            rows.append(direction + self.noise * (seed % 7) / 3 * own)
        vectors = torch.tensor(np.array(rows), dtype=torch.float32)
        return torch.nn.functional.normalize(vectors)

    encode_labels = encode_queries


def make_scored(name="run", noise=0.6, dataset=None, **config):
    """A scored run of :class:`ToyModel`."""
    dataset = dataset or make_dataset()
    fingerprint = data_fingerprint(dataset)
    return Scored(
        name,
        score_model(ToyModel(noise), dataset),
        fingerprint,
        describe_data(dataset, fingerprint),
        {"loss": "base", "seed": 0, **config},
        [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.0}],
        {"training": 3.0, "evaluation": 1.0},
    )
