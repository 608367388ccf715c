"""The package as a whole: importing it, and what it must not need."""

from __future__ import annotations

import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

BLOCKED = """
import sys
class Block:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ImportError(name + " is blocked")
sys.meta_path.insert(0, Block())
"""


def run(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_touches_no_gpu_and_no_optional_package():
    code = (
        "import sys, torch, alc_kernels, alc_kernels.functional, alc_kernels.reference\n"
        "assert not torch.cuda.is_initialized()\n"
        "x = torch.randn(6, 8, requires_grad=True)\n"
        "alc_kernels.ALCLoss(8)(x, x.detach()).backward()\n"
        "optional = {'scipy', 'sklearn', 'matplotlib', 'rich', 'safetensors', 'transformers',\n"
        "    'sentence_transformers', 'pytorch_metric_learning', 'alc_kernels.integrations'}\n"
        "print(sorted(optional & set(sys.modules)), 'alc_kernels.trainer' in sys.modules)"
    )
    assert run(code).strip() == "[] False"


def test_without_triton_the_triton_backend_says_so():
    code = BLOCKED.format(blocked={"triton"}) + (
        "import torch, alc_kernels\n"
        "x = torch.randn(6, 8)\n"
        "try:\n    alc_kernels.functional.softmax_loss(x, x, backend='triton')\n"
        "except alc_kernels.BackendUnavailableError as error:\n    print(error)"
    )
    assert "triton" in run("import alc_kernels.functional\n" + code)


def test_the_loss_side_never_imports_the_training_side():
    for path in (ROOT / "alc_kernels").rglob("*.py"):
        side = path.relative_to(ROOT / "alc_kernels").parts[0]
        if side in ("trainer", "xmc", "matching", "cli", "__main__.py"):
            continue
        text = path.read_text(encoding="utf-8")
        assert "alc_kernels.trainer" not in text and "alc_kernels.cli" not in text, path


@pytest.mark.slow
def test_wheel_and_source_distribution_are_complete(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "build", "--outdir", str(tmp_path), str(ROOT)],
        check=True, capture_output=True, timeout=500,
    )  # fmt: skip
    (wheel,) = tmp_path.glob("*.whl")
    (source,) = tmp_path.glob("*.tar.gz")
    modules = {
        str(p.relative_to(ROOT)) for p in (ROOT / "alc_kernels").rglob("*.py")
    } | {"alc_kernels/py.typed"}  # fmt: skip
    names = set(zipfile.ZipFile(wheel).namelist())
    assert modules <= names
    assert not [n for n in names if n.startswith(("tests/", "benchmarks/", "csrc/"))]
    with tarfile.open(source) as archive:
        inside = {"/".join(n.split("/")[1:]) for n in archive.getnames()}
    assert {"setup.py", "pyproject.toml", "README.md", "LICENSE"} | modules <= inside
    sources = {str(p.relative_to(ROOT)) for p in (ROOT / "csrc").rglob("*.*") if p.suffix != ".pyc"}
    assert sources <= inside and not [n for n in inside if n.endswith((".so", "_native.json"))]
