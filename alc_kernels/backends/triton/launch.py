"""What every launcher needs: the device of its tensors, and where kernels run."""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor

from alc_kernels.version import __version__

# How much memory the passes may take beyond inputs, gradients and what a call returns.
#
# ``ALC_KERNELS_WORKSPACE_MIB`` sets it (a whole number of MiB, at least 1, read once at import);
# the low-memory mode is 48. Every pass works in row chunks whose buffers fit in it; smaller ones
# cost time, because each chunk of rows adds to all rows of the labels' gradient.


VARIABLE = "ALC_KERNELS_WORKSPACE_MIB"
DEFAULT_MIB = 256


def read_workspace_bytes() -> int:
    """The setting in bytes.

    Raises:
        ValueError: the variable is no whole number of at least 1.
    """
    text = os.environ.get(VARIABLE, str(DEFAULT_MIB))
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{VARIABLE}={text!r}: expected a whole number of MiB, at least 1")
    return int(text) << 20


WORKSPACE_BYTES = read_workspace_bytes()


# Tile sizes of the walk, chosen ahead of time: no autotuning at run time.
#
# What bounds a tile: its accumulator (rows * cols / (32 * warps) registers per thread, twice that
# while a tile is edited) beside up to 60 registers of per-row state, and stages * (rows + cols) *
# depth elements of shared memory. Where a table says "no spill" or "few", that is the assembler's
# report for the variant with most state (ids, csr, guard, every statistic); spilled are values
# that do not change in the tile loop.


@dataclass(frozen=True)
class Tile:
    """Block sizes of a kernel: queries, labels, step along the embedding; and its launch."""

    rows: int
    cols: int
    depth: int
    warps: int
    stages: int
    programs: int = 1  # that run on one multiprocessor at a time: how finely columns are split

    def __str__(self) -> str:
        return f"{self.rows}x{self.cols}x{self.depth}-{self.warps}w{self.stages}s"


# Epilogues: "maximum" (a maximum per element and rare sums), "sums" (softmax or sigmoid),
# "list" (top-k with 2 <= k <= 32), "long" (longer lists).
EPILOGUES = ("maximum", "sums", "list", "long")
# A list of 128 entries per row takes as many registers as 128 columns: half the rows.
LONG = Tile(64, 128, 64, 8, 3)

# Hopper (sm_90: wgmma, 227 KiB of shared memory), half precision, by the width d up to which
# the entry holds. Up to 128 the queries stay in shared memory and labels stream past them.
HOPPER_HALF = {
    # Short rows leave little product to hide an epilogue behind: two programs of 4 warps on a
    # multiprocessor, so that one multiplies while the other reduces, for some 20 reloads a tile.
    64: {"maximum": Tile(128, 128, 64, 4, 3, 2), "sums": Tile(128, 128, 64, 8, 3),
         "list": Tile(128, 128, 64, 8, 3), "long": LONG},
    128: {"maximum": Tile(128, 128, 128, 4, 2, 2), "sums": Tile(128, 128, 128, 8, 3),
          "list": Tile(128, 128, 128, 8, 3), "long": Tile(64, 128, 128, 8, 3)},
    # Long rows: the widest tile reads least per product, and its epilogue is 10 % of it. Lists
    # need the registers of half a tile.
    2**31: {"maximum": Tile(128, 256, 64, 8, 3), "sums": Tile(128, 256, 64, 8, 3),
            "list": Tile(128, 128, 64, 8, 3), "long": LONG},
}  # fmt: skip
# Blackwell (sm_100: the accumulator lives in tensor memory and is copied to registers whole).
# 128 x 256 spills there, and 4 warps do even at 128 x 128; 8 warps do not.
BLACKWELL_HALF = {
    128: {"maximum": Tile(128, 128, 128, 8, 3), "sums": Tile(128, 128, 128, 8, 3),
          "list": Tile(128, 128, 128, 8, 3), "long": Tile(64, 128, 128, 8, 3)},
    2**31: {"maximum": Tile(128, 128, 64, 8, 3), "sums": Tile(128, 128, 64, 8, 3),
            "list": Tile(128, 128, 64, 8, 3), "long": LONG},
}  # fmt: skip
# mma.sync, 99 KiB of shared memory on the smallest (sm_86, sm_89, sm_120): operands pass through
# registers as well, so anything beyond the maximum takes half the columns. No spill.
OTHER_HALF = {
    2**31: {"maximum": Tile(128, 128, 32, 8, 4), "sums": Tile(128, 64, 64, 8, 3),
            "list": Tile(128, 64, 64, 8, 3), "long": Tile(64, 64, 64, 8, 3)},
}  # fmt: skip
# tf32 doubles the bytes of an element: half the depth.
LARGE_TF32 = {
    2**31: {"maximum": Tile(128, 128, 32, 8, 4), "sums": Tile(128, 128, 32, 8, 4),
            "list": Tile(128, 128, 32, 8, 4), "long": Tile(64, 128, 32, 8, 4)},
}  # fmt: skip
OTHER_TF32 = {
    2**31: {"maximum": Tile(128, 64, 32, 8, 3), "sums": Tile(128, 64, 32, 8, 3),
            "list": Tile(128, 64, 32, 8, 3), "long": Tile(64, 64, 32, 8, 3)},
}  # fmt: skip
# Exact float32 products run on the ordinary units, 16 accumulators per thread. No spill.
IEEE = {2**31: dict.fromkeys(EPILOGUES, Tile(64, 64, 32, 8, 3))}

