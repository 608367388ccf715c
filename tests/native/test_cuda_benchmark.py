"""The script that measures the CUDA kernels runs, checks values, and writes its record."""

from __future__ import annotations

import pytest
import torch

from alc_kernels.backends import triton as triton_backend
from alc_kernels.backends.cuda import library, operators
from alc_kernels.bench import record
from benchmarks import cuda_kernels


@pytest.fixture(autouse=True)
def _can_run(cuda_device):
    reason = triton_backend.unsupported(torch.empty(1, device=cuda_device))
    if reason is not None:
        pytest.skip(reason)
    if cuda_device.type == "cpu" and torch.cuda.is_available():
        pytest.skip("the script measures the GPU")


ARGUMENTS = ["--rows", "48", "--width", "16", "--top", "3", "--active", "0.5", "--seconds", "0"]


@pytest.mark.slow
def test_runs(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv(library.SWITCH, raising=False)
    output = tmp_path / "cuda.json"
    cuda_kernels.main([*ARGUMENTS, "--output", str(output)])
    rows = record.read(output)["rows"]
    assert [(row["work"], row["provider"]) for row in rows] == [
        *(("hardest negatives k=3", name) for name in ("triton", "cuda", "eager topk")),
        *(("pair gradients 50 %", f"triton {name}") for name in ("atomics", "repeatable")),
        ("pair gradients 50 %", "cuda"),
    ]
    assert all(row["ratio_to_product"] > 0 for row in rows)
    assert capsys.readouterr().out.count(" G") == len(rows)


def test_wrong_values_are_not_timed(tmp_path, monkeypatch):
    def wrong(*arguments):
        pass

    monkeypatch.setattr(operators, "segment_sum", wrong)
    with pytest.raises(ValueError, match="gradients of the CUDA kernels differ"):
        cuda_kernels.main([*ARGUMENTS, "--output", str(tmp_path / "x.json")])
