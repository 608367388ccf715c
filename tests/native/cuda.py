"""The CUDA kernels under test: compiled for the host and emulated, and on a GPU where there is one.

``cuda_host/`` lets the host's C++ compiler build the kernels' own sources and runs them there with
real barriers and warp exchanges. On a machine with a GPU and the built library the same tests run
that as well.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
import torch

from alc_kernels.backends.cuda import library
from csrc import flags, nvcc

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
COMPILE = ["-std=c++17", "-O2", "-g0", "-fPIC", "-Wall", "-Wno-unknown-pragmas", "-Werror"]
# 0 ascending, -1 descending, others shuffled: a result that depends on it has a race.
ORDERS = (0, -1, 7)


def no_compiler() -> str | None:
    """Why the kernels cannot be compiled for the host, or None."""
    return flags.missing()


def build_for_host(folder: Path, *extra: str) -> Path:
    """Compile csrc/cuda and the emulation; the library's path."""
    output = folder / "cuda_on_host.so"
    command = [*flags.compiler(), *COMPILE, "-DALC_ON_HOST", "-shared", "-o", str(output)]
    command += [*extra, f"-I{HERE / 'cuda_host'}", "-x", "c++"]
    command += [str(ROOT / path) for path in nvcc.sources(ROOT)]
    command.append(str(HERE / "cuda_host" / "cuda_on_host.cpp"))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    return output


@contextmanager
def host_library(path: Path) -> Iterator[None]:
    """Within: the operators call the library built for the host."""
    before = os.environ.get(library.OVERRIDE)
    os.environ[library.OVERRIDE] = str(path)
    try:
        yield
    finally:
        if before is None:
            del os.environ[library.OVERRIDE]
        else:
            os.environ[library.OVERRIDE] = before


def set_order(seed: int) -> None:
    """In which order the emulation runs threads and blocks; nothing on a GPU."""
    found = library.loaded()
    assert not isinstance(found, str), found
    if not found.alc_cuda_on_gpu():
        found.on_host_order(ctypes.c_long(seed))


@cache
def no_gpu_library() -> str | None:
    """Why the built library cannot be tested on the GPU, or None."""
    return library.unavailable(torch.empty(0, device="cuda"))


@pytest.fixture(scope="session")
def built_for_host(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library of the emulation."""
    reason = no_compiler()
    if reason is not None:
        pytest.skip(reason)
    return build_for_host(tmp_path_factory.mktemp("cuda_host"))


@pytest.fixture(params=["host", "gpu"] if torch.cuda.is_available() else ["host"])
def cuda_device(request: pytest.FixtureRequest) -> Iterator[torch.device]:
    """A device whose tensors the operators take."""
    if request.param == "gpu":
        reason = no_gpu_library()
        if reason is not None:
            pytest.skip(reason)
        yield torch.device("cuda")
        return
    with host_library(request.getfixturevalue("built_for_host")):
        set_order(0)
        yield torch.device("cpu")
        set_order(0)
