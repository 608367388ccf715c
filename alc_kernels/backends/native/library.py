"""Finding and loading the compiled library, without ever failing an import.

The library has a C interface and knows nothing of PyTorch: it is handed PyTorch's own threads and
matrix products as C functions, so one build serves every PyTorch that has them.
"""

from __future__ import annotations

import ctypes
import json
import os
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch

from alc_kernels.backends.native import request

PACKAGE = Path(__file__).resolve().parents[2]
OVERRIDE = "ALC_KERNELS_NATIVE_LIBRARY"  # a library built in another way, for tests
RECORD = "_native.json"  # written by setup.py next to the library: its name and its sources
HOW_TO_BUILD = "pip install . in the source tree, with a C++ compiler"
# As in csrc/cpu/host.h, in its order.
HOST = (
    "torch_parallel_for",
    "torch_get_num_threads",
    "aoti_torch_create_tensor_from_blob",
    "aoti_torch_delete_tensor_object",
    "aoti_torch_cpu_mm_out",
    "aoti_torch_cpu_addmm_out",
)
ERRORS = {1: ValueError, 2: IndexError, 3: RuntimeError}

_library: ctypes.CDLL | None = None


def load() -> str | None:
    """Loads the library; why it cannot be used, or None."""
    if os.environ.get(OVERRIDE):
        return _open(Path(os.environ[OVERRIDE]))
    record = PACKAGE / RECORD
    if not record.is_file():
        return f"the native extension was not built (to build it: {HOW_TO_BUILD})"
    try:
        built = json.loads(record.read_text(encoding="utf-8"))
        path = PACKAGE / built["library"]
    except (OSError, ValueError, KeyError, TypeError):
        return f"{record} cannot be read (to build the native extension again: {HOW_TO_BUILD})"
    if _sources_digest() not in (None, built.get("sources")):
        return (
            "the native extension was built from other sources than those in csrc "
            f"(to build it again: {HOW_TO_BUILD})"
        )
    return _open(path)


def _sources_digest() -> str | None:
    """What ``setup.py`` would record now; None where the package is not in its source tree."""
    root = PACKAGE.parent
    if not (root / "csrc" / "cpu" / "api.cpp").is_file():
        return None
    spec = spec_from_file_location("alc_kernels_build_flags", root / "csrc" / "flags.py")
    assert spec is not None and spec.loader is not None
    flags = module_from_spec(spec)
    spec.loader.exec_module(flags)
    digest: str = flags.digest(root)
    return digest


def _host() -> ctypes.Array[ctypes.c_void_p]:
    """The functions that the library calls.

    Raises:
        OSError: this PyTorch lacks one.
    """
    assert torch._C.__file__ is not None
    lent = ctypes.CDLL(torch._C.__file__)  # searched together with the libraries it depends on
    made = (ctypes.c_void_p * len(HOST))()
    for n, name in enumerate(HOST):
        try:
            made[n] = ctypes.cast(getattr(lent, name), ctypes.c_void_p)
        except AttributeError:
            raise OSError(f"PyTorch {torch.__version__} has no {name}") from None
    return made


def _open(path: Path) -> str | None:
    global _library
    try:
        library = ctypes.CDLL(str(path))
        sizes = (ctypes.c_int64 * len(request.STRUCTURES))(
            *[ctypes.sizeof(one) for one in request.STRUCTURES]
        )
        other = library.alc_connect(_host(), sizes, ctypes.c_int64(len(sizes)))
        if other >= 0:
            raise OSError(f"{path} has another {request.STRUCTURES[other].__name__}")
        for name in ("alc_message", "alc_simd", "alc_integer_simd"):
            getattr(library, name).restype = ctypes.c_char_p
    except (OSError, AttributeError) as error:
        return f"the native extension cannot be loaded: {str(error).splitlines()[0]}"
    _library = library
    return None


def call(name: str, *arguments: Any) -> None:
    """Calls a function of the library; structures are passed by reference.

    Raises:
        ValueError, IndexError, RuntimeError: what it says.
    """
    assert _library is not None
    code = getattr(_library, name)(
        *[ctypes.byref(x) if isinstance(x, ctypes.Structure) else x for x in arguments]
    )
    if code:
        raise ERRORS[code](_library.alc_message().decode())


def simd() -> tuple[str, str]:
    """The instruction sets of the vector loops and of the 8-bit products."""
    assert _library is not None
    loops: bytes = _library.alc_simd()
    products: bytes = _library.alc_integer_simd()
    return loops.decode(), products.decode()
