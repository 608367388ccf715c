"""``alc info``: versions, and which backends can run here."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
from typing import Any

NAME = "info"
PACKAGES = ("torch", "triton", "numpy", "scipy", "scikit-learn", "matplotlib", "rich",
            "transformers", "faiss-cpu", "faiss-gpu")  # fmt: skip


def add_command(commands: Any) -> None:
    parser = commands.add_parser(
        NAME,
        help="versions and backends",
        description="Print versions, the devices, and which backends of the losses can run here.",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    import torch

    import alc_kernels

    print(f"alc-kernels {alc_kernels.__version__}, Python {platform.python_version()}")
    print(", ".join(f"{name} {_version(name)}" for name in PACKAGES))
    print("\nDevices")
    print(f"  cpu: {torch.get_num_threads()} threads")
    for number in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(number)
        memory = properties.total_memory / 2**30
        print(f"  cuda:{number}: {properties.name}, {memory:.0f} GiB")
    if not torch.cuda.is_available():
        print("  no GPU that PyTorch can use")
    print("\nBackends of the losses (float32)")
    devices = ["cpu"] + (["cuda"] if torch.cuda.is_available() else [])
    for device in devices:
        for name, reason in _backends(device):
            live = "live" + _details(name)
            print(f"  {device} {name}: {live if reason is None else 'not live: ' + reason}")
    print(f"\n{_cuda_kernels()}")
    print(_tuned_tiles())


def _cuda_kernels() -> str:
    """Whether the CUDA kernels can run here, and what they are used for."""
    import torch

    from alc_kernels.backends.cuda import enabled, library

    device = "cuda" if torch.cuda.is_available() else "cpu"
    reason = library.unavailable(torch.empty(0, device=device))
    if reason is not None:
        return f"CUDA kernels: not live: {reason}"
    parts = [part for part in enabled.PARTS if enabled.enabled(part, torch.empty(0, device=device))]
    used = f"used for {', '.join(parts)}" if parts else f"not used ({enabled.SWITCH}=1 uses them)"
    return f"CUDA kernels: live, {used}"


def _tuned_tiles() -> str:
    """Whether the Triton kernels take tiles from a file of ``alc bench tune``."""
    import torch

    try:
        from alc_kernels.backends.triton import launch as tuned

        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        path = tuned.path_in_use(device)
        if path is None:
            return f"Tiles of the Triton kernels: the tables' ({tuned.SWITCH} is not set)"
        tiles = tuned.read(path, device)
    except ImportError as error:
        return f"Tiles of the Triton kernels: none, {error}"
    except ValueError as error:
        return f"Tiles of the Triton kernels: refused: {error}"
    return f"Tiles of the Triton kernels: {len(tiles)} tuned, from {path}; the tables' otherwise"


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _details(name: str) -> str:
    """What else is worth knowing of a backend that runs."""
    if name != "native":
        return ""
    import torch

    from alc_kernels.backends.native import library

    if library.load() is not None:
        return ""
    return f" (vector loops for {torch.ops.alc_kernels_native.simd()})"


def _backends(device: str) -> list[tuple[str, str | None]]:
    """Name and, where it cannot run, the reason, of every backend on ``device``."""
    import torch

    from alc_kernels.engine.choose import BACKENDS, unavailable

    example = torch.empty(1, 1, device=device)
    return [
        (name, unavailable(name, example, torch.float32)) for name in BACKENDS if name != "auto"
    ]
