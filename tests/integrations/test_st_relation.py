"""Which labels of a sentence-transformers batch are positives: against a plain double loop."""

from __future__ import annotations

import pytest
import torch

from alc_kernels.integrations import equal_pairs
from alc_kernels.integrations.sentence_transformers.loss import batch_relation, text_keys


def features(rows: list[list[int]], width: int, left: bool = False) -> dict[str, torch.Tensor]:
    tokens = torch.zeros(len(rows), width, dtype=torch.int64)
    mask = torch.zeros_like(tokens)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        tokens[i, place] = torch.tensor(row)
        mask[i, place] = 1
    return {"input_ids": tokens, "attention_mask": mask}


def test_equal_pairs_are_those_of_the_double_loop() -> None:
    torch.manual_seed(0)
    left, right = torch.randint(-3, 4, (17,)), torch.randint(-3, 4, (23,))
    rows, cols = equal_pairs(left, right)
    expected = (left[:, None] == right[None, :]).nonzero()
    assert torch.equal(torch.stack([rows, cols], 1), expected)
    rows, cols = equal_pairs(left[:0], right)
    assert rows.numel() == cols.numel() == 0


def test_keys_tell_texts_apart_whatever_the_padding() -> None:
    rows = [[5, 6, 7], [5, 7, 6], [5, 6], [6, 5, 7], [5, 6, 7, 0], [7]]
    keys = text_keys(features(rows, 5), 0)
    assert len(set(keys.tolist())) == len(rows)
    assert torch.equal(text_keys(features(rows, 9), 0), keys)
    assert torch.equal(text_keys(features(rows, 9, left=True), 0), keys)
    whole = {"input_ids": torch.tensor([[5, 6, 7], [5, 7, 6]])}  # without a mask: no padding
    assert torch.equal(text_keys(whole, 0), keys[:2])


def test_no_key_collides_among_many_texts() -> None:
    torch.manual_seed(0)
    tokens = torch.unique(torch.randint(0, 40, (30000, 4)), dim=0)
    keys = text_keys({"input_ids": tokens}, 0)
    assert torch.unique(keys).numel() == tokens.shape[0]


QUERIES = [[1], [2], [1], [3], [4]]
POSITIVES = [[11], [11], [12], [13], [14]]
NEGATIVES = [[21], [14], [12], [22], [13]]


def expected_copies() -> torch.Tensor:
    labels = POSITIVES + NEGATIVES
    found = torch.zeros(5, 10, dtype=torch.bool)
    for i, query in enumerate(QUERIES):
        right = [p for q, p in zip(QUERIES, POSITIVES, strict=True) if q == query]
        for j, label in enumerate(labels):
            found[i, j] = label in right
    return found


COLUMNS = [features(rows, 3) for rows in (QUERIES, POSITIVES, NEGATIVES)]
CPU = torch.device("cpu")


def test_equal_texts_are_positives() -> None:
    positives, exclude = batch_relation(COLUMNS, 5, "positive", None, CPU)
    assert exclude is None
    assert torch.equal(positives.to_dense(), expected_copies())
    assert positives.first().tolist() == [0, 1, 2, 3, 4]  # its own, not the first copy


def test_equal_texts_are_excluded() -> None:
    positives, exclude = batch_relation(COLUMNS, 5, "exclude", None, CPU)
    assert torch.equal(positives.to_dense(), torch.eye(5, 10, dtype=torch.bool))
    assert torch.equal(exclude.to_dense(), expected_copies())


def test_equal_ids_are_positives_of_the_second_column_only() -> None:
    ids = torch.tensor([7, 8, 7, 9, 8])
    positives, exclude = batch_relation(COLUMNS, 5, None, ids, CPU)
    expected = torch.zeros(5, 10, dtype=torch.bool)
    expected[:, :5] = ids[:, None] == ids
    assert exclude is None and torch.equal(positives.to_dense(), expected)
    both, _ = batch_relation(COLUMNS, 5, "positive", ids, CPU)
    assert torch.equal(both.to_dense(), expected | expected_copies())


def test_without_duplicates_and_ids_it_is_an_index() -> None:
    positives, exclude = batch_relation(COLUMNS, 5, None, None, CPU)
    assert exclude is None and positives.tolist() == [0, 1, 2, 3, 4]


def test_columns_without_token_ids_are_refused() -> None:
    flat = {"input_ids": torch.arange(9), "offsets": torch.tensor([0, 4])}
    for column, got in ((flat, r"\(9,\)"), ({}, "NoneType")):
        with pytest.raises(ValueError, match=f"column 1.*shape \\(B, length\\), got {got}.*=None"):
            batch_relation([COLUMNS[0], column], 5, "positive", None, CPU)
