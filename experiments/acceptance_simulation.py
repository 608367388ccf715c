"""Does a certificate hold through the whole chain: cross-fit, certify, refit, fresh queries?

    python experiments/acceptance_simulation.py [--draws 200]

What is certified are the probabilities of fold models; what is used is a refit on all queries. No
theorem covers that step: this is a simulation, its answer is empirical. A product has a quality,
its queries share it; each query has five candidates with four features, of which the right one,
where the product is in the catalogue, tends to have the largest. "Broken": share of draws in which
the refit's precision on fresh queries of fresh products is below the promised one.
"Probabilities of the refit itself": what certifying on the very queries of the fit would do.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from alc_kernels.acceptance import Features, fit_acceptance
from alc_kernels.metrics import certified_threshold

CANDIDATES = 5
FRESH_PRODUCTS = 12_000
PRECISIONS = (0.9, 0.95)
WAYS = ("out of fold", "of the refit")


@dataclass(frozen=True)
class Design:
    """What is simulated.

    Attributes:
        products: of validation.
        size: queries of a product.
        kind: of the acceptance model.
        shared: share of a query's difficulty that its product decides.
        missing: share of products that are not in the catalogue.
    """

    products: int
    size: int
    kind: str
    shared: float = 0.7
    missing: float = 0.15

    def __str__(self) -> str:
        return f"{self.products:,} x {self.size}, {self.kind}"


DESIGNS = [
    Design(products, size, kind)
    for products, size in ((300, 1), (1000, 1), (200, 5), (600, 5))
    for kind in ("logistic", "boosting")
]


class Queries(NamedTuple):
    features: Features
    right: np.ndarray  # (n, m)
    product: np.ndarray  # (n,)


def queries(design: Design, products: int, size: int, draw: np.random.Generator) -> Queries:
    """Fresh products with ``size`` queries each."""
    product = np.repeat(np.arange(products), size)
    count = len(product)
    own, each = draw.normal(size=products)[product], draw.normal(size=count)
    ease = np.sqrt(design.shared) * own + np.sqrt(1.0 - design.shared) * each
    there = (draw.random(products) >= design.missing)[product]
    right = np.zeros((count, CANDIDATES), np.bool_)
    right[np.arange(count), draw.integers(CANDIDATES, size=count)] = there
    # Look-alikes: a wrong candidate may share what its product shares with the right one.
    twin = 0.8 * draw.normal(size=(products, CANDIDATES))[product]
    values = draw.normal(size=(count, CANDIDATES, 4))
    values[:, :, 0] += np.where(right, 3.0 + ease[:, None], twin)
    values[:, :, 1] += np.where(right, 1.2 + 0.6 * ease[:, None], 0.5 * twin)
    values[:, :, 2] += np.where(right, 1.5 * (ease[:, None] > 0), 0.0)
    names = ("score", "text", "rare", "noise")
    candidates = np.tile(np.arange(CANDIDATES), (count, 1))
    return Queries(Features(names, values.astype(np.float32), candidates), right, product)


class Outcome(NamedTuple):
    coverage: float  # on fresh queries
    reached: float  # precision there; NaN where nothing is accepted


Key = tuple[str, float]  # way, precision


def draw_once(design: Design, seed: int) -> dict[Key, Outcome]:
    """The chain as it is, and with the refit's own probabilities."""
    draw = np.random.default_rng(seed)
    own = queries(design, design.products, design.size, draw)
    fresh = queries(design, FRESH_PRODUCTS, 1, draw)
    fitted = fit_acceptance(own.features, own.right, own.product, kind=design.kind, seed=seed)
    probabilities = fitted.model.probabilities(fresh.features)
    top = probabilities.argmax(axis=1)
    best, hit = probabilities.max(axis=1), fresh.right[np.arange(len(top)), top]
    judges = (fitted.probabilities, fitted.model.probabilities(own.features))
    made = {}
    for way, judged in zip(WAYS, judges, strict=True):
        at = judged.argmax(axis=1)
        right = own.right[np.arange(len(at)), at]
        for precision in PRECISIONS:
            threshold = certified_threshold(
                judged.max(axis=1), right, precision, groups=own.product
            ).threshold
            accept = best >= threshold
            reached = float(hit[accept].mean()) if accept.any() else np.nan
            made[way, precision] = Outcome(float(accept.mean()), reached)
    return made


def simulate(design: Design, draws: int) -> dict[Key, tuple[float, float, float]]:
    """Share of draws that broke the promise, mean coverage, share without a threshold."""
    outcomes = [draw_once(design, seed) for seed in range(draws)]
    made = {}
    for key in outcomes[0]:
        coverage, reached = np.array([one[key] for one in outcomes]).T
        broken = float((reached < key[1]).mean())
        made[key] = broken, float(coverage.mean()), float(np.isnan(reached).mean())
    return made


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--draws", type=int, default=200)
    draws = parser.parse_args(words).draws
    print(f"{draws} draws a design, confidence .95: .05 broken are allowed. Empirical.\n")
    print(f"{'':30s}{'out of fold':^29s}{'probabilities of the refit':^29s}")
    heads = f"{'broken':>9s}{'coverage':>10s}{'none':>8s}  "
    print(f"{'products x queries':30s}{heads}{heads}")
    for design in DESIGNS:
        found = simulate(design, draws)
        for precision in PRECISIONS:
            line = f"{f'{design}, p {precision:g}':30s}"
            for way in WAYS:
                broken, coverage, none = found[way, precision]
                line += f"{broken:9.3f}{coverage:10.3f}{none:8.3f}  "
            print(line.rstrip(), flush=True)


if __name__ == "__main__":
    main()
