"""Tile sizes of the walk, chosen ahead of time: no autotuning at run time.

What bounds a tile: its accumulator (rows * cols / (32 * warps) registers per thread, twice that
while a tile is edited) beside up to 60 registers of per-row state, and stages * (rows + cols) *
depth elements of shared memory. Where a table says "no spill" or "few", that is the assembler's
report for the variant with most state (ids, csr, guard, every statistic); spilled are values
that do not change in the tile loop.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch


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
