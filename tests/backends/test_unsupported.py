"""What the Triton backend says about inputs and places where it cannot work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alc_kernels.backends import triton as triton_backend

ROOT = Path(__file__).resolve().parents[2]


def _in_new_process(code: str) -> str:
    """Output of ``code`` in a process without TRITON_INTERPRET."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_supports_the_compute_dtypes(dtype, device):
    assert triton_backend.unsupported(torch.empty(1, dtype=dtype, device=device)) is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_names_other_dtypes(dtype, device):
    reason = triton_backend.unsupported(torch.empty(1, dtype=dtype, device=device))
    assert reason is not None and str(dtype) in reason


def test_cpu_tensors_need_the_interpreter():
    reason = _in_new_process(
        "import torch\n"
        "from alc_kernels.backends import triton as triton_backend\n"
        "assert not torch.cuda.is_initialized()\n"
        "print(triton_backend.unsupported(torch.empty(1)))"
    )
    assert "TRITON_INTERPRET=1" in reason


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        ("sys.modules['triton'] = None", "not installed"),
        ("import triton; triton.__version__ = '3.5.1'", "too old"),
    ],
)
def test_imports_without_a_usable_triton(setup, message):
    reason = _in_new_process(
        f"import sys, torch\n{setup}\n"
        "from alc_kernels.backends import triton as triton_backend\n"
        "print(triton_backend.unsupported(torch.empty(1)))"
    )
    assert message in reason
