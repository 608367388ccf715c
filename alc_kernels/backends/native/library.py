"""Finding and loading the compiled operators, without ever failing an import."""

from __future__ import annotations

import json
import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parents[2]
OVERRIDE = "ALC_KERNELS_NATIVE_LIBRARY"  # a library built in another way, for tests
RECORD = "_native.json"  # written by setup.py next to the library: what it was built for
HOW_TO_BUILD = "pip install --no-build-isolation . in the source tree, with a C++ compiler"


def _release(version: str) -> str:
    """ "2.13.0+cpu" -> "2.13": PyTorch's C++ interface changes between minor releases."""
    return ".".join(version.split("+")[0].split(".")[:2])


def load() -> str | None:
    """Loads the operators; why they cannot be used, or None."""
    if os.environ.get(OVERRIDE):
        return _open(Path(os.environ[OVERRIDE]))
    record = PACKAGE / RECORD
    if not record.is_file():
        return f"the native extension was not built (to build it: {HOW_TO_BUILD})"
    try:
        built = json.loads(record.read_text(encoding="utf-8"))
        version, name = built["torch"], built["library"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{record} cannot be read (to build the native extension again: {HOW_TO_BUILD})"
    if _release(version) != _release(torch.__version__):
        return (
            f"the native extension was built for PyTorch {version}, this is "
            f"{torch.__version__} (to build it again: {HOW_TO_BUILD})"
        )
    if _sources_digest() not in (None, built.get("sources")):
        return (
            "the native extension was built from other sources than those in csrc "
            f"(to build it again: {HOW_TO_BUILD})"
        )
    return _open(PACKAGE / name)


def _sources_digest() -> str | None:
    """What ``setup.py`` would record now; None where the package is not in its source tree."""
    root = PACKAGE.parent
    if not (root / "csrc" / "cpu" / "operators.cpp").is_file():
        return None
    spec = spec_from_file_location("alc_kernels_build_flags", root / "csrc" / "flags.py")
    assert spec is not None and spec.loader is not None
    flags = module_from_spec(spec)
    spec.loader.exec_module(flags)
    digest: str = flags.digest(root)
    return digest


def _open(library: Path) -> str | None:
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"the native extension cannot be loaded: {str(error).splitlines()[0]}"
    return None
