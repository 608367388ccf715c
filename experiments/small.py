"""The runs of small.toml on test: figures, what they are ahead of TF-IDF and of the start, a curve.

    python experiments/small.py RUNS --picture experiments/small.png

RUNS holds a folder of runs for every number of training titles (RUNS/500/few-titles_0, ...). Means
over seeds, open catalogue; differences are paired over products, with 95 % intervals.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from study import grouped

from alc_kernels.trainer.evaluation import Group, load_scored
from alc_kernels.trainer.evaluation.comparison import decision_rules
from alc_kernels.trainer.evaluation.results import BASELINE_NAME, WITH_ACCEPTANCE, load_baseline
from alc_kernels.trainer.report.summary import difference_cell

KEYS = {"p1": "P@1", "coverage_90": "C@.9", "coverage_95": "C@.95"}
START = "start"
SHOWN = (BASELINE_NAME, START, "few-titles", f"few-titles{WITH_ACCEPTANCE}")


def groups_of(folder: Path) -> dict[str, Group]:
    """TF-IDF, then the runs of one folder by their names without the seed, each by both rules."""
    runs = grouped(sorted(path.parent for path in folder.glob("*_*/metrics.json")))
    made = [Group(name, [load_scored(path) for path in paths]) for name, paths in runs.items()]
    first = made[0].runs[0]
    assert first.folder is not None
    baseline = load_baseline(first.folder, first)
    if baseline is not None:
        made.insert(0, Group(baseline.name, [baseline], reference=True))
    return {group.name: group for group in decision_rules(made)}


def table(groups: dict[str, Group]) -> list[str]:
    """A row of figures per group, then its differences to what was not trained."""
    lines = [f"{'test, %':32}" + "".join(f"{title:>8}" for title in KEYS.values())]
    leading = next(iter(groups.values())).leading
    for name, group in groups.items():
        figures = group.figures()[leading]
        cells = "".join(f"{100 * figures[key].value:8.1f}" for key in KEYS)
        lines.append(f"{name:32}{cells}  {len(group.runs)} seed{'s'[: len(group.runs) > 1]}")
    for untrained in (BASELINE_NAME, START):
        for suffix in ("", WITH_ACCEPTANCE):
            rival = groups.get(untrained + suffix)
            if rival is None:
                continue
            lines += ["", f"minus {rival.name}"]
            for name, group in groups.items():
                if group is rival or name.endswith(WITH_ACCEPTANCE) != bool(suffix):
                    continue
                ahead = group.difference(rival)[leading]
                found = [difference_cell(ahead[key]) for key in KEYS]
                lines.append(f"{name:32}" + "  ".join(f"{c.text} ({c.small})" for c in found))
    return lines


def picture(curves: dict[str, dict[int, list[float]]], path: Path) -> None:
    """Coverage over the number of training titles."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, panels = plt.subplots(1, len(KEYS), figsize=(11, 3.6), constrained_layout=True)
    for panel, (place, title) in zip(panels, enumerate(KEYS.values()), strict=True):
        for name, values in curves.items():
            sizes = sorted(values)
            panel.plot(sizes, [values[size][place] for size in sizes], marker="o", label=name)
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], minor=False)
        panel.minorticks_off()
        panel.set_title(f"{title}, test, %")
        panel.set_xlabel("titles to train on")
    panels[0].legend(fontsize="small", loc="center left", bbox_to_anchor=(0.0, 0.62))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("runs", type=Path)
    parser.add_argument("--picture", type=Path)
    arguments = parser.parse_args()
    curves: dict[str, dict[int, list[float]]] = {}
    for folder in sorted(arguments.runs.iterdir(), key=lambda path: int(path.name)):
        groups = groups_of(folder)
        print("\n".join([f"{int(folder.name):,} titles", *table(groups), ""]), flush=True)
        for name, group in groups.items():
            if name in SHOWN:
                figures = group.figures()[group.leading]
                values = [100 * figures[key].value for key in KEYS]
                curves.setdefault(name, {})[int(folder.name)] = values
    if arguments.picture:
        picture(curves, arguments.picture)


if __name__ == "__main__":
    main()
