"""Clusters and hard negatives are the same on any number of threads."""

from __future__ import annotations

import os
import subprocess
import sys

SCRIPT = """
import torch
from alc_kernels.trainer.config import TrainConfig
from alc_kernels.trainer.data.text.sparse import relation_from_rows
from alc_kernels.trainer.negatives import balanced_clusters, index, mine_hard_negatives

index.SCANNED_LABELS = 100  # inverted lists
vectors = torch.randn(3000, 64, generator=torch.Generator().manual_seed(0))
print(balanced_clusters(vectors, 7, torch.Generator().manual_seed(1)).tolist())
relation = relation_from_rows([[i] for i in range(500)], 3000)
for kind in ("exact", "approximate"):
    settings = TrainConfig(hard_negative_pool=20, false_negative_margin=0.1, index=kind)
    print(mine_hard_negatives(vectors[:500], vectors, relation, None, settings).tolist())
"""


def test_threads_do_not_matter() -> None:
    def with_threads(count: int) -> str:
        environment = {**os.environ, "OMP_NUM_THREADS": str(count)}
        command = [sys.executable, "-c", SCRIPT]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout

    assert with_threads(1) == with_threads(4)
