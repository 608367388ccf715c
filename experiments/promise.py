"""Does a certified threshold keep its promise? Simulated designs, and re-splits of a run.

    python experiments/promise.py                    # the designs the rule was tuned on
    python experiments/promise.py --designs fresh    # new parameters, run after it was frozen
    python experiments/promise.py --run RUN          # validation titles of a run, by product
    python experiments/promise.py --run RUN --acceptance   # reads test: once, when all is settled

The last one draws validation and test titles of a run anew by product, 200 times: as many titles as
validation has fit an acceptance model, by cross-fitting, and give its threshold, the others judge
the refit at it. All draws share one pool of titles, so they are not 200 independent trials.

A query has a quality z, normal, with the correlation of its group; its answer is right where z is
above a cut, and its score is z with noise. Cut and noise make the wanted precision fall on a wanted
coverage. "Broken": share of draws whose threshold has a true precision (of 2 million queries)
below the promised one. Beside the certified threshold, plug-in: the lowest validation score that
attains the precision; and the same certificate without groups.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import norm

from alc_kernels.metrics import certified_threshold, threshold_at_precision


@dataclass(frozen=True)
class Design:
    """What is simulated.

    Attributes:
        queries: of validation.
        size: queries of a group, in the mean if uneven.
        correlation: of the quality within a group.
        precision, confidence: of the promise.
        coverage: the ideal threshold's, without the missing products.
        hits: share of right answers, without the missing products.
        uneven: sizes log-normal (sigma 1), not equal.
        missing: share of groups that are not in the catalogue; their scores are lower by 1.5.
        top_wrong: wrong answers above all other scores.
        heavy: the score's noise has Student's t distribution with 4 degrees of freedom.
        size_matters: larger groups have better qualities.
    """

    queries: int
    size: int
    correlation: float
    precision: float = 0.95
    coverage: float = 0.358
    hits: float = 0.7
    confidence: float = 0.95
    uneven: bool = False
    missing: float = 0.0
    top_wrong: int = 0
    heavy: bool = False
    size_matters: bool = False

    def __str__(self) -> str:
        sizes = "about " if self.uneven else ""
        groups = f"{self.queries // self.size:,} x {sizes}{self.size}"
        words = [groups + (f", corr. {self.correlation:g}" if self.correlation else "")]
        words += [f"p {self.precision:g}"] if self.precision != 0.95 else []
        words += [f"confidence {self.confidence:g}"] if self.confidence != 0.95 else []
        words += [f"{self.missing:.0%} missing"] if self.missing else []
        words += [f"{self.top_wrong} wrong on top"] if self.top_wrong else []
        words += ["heavy tails"] if self.heavy else []
        words += ["larger groups better"] if self.size_matters else []
        return ", ".join(words)


HIGH = {"precision": 0.9, "coverage": 0.75, "hits": 0.82}  # a good model
GONE = {"missing": 0.15, "coverage": 0.55, "hits": 0.8}

TUNED = [
    Design(5000, 1, 0.0),
    Design(5000, 5, 0.6),
    Design(5000, 20, 0.6),
    Design(5000, 20, 0.9),
    Design(5000, 1, 0.0, **HIGH),
    Design(5000, 20, 0.6, **HIGH),
    Design(300, 1, 0.0),
    Design(300, 5, 0.6),
    Design(300, 5, 0.6, **HIGH),
    Design(1000, 1, 0.0),
    Design(1000, 5, 0.6),
    Design(1000, 5, 0.6, **HIGH),
    Design(5000, 10, 0.6, uneven=True),
    Design(5000, 10, 0.9, uneven=True),
    Design(1000, 10, 0.9, uneven=True, **HIGH),
    Design(5000, 5, 0.6, **GONE),
    Design(5000, 20, 0.9, **GONE),
    Design(5000, 20, 0.9, missing=0.15, **HIGH),
    Design(5000, 1, 0.0, top_wrong=2),
    Design(5000, 5, 0.6, top_wrong=2),
]
FRESH = [
    Design(2000, 1, 0.0, coverage=0.5, hits=0.8),
    Design(6000, 4, 0.7, precision=0.97, coverage=0.4),
    Design(6000, 15, 0.8, precision=0.92, coverage=0.55, hits=0.75),
    Design(6000, 40, 0.7, coverage=0.45, hits=0.75),
    Design(4000, 6, 0.8, precision=0.9, coverage=0.6, hits=0.75, uneven=True),
    Design(6000, 25, 0.7, coverage=0.4, uneven=True),
    Design(3000, 8, 0.7, precision=0.9, coverage=0.65, hits=0.8, missing=0.1),
    Design(6000, 12, 0.8, coverage=0.5, hits=0.8, missing=0.25),
    Design(500, 1, 0.0, precision=0.9, coverage=0.6, hits=0.75),
    Design(800, 3, 0.5, coverage=0.5, hits=0.8),
    Design(2500, 5, 0.6, coverage=0.4, top_wrong=3),
    Design(3000, 6, 0.7, coverage=0.4, heavy=True),
    Design(4000, 8, 0.7, precision=0.9, coverage=0.6, hits=0.75, uneven=True, size_matters=True),
    Design(3000, 5, 0.6, confidence=0.9),
    Design(8000, 4, 0.5, precision=0.99, coverage=0.3),
]
POPULATION = 2_000_000


class Queries(NamedTuple):
    """(n,) each."""

    group: np.ndarray
    scores: np.ndarray
    correct: np.ndarray


def shape(design: Design) -> tuple[float, float]:
    """(correlation of score and quality, cut) that give the design's coverage and hits."""
    cut = float(norm.isf(design.hits))
    start = float(norm.isf(design.coverage))

    def lacking(r: float) -> float:
        def right(score: float) -> float:
            return norm.sf((cut - r * score) / math.sqrt(1.0 - r * r)) * norm.pdf(score)

        return quad(right, start, 10.0)[0] / design.coverage - design.precision

    return float(brentq(lacking, 0.0, 0.9999)), cut


