"""Suggestions are near, or none is made."""

from __future__ import annotations

import pytest

from alc_kernels.trainer.errors import nearest, suggestion

OPTIONS = ["--output", "--overwrite", "--loss", "--layout", "--epochs", "--temperature",
           "--query-column", "--label-column", "--learning-rate", "--keep-unmatched"]  # fmt: skip


@pytest.mark.parametrize(
    ("word", "found"),
    [
        ("--delimiter", None),
        ("--lr", None),
        ("--k", None),
        ("--los", "--loss"),
        ("--ouptut", "--output"),
        ("--epoch", "--epochs"),
        ("--temp", "--temperature"),
        ("--query_column", "--query-column"),
        ("--querycolumn", "--query-column"),
        ("--learning-rat", "--learning-rate"),
        ("--lable-column", "--label-column"),
        ("--batch-size", None),
        ("--sheet", None),
        ("--encoding", None),
    ],
)
def test_options(word: str, found: str | None) -> None:
    assert nearest(word, OPTIONS) == found


def test_the_nearest_counts() -> None:
    assert nearest("titel", ["Title", "tile", "till"]) == "Title"
    assert nearest("trian", ["train", "trial"]) == "train"
    assert nearest("cosin", ["cosine", "constant"]) == "cosine"
    assert suggestion("acl", ["alc", "base"]) == "; did you mean alc?"
    assert suggestion("product", ["Query", "Label"]) == ""
    assert nearest("x", []) is None and nearest("", ["abc"]) is None
