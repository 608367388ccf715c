"""The command line is tested on the same small runs as the evaluation."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "xmc"))
sys.path.insert(0, str(Path(__file__).resolve().parent))


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A data folder and a run on it; tests change copies only."""
    from cli_cases import TINY

    from alc_kernels.cli import main

    folder = tmp_path_factory.mktemp("made")
    words = ["data", "generate", "--labels", "60", "--titles", "600"]
    assert main([*words, "--output", str(folder / "data")]) == 0
    words = ["train", "--data", str(folder / "data"), "--output", str(folder / "run"), *TINY]
    assert main(words) == 0
    return folder