def draw(
    design: Design, rng: np.random.Generator, form: tuple[float, float], queries: int | None = None
) -> Queries:
    """Validation queries; ``queries`` instead of the design's number."""
    total = design.queries if queries is None else queries
    r, cut = form
    if design.uneven:
        count = 4 * total // design.size + 50
        sizes = np.ceil(rng.lognormal(math.log(design.size) - 0.5, 1.0, count)).astype(np.int64)
        sizes = sizes[: int(np.searchsorted(np.cumsum(sizes), total)) + 1]
    else:
        sizes = np.full(total // design.size, design.size)
    group = np.repeat(np.arange(len(sizes)), sizes)[:total]
    common = rng.standard_normal(len(sizes))
    if design.size_matters:
        common = common + 0.5 * np.log(sizes / design.size)
    own = rng.standard_normal(len(group))
    quality = (
        math.sqrt(design.correlation) * common[group] + math.sqrt(1.0 - design.correlation) * own
    )
    noise = rng.standard_normal(len(group))
    if design.heavy:
        noise = rng.standard_t(4, len(group)) / math.sqrt(2.0)
    scores = r * quality + math.sqrt(1.0 - r * r) * noise
    correct = quality > cut
    if design.missing:
        missing = (rng.random(len(sizes)) < design.missing)[group]
        correct &= ~missing
        scores = scores - 1.5 * missing
    if design.top_wrong:
        top = rng.choice(len(group), design.top_wrong, replace=False)
        scores[top], correct[top] = 10.0 + np.arange(design.top_wrong), False
    return Queries(group, scores, correct)


class Truth:
    """Precision and coverage of every threshold over a large population."""

    def __init__(self, design: Design, form: tuple[float, float]) -> None:
        rng = np.random.default_rng(1)
        parts = [draw(design, rng, form, POPULATION // 10) for _ in range(10)]
        scores = np.concatenate([part.scores for part in parts])
        correct = np.concatenate([part.correct for part in parts])
        order = np.argsort(-scores)
        self.scores = scores[order]
        self.precision = np.cumsum(correct[order]) / np.arange(1, len(order) + 1)
        attains = np.flatnonzero(self.precision[1000:] >= design.precision)
        self.best = (attains[-1] + 1001) / len(order) if len(attains) else 0.0

    def at(self, threshold: float) -> tuple[float, float]:
        """(precision, coverage); (1, 0) where nothing is accepted."""
        accepted = int(np.searchsorted(-self.scores, -threshold, side="right"))
        return (float(self.precision[accepted - 1]) if accepted else 1.0), accepted / len(
            self.scores
        )


Rule = Callable[[Design, Queries], float]
RULES: dict[str, Rule] = {
    "plug-in": lambda d, q: threshold_at_precision(q.scores, q.correct, d.precision),
    "no groups": lambda d, q: (
        certified_threshold(q.scores, q.correct, d.precision, d.confidence).threshold
    ),
    "certified": lambda d, q: (
        certified_threshold(q.scores, q.correct, d.precision, d.confidence, q.group).threshold
    ),
}


class Outcome(NamedTuple):
    """Over the draws: share broken, mean coverage, share without a threshold."""

    broken: float
    coverage: float
    none: float


def simulate(
    design: Design, draws: int, rules: dict[str, Rule] = RULES, seed: int = 2
) -> tuple[float, dict[str, Outcome]]:
    """(coverage of the ideal threshold, rule -> outcome)."""
    form = shape(design)
    truth = Truth(design, form)
    rng = np.random.default_rng(seed)
    found: dict[str, list[tuple[bool, float, bool]]] = {name: [] for name in rules}
    for _ in range(draws):
        queries = draw(design, rng, form)
        for name, rule in rules.items():
            threshold = rule(design, queries)
            precision, coverage = truth.at(threshold)
            found[name].append((precision < design.precision, coverage, threshold == math.inf))
    return truth.best, {name: Outcome(*np.mean(rows, axis=0)) for name, rows in found.items()}


def simulation_table(designs: list[Design], draws: int) -> Iterator[str]:
    yield f"{draws} draws; broken %, coverage %; last column: certificates without a threshold, %"
    yield f"{'':58s}{'best':>6s}" + "".join(f"{name:>13s}" for name in RULES) + f"{'none':>6s}"
    for design in designs:
        best, outcomes = simulate(design, draws)
        cells = [f"{100 * o.broken:6.1f} {100 * o.coverage:6.1f}" for o in outcomes.values()]
        none = 100 * outcomes["certified"].none
        yield f"{design!s:58s}{100 * best:6.1f}" + "".join(cells) + f"{none:6.1f}"


def resplit_table(run: Path, splits: int) -> Iterator[str]:
    """Validation halved by product: threshold from one half, judged on the other."""
    from alc_kernels.trainer.evaluation.predictions import leading_catalogue, load_predictions

    predictions, _ = load_predictions(run / "predictions.npz")
    part = predictions[leading_catalogue(predictions)]["validation"]
    scores, correct = part.top_score, part.correct
    names, group = np.unique(part.group, return_inverse=True)
    yield f"{len(group)} validation titles of {len(names)} products, {splits} halvings by product,"
    yield "the cosine's threshold from one half, judged on the other"
    for precision in (0.9, 0.95):
        rng = np.random.default_rng(0)
        design = Design(len(group), 1, 0.0, precision=precision)
        rows: dict[str, list[tuple[bool, float, float]]] = {name: [] for name in RULES}
        for _ in range(splits):
            first = (rng.permutation(len(names)) < len(names) // 2)[group]
            for name, rule in RULES.items():
                queries = Queries(group[first], scores[first], correct[first])
                accept = scores[~first] >= rule(design, queries)
                reached = correct[~first][accept].mean() if accept.any() else math.nan
                rows[name].append((reached < precision, float(accept.mean()), reached))
        for name, found in rows.items():
            yield resplit_line(precision, name, found)


def acceptance_table(run: Path, splits: int, jobs: int) -> Iterator[str]:
    """Validation and test drawn anew by product: the acceptance model fitted and certified anew."""
    import torch

    from alc_kernels.acceptance import Features
    from alc_kernels.metrics.inputs import as_relation
    from alc_kernels.trainer.data import load_dataset
    from alc_kernels.trainer.evaluation import load_scored
    from alc_kernels.trainer.evaluation.acceptance import Acceptance
    from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint

    torch.set_num_threads(1)
    dataset = load_dataset(load_scored(run).data["folder"])
    acceptance = Acceptance(dataset)
    model = load_checkpoint(checkpoint_folder(run)).model
    search = acceptance.searches(model.encode_queries, model.encode_labels(dataset.labels))
    name, own = next(iter(acceptance.catalogues.items()))
    parts = [acceptance.features(name, split, search[name]) for split in ("validation", "test")]
    width = min(part.candidates.shape[1] for part in parts)
    pool = Features(
        parts[0].names,
        np.concatenate([part.values[:, :width] for part in parts]),
        np.concatenate([part.candidates[:, :width] for part in parts]),
    )
    relations = [own.relations[split] for split in ("validation", "test")]
    right = np.concatenate([
        as_relation(relation, "relation").contains(part.candidates[:, :width])
        for relation, part in zip(relations, parts, strict=True)
    ])  # fmt: skip
    numbers = [dataset.splits[split].group_numbers() for split in ("validation", "test")]
    products, group = np.unique(np.concatenate(numbers), return_inverse=True)
    share = len(numbers[0]) / len(group)
    yield f"{len(group)} validation and test titles of {len(products)} products: one pool, {splits}"
    yield f"draws by product, {100 * share:.0f} % of the products fit and certify, the others judge"
    global POOL
    POOL = pool, right, group, share
    rows: dict[tuple[float, str], list[tuple[bool, float, float]]] = {}
    with multiprocessing.get_context("fork").Pool(jobs) as workers:
        for done, found in enumerate(workers.imap(acceptance_draw, range(splits)), 1):
            for key, row in found.items():
                rows.setdefault(key, []).append(row)
            if done % 25 == 0:
                for (precision, kind), some in rows.items():
                    print(done, resplit_line(precision, kind, some), file=sys.stderr, flush=True)
    for (precision, kind), found in rows.items():
        yield resplit_line(precision, kind, found)


def acceptance_draw(seed: int) -> dict[tuple[float, str], tuple[bool, float, float]]:
    """(precision, rule) -> (broken, coverage, precision reached) of one draw."""
    from alc_kernels.acceptance import fit_acceptance

    pool, right, group, share = POOL
    products = group.max() + 1
    first = (np.random.default_rng(seed).permutation(products) < share * products)[group]
    fitted = fit_acceptance(pool.take(first), right[first], group[first])
    correct = right[first][np.arange(int(first.sum())), fitted.top]
    queries = Queries(group[first], fitted.top_probability, correct)
    others = fitted.model.probabilities(pool.take(~first))
    scores, judged = (
        others.max(axis=1),
        right[~first][np.arange(len(others)), others.argmax(axis=1)],
    )
    made = {}
    for precision in (0.9, 0.95):
        design = Design(len(queries.scores), 1, 0.0, precision=precision)
        for kind in ("plug-in", "certified"):
            accept = scores >= RULES[kind](design, queries)
            reached = float(judged[accept].mean()) if accept.any() else math.nan
            made[precision, kind] = (reached < precision, float(accept.mean()), reached)
    return made


POOL: Any = None  # features, right, product of every title, and the share that fits; for workers


def resplit_line(precision: float, name: str, found: list[tuple[bool, float, float]]) -> str:
    """Share of draws broken, mean coverage and precision."""
    broken, coverage = np.mean([row[:2] for row in found], axis=0)
    mean = np.nanmean([row[2] for row in found])
    return (
        f"p {precision:<5g}{name:12s}broken {100 * broken:5.1f} %   coverage "
        f"{100 * coverage:5.1f} %   precision {100 * mean:5.1f} %"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--designs", choices=("tuned", "fresh"), default="tuned")
    parser.add_argument("--draws", type=int, default=400)
    parser.add_argument("--run", type=Path, help="re-splits of this run's validation titles")
    parser.add_argument(
        "--acceptance", action="store_true", help="of its acceptance model, on test"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes, with --acceptance")
    parser.add_argument("--splits", type=int, default=200, help="re-splits")
    arguments = parser.parse_args()
    if arguments.run and arguments.acceptance:
        lines = acceptance_table(arguments.run, arguments.splits, arguments.jobs)
    elif arguments.run:
        lines = resplit_table(arguments.run, arguments.splits)
    else:
        designs = {"tuned": TUNED, "fresh": FRESH}[arguments.designs]
        lines = simulation_table(designs, arguments.draws)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
