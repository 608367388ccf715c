"""The example runs as its documentation says, and does not depend on the number of processes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = ["--epochs", "2", "--labels", "60", "--titles", "240", "--batch-size", "48"]


def run(count: int, mode: str) -> list[tuple[float, float]]:
    """(loss, coverage) of every epoch."""
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node",
        str(count), "examples/distributed_train.py", *SMALL, "--mode", mode,
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    found = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=240
    )
    assert found.returncode == 0, found.stderr[-3000:]
    lines = re.findall(r"^\d+ loss ([\d.]+), coverage@0.9 ([\d.]+)$", found.stdout, re.M)
    return [(float(loss), float(coverage)) for loss, coverage in lines]


@pytest.mark.slow
def test_example_with_torchrun() -> None:
    one, two = run(1, "auto"), run(3, "ring")
    assert len(one) == 2 and one[1][0] < one[0][0]
    for a, b in zip(one, two, strict=True):
        assert a == pytest.approx(b, abs=1e-3)
