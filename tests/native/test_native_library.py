"""Which library is loaded, and what happens when there is none that fits."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from alc_kernels.backends.native import library, request
from alc_kernels.engine.prepare import choose_backend
from csrc import flags
from tests.native.common import NATIVE, needs_native

ROOT = Path(__file__).resolve().parents[2]
BUILT = library.PACKAGE / "_native.so"


def record(folder: Path, **changes: str) -> None:
    written = {"library": "nothing.so"} | changes
    (folder / library.RECORD).write_text(json.dumps(written), encoding="utf-8")


def library_of_this_package() -> Path:
    if NATIVE is not None:
        pytest.skip(NATIVE)
    path = os.environ.get(library.OVERRIDE)
    return Path(path) if path else BUILT


@pytest.fixture
def package(tmp_path, monkeypatch):
    folder = tmp_path / "alc_kernels"
    folder.mkdir()
    monkeypatch.setattr(library, "PACKAGE", folder)
    monkeypatch.delenv(library.OVERRIDE, raising=False)
    return folder


def test_not_built(package):
    reason = library.load()
    assert "was not built" in reason and "pip install ." in reason


def test_a_pytorch_that_lacks_a_function(package, monkeypatch):
    """An older one, whose functions are fewer."""
    monkeypatch.setattr(library, "HOST", (*library.HOST, "torch_no_such_function"))
    shutil.copy(library_of_this_package(), package / "nothing.so")
    record(package)
    reason = library.load()
    assert f"PyTorch {torch.__version__} has no torch_no_such_function" in reason


def test_a_library_with_other_structures(package, monkeypatch):
    class Other(request.ProblemArguments):
        _fields_ = [("one_more", ctypes.c_int64)]  # noqa: RUF012

    monkeypatch.setattr(request, "STRUCTURES", (Other, *request.STRUCTURES[1:]))
    shutil.copy(library_of_this_package(), package / "nothing.so")
    record(package)
    assert "has another Other" in library.load()


@pytest.mark.parametrize("content", [b"", b"not a library"])
def test_a_broken_library(package, content):
    (package / "nothing.so").write_bytes(content)
    record(package)
    assert "cannot be loaded" in library.load()


def test_a_library_from_other_sources(package):
    """In a source tree, where the sources may have changed since."""
    (package / "nothing.so").write_bytes(b"not a library")
    shutil.copytree(ROOT / "csrc", package.parent / "csrc")
    record(package, sources="of another day")
    assert "built from other sources" in library.load()
    record(package, sources=flags.digest(ROOT))
    assert "cannot be loaded" in library.load()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_a_broken_record(package, text):
    (package / library.RECORD).write_text(text, encoding="utf-8")
    assert "cannot be read" in library.load()


def test_without_it_everything_works_on_plain_pytorch(tmp_path):
    """auto falls back, an explicit choice and ``alc info`` say why."""
    code = (
        "import torch, alc_kernels\n"
        "from alc_kernels.cli import main\n"
        "x = torch.randn(6, 8, requires_grad=True)\n"
        "alc_kernels.ALCLoss(8)(x, x.detach()).backward()\n"
        "try:\n    alc_kernels.ALCLoss(8, backend='native')(x, x.detach())\n"
        "except alc_kernels.BackendUnavailableError as error:\n    print(error)\n"
        "main(['info'])"
    )
    environment = os.environ | {library.OVERRIDE: str(tmp_path / "nothing.so")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=environment,
        timeout=300, check=True,
    )  # fmt: skip
    assert "backend='native' cannot run here: the native extension cannot be loaded" in done.stdout
    assert "cpu native: not live: the native extension cannot be loaded" in done.stdout


@needs_native
def test_auto_picks_native_on_the_cpu():
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        chosen = choose_backend("auto", torch.empty(1, dtype=dtype), dtype)
        assert chosen.__name__ == "alc_kernels.backends.native"


@needs_native
@pytest.mark.parametrize("level", ["baseline", "avx2", "avx512"])
def test_every_instruction_set_gives_the_same_loss(level):
    """The loops are compiled for each; a processor without one runs the best below it."""
    code = (
        "import torch\n"
        "from alc_kernels import functional as f\n"
        "from alc_kernels.backends.native import library\n"
        "g = torch.Generator().manual_seed(0)\n"
        "x, y = (torch.randn(90, 33, generator=g, requires_grad=True) for _ in range(2))\n"
        "for name in ('native', 'torch'):\n"
        "    x.grad = y.grad = None\n"
        "    loss = sum(call(x.to(dtype), y.to(dtype), backend=name)\n"
        "        for dtype in (torch.float32, torch.float16, torch.bfloat16, torch.float64)\n"
        "        for call in (f.softmax_loss, f.sigmoid_loss, f.triplet_loss))\n"
        "    loss.backward()\n"
        "    print(loss.item(), x.grad.norm().item(), y.grad.norm().item())\n"
        "print(library.simd()[0])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300,
        env=os.environ | {"ALC_KERNELS_SIMD": level}, check=True,
    )  # fmt: skip
    native, plain, used = done.stdout.splitlines()
    order = ["baseline", "avx2", "avx512"]
    assert order.index(used) <= order.index(level)
    for a, b in zip(native.split(), plain.split(), strict=True):
        assert abs(float(a) - float(b)) <= 1e-4 * abs(float(b))
