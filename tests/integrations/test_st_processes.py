"""``SentenceTransformerTrainer`` with our losses in two processes, as docs/integrations.md says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("sentence_transformers")
pytest.importorskip("datasets")
pytest.importorskip("accelerate")

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]
SCRIPT = str(Path(__file__).with_name("st_processes.py"))


@pytest.fixture(scope="module")
def output(bert_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What one process and two leave behind."""
    folder = tmp_path_factory.mktemp("processes")
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    for launcher in ([], torchrun):
        done = subprocess.run(
            [sys.executable, *launcher, SCRIPT, str(bert_folder), str(folder)],
            env=environment, capture_output=True, text=True, timeout=600,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr[-3000:]
    return folder


def weights(output: Path, case: str, size: int, rank: int) -> dict[str, dict[str, torch.Tensor]]:
    return torch.load(output / f"{case}-of-{size}-{rank}.pt")


@pytest.mark.parametrize("case", ["softmax", "cached"])
def test_the_encoder_is_that_of_accumulated_batches(output: Path, case: str) -> None:
    """Each process has the loss of its own batch; the gradients are averaged."""
    kept = weights(output, case, 1, 0)
    alone, name = kept["encoder"], "0.model.embeddings.word_embeddings.weight"
    assert (alone[name] - kept["start"][name]).abs().max() > 1e-3
    for rank in (0, 1):
        found = weights(output, case, 2, rank)["encoder"]
        torch.testing.assert_close(found, alone, rtol=1e-4, atol=1e-6)


def test_the_cached_loss_leaves_the_same_encoder(output: Path) -> None:
    plain, cached = (weights(output, case, 2, 0)["encoder"] for case in ("softmax", "cached"))
    torch.testing.assert_close(cached, plain, rtol=1e-4, atol=1e-6)


def test_one_encoder_and_heads_of_its_own_in_each_process(output: Path) -> None:
    first, second = (weights(output, "heads", 2, rank) for rank in (0, 1))
    torch.testing.assert_close(first["encoder"], second["encoder"], rtol=0, atol=0)
    name = "16.pair_head.weight"
    assert not torch.equal(first["heads"][name], second["heads"][name])
