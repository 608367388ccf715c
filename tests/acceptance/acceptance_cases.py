"""A small catalogue, titles of its products, and their features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from alc_kernels.acceptance import Features, TextFeatures

LABELS = [
    f"{brand} {kind} {number} {size}gb"
    for brand in ("nova", "luma", "pico")
    for kind in ("phone", "tablet")
    for number in range(5, 15)
    for size in (64, 128)
]


@dataclass(frozen=True)
class Case:
    texts: TextFeatures
    queries: list[str]
    product: np.ndarray
    features: Features
    right: np.ndarray


def titles_of(products: np.ndarray, draw: np.random.Generator) -> list[str]:
    """Names with noise: words left out, sizes apart from their unit, colours."""
    made = []
    for product in products.tolist():
        words = LABELS[product].split()
        if draw.random() < 0.3:
            words[-1] = words[-1].replace("gb", " gb")
        if draw.random() < 0.3:
            del words[int(draw.integers(len(words)))]
        made.append(" ".join([*words, str(draw.choice(["new", "black", "sale"]))]))
    return made


def case(queries: int = 300, known: int = 100, seed: int = 0) -> Case:
    """With ``known`` pairs to learn from, and the score of a noisy search."""
    draw = np.random.default_rng(seed)
    of = draw.integers(len(LABELS), size=known)
    texts = TextFeatures.learned(LABELS, titles_of(of, draw), of)
    product = draw.integers(len(LABELS), size=queries)
    titles = titles_of(product, draw)
    candidates, cosines = texts.search(titles, 5)
    score = cosines + draw.normal(scale=0.15, size=cosines.shape)
    features = texts(titles, candidates, {"score": score})
    return Case(texts, titles, product, features, candidates == product[:, None])