# The product over listed rows (``active_product``): 128 rows by ``cols`` of d, ``depth`` listed
# rows a step. The first operand is made from bits in registers, beside the sums: 128 x 256 takes
# 128 registers of sums, which only Hopper's asynchronous product leaves room for.
WIDE_PRODUCT = Tile(128, 256, 64, 8, 3)
HALF_PRODUCT = Tile(128, 128, 64, 8, 3)
FLOAT_PRODUCT = Tile(128, 128, 32, 8, 3)
EXACT_PRODUCT = Tile(128, 64, 32, 8, 2)

_override: Tile | None = None


@functools.cache
def device_limits(device: torch.device) -> tuple[tuple[int, int], int]:
    """(compute capability, multiprocessors); a stand-in where there is no GPU."""
    if device.type != "cuda":
        return (9, 0), 4
    properties = torch.cuda.get_device_properties(device)
    # The versions of AMD's devices look like compute capabilities but mean something else.
    capability = (0, 0) if torch.version.hip else (properties.major, properties.minor)
    return capability, properties.multi_processor_count


def product_tile(capability: tuple[int, int], dtype: torch.dtype, d: int, precision: str) -> Tile:
    """The tile of ``active_product_kernel``; its columns are a step along the width d."""
    if dtype == torch.float32:
        tile = EXACT_PRODUCT if precision == "ieee" else FLOAT_PRODUCT
    elif capability[0] == 9 and d % 256 == 0:
        return WIDE_PRODUCT
    else:
        tile = HALF_PRODUCT
    # Short rows: no wider than the next power of two.
    return replace(tile, cols=min(tile.cols, max(16, 1 << (d - 1).bit_length())))


def walk_tile(
    capability: tuple[int, int], dtype: torch.dtype, d: int, precision: str, epilogue: str
) -> Tile:
    """The tile for a device, a compute dtype, a width and an epilogue (one of EPILOGUES)."""
    if _override is not None:
        return _override
    large = capability in ((9, 0), (10, 0), (10, 3))
    if dtype == torch.float32:
        tf32 = LARGE_TF32 if large else OTHER_TF32
        table = IEEE if precision == "ieee" else tf32
    elif large:
        table = HOPPER_HALF if capability[0] == 9 else BLACKWELL_HALF
    else:
        table = OTHER_HALF
    width = min(limit for limit in table if d <= limit)
    return table[width][epilogue]


def all_tiles() -> list[Tile]:
    """Every tile of the tables, once."""
    tables = (HOPPER_HALF, BLACKWELL_HALF, OTHER_HALF, LARGE_TF32, OTHER_TF32, IEEE)
    tiles = (tile for table in tables for entry in table.values() for tile in entry.values())
    return list(dict.fromkeys(tiles))


def overridden() -> bool:
    """Whether ``override_tile`` decides."""
    return _override is not None


@contextmanager
def override_tile(tile: Tile) -> Iterator[None]:
    """For tests: use ``tile`` for every walk within."""
    global _override
    before, _override = _override, tile
    try:
        yield
    finally:
        _override = before


# Kernels were compiled for the interpreter if this was set when they were defined.
INTERPRETED: bool = triton.knobs.runtime.interpret


def on_device_of(tensor: Tensor) -> AbstractContextManager[object]:
    """Launch on the tensor's device, which need not be the current one."""
    return torch.cuda.device(tensor.device) if tensor.is_cuda else nullcontext()


def given_or(tensor: Tensor | None, dummy: Tensor) -> Tensor:
    """The tensor, or a pointer for an argument that the kernel does not read."""
    return dummy if tensor is None else tensor.contiguous()


def dot_precision(dtype: torch.dtype) -> str:
    """How float32 operands are multiplied (half precision inputs are multiplied exactly)."""
    if dtype == torch.float32 and torch.get_float32_matmul_precision() == "highest":
        return "ieee"
    return "tf32"


# Tiles that were measured on this machine, from a file, instead of those of the tables.
#
# Off unless ``ALC_KERNELS_TUNED`` is set: ``1`` reads the file that ``alc bench tune`` writes for
# the GPU, a path reads that file, ``0`` or nothing reads none. A file that cannot be read, that was
# made on another GPU or with other versions, or holds a tile that no kernel takes, is refused.
#
# An entry holds for one kernel, dtype, precision and width d exactly; the tables serve all others.
# The batch is no part of it, so that a last partial batch never compiles anything anew.


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
        "capability": list(device_limits(device)[0]),
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
    if path is None or overridden():
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
