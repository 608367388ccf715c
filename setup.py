"""Builds what this machine can build from csrc/; everything else is in pyproject.toml.

ALC_KERNELS_BUILD=require fails where the native extension cannot be built, =skip does not try.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from setuptools import setup

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))

from csrc import flags  # noqa: E402

NAME = "alc_kernels._native"
RECORD = "_native.json"
MODE = os.environ.get("ALC_KERNELS_BUILD", "auto")
BUILT = "alc-kernels: built the native CPU extension for PyTorch {torch}"
SKIPPED = "alc-kernels: skipped the native CPU extension: {reason} (everything works without it)"
NO_TORCH = (
    "the build does not see PyTorch; to build it, install PyTorch and setuptools first, then "
    "pip install --no-build-isolation ."
)


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def skip(reason: str) -> dict[str, Any]:
    """Build without the extension; an error where it is required."""
    if MODE == "require":
        raise SystemExit(f"alc-kernels: ALC_KERNELS_BUILD=require, but {reason}")
    if {"bdist_wheel", "build_ext", "editable_wheel", "develop", "install"} & set(sys.argv):
        say(SKIPPED.format(reason=reason))
    return {}


def native() -> dict[str, Any]:
    """Arguments of ``setup`` that build the native extension, or none."""
    if MODE not in ("auto", "require", "skip"):
        raise SystemExit(f"ALC_KERNELS_BUILD={MODE}: expected auto, require or skip")
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

    class Build(BuildExtension):  # type: ignore[misc]
        """Never fails the installation unless asked to; records what the library was built for."""

        def run(self) -> None:
            try:
                super().run()
            except Exception as error:
                if MODE == "require":
                    raise
                self.extensions = []
                lines = str(error).strip().splitlines() or [type(error).__name__]
                say(SKIPPED.format(reason=f"it does not compile here: {lines[-1]}"))
                return
            library = Path(self.get_ext_filename(NAME)).name
            record = json.dumps({"torch": torch.__version__, "library": library}) + "\n"
            folders = [Path(self.build_lib) / "alc_kernels"]
            if self.inplace:
                folders.append(ROOT / "alc_kernels")
            for folder in folders:
                if (folder / library).is_file():
                    (folder / RECORD).write_text(record, encoding="utf-8")
            say(BUILT.format(torch=torch.__version__))

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


setup(**native())
