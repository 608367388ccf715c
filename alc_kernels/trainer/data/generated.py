"""A deterministic generator of product titles, for demos and tests without any data.

Products come in families of look-alikes: one brand and series, or neighbouring model numbers,
that differ in capacity, size, colour or generation only. Merchants leave such details out, so
some titles cannot be decided, and a good score has to say so. Split and held-out products
follow the protocol that is used for real data (:mod:`alc_kernels.trainer.data.protocol`).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from alc_kernels.trainer.data.dataset import Dataset
from alc_kernels.trainer.data.generated_words import (
    BRANDS,
    CATEGORIES,
    COLOURS,
    PROMOTION,
    Category,
)
from alc_kernels.trainer.data.protocol import apply_protocol
from alc_kernels.trainer.errors import DataError

# How merchants write a product: reordered, shortened, misspelt, decorated.


T = TypeVar("T")


class Dice:
    """Chance from ``random.Random.random`` alone, the one method Python promises to keep."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed).random

    def chance(self, probability: float) -> bool:
        return self._random() < probability

    def below(self, count: int) -> int:
        return int(self._random() * count)

    def pick(self, options: Sequence[T]) -> T:
        return options[self.below(len(options))]

    def uniform(self) -> float:
        return self._random()

    def shuffled(self, items: Sequence[T]) -> list[T]:
        made = list(items)
        for last in range(len(made) - 1, 0, -1):
            other = self.below(last + 1)
            made[last], made[other] = made[other], made[last]
        return made


@dataclass(frozen=True)
class Product:
    """One product, by its parts; an absent part is the empty string.

    ``shown_model`` tells whether the product's name contains the model number.
    """

    category: Category
    brand: str
    series: str
    model: str
    size: tuple[str, str]
    colour: str
    shown_model: bool

    @property
    def name(self) -> str:
        """The name in the catalogue."""
        value, unit = self.size
        size = f"{value} {unit}" if len(unit) > 3 else f"{value}{unit}"
        # A model number made from the size says it already.
        in_model = self.shown_model and "{size}" in self.category.model
        parts = [
            self.brand,
            self.series,
            self.model if self.shown_model else "",
            "" if in_model or not value else size,
            self.colour,
        ]
        return " ".join(part for part in parts if part)


def offer_title(product: Product, dice: Dice) -> str:
    """One merchant's title of ``product``."""
    if dice.chance(0.03):
        return _model(product.model, dice).lower()  # the model number alone
    leading = [
        product.brand.lower() if not dice.chance(0.07) else "",
        product.series.lower() if not dice.chance(0.06) else "",
    ]
    mentions_model = dice.chance(0.85 if product.shown_model else 0.25)
    if mentions_model:
        leading.append(_model(product.model, dice))
    if product.shown_model and not mentions_model and dice.chance(0.6):
        leading.append(_model(product.model, dice)[: 3 + dice.below(3)])  # cut short
    details = [
        _size(product, dice) if not dice.chance(0.14) else "",
        _colour(product, dice),
        dice.pick(product.category.nouns) if dice.chance(0.7) else "",
    ]
    details += dice.shuffled(product.category.extras)[: dice.below(4)]
    if dice.chance(0.45):
        details = dice.shuffled(details)
    parts = leading + details
    if dice.chance(0.12):
        parts = details + leading
    if dice.chance(0.2):
        parts = (
            [*parts, dice.pick(PROMOTION)] if dice.chance(0.6) else [dice.pick(PROMOTION), *parts]
        )
    if dice.chance(0.08):
        parts.append(f"{dice.below(900000) + 100000}")  # the merchant's own number
    if dice.chance(0.06):
        parts.append(_other_size(product, dice))  # an accessory's or a bundle's size
    # Who left everything out writes the name.
    words = " ".join(part for part in parts if part).split() or product.name.split()
    if dice.chance(0.12):
        at = dice.below(len(words))
        words[at] = _misspelt(words[at], dice)
    title = " ".join(words)
    return title.title() if dice.chance(0.15) else title.lower()


def _model(model: str, dice: Dice) -> str:
    """A model number with its hyphen kept, dropped or turned into a space."""
    model = model.replace("-", dice.pick(("-", "-", "", " ")))
    if dice.chance(0.1):
        model += dice.pick(("/a", "-uk", "uk", ".eu", "b"))
    return model


def _size(product: Product, dice: Dice) -> str:
    """The size with its unit glued, split off or written out."""
    value, unit = product.size
    if not value:
        return ""
    if unit == '"':
        return value + dice.pick(('"', " inch", "in", "''", " in", "-inch"))
    if dice.chance(0.05):
        return value
    return value + dice.pick(("", " ")) + unit.lower()


def _other_size(product: Product, dice: Dice) -> str:
    if not product.category.sizes:
        return ""
    value, unit = dice.pick(product.category.sizes)
    return f"{value} {unit}".lower()


def _colour(product: Product, dice: Dice) -> str:
    if product.colour:
        return "" if dice.chance(0.2) else dice.pick(COLOURS[product.colour])
    return dice.pick(COLOURS[dice.pick(list(COLOURS))]) if dice.chance(0.35) else ""


def _misspelt(word: str, dice: Dice) -> str:
    """One letter dropped, doubled or exchanged with its neighbour."""
    if len(word) < 4:
        return word
    at = 1 + dice.below(len(word) - 2)
    kind = dice.below(3)
    if kind == 0:
        return word[:at] + word[at + 1 :]
    if kind == 1:
        return word[:at] + word[at] + word[at:]
    return word[:at] + word[at + 1] + word[at] + word[at + 2 :]


