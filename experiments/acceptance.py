"""What an acceptance model adds to the cosine, on run folders and their data.

    python experiments/acceptance.py RUN...              # validation alone, by cross-fitting
    python experiments/acceptance.py RUN... --ablate     # and without each group of features
    python experiments/acceptance.py RUN... --test       # read test: once, when all is settled

Runs that differ in their seed only are averaged. The catalogue is the open one where there is one.
Candidates: the five best of the run and the five best of TF-IDF; TF-IDF with the same models has
its ten best. Figures on validation are taken from out-of-fold probabilities, which is also
what thresholds are certified on; test is scored by the model fitted on all of validation.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from alc_kernels.acceptance import FEATURES, Features, fit_acceptance
from alc_kernels.metrics import certified_threshold, coverage_at_precision
from alc_kernels.metrics.inputs import as_relation
from alc_kernels.trainer.data import Dataset
from alc_kernels.trainer.data.folder import load_dataset
from alc_kernels.trainer.evaluation import (
    Estimate,
    Group,
    Predictions,
    Scored,
    data_fingerprint,
    load_scored,
    loss_name,
)
from alc_kernels.trainer.evaluation.acceptance import Acceptance
from alc_kernels.trainer.evaluation.candidates import OWN, TFIDF, CandidateSearch
from alc_kernels.trainer.evaluation.results import settings_key
from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint

PRECISIONS = (0.9, 0.95)
MEASURES = ("p1", "coverage_90", "coverage_95")
KINDS = ("logistic", "boosting")
Found = dict[str, Predictions]  # split -> predictions


@dataclass
class Source:
    """A data set, its leading catalogue, and what its texts say."""

    dataset: Dataset
    splits: tuple[str, ...]
    seconds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name, self.catalogue = next(iter(self.dataset.catalogues().items()))
        start = time.perf_counter()
        self.acceptance = Acceptance(self.dataset)
        self.seconds["learning from training titles"] = time.perf_counter() - start

    def groups(self) -> np.ndarray:
        return self.dataset.validation.group_numbers()

    def features(self, search: CandidateSearch) -> dict[str, Features]:
        """Of the candidates of every split."""
        start = time.perf_counter()
        made = {split: self.acceptance.features(self.name, split, search) for split in self.splits}
        self.seconds["candidates and features"] = time.perf_counter() - start
        return made

    def right(self, split: str, candidates: np.ndarray) -> np.ndarray:
        return as_relation(self.catalogue.relations[split], "relation").contains(candidates)

    def judged(self, split: str, candidates: np.ndarray, scores: np.ndarray) -> Predictions:
        """Candidates (n, m) of the catalogue, by falling score."""
        return self.acceptance.judged(self.name, split, candidates, scores)

    def tfidf(self) -> tuple[Found, dict[str, Features]]:
        """TF-IDF's own predictions, and the features of its candidates."""
        search = self.acceptance.searches()[self.name]
        found = {}
        for split in self.splits:
            queries = self.dataset.splits[split].queries
            found[split] = self.judged(split, *search.texts.search(queries, OWN + TFIDF))
        return found, self.features(search)

    def own(self, run: Path) -> tuple[Found, dict[str, Features]]:
        """The cosine's predictions, and the features of the union of both searches."""
        model = load_checkpoint(checkpoint_folder(run)).model
        labels = model.encode_labels(self.dataset.labels)
        search = self.acceptance.searches(model.encode_queries, labels)[self.name]
        cosine = load_scored(run).predictions[self.name]
        return {split: cosine[split] for split in self.splits}, self.features(search)


def accepted(source: Source, features: Mapping[str, Features], kind: str) -> Found:
    """Fitted on validation; its validation predictions are out of fold."""
    start = time.perf_counter()
    validation = features["validation"]
    right = source.right("validation", validation.candidates)
    fitted = fit_acceptance(validation, right, source.groups(), kind=kind)
    made = {"validation": source.judged("validation", validation.candidates, fitted.probabilities)}
    for split in source.splits[1:]:
        probabilities = fitted.model.probabilities(features[split])
        made[split] = source.judged(split, features[split].candidates, probabilities)
    source.seconds[f"fitting and scoring, {kind}"] = time.perf_counter() - start
    return made


def validation_line(found: Sequence[Predictions]) -> list[float]:
    """P@1, C@.9, C@.95 and the certified coverage at both, mean over the runs, in percent."""
    rows = []
    for one in found:
        top, right = one.top_score, one.correct
        certified = [
            certified_threshold(top, right, p, groups=one.group).coverage for p in PRECISIONS
        ]
        coverage = [coverage_at_precision(top, right, p) for p in PRECISIONS]
        rows.append([right.mean(), *coverage, *certified])
    return [100.0 * value for value in np.mean(rows, axis=0)]


