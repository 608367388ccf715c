"""What ``alc data inspect`` counts, on a data set small enough to count by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.trainer.data import Dataset, Split, generate_catalogue, load_dataset, save_dataset
from alc_kernels.trainer.data.inspect import Inspection, inspect_dataset
from alc_kernels.trainer.data.text.sparse import relation_from_rows

LABELS = ["fridge", "tv", "fridge", "phone", "KÃ¼hlschrank"]


@pytest.fixture
def found(tmp_path: Path) -> Inspection:
    def split(
        texts: list[str], rows: list[list[int]], excluded: list[list[int]] | None = None
    ) -> Split:
        left_out = None if excluded is None else relation_from_rows(excluded, 5)
        return Split(texts, relation_from_rows(rows, 5), left_out)

    data = Dataset(
        name="tiny",
        labels=LABELS,
        splits={
            "train": split(["a", "bb", "a", "tv", " c"], [[0], [0, 1], [0], [1], []]),
            "validation": split(["bb", "x"], [[0], [0]]),
            "test": split(["a", "y", "a\ufffd"], [[2], [], [0]], [[1, 3], [], [4]]),
        },
        held_out=np.array([False, False, True, False, False]),
    )
    save_dataset(data, tmp_path)
    return inspect_dataset(load_dataset(tmp_path))


def test_frequencies(found: Inspection) -> None:
    # Training queries per label: 3, 2, 0, 0, 0.
    frequency = found.label_frequency
    assert (frequency["0%"], frequency["50%"], frequency["100%"], frequency["mean"]) == (0, 0, 3, 1)
    assert (frequency["unseen"], frequency["tail"]) == (3, 2)
    assert frequency["pairs of the top 1%"] == frequency["pairs of the top 10%"] == 0.6
    assert found.pairs_per_query["train"]["mean"] == 1 and found.counts["train_pairs"] == 5
    assert found.pairs_per_query["test"]["100%"] == 1
    assert found.characters["labels"]["100%"] == len("KÃ¼hlschrank")


def test_duplicates(found: Inspection) -> None:
    assert found.duplicates == {
        "labels": 1, "train": 1, "validation": 0, "test": 0, "train and validation": 1,
        "train and test": 1, "validation and test": 0, "queries that are a label's text": 1,
    }  # fmt: skip


def test_filters(found: Inspection) -> None:
    assert found.filters == {"test": {"pairs": 3, "queries": 2, "largest": 2}}


def test_problems_name_file_and_line(found: Inspection) -> None:
    assert found.problems == [
        "labels.txt: 1 text that an earlier line has as well (line 3 as 1)",
        "labels.txt: 1 text with signs of a wrong encoding (line 5)",
        "train.raw.txt: 1 text that an earlier line has as well (line 3 as 1)",
        "train.raw.txt: 1 text with white space at an end or more than a blank between words "
        "(line 5)",
        "test.raw.txt: 1 text with signs of a wrong encoding (line 3)",
        "validation.raw.txt: 1 query that train has too (line 1)",
        "test.raw.txt: 1 query that train has too (line 1)",
    ]


def test_what_is_wanted_is_no_problem(found: Inspection) -> None:
    assert found.remarks == [
        "train_X_Y.txt: 1 query without a label, trained on with --keep-unmatched only (line 6)",
        "test_X_Y.txt: 1 query without a label: to be rejected, no match is right for them "
        "(line 3)",
        "labels.txt: 2 labels that no query has: they may be found all the same (lines 4, 5)",
    ]


def test_it_is_json(found: Inspection) -> None:
    assert json.loads(json.dumps(found.to_json()))["duplicates"]["labels"] == 1


def test_long_lists_are_cut() -> None:
    data = generate_catalogue(60, 300)
    labels = ["same"] * data.num_labels
    repeated = Dataset(data.name, labels, data.splits, data.held_out)
    problem = inspect_dataset(repeated).problems[0]
    assert problem == (
        "labels.txt: 59 texts that an earlier line has as well (lines 2 as 1, 3 as 1, 4 as 1, "
        "5 as 1, 6 as 1, ...)"
    )
