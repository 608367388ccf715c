"""The frame of a result of record: where and with what it was measured."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from alc_kernels.backends.native import library
from alc_kernels.whole import write_whole

# What lowers the instruction set: of ours, of MKL, of OpenBLAS, of PyTorch's own loops, of faiss.
SWITCHES = ("ALC_KERNELS_SIMD", "ALC_KERNELS_SCREENING", "MKL_ENABLE_INSTRUCTIONS",
            "OPENBLAS_CORETYPE", "ATEN_CPU_CAPABILITY", "FAISS_OPT_LEVEL")  # fmt: skip


def environment() -> dict[str, Any]:
    """Hardware, driver, versions and commit."""
    try:
        from triton import __version__ as triton_version
    except ImportError:
        triton_version = None
    found: dict[str, Any] = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "torch": torch.__version__,
        "triton": triton_version,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "commit": _output("git", "rev-parse", "HEAD"),
        "modified": bool(_output("git", "status", "--porcelain", "--untracked-files=no")),
    }
    for switch in SWITCHES:
        if switch in os.environ:
            found[switch] = os.environ[switch]
    if torch.cuda.is_available():
        found["device"] = torch.cuda.get_device_name()
        found["cuda"] = torch.version.cuda
        found["driver"] = _output(
            "nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"
        )
    else:
        vectors = torch.backends.cpu.get_cpu_capability()
        found["device"] = f"CPU, {platform.machine()}, {_processor()}, {vectors}"
        if library.load() is None:
            found["native"] = "loops {}, 8-bit products {}".format(*library.simd())
        found |= {name: _version(name) for name in ("faiss-cpu", "usearch")}
    return found


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    """The processor's name, where Linux tells it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def read(path: Path) -> dict[str, Any]:
    """Read a result of record; :class:`ValueError` names the file when it is not one."""
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a result of record ({error})") from None
    if not isinstance(made, dict) or not {"environment", "command", "rows"} <= made.keys():
        raise ValueError(f"{path}: expected a result of record with environment, command and rows")
    return made


