"""Finding and loading the compiled operators, without ever failing an import."""

from __future__ import annotations

import json
from pathlib import Path

import torch

PACKAGE = Path(__file__).resolve().parents[2]
RECORD = "_native.json"  # written by setup.py next to the library: what it was built for
HOW_TO_BUILD = "pip install --no-build-isolation . in the source tree, with a C++ compiler"


def _release(version: str) -> str:
    """"2.13.0+cpu" -> "2.13": PyTorch's C++ interface changes between minor releases."""
    return ".".join(version.split("+")[0].split(".")[:2])


def load() -> str | None:
    """Loads the operators; why they cannot be used, or None."""
    record = PACKAGE / RECORD
    if not record.is_file():
        return f"the native extension was not built (to build it: {HOW_TO_BUILD})"
    built = json.loads(record.read_text(encoding="utf-8"))
    if _release(built["torch"]) != _release(torch.__version__):
        return (
            f"the native extension was built for PyTorch {built['torch']}, this is "
            f"{torch.__version__} (to build it again: {HOW_TO_BUILD})"
        )
    library = PACKAGE / built["library"]
    try:
        torch.ops.load_library(str(library))
    except OSError as error:
        return f"the native extension cannot be loaded: {str(error).splitlines()[0]}"
    return None
