"""Tiles that were measured on this machine, from a file, instead of those of the tables.

Off unless ``ALC_KERNELS_TUNED`` is set: ``1`` reads the file that ``alc bench tune`` writes for
the GPU, a path reads that file, ``0`` or nothing reads none. A file that cannot be read, that was
made on another GPU or with other versions, or holds a tile that no kernel takes, is refused.

An entry holds for one kernel, dtype, precision and width d exactly; the tables serve all others.
The batch is no part of it, so that a last partial batch never compiles anything anew.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from alc_kernels.backends.triton_backend import config
from alc_kernels.backends.triton_backend.config import EPILOGUES, Tile
from alc_kernels.version import __version__

SWITCH = "ALC_KERNELS_TUNED"
FORMAT = 1
# The walk by its epilogue, ``coefficients`` and ``one_pass``.
KERNELS = (*EPILOGUES, "coefficients", "exponentials")
# What a tile may be: (least, most) of powers of two, then of plain numbers.
POWERS = {"rows": (16, 256), "cols": (16, 256), "depth": (16, 256), "warps": (1, 16)}
NUMBERS = {"stages": (1, 8), "programs": (1, 8)}
# The workspace of the gradient passes is cut in units of 128 rows and columns.
MOST_OF_CHUNKED = 128
CHUNKED = ("coefficients", "exponentials")

Key = tuple[str, str, str, int]  # kernel, dtype, precision, d

_forced: dict[str, Tile] = {}
_asked: set[str] = set()


def identity(device: torch.device) -> dict[str, Any]:
    """What the times of a tile depend on: GPU, compute capability, versions."""
    import triton

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return {
        "device": name,
        "capability": list(config.device_limits(device)[0]),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "alc_kernels": __version__,
    }


def default_path(device: torch.device) -> Path:
    """The file for a GPU: tiles-<its name>.json in the user's cache directory (XDG)."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    slug = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
    return Path(cache) / "alc_kernels" / f"tiles-{slug}.json"


def path_in_use(device: torch.device) -> Path | None:
    """The file that ``ALC_KERNELS_TUNED`` names for ``device``, or None: the tables only."""
    value = os.environ.get(SWITCH, "0")
    if value in ("", "0"):
        return None
    return default_path(device) if value == "1" else Path(value).expanduser()


def check_tile(kernel: str, tile: Tile) -> None:
    """Raise :class:`ValueError` for a tile that ``kernel`` cannot take."""
    for name, (least, most) in {**POWERS, **NUMBERS}.items():
        if kernel in CHUNKED and name in ("rows", "cols"):
            most = MOST_OF_CHUNKED
        value = getattr(tile, name)
        whole = isinstance(value, int) and not isinstance(value, bool) and least <= value <= most
        if not whole or (name in POWERS and value & (value - 1)):
            kind = "a power of two" if name in POWERS else "a whole number"
            raise ValueError(f"{name} = {value!r}, expected {kind} from {least} to {most}")


def write(path: Path, device: torch.device, tiles: dict[Key, Tile]) -> None:
    """Write the tiles that were measured on ``device``; what the file holds of others is kept.

    Raises:
        ValueError: the file exists and is refused by ``read``.
    """
    known = read(path, device) if path.exists() else {}
    entries = [
        {"kernel": kernel, "dtype": dtype, "precision": precision, "d": d, "tile": asdict(tile)}
        for (kernel, dtype, precision, d), tile in sorted({**known, **tiles}.items())
    ]
    content = {"format": FORMAT, "made_with": identity(device), "tiles": entries}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Whoever reads meanwhile sees the old file or the new one.
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    part.replace(path)


def read(path: Path, device: torch.device) -> dict[Key, Tile]:
    """The tiles of a file.

    Raises:
        ValueError: it cannot be read, was made on another GPU or with other versions, or an entry
            is not one; the message says which, and what to do.
    """
    advice = f"run `alc bench tune` again (delete the file first), or unset {SWITCH}"
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT:
            raise ValueError(f"format {content['format']!r}, expected {FORMAT}")
        made_with, tiles = content["made_with"], [_entry(entry) for entry in content["tiles"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        reason = f"{type(error).__name__}: {error}"
        raise ValueError(f"{path}: no table of tuned tiles ({reason}); {advice}") from None
    here = identity(device)
    for name, value in here.items():
        if not isinstance(made_with, dict) or made_with.get(name) != value:
            found = made_with.get(name) if isinstance(made_with, dict) else made_with
            raise ValueError(f"{path}: tuned with {name} {found!r}, here is {value!r}; {advice}")
    return dict(tiles)


def _entry(entry: dict[str, Any]) -> tuple[Key, Tile]:
    kernel, tile = entry["kernel"], Tile(**entry["tile"])
    if kernel not in KERNELS:
        raise ValueError(f"kernel {kernel!r}, expected one of {', '.join(KERNELS)}")
    check_tile(kernel, tile)
    return (kernel, str(entry["dtype"]), str(entry["precision"]), int(entry["d"])), tile


@functools.cache
def _table(path: Path, device: torch.device) -> dict[Key, Tile]:
    return read(path, device)


def key(kernel: str, dtype: torch.dtype, precision: str, d: int) -> Key:
    """The key of an entry; half precision has one way to multiply."""
    how = precision if dtype == torch.float32 else "exact"
    return kernel, str(dtype).removeprefix("torch."), how, d


def choose(kernel: str, queries: Tensor, precision: str, default: Tile) -> Tile:
    """The tile for ``kernel`` on queries (B, d): the tuned one if there is one, else ``default``.

    Raises:
        ValueError: a tuned table was asked for and is refused, see ``read``.
    """
    if kernel in _forced:
        _asked.add(kernel)
        return _forced[kernel]
    path = path_in_use(queries.device)
    if path is None or config.overridden():
        return default
    found = _table(path, queries.device).get(
        key(kernel, queries.dtype, precision, queries.shape[1])
    )
    return default if found is None else found


@contextmanager
def forced(kernel: str, tile: Tile) -> Iterator[None]:
    """For tuning: ``kernel`` takes ``tile`` within.

    Raises:
        RuntimeError: nothing asked for a tile of ``kernel``: what ran does not use it.
    """
    _forced[kernel] = tile
    _asked.discard(kernel)
    try:
        yield
        if kernel not in _asked:
            raise RuntimeError(f"what was run takes no tile of {kernel!r}")
    finally:
        del _forced[kernel]
