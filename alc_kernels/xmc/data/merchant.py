"""How merchants write a product: reordered, shortened, misspelt, decorated."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from alc_kernels.xmc.data.catalogue_words import COLOURS, PROMOTION, Category

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
    words = " ".join(part for part in parts if part).split()
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
