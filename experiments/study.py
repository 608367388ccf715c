"""Train every combination of a study's settings, then show what validation says of them.

    python experiments/study.py experiments/methods.toml --data DATA --output RUNS --jobs 2

A study is a TOML file:

    [common]                      # settings of every run, as in alc train --print-config
    epochs = 10
    [axes]                        # every combination is one run ...
    loss = ["base", "alc"]
    seed = [0, 1, 2]
    [[variant]]                   # ... of every variant, where there are any
    name = "wide"
    embedding_dim = 512

``--set NAME=VALUE`` changes a common setting: ``--set encoder=PATH --set device=cuda``.
Finished runs are kept, so a study that was cut goes on where it stopped. The tables look at
validation only; ``alc compare`` then reports test, once, for the runs that were chosen.
``--reference NAME`` adds what every group's coverage is ahead of that group's, paired over the
products, with 95 % intervals, by the score and, where runs have acceptance models, by those.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, get_type_hints

from alc_kernels.trainer.config import TrainConfig, read_toml
from alc_kernels.trainer.evaluation import Group, Scored, load_scored
from alc_kernels.trainer.report.summary import difference_cell

SHOWN = ("p1", "coverage_90", "coverage_95")


def with_changes(study: dict[str, Any], changes: list[str]) -> dict[str, Any]:
    """The study with ``NAME=VALUE`` put into its common settings."""
    kinds = get_type_hints(TrainConfig)
    common = dict(study.get("common", {}))
    for change in changes:
        name, _, text = change.partition("=")
        if name not in kinds:
            sys.exit(f"--set {change}: expected NAME=VALUE with a setting of alc train")
        common[name] = text == "true" if kinds[name] is bool else kinds[name](text)
    return {**study, "common": common}


def combinations(study: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """(name without seed, settings) of every run."""
    axes = study.get("axes", {})
    made = []
    for variant in study.get("variant", [{}]):
        own = {key: value for key, value in variant.items() if key != "name"}
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            words = [str(value) for key, value in chosen.items() if key != "seed"]
            words += [variant["name"]] if "name" in variant else []
            settings = {**study.get("common", {}), **chosen, **own}
            TrainConfig.resolve(settings)  # a slip shows before hours are spent
            made.append(("_".join(words) or "run", settings))
    return made


def train(
    folder: Path, settings: dict[str, Any], data: Path, threads: int, seconds: float | None = None
) -> str | None:
    """Train one run, which may take ``seconds``; what went wrong, or None."""
    if (folder / "metrics.json").is_file():
        return None
    command = [sys.executable, "-m", "alc_kernels", "train", "--data", str(data)]
    command += ["--output", str(folder)]
    if (folder / "checkpoint").is_dir():
        command.append("--resume")
    else:
        command.append("--overwrite")
        for name, value in settings.items():
            option = f"--{name.replace('_', '-')}"
            if isinstance(value, bool):
                command.append(option if value else f"--no-{option[2:]}")
            else:
                command += [option, str(value)]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f"{folder.name}.log").open("w") as log:
        try:
            code = subprocess.run(
                command, stdout=log, stderr=log, env=environment, timeout=seconds
            ).returncode
        except subprocess.TimeoutExpired:
            code = 1
            log.write(f"ended after {seconds:.0f} s\n")
    print(f"{'failed' if code else 'done'}: {folder.name}", file=sys.stderr, flush=True)
    return f"{folder.name}: see {folder}.log" if code else None


def validation(folder: Path) -> dict[str, float]:
    """The validation figures at the end of a run."""
    history = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))["history"]
    last = next(record for record in reversed(history) if "validation_p1" in record)
    return {key: last[f"validation_{key}"] for key in SHOWN if f"validation_{key}" in last}


def grouped(folders: list[Path]) -> dict[str, list[Path]]:
    """Finished runs by their names without the seed."""
    groups: dict[str, list[Path]] = {}
    for folder in folders:
        if (folder / "metrics.json").is_file():
            groups.setdefault(folder.name.rpartition("_")[0], []).append(folder)
    return groups


def table(groups: dict[str, list[Path]]) -> str:
    """Means over seeds, in per cent, best coverage first."""
    width = max(len(name) for name in groups)
    lines = [f"{'validation, %':{width}}  seeds  " + "  ".join(f"{key:>11}" for key in SHOWN)]
    rows = []
    for name, folders in groups.items():
        found = [validation(folder) for folder in folders]
        means = [sum(one[key] for one in found) / len(found) for key in SHOWN if key in found[0]]
        cells = "  ".join(f"{100 * mean:11.1f}" for mean in means)
        rows.append((-means[1], f"{name:{width}}  {len(folders):5}  {cells}"))
    return "\n".join(lines + [row for _, row in sorted(rows)])


def differences(groups: dict[str, list[Path]], reference: str) -> list[str]:
    """Coverage of every group minus the reference's, in percentage points: tables.

    By the score, then by the acceptance models of the runs that have one.
    """
    runs = {
        name: {folder.name.rpartition("_")[2]: load_scored(folder) for folder in folders}
        for name, folders in groups.items()
    }
    accepted = {
        name: {seed: made for seed, run in own.items() if (made := run.by_acceptance())}
        for name, own in runs.items()
    }
    title = f"minus {reference}"
    made = ahead(runs, reference, title), ahead(accepted, reference, f"{title}, acceptance")
    return [table for table in made if table]


def ahead(runs: dict[str, dict[str, Scored]], reference: str, title: str) -> str:
    """A table over the seeds that a group and the reference both have; empty without any."""
    keys, width = SHOWN[1:], max(len(title), *(len(name) for name in runs))
    rows = []
    for name, own in runs.items():
        seeds = [seed for seed in own if seed in runs[reference]]
        if name == reference or not seeds:
            continue
        group, other = (Group(name, [made[s] for s in seeds]) for made in (own, runs[reference]))
        difference = group.difference(other)[group.leading]
        found = [difference[f"validation_{key}"] for key in keys]
        cells = [difference_cell(one) for one in found]
        texts = "  ".join(f"{f'{cell.text} ({cell.small})':>24}" for cell in cells)
        rows.append((-found[0].value, f"{name:{width}}  {len(seeds):5}  {texts}"))
    head = f"{title:{width}}  seeds  " + "  ".join(f"{key:>24}" for key in keys)
    return "\n".join([head] + [row for _, row in sorted(rows)]) if rows else ""


def show(folders: list[Path], arguments: argparse.Namespace) -> None:
    """Print and keep the tables of the finished runs."""
    groups = grouped(folders)
    if not groups:
        return
    text = table(groups)
    if arguments.reference in groups and len(groups) > 1:
        text = "\n\n".join([text, *differences(groups, arguments.reference)])
    (arguments.output / f"{arguments.study.stem}.txt").write_text(text + "\n")
    print(text)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("study", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--threads", type=int, default=1, help="threads of each")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--reference", metavar="NAME", help="a line of the table")
    arguments = parser.parse_args()
    runs = combinations(with_changes(read_toml(arguments.study), arguments.set))
    folders = [arguments.output / f"{name}_{s.get('seed', 0)}" for name, s in runs]
    if arguments.reference not in (None, *(name for name, _ in runs)):
        names = ", ".join(dict.fromkeys(name for name, _ in runs))
        sys.exit(f"--reference {arguments.reference}: expected one of {names}")
    with ThreadPoolExecutor(arguments.jobs) as pool:
        faults = list(
            pool.map(
                lambda run: train(run[0], run[1], arguments.data, arguments.threads),
                zip(folders, (settings for _, settings in runs), strict=True),
            )
        )
    show(folders, arguments)
    failed = [fault for fault in faults if fault]
    if failed:
        sys.exit("\n".join(["failed:", *failed]))


if __name__ == "__main__":
    main()
