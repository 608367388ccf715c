"""Every .cu file compiles for every GPU generation within its recorded budget."""

from __future__ import annotations

import os

import pytest

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
REQUIRED = os.environ.get("ALC_KERNELS_NVCC") == "require"


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_every_kernel(target):
    command = compiler()
    if command is None:
        assert not REQUIRED, "there is no nvcc: make nvcc installs one into .venv-cuda"
        pytest.skip("there is no nvcc: make nvcc installs one into .venv-cuda")
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
    assert readable("_ZN3alc20count_active_kernelINS_11ListedPairsEEEv") == (
        "count_active_kernel ListedPairs"
    )


@pytest.mark.parametrize("what", list(NEEDS))
def test_the_gate_stops(what):
    budgets = {"a": {"sm_80": NEEDS}}
    assert problems({"a": NEEDS}, "sm_80", budgets) == []
    (line,) = problems({"a": NEEDS | {what: NEEDS[what] + 9}}, "sm_80", budgets)
    assert what in line


def test_missing_and_stale_budgets_stop_the_gate():
    assert len(problems({"a": NEEDS}, "sm_80", {})) == 1
    assert len(problems({}, "sm_80", {"a": {"sm_80": NEEDS}})) == 1
