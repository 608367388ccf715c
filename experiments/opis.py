"""OPIS of PriceRunner runs over product categories: does one threshold serve all of them alike?

    python experiments/opis.py pricerunner_aggregate.csv --data DATA RUNS/*_[0-9]

A product has hardly one test title, far from the 20 right and 20 wrong that OPIS asks for, so the
groups are the ten categories of the published file. Runs that differ in their seed only are
averaged; the spread over the seeds stands beside the mean.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np

from alc_kernels.metrics import opis
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.evaluation import group_runs, load_scored

TITLE, CATEGORY = 1, 5  # columns of the published file


def categories(path: Path) -> dict[str, str]:
    """Title -> category id; a title that occurs in several has the first."""
    found: dict[str, str] = {}
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.reader(file):
            found.setdefault(row[TITLE].strip(), row[CATEGORY].strip())
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("csv", type=Path)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    arguments = parser.parse_args()
    of = categories(arguments.csv)
    titles = load_dataset(arguments.data).test.queries
    groups = np.array([of[title] for title in titles])
    made = group_runs([load_scored(folder) for folder in arguments.runs])
    heading = "OPIS over categories, x 1000"
    width = max(len(heading), *(len(group.name) for group in made))
    print(f"{heading:{width}}  seeds  {'open':>13}  {'closed':>13}")
    for group in made:
        cells = []
        for catalogue in ("open", "closed"):
            found = [run.predictions[catalogue]["test"] for run in group.runs]
            values = 1000 * np.array([opis(p.top_score, p.correct, groups) for p in found])
            cells.append(f"{values.mean():6.2f} ± {values.std():4.2f}")
        print(f"{group.name:{width}}  {len(group.runs):5}  {'  '.join(cells)}")


if __name__ == "__main__":
    main()
