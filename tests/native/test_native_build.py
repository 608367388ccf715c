"""setup.py builds the extension where it can, says so in one line, and never fails without it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def build(folder: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """``setup.py build_ext`` into ``folder``."""
    command = [sys.executable, "setup.py", "-q", "build_ext"]
    command += ["--build-lib", str(folder / "lib"), "--build-temp", str(folder / "temp")]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
        timeout=500, check=False,
    )  # fmt: skip


def lines(done: subprocess.CompletedProcess[str]) -> list[str]:
    return [line for line in done.stderr.splitlines() if "alc-kernels:" in line]


def test_no_compiler(tmp_path):
    done = build(tmp_path, CXX="no-such-compiler")
    assert done.returncode == 0, done.stderr
    (line,) = lines(done)
    assert "skipped the native CPU extension: there is no C++ compiler (no-such-compiler)" in line


def test_a_compiler_that_cannot(tmp_path):
    done = build(tmp_path, CXX="false")
    assert done.returncode == 0, done.stderr
    (line,) = lines(done)
    assert "cannot compile C++20" in line


def test_no_pytorch_at_build_time(tmp_path):
    """As in pip's isolated builds: nothing native depends on it."""
    (tmp_path / "torch.py").write_text("raise ImportError('not here')\n", encoding="utf-8")
    compiler = tmp_path / "c++"  # makes what it is asked for, of nothing
    compiler.write_text('#!/bin/sh\nfor made; do :; done\n: >"$made"\n', encoding="utf-8")
    compiler.chmod(0o755)
    done = build(tmp_path, PYTHONPATH=str(tmp_path), CXX=str(compiler), NVCC="no-such")
    assert done.returncode == 0, done.stderr
    native, cuda = lines(done)
    assert native == "alc-kernels: built the native CPU extension"
    assert "skipped the CUDA kernels: there is no nvcc" in cuda
    package = tmp_path / "lib" / "alc_kernels"
    assert {path.name for path in package.iterdir()} == {"_native.json", "_native.so"}


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"ALC_KERNELS_BUILD": "require", "CXX": "no-such-compiler"}, "require, but there is no"),
        ({"ALC_KERNELS_BUILD": "require-cuda", "NVCC": "no-such"}, "but there is no nvcc"),
        ({"ALC_KERNELS_BUILD": "sometimes"}, "expected auto, require, require-cuda, skip"),
    ],
)
def test_failures_that_were_asked_for(tmp_path, environment, message):
    done = build(tmp_path, **environment)
    assert done.returncode != 0
    assert message in done.stderr


def test_not_tried(tmp_path):
    done = build(tmp_path, ALC_KERNELS_BUILD="skip")
    assert done.returncode == 0 and "ALC_KERNELS_BUILD=skip" in lines(done)[0]
    assert not list(tmp_path.rglob("*.so"))


@pytest.mark.slow
def test_it_asks_for_no_newer_system_than_pytorch(tmp_path):
    """Built anew: no symbol beyond manylinux_2_28, and neither PyTorch nor an OpenMP."""
    done = build(tmp_path, ALC_KERNELS_BUILD="require", NVCC="no-such")
    assert done.returncode == 0, done.stderr
    library = tmp_path / "lib" / "alc_kernels" / "_native.so"
    seen = subprocess.run(
        ["objdump", "-p", "-T", str(library)], capture_output=True, text=True, check=True
    ).stdout
    needed = set(re.findall(r"NEEDED +(\S+)", seen))
    assert needed <= {"libstdc++.so.6", "libm.so.6", "libgcc_s.so.1", "libc.so.6"} | {
        name for name in needed if name.startswith("ld-linux")
    }
    most = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}
    for kind, version in re.findall(r"(GLIBC|GLIBCXX|CXXABI)_([0-9.]+)", seen):
        assert tuple(map(int, version.split("."))) <= most[kind], (kind, version)
