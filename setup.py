"""Builds what this machine can build from csrc/; everything else is in pyproject.toml.

ALC_KERNELS_BUILD says what to build:
    auto          (default) what can be built, never failing the installation
    require       fail where the native CPU extension, or CUDA kernels that could be built, do not
                  compile; CUDA kernels can be built where nvcc and a CUDA build of PyTorch are
    require-cuda  the same, and fail where there is no nvcc; any build of PyTorch will do
    skip          nothing
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from csrc import flags, nvcc  # noqa: E402

NAME = "alc_kernels._native"
RECORD = "_native.json"
CUDA_LIBRARY = "_cuda.so"
CUDA_RECORD = "_cuda.json"
MODES = ("auto", "require", "require-cuda", "skip")
MODE = os.environ.get("ALC_KERNELS_BUILD", "auto")
REQUIRED = MODE.startswith("require")
CPU, CUDA = "the native CPU extension", "the CUDA kernels"
NO_TORCH = (
    "the build does not see PyTorch; to build it, install PyTorch and setuptools first, then "
    "pip install --no-build-isolation ."
)


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


def cuda_missing(torch_version: str, torch_cuda: str | None) -> str | None:
    """Why the CUDA kernels are not built here, or None."""
    if sys.platform == "win32":
        return "the build is written for Linux"
    if nvcc.find() is None:
        return "there is no nvcc"
    if torch_cuda is None and MODE != "require-cuda":
        return f"PyTorch {torch_version} is not a CUDA build"
    return None


def build_cuda(folders: list[Path]) -> None:
    """Compile csrc/cuda into each folder, with its record.

    Raises:
        RuntimeError: it does not compile here; the message is the compiler's last line.
    """
    compiler = nvcc.find()
    assert compiler is not None
    library = folders[0] / CUDA_LIBRARY
    library.parent.mkdir(parents=True, exist_ok=True)
    try:
        command = nvcc.library_command(compiler, ROOT, library)
    except ValueError as error:
        raise RuntimeError(str(error)) from None
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(last_line(done.stderr, "no message"))
    names = [f"sm_{name}" for name in nvcc.architectures(compiler)]
    record = {"library": CUDA_LIBRARY, "nvcc": nvcc.version(compiler), "architectures": names}
    for folder in folders:
        (folder / CUDA_LIBRARY).write_bytes(library.read_bytes())
        (folder / CUDA_RECORD).write_text(json.dumps(record) + "\n", encoding="utf-8")
    say(f"built {CUDA} with nvcc {record['nvcc']} for {', '.join(names)}")


def extensions() -> dict[str, Any]:
    """Arguments of ``setup`` that build what is native, or none."""
    if MODE not in MODES:
        raise SystemExit(f"ALC_KERNELS_BUILD={MODE}: expected {', '.join(MODES)}")
    if MODE == "skip":
        return skip("ALC_KERNELS_BUILD=skip")
    try:
        import torch
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError:
        return skip(NO_TORCH)
    reason = flags.missing()
    if reason is not None:
        return skip(reason)

    reason = cuda_missing(torch.__version__, torch.version.cuda)
    if MODE == "require-cuda" and reason is not None:
        raise SystemExit(f"alc-kernels: ALC_KERNELS_BUILD={MODE}, but {reason}")

    class Build(BuildExtension):  # type: ignore[misc]
        """Never fails the installation unless asked to; records what it built for what."""

        def run(self) -> None:
            folders = [Path(self.build_lib) / "alc_kernels"]
            if self.inplace:
                folders.append(ROOT / "alc_kernels")
            self.native(folders)
            self.cuda(folders)

        def native(self, folders: list[Path]) -> None:
            try:
                super().run()
            except Exception as error:
                if REQUIRED:
                    raise
                self.extensions = []
                line = last_line(str(error), type(error).__name__)
                say_skipped(CPU, f"it does not compile here: {line}")
                return
            library = Path(self.get_ext_filename(NAME)).name
            built = {"torch": torch.__version__, "library": library, "sources": flags.digest(ROOT)}
            record = json.dumps(built) + "\n"
            for folder in folders:
                if (folder / library).is_file():
                    (folder / RECORD).write_text(record, encoding="utf-8")
            say(f"built {CPU} for PyTorch {torch.__version__}")

        def cuda(self, folders: list[Path]) -> None:
            reason = cuda_missing(torch.__version__, torch.version.cuda)
            if reason is None:
                try:
                    build_cuda(folders)
                except (RuntimeError, OSError) as error:
                    reason = f"they do not compile here: {error}"
                    if REQUIRED:
                        raise SystemExit(
                            f"alc-kernels: ALC_KERNELS_BUILD={MODE}, but {CUDA}: {reason}"
                        ) from None
            if reason is not None:
                say_skipped(CUDA, reason)

    extension = CppExtension(
        NAME,
        flags.sources(ROOT),
        depends=flags.headers(ROOT),
        py_limited_api=True,  # operators only: the library does not touch Python at all
        extra_compile_args=flags.compile_flags(),
        extra_link_args=flags.link_flags(),
    )
    return {
        "ext_modules": [extension],
        "cmdclass": {"build_ext": Build.with_options(no_python_abi_suffix=True)},
        "options": {"bdist_wheel": {"py_limited_api": "cp310"}},
    }


setup(**extensions())
