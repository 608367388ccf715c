"""Every .cu file compiles for every GPU generation within its recorded budget."""

from __future__ import annotations

import os
import subprocess

import pytest
import torch

from alc_kernels.backends.cuda.library import message, open_library
from csrc import nvcc
from tests.compile_gate.cuda_gate import (
    ROOT,
    TARGETS,
    compile_all,
    compiler,
    load_budgets,
    parse,
    problems,
    readable,
)

# Set by ``make test-slow``: there, no nvcc is a failure.
NO_NVCC = "there is no nvcc: make nvcc installs one into .venv-cuda"
REQUIRED = os.environ.get("ALC_KERNELS_NVCC") == "require"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel(target):
    command = compiler()
    if command is None:
        assert not REQUIRED, NO_NVCC
        pytest.skip(NO_NVCC)
    found = problems(compile_all(command, target), target, load_budgets())
    assert not found, "\n".join(found)


def test_no_kernel_has_leave_to_spill():
    for name, targets in load_budgets().items():
        assert set(targets) == set(TARGETS), name
        for target, needs in targets.items():
            assert needs["spilled"] == needs["stack"] == 0, f"{name}, {target}: {needs}"
            assert needs["registers"] <= 128, f"{name}, {target}: {needs}"


def test_every_source_is_compiled():
    """None lies where ``nvcc.sources`` does not look."""
    everywhere = {path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*.cu")}
    assert everywhere == set(nvcc.sources(ROOT))


REPORT = """
ptxas info    : 0 bytes gmem
ptxas info    : Compiling entry function '_ZN3alc15sum_runs_kernelINS_8BFloat16ELb1EEEv' for 'sm_80'
ptxas info    : Function properties for _ZN3alc15sum_runs_kernelINS_8BFloat16ELb1EEEv
    40 bytes stack frame, 36 bytes spill stores, 24 bytes spill loads
ptxas info    : Used 96 registers, used 1 barriers, 512 bytes smem, 440 bytes cmem[0]
"""
NEEDS = {"registers": 96, "stack": 40, "spilled": 36, "shared": 512}


def test_reports_are_read():
    assert parse(REPORT) == {"sum_runs_kernel BFloat16 aligned": NEEDS}
    assert readable("_ZN3alc11scan_kernelEPll") == "scan_kernel"


@pytest.mark.parametrize("what", list(NEEDS))
def test_the_gate_stops(what):
    budgets = {"a": {"sm_80": NEEDS}}
    assert problems({"a": NEEDS}, "sm_80", budgets) == []
    (line,) = problems({"a": NEEDS | {what: NEEDS[what] + 9}}, "sm_80", budgets)
    assert what in line


def test_missing_and_stale_budgets_stop_the_gate():
    assert len(problems({"a": NEEDS}, "sm_80", {})) == 1
    assert len(problems({}, "sm_80", {"a": {"sm_80": NEEDS}})) == 1


@pytest.mark.slow
def test_the_library_links_and_loads(tmp_path, monkeypatch):
    """As ``setup.py`` builds it; without a GPU it says why it cannot run."""
    command = compiler()
    if command is None:
        assert not REQUIRED, NO_NVCC
        pytest.skip(NO_NVCC)
    monkeypatch.setenv(nvcc.VARIABLE, "90")
    output = tmp_path / "_cuda.so"
    done = subprocess.run(
        nvcc.library_command(command, ROOT, output), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    library = open_library(output)
    assert library.alc_cuda_on_gpu() == 1
    if not torch.cuda.is_available():
        code = library.alc_cuda_ready()
        assert code > 0 and message(library, code)


def test_architectures_that_nvcc_does_not_know(tmp_path, monkeypatch):
    fake = tmp_path / "nvcc"
    fake.write_text("#!/bin/sh\necho compute_75; echo compute_80\n", encoding="utf-8")
    fake.chmod(0o755)
    monkeypatch.delenv(nvcc.VARIABLE, raising=False)
    assert nvcc.architectures(str(fake)) == ["80"]
    monkeypatch.setenv(nvcc.VARIABLE, "80;90")
    with pytest.raises(ValueError, match="does not compile for 80, 90"):
        nvcc.architectures(str(fake))
