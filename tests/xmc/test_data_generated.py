"""Titles of generated products."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import pytest

from alc_kernels.trainer.data.generated import Dice, Product, offer_title
from alc_kernels.trainer.data.generated_words import CATEGORIES

T = TypeVar("T")


class Forgetful(Dice):
    """Leaves out brand, series and all details, once each; misspells if ``misspelt``."""

    def __init__(self, misspelt: bool) -> None:
        super().__init__(0)
        self.left = [0.07, 0.06, 0.14] + ([0.12, 0.12] if misspelt else [])

    def chance(self, probability: float) -> bool:
        if probability not in self.left:
            return False
        self.left.remove(probability)
        return True

    def below(self, count: int) -> int:
        return 0

    def pick(self, options: Sequence[T]) -> T:
        return next((option for option in options if option == ""), options[0])


@pytest.mark.parametrize("misspelt", [False, True])
def test_a_merchant_who_leaves_everything_out_writes_the_name(misspelt: bool) -> None:
    product = Product(CATEGORIES[0], "Velmora", "Nova", "N-8", ("", ""), "", shown_model=True)
    title = offer_title(product, Forgetful(misspelt))
    assert title == ("vlmora nova n-8" if misspelt else "velmora nova n-8")
