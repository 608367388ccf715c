"""One small run with an acceptance model, for all tests of matching; tests change copies only."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from alc_kernels.cli import main
from alc_kernels.matching import Matcher

SETTINGS = ["--epochs", "3", "--loss", "base", "--batch-size", "128", "--embedding-dim", "64",
            "--hidden-dim", "64", "--ngram-buckets", "8192", "--evaluate-every", "0"]  # fmt: skip


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder and a run on it."""
    folder = tmp_path_factory.mktemp("matching")
    words = ["data", "generate", "--labels", "150", "--titles", "2400"]
    assert main([*words, "--output", str(folder / "data")]) == 0
    words = ["train", "--data", str(folder / "data"), "--output", str(folder / "run"), *SETTINGS]
    assert main(words) == 0
    assert (folder / "run" / "acceptance.json").is_file()
    return folder


@pytest.fixture(scope="session")
def matcher(made: Path) -> Iterator[Matcher]:
    """Its matcher, which accepts from the middle of the scores on."""
    yield Matcher.load(made / "run").accepting(threshold=0.5)


@pytest.fixture(scope="session")
def titles(made: Path) -> list[str]:
    """The test titles."""
    text = (made / "data" / "test.raw.txt").read_text(encoding="utf-8")
    return text.splitlines()
