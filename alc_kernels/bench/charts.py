"""The charts of results of record: time and memory against B, time against active pairs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from alc_kernels.bench import record

Row = dict[str, Any]


def draw(results: Sequence[Path], folder: Path) -> list[Path]:
    """Draw what the files hold; the paths of the pictures.

    One picture per work, width and dtype that was measured at several B (time and memory), and
    one per work measured at several shares of active pairs.

    Raises:
        ValueError: a file is no result of record, or there is nothing to draw.
    """
    rows = [row for path in results for row in record.read(path)["rows"] if "median_ms" in row]
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
