"""How the CUDA kernels are compiled: for ``setup.py``, and for the gate that checks them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

FOLDER = Path("csrc") / "cuda"
# Compute capabilities that get machine code; later ones compile the newest's PTX when loaded, and
# 8.6 and 8.9 run 8.0's.
ARCHITECTURES = ("80", "90", "100")
VARIABLE = "ALC_KERNELS_CUDA_ARCHITECTURES"  # others, as "80;90"
COMPILE = ["-std=c++17", "-O3"]


def sources(root: Path) -> list[str]:
    """Every .cu file of csrc/cuda, relative to ``root``."""
    return [str(path.relative_to(root)) for path in sorted((root / FOLDER).glob("*.cu"))]


def find() -> str | None:
    """nvcc: of the environment variable NVCC, of the path, of CUDA_HOME; or None."""
    if os.environ.get("NVCC"):
        return shutil.which(os.environ["NVCC"])
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "/usr/local/cuda"
    return shutil.which("nvcc") or shutil.which(str(Path(home) / "bin" / "nvcc"))


def version(nvcc: str) -> str:
    """ "13.0", say."""
    text = subprocess.run([nvcc, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"release (\d+\.\d+)", text)
    return found.group(1) if found else "of an unknown version"


def architectures(nvcc: str) -> list[str]:
    """Those to compile for, of the ones that ``nvcc`` knows.

    Raises:
        ValueError: it knows none of them, or not all that the environment variable names.
    """
    command = [nvcc, "--list-gpu-arch"]
    text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    known = re.findall(r"compute_(\d+)\b", text)
    named = [name for name in re.split(r"[;, ]+", os.environ.get(VARIABLE, "")) if name]
    chosen = [name for name in named or ARCHITECTURES if name in known]
    if not chosen or (named and chosen != named):
        wanted = ", ".join(named or ARCHITECTURES)
        raise ValueError(f"nvcc {version(nvcc)} does not compile for {wanted}")
    return chosen


def library_command(nvcc: str, root: Path, output: Path) -> list[str]:
    """Compile and link everything into the shared library ``output``."""
    chosen = architectures(nvcc)
    targets = [f"-gencode=arch=compute_{name},code=sm_{name}" for name in chosen]
    newest = max(chosen, key=int)
    targets.append(f"-gencode=arch=compute_{newest},code=compute_{newest}")
    files = [str(root / path) for path in sources(root)]
    # The C++ compiler of the other extension is nvcc's host compiler as well.
    host = ["-ccbin", os.environ["CXX"]] if os.environ.get("CXX") else []
    link = ["-shared", "-cudart", "static", "-Xcompiler", "-fPIC,-fvisibility=default"]
    return [nvcc, *COMPILE, *host, *targets, *link, "-o", str(output), *files]
