"""Builds what this machine can build from csrc/; everything else is in pyproject.toml.

ALC_KERNELS_BUILD says what to build:
    auto          (default) what can be built, never failing the installation
    require       fail where the native CPU extension, or CUDA kernels that could be built, do not
                  compile; CUDA kernels can be built where nvcc and a CUDA build of PyTorch are
    require-cuda  the same, and fail where there is no nvcc; no PyTorch is asked for
    skip          nothing

The native extension needs a C++ compiler alone, and serves every PyTorch and every Python.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from setuptools import Extension, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from csrc import flags, nvcc  # noqa: E402

NATIVE_LIBRARY = "_native.so"
RECORD = "_native.json"
CUDA_LIBRARY = "_cuda.so"
CUDA_RECORD = "_cuda.json"
MODES = ("auto", "require", "require-cuda", "skip")
MODE = os.environ.get("ALC_KERNELS_BUILD", "auto")
REQUIRED = MODE.startswith("require")
CPU, CUDA = "the native CPU extension", "the CUDA kernels"


def say(line: str) -> None:
    print(f"alc-kernels: {line}", file=sys.stderr, flush=True)


def last_line(text: str, otherwise: str) -> str:
    return (text.strip().splitlines() or [otherwise])[-1]


def say_skipped(what: str, reason: str) -> None:
    say(f"skipped {what}: {reason} (everything works without it)")


def skip(reason: str) -> dict[str, Any]:
    """Build without any extension; an error where one is required."""
    if REQUIRED:
        raise SystemExit(f"alc-kernels: ALC_KERNELS_BUILD={MODE}, but {reason}")
    if {"bdist_wheel", "build_ext", "editable_wheel", "develop", "install"} & set(sys.argv):
        say_skipped(CPU, reason)
    return {}


def cuda_missing() -> str | None:
    """Why the CUDA kernels are not built here, or None."""
    if sys.platform == "win32":
        return "the build is written for Linux"
    if nvcc.find() is None:
        return "there is no nvcc"
    if MODE == "require-cuda":
        return None
    try:
        import torch
    except ImportError:
        return "the build does not see PyTorch (pip install --no-build-isolation)"
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__} is not a CUDA build"
    return None


def run(command: list[str]) -> None:
    """
    Raises:
        RuntimeError: it fails; the message is its last line.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(last_line(done.stderr, "no message"))


def build_native(folders: list[Path]) -> None:
    """Compile csrc/cpu into each folder, with its record.

    Raises:
        RuntimeError: it does not compile here.
    """
    with tempfile.TemporaryDirectory() as work:
        library = Path(work) / NATIVE_LIBRARY
        *each, link = flags.library_commands(ROOT, library)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(run, each))
        run(link)
        put(folders, library, RECORD, {"sources": flags.digest(ROOT)})
    say(f"built {CPU}")


def put(folders: list[Path], library: Path, name: str, record: dict[str, Any]) -> None:
    """The library into each folder, with its record."""
    for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / library.name).write_bytes(library.read_bytes())
        line = json.dumps({"library": library.name} | record) + "\n"
        (folder / name).write_text(line, encoding="utf-8")


def build_cuda(folders: list[Path]) -> None:
    """Compile csrc/cuda into each folder, with its record.

    Raises:
        RuntimeError: it does not compile here; the message is the compiler's last line.
    """
    compiler = nvcc.find()
    assert compiler is not None
    names = [f"sm_{name}" for name in nvcc.architectures(compiler)]
    with tempfile.TemporaryDirectory() as work:
        library = Path(work) / CUDA_LIBRARY
        try:
            run(nvcc.library_command(compiler, ROOT, library))
        except ValueError as error:
            raise RuntimeError(str(error)) from None
        record = {"nvcc": nvcc.version(compiler), "architectures": names}
        put(folders, library, CUDA_RECORD, record)
    say(f"built {CUDA} with nvcc {record['nvcc']} for {', '.join(names)}")


class Build(build_ext):
    """Never fails the installation unless asked to; records what it built."""

    def run(self) -> None:
        folders = [Path(self.build_lib) / "alc_kernels"]
        if self.inplace:
            folders.append(ROOT / "alc_kernels")
        attempt(CPU, flags.missing(), "it does not compile here", build_native, folders)
        attempt(CUDA, cuda_missing(), "they do not compile here", build_cuda, folders)

    def get_ext_filename(self, fullname: str) -> str:
        return fullname.replace(".", "/") + ".so"


def attempt(
    what: str,
    missing: str | None,
    failed: str,
    build: Callable[[list[Path]], None],
    folders: list[Path],
) -> None:
    """Build ``what`` into the folders, or say why not; an error where it must be built."""
    if missing is None:
        try:
            return build(folders)
        except (RuntimeError, OSError) as error:
            missing = f"{failed}: {error}"
            if REQUIRED:
                raise SystemExit(
                    f"alc-kernels: ALC_KERNELS_BUILD={MODE}, but {what}: {missing}"
                ) from None
    say_skipped(what, missing)


class Wheel(bdist_wheel):
    """The libraries do not touch Python at all."""

    def get_tag(self) -> tuple[str, str, str]:
        return ("py3", "none", super().get_tag()[2])


def extensions() -> dict[str, Any]:
    """Arguments of ``setup`` that build what is native, or none."""
    if MODE not in MODES:
        raise SystemExit(f"ALC_KERNELS_BUILD={MODE}: expected {', '.join(MODES)}")
    if MODE == "skip":
        return skip("ALC_KERNELS_BUILD=skip")
    reason = flags.missing()
    if reason is not None:
        return skip(reason)
    reason = cuda_missing()
    if MODE == "require-cuda" and reason is not None:
        raise SystemExit(f"alc-kernels: ALC_KERNELS_BUILD={MODE}, but {reason}")
    return {
        "ext_modules": [Extension("alc_kernels._native", flags.sources(ROOT))],
        "cmdclass": {"build_ext": Build, "bdist_wheel": Wheel},
    }


setup(**extensions())