def show_validation(rows: Iterable[tuple[str, Sequence[Predictions]]]) -> None:
    print(f"  {'validation':34s}{'P@1':>7s}{'C@.9':>7s}{'C@.95':>7s}{'cert.9':>8s}{'cert.95':>8s}")
    for name, found in rows:
        values = validation_line(found)
        print(
            f"  {name:34s}" + "".join(f"{v:{7 if i < 3 else 8}.1f}" for i, v in enumerate(values))
        )


def show_test(source: Source, methods: Mapping[str, Sequence[Found]]) -> None:
    """Figures on test with their intervals, differences, and certificates that were kept or not."""
    mark = data_fingerprint(source.dataset)
    groups = {
        name: Group(name, [Scored(name, {source.name: found}, mark) for found in runs])
        for name, runs in methods.items()
    }
    print(f"\n  {'test':34s}" + "".join(f"{name:>26s}" for name in ("P@1", "C@.9", "C@.95")))
    for name, group in groups.items():
        show_estimates(name, group.figures()[source.name])
    for name in ("TF-IDF + boosting", "logistic", "boosting"):
        for other in ("cosine", "TF-IDF", "TF-IDF + boosting"):
            if other != name:
                difference = groups[name].difference(groups[other])[source.name]
                show_estimates(f"{name} minus {other}", difference, "+")
    print(f"\n  {'certified on validation':34s}" + "".join(
        f"{f'accepted at {p:g}':>16s}{'right':>8s}" for p in PRECISIONS
    ))  # fmt: skip
    for name, runs in methods.items():
        line = ""
        for precision in PRECISIONS:
            kept = np.mean([certified_on_test(found, precision) for found in runs], axis=0)
            line += f"{100 * kept[0]:16.1f}{100 * kept[1]:8.1f}"
        print(f"  {name:34s}{line}")


def certified_on_test(found: Found, precision: float) -> tuple[float, float]:
    """Share of test accepted at the threshold certified on validation, and right among it."""
    own, test = found["validation"], found["test"]
    threshold = certified_threshold(
        own.top_score, own.correct, precision, groups=own.group
    ).threshold
    accept = test.top_score >= threshold
    return float(accept.mean()), float(test.correct[accept].mean()) if accept.any() else np.nan


def show_estimates(name: str, values: Mapping[str, Estimate], sign: str = "") -> None:
    cells = ""
    for key in MEASURES:
        one = values[key]
        numbers = [f"{100 * value:{sign}.1f}" for value in (one.value, one.low, one.high)]
        cells += f"{f'{numbers[0]} ({numbers[1]} to {numbers[2]})':>26s}"
    print(f"  {name:34s}{cells}")


def without(features: Mapping[str, Features], group: str) -> dict[str, Features]:
    """All features but those of a group, and their gaps."""
    names = {feature.name for feature in FEATURES if feature.group == group}
    return {
        split: one.select([name for name in one.names if name.removesuffix("_gap") not in names])
        for split, one in features.items()
    }


def study(runs: Sequence[Path], data: Path, test: bool, ablate: bool) -> None:
    """One setting: its seeds, on one data set."""
    source = Source(load_dataset(data), ("validation", "test") if test else ("validation",))
    tfidf, features = source.tfidf()
    methods: dict[str, list[Found]] = {"cosine": [], "TF-IDF": [tfidf]}
    for kind in KINDS:
        methods[f"TF-IDF + {kind}"] = [accepted(source, features, kind)]
    fullest = []
    for run in runs:
        cosine, features = source.own(run)
        fullest.append(features)
        methods["cosine"].append(cosine)
        for kind in KINDS:
            methods.setdefault(kind, []).append(accepted(source, features, kind))
    rows = [(name, [found["validation"] for found in some]) for name, some in methods.items()]
    if ablate:
        for group in dict.fromkeys(feature.group for feature in FEATURES):
            left = [accepted(source, without(one, group), "boosting") for one in fullest]
            rows.append((f"boosting without {group}", [found["validation"] for found in left]))
    show_validation(rows)
    if test:
        show_test(source, methods)
    print("  seconds: " + ", ".join(f"{name} {s:.1f}" for name, s in source.seconds.items()))


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN")
    parser.add_argument("--data", type=Path, help="data folder; default: the one of the run")
    parser.add_argument("--test", action="store_true", help="read test too, once, at the end")
    parser.add_argument("--ablate", action="store_true", help="leave out features, on validation")
    arguments = parser.parse_args(words)
    torch.set_num_threads(1)
    settings: dict[tuple[str, str], list[Scored]] = {}
    for scored in map(load_scored, arguments.runs):
        key = settings_key(scored.config), scored.fingerprint
        settings.setdefault(key, []).append(scored)
    for runs in settings.values():
        config, data = runs[0].config, runs[0].data
        seeds = " ".join(str(run.config.get("seed")) for run in runs)
        print(
            f"{data['name']}: {loss_name(str(config['loss']))}, {config['encoder']}, seeds {seeds}"
        )
        folders = [run.folder for run in runs if run.folder is not None]
        study(folders, arguments.data or Path(data["folder"]), arguments.test, arguments.ablate)
        print()


if __name__ == "__main__":
    main()
