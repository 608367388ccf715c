"""Memory does not grow with the number of pairs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.native.common import needs_native

ROOT = Path(__file__).resolve().parents[2]
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/self/status")
MIB = 2**20
BOUND = 64 * MIB
CODE = r"""
import re, sys, torch
from pathlib import Path
from alc_kernels.bench import eager
from alc_kernels import ALCLoss, Softmax, ThresholdMargin, Triplet
torch.set_num_threads(2)
def status(name):
    text = Path("/proc/self/status").read_text()
    return int(re.search(name + r":\s+(\d+) kB", text)[1]) * 1024
work, rows = sys.argv[1], int(sys.argv[2])
base, tcm = {
    "triplet+tcm": (Triplet(num_negatives=10), ThresholdMargin(negative_margin=0.17)),
    "softmax": (Softmax(), None),
    "softmax+tcm": (Softmax(), ThresholdMargin(negative_margin=0.17)),
    "dense-tcm": (None, ThresholdMargin(negative_margin=0.0)),
}.get(work, (None, None))
loss = eager.softmax
if work != "eager":
    loss = ALCLoss(base=base, threshold=tcm, auxiliary=None, backend="native")
def step(n):
    x, y = (torch.randn(n, 384, requires_grad=True) for _ in range(2))
    before = status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    loss(x, y).backward()
    after = status("VmHWM")
    # Beyond the inputs: the gradients, and a float32 copy of each.
    return after - before - 4 * x.numel() * 4
step(64)
print(step(rows))
"""


def extra_bytes(work: str) -> int:
    """Of one forward and backward at 8,192 rows, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", CODE, work, "8192"], capture_output=True, text=True, cwd=ROOT,
        timeout=500, check=True,
    )  # fmt: skip
    return int(done.stdout)


@needs_native
@on_linux
@pytest.mark.parametrize("work", ["triplet+tcm", "softmax", "softmax+tcm", "dense-tcm"])
def test_extra_memory(work):
    """The similarities of 8,192 rows alone would take 256 MiB, and plain PyTorch 1 GiB."""
    extra = extra_bytes(work)
    assert extra < BOUND, f"{extra / MIB:.0f} MiB"


@needs_native
@on_linux
def test_the_measurement_sees_a_stored_matrix():
    assert extra_bytes("eager") > 500 * MIB
