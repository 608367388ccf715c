"""Forms that are fast give what the plain ones give, to the bit."""

from __future__ import annotations

import numpy as np

from alc_kernels.acceptance.codes import SHORTEST, _alike
from alc_kernels.acceptance.similarity import CharacterGrams

TEXTS = [
    "Nova Phone 8 64GB",
    "a",
    "  ab  cd ",
    "",
    "αΣΑΣ ΟΔΟΣ İx",
    "カメラ EOS-R5 カメラ",
    "ab ab abab",
]


def test_grams_are_those_of_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer

    plain = TfidfVectorizer(
        analyzer="char_wb", ngram_range=(3, 4), dtype=np.float32, sublinear_tf=True
    )
    grams = CharacterGrams(TEXTS)
    asked = [*TEXTS[::-1], "nova phon 8 128gb new words", "ABAB ab"]
    for expected, found in (
        (plain.fit_transform(TEXTS), grams.labels),
        (plain.transform(asked), grams.queries(asked)),
    ):
        assert (expected != found).nnz == 0 and expected.shape == found.shape


def test_codes_are_compared_as_letter_by_letter() -> None:
    words = ["gb6140", "gm6140", "gi81nae30", "gi81nae30g", "aaaa", "aaaaaa", "ab1", "x" * 90 + "1"]
    first, second = np.divmod(np.arange(len(words) ** 2), len(words))
    apart = first != second
    found = _alike(words, first[apart], second[apart])
    for place, (a, b) in enumerate(zip(first[apart], second[apart], strict=True)):
        short, long = sorted((words[a], words[b]), key=len)
        start = next((n for n, c in enumerate(short) if c != long[n]), len(short))
        rest = range(len(short) - start)
        end = next((n for n in rest if short[-1 - n] != long[-1 - n]), len(short) - start)
        near = (start + end) / len(long) if len(short) >= SHORTEST else 0.0
        assert found[0, place] == near
        assert found[1, place] == (near if start == len(short) else 0.0)