def write(path: Path, rows: list[dict[str, Any]], command: str) -> None:
    """Write a result of record as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    record = {"environment": environment(), "command": command, "rows": rows}
    write_whole(path, json.dumps(record, indent=1) + "\n")


# Two results of record side by side: what got slower, what takes more memory.


KEY = ("work", "provider", "rows", "columns", "width", "dtype", "active")
MEMORY_SLACK = 16 * 2**20  # bytes of allocator rounding that mean nothing


def compare(before: Path, after: Path, tolerance: float) -> tuple[str, int]:
    """A table of all rows that both hold or one lacks, and how many of ours got worse.

    Times are compared as ratios to G, which the same run measured, so results of two machines of
    one kind can be compared. A row is worse when that ratio grew by more than ``tolerance``,
    its memory by more than that and 16 MiB, or when it was measured before and now is not.

    Raises:
        ValueError: a file is no result of record.
    """
    old, new = (_rows(path) for path in (before, after))
    lines = [f"{'':70}{'before':>9}{'after':>9}{'change':>9}"]
    worse = 0
    for key in sorted({**old, **new}, key=str):
        one, two = old.get(key), new.get(key)
        name = "  ".join(f"{part:g}" if isinstance(part, float) else str(part) for part in key)
        ours = key[1] == "alc_kernels"
        verdict, cells = _judge(one, two, tolerance)
        if verdict == "worse" and ours:
            worse += 1
        mark = {"worse": "SLOWER" if ours else "slower", "better": "faster"}.get(verdict, "")
        lines.append(f"{name:70}{cells}  {mark}".rstrip())
    return "\n".join(lines), worse


def _judge(
    one: dict[str, Any] | None, two: dict[str, Any] | None, tolerance: float
) -> tuple[str, str]:
    was = None if one is None else one.get("ratio_to_product")
    now = None if two is None else two.get("ratio_to_product")
    if was is None or now is None:
        cells = "".join(f"{'-' if ratio is None else f'{ratio:.2f}':>9}" for ratio in (was, now))
        return ("worse" if was is not None else "same"), f"{cells}{'':>9}"
    assert one is not None and two is not None
    change = now / was - 1
    cells = f"{was:9.2f}{now:9.2f}{change:+9.1%}"
    had, has = one.get("extra_bytes"), two.get("extra_bytes")
    if had is not None and has is not None and has > had * (1 + tolerance) + MEMORY_SLACK:
        return "worse", f"{cells}  memory {had / 2**20:.0f} -> {has / 2**20:.0f} MiB"
    if change > tolerance:
        return "worse", cells
    return ("better" if change < -tolerance else "same"), cells


def _rows(path: Path) -> dict[tuple[Any, ...], dict[str, Any]]:
    rows = read(path)["rows"]
    try:
        return {tuple(row[key] for key in KEY): row for row in rows}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{path}: a row lacks {error}, expected {', '.join(KEY)}") from None


# The charts of results of record: time and memory against B, time against active pairs.


Row = dict[str, Any]


def draw(results: Sequence[Path], folder: Path) -> list[Path]:
    """Draw what the files hold; the paths of the pictures.

    One picture per work, width and dtype that was measured at several B (time and memory), and
    one per work measured at several shares of active pairs.

    Raises:
        ValueError: a file is no result of record, or there is nothing to draw.
    """
    rows = [row for path in results for row in read(path)["rows"] if "median_ms" in row]
    folder.mkdir(parents=True, exist_ok=True)
    made = [*_against_rows(rows, folder), *_against_active(rows, folder)]
    if not made:
        names = ", ".join(str(path) for path in results)
        raise ValueError(f"{names}: nothing to draw, expected several B or several active shares")
    return made


def _groups(rows: Sequence[Row], *keys: str) -> Iterator[tuple[tuple[Any, ...], list[Row]]]:
    found: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        found.setdefault(tuple(row[key] for key in keys), []).append(row)
    yield from found.items()


def _against_rows(rows: Sequence[Row], folder: Path) -> Iterator[Path]:
    for (work, width, dtype, _), group in _groups(rows, "work", "width", "dtype", "active"):
        if len({row["rows"] for row in group}) < 2:
            continue
        panels = [("time / time of Q K^T", lambda row: row["ratio_to_product"])]
        if all(row["extra_bytes"] is not None for row in group):
            panels.append(("extra memory, MiB", lambda row: row["extra_bytes"] / 2**20))
        title = f"{work}, d = {width}, {dtype}"
        path = folder / f"{work}-{width}-{dtype}.png"
        yield _plot(group, "rows", "B", panels, title, path)


def _against_active(rows: Sequence[Row], folder: Path) -> Iterator[Path]:
    for (work, size, width, dtype), group in _groups(rows, "work", "rows", "width", "dtype"):
        if len({row["active"] for row in group}) < 2:
            continue
        panels: list[tuple[str, Callable[[Row], float]]] = [
            ("time / time of Q K^T", lambda row: row["ratio_to_product"])
        ]
        title = f"{work}, B = {size}, d = {width}, {dtype}"
        path = folder / f"{work}-active-{size}-{width}-{dtype}.png"
        yield _plot(group, "active", "share of active pairs", panels, title, path)


def _plot(
    rows: Sequence[Row],
    x: str,
    x_title: str,
    panels: Sequence[tuple[str, Callable[[Row], float]]],
    title: str,
    path: Path,
) -> Path:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(5.5 * len(panels), 4), squeeze=False)
    for axis, (heading, value) in zip(axes[0], panels, strict=True):
        for (provider,), group in _groups(rows, "provider"):
            points = sorted((row[x], max(value(row), 1e-3)) for row in group)
            ours = provider == "alc_kernels"
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                linewidth=2.4 if ours else 1.2,
                zorder=3 if ours else 2,
                label=provider,
            )
        axis.set(xscale="log", yscale="log", xlabel=x_title, title=heading)
        axis.grid(True, alpha=0.3)
    axes[0][0].legend(fontsize=8)
    figure.suptitle(title)
    figure.tight_layout()
    figure.savefig(path, dpi=150)
    pyplot.close(figure)
    return path