DESCRIPTION = (
    "Generated product titles: invented brands and model numbers, look-alike variants, merchant "
    "noise. Not real data."
)
MIN_LABELS = 20
LETTERS = "ABCDEFGHKLMNPRSTUVWX"


def generate_catalogue(
    num_labels: int = 6000,
    num_titles: int = 20000,
    *,
    seed: int = 0,
    keep_unmatched: bool = False,
) -> Dataset:
    """Generate products and the titles that merchants might give them.

    Args:
        num_labels: products in the catalogue (distinct names), at least 20.
        num_titles: distinct titles over all splits, at least ``num_labels``; training titles
            of held-out products are dropped from it unless ``keep_unmatched``.
        seed: equal arguments give equal data on every platform.
        keep_unmatched: as in :func:`alc_kernels.trainer.data.read_pricerunner`.

    Raises:
        DataError: too few labels or titles.
    """
    if num_labels < MIN_LABELS:
        raise DataError(f"num_labels = {num_labels}: expected at least {MIN_LABELS}")
    if num_titles < num_labels:
        raise DataError(f"num_titles = {num_titles}: expected at least num_labels = {num_labels}")
    dice = Dice(seed)
    products = _products(num_labels, dice)
    titles: dict[str, list[int]] = {}
    for label, product in enumerate(products):
        _add(titles, offer_title(product, dice), label)
    popularity = _popularity(num_labels, dice)
    while len(titles) < num_titles:
        label = _draw(popularity, dice)
        _add(titles, offer_title(products[label], dice), label)
    return apply_protocol(
        [product.name for product in products],
        titles,
        keep_unmatched=keep_unmatched,
        name="Generated catalogue",
        description=DESCRIPTION,
        generated=True,
    )


def _add(titles: dict[str, list[int]], title: str, label: int) -> None:
    """Two products with the same title: both are right for it."""
    row = titles.setdefault(title, [])
    if label not in row:
        row.append(label)


def _products(count: int, dice: Dice) -> list[Product]:
    """``count`` products with distinct names, family by family."""
    made: list[Product] = []
    names: set[str] = set()
    while len(made) < count:
        for product in _family(dice.below(len(CATEGORIES)), dice):
            key = product.name.lower()
            if key not in names and len(made) < count:
                names.add(key)
                made.append(product)
    return made


def _family(kind: int, dice: Dice) -> list[Product]:
    """Look-alikes: every member shares brand and series, or the stem of the model number."""
    category = CATEGORIES[kind]
    # A third of the brands makes each kind of product; some make several kinds.
    brand = BRANDS[(kind * 7 + dice.below(len(BRANDS) // 3)) % len(BRANDS)]
    line = f"{dice.pick(category.series)} {2 + dice.below(18)}" if category.series else ""
    stem = "".join(
        dice.pick(LETTERS) if c == "A" else str(dice.below(10)) if c == "9" else c
        for c in category.model.replace("{size}", "#")
    )
    sizes = dice.shuffled(category.sizes)[: 1 + dice.below(3)] or [("", "")]
    trims = dice.shuffled(category.trims)[: 1 + dice.below(3)]
    colours = dice.shuffled(category.colours)[: 1 + dice.below(3)] or [""]
    shown_model = not line or dice.chance(0.2)
    members = []
    for trim in trims:
        for size in sizes:
            for colour in colours:
                model = stem.replace("#", size[0]) + (colour[0] if colour else "")
                if trim:
                    model += trim[0]
                series = f"{line} {trim}".strip()
                members.append(Product(category, brand, series, model, size, colour, shown_model))
    if dice.chance(0.4):  # the next generation: one character further in the model number
        later = _next_generation(stem)
        for old in list(members)[: 1 + dice.below(3)]:
            model = later.replace("#", old.size[0]) + (old.colour[0] if old.colour else "")
            series = old.series.replace(line, _next_line(line), 1) if line else ""
            members.append(
                Product(category, brand, series, model, old.size, old.colour, shown_model)
            )
    return members


def _next_generation(stem: str) -> str:
    """The stem with its last letter or digit advanced."""
    for at in range(len(stem) - 1, -1, -1):
        if stem[at].isdigit():
            return stem[:at] + str((int(stem[at]) + 1) % 10) + stem[at + 1 :]
        if stem[at] in LETTERS:
            later = LETTERS[(LETTERS.index(stem[at]) + 1) % len(LETTERS)]
            return stem[:at] + later + stem[at + 1 :]
    return stem


def _next_line(line: str) -> str:
    series, number = line.rsplit(" ", 1)
    return f"{series} {int(number) + 1}"


def _popularity(count: int, dice: Dice) -> list[float]:
    """Running sums of weights with a heavy tail: few products have many offers."""
    sums, total = [], 0.0
    for _ in range(count):
        total += 1.0 / (0.05 + dice.uniform())
        sums.append(total)
    return sums


def _draw(sums: list[float], dice: Dice) -> int:
    """An index with probability proportional to its weight."""
    target, low, high = dice.uniform() * sums[-1], 0, len(sums) - 1
    while low < high:
        middle = (low + high) // 2
        if sums[middle] <= target:
            low = middle + 1
        else:
            high = middle
    return low
