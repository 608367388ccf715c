"""Features of texts, merged candidates, own columns and product codes."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from alc_kernels.acceptance import (
    FEATURES,
    TextFeatures,
    aligned,
    exact_first,
    exact_matches,
    merge_candidates,
    own_columns,
)
from alc_kernels.acceptance.columns import _number
from alc_kernels.acceptance.tokens import Tokenizer
from tests.acceptance.acceptance_cases import LABELS, case

PHONES = ["Nova X7 64GB", "Nova X7 128GB", "Nova X8 64 GB", "Luma WH-1000 XM3", "Café Straße 250g"]


def row(texts: TextFeatures, query: str, label: int) -> dict[str, float]:
    candidates = np.array([[label, *(n for n in range(len(PHONES)) if n != label)]])
    features = texts([query], candidates)
    return dict(zip(features.names, features.values[0, 0].tolist(), strict=True))


@pytest.fixture(scope="module")
def phones() -> TextFeatures:
    labels = [*PHONES, "Nova pad 256gb", "Luma 100g", "Luma 500g"]
    titles = ["nova x7 black 64gb", "nova x8 black 64gb", "luma wh1000 xm3 black"] * 3
    return TextFeatures.learned(labels, titles, np.array([0, 2, 3] * 3))


def test_units_are_learnt(phones: TextFeatures) -> None:
    assert phones.tokenizer.units == {"gb", "g"}
    assert phones.tokenizer("64 GB").words == phones.tokenizer("64gb").words == ("64gb",)
    assert phones.tokenizer("WH-1000").codes == ("wh1000",)
    assert Tokenizer()("64 GB").words == ("64", "gb")


def test_numbers_agree_or_conflict(phones: TextFeatures) -> None:
    same = row(phones, "nova x7 64 gb", 0)
    assert (same["units_agree"], same["units_conflict"]) == (1, 0)
    other = row(phones, "nova x7 64 gb", 1)
    assert (other["units_agree"], other["units_conflict"]) == (0, 1)
    assert same["digits_shared"] == 2 and other["digits_shared"] == 1
    assert other["digits_query"] == other["digits_label"] == 1


def test_code_rarity_by_hand(phones: TextFeatures) -> None:
    found = row(phones, "nova x7", 0)  # x7 stands in two of eight labels
    assert found["code_rarity"] == pytest.approx(np.log(9 / 2))
    assert found["rarest_shared"] == 1 and found["longest_code"] == 2
    missing = row(phones, "nova x99", 0)
    assert missing["codes_unknown"] == 1 and np.isnan(missing["rarest_shared"])


def test_colour_surprises_less_than_a_brand(phones: TextFeatures) -> None:
    colour = row(phones, "nova x7 64gb black", 0)
    brand = row(phones, "luma x7 64gb", 0)
    assert colour["query_surprise"] < brand["query_surprise"]
    assert colour["label_surprise"] < brand["label_surprise"]


def test_another_candidate_explains_more(phones: TextFeatures) -> None:
    assert row(phones, "nova x7 128gb", 1)["elsewhere"] == pytest.approx(0, abs=1e-6)
    assert row(phones, "nova x7 128gb", 0)["elsewhere"] > 1
    assert row(phones, "nova x7 128gb", 1)["twin"] > 0.4


def test_codes_with_a_small_difference() -> None:
    texts = TextFeatures(["LG GM6140PZQV Steel", "Hoover BHBF 50 NK", "Siemens GI81NAE30", "X 1"])
    queries = ["lg gb6140pzqv", "hoover bhbf50nk", "siemens gi81nae30g", "lg gm6140pzqv 2"]
    features = texts(queries, np.array([[0], [1], [2], [0]]))
    columns = dict(zip(features.names, features.values[:, 0].T, strict=True))
    np.testing.assert_allclose(columns["near_code"], [0.9, 0, 0.9, 0], rtol=1e-6)
    np.testing.assert_allclose(columns["code_begins"], [0, 0, 0.9, 0], rtol=1e-6)
    np.testing.assert_allclose(columns["joined_rarity"], np.log(5) * np.array([0, 1, 0, 1]))
    np.testing.assert_allclose(columns["joined_length"], [0, 8, 0, 12])  # with "lg"


def test_known_titles(phones: TextFeatures) -> None:
    found = row(phones, "nova x7 black 64gb", 0)
    assert found["known"] == pytest.approx(1, abs=1e-6)
    assert found["known_count"] == pytest.approx(np.log(4))
    assert np.isnan(row(phones, "café straße 250g", 4)["known"])


def test_any_language_and_blank_texts() -> None:
    labels = ["Телефон Нова 7", "新星 手机 64", "straße", "", "!!!", "½ ﬁne"]
    texts = TextFeatures.learned(labels, ["нова 7", "手机"], np.array([0, 1]))
    queries = ["ТЕЛЕФОН нова 7", "新星 手机 64", "STRASSE", "", "😀"]
    candidates, scores = texts.search(queries, 4)
    features = texts(queries, candidates, {"score": scores})
    assert np.isfinite(features.values[:, :, features.names.index("chars")]).all()
    assert candidates[0, 0] == 0 and candidates[1, 0] == 1
    jaccard = features.values[2, candidates[2] == 2, features.names.index("jaccard")]
    assert jaccard == 1  # capitals and ß are made alike


def test_every_column_is_in_the_table() -> None:
    features = case(80, known=80).features
    table = {feature.name: feature for feature in FEATURES}
    for name in features.names:
        base = name.removesuffix("_gap")
        assert base in table and (name == base or table[base].gap)
    assert set(table) - set(features.names) == {"pair_logit"}  # which a caller gives
    assert all(feature.reason and feature.how for feature in FEATURES)
    assert len(table) == len(FEATURES)


def test_rows_do_not_depend_on_the_others() -> None:
    made = case(60, known=80)
    half = made.texts(
        made.queries[:30],
        made.features.candidates[:30],
        {"score": made.features.values[:30, :, 0]},
    )
    np.testing.assert_array_equal(half.values, made.features.values[:30])


def test_features_are_fast() -> None:
    draw = np.random.default_rng(0)
    texts = case(60, known=80).texts
    queries = [LABELS[n] + " black" for n in draw.integers(len(LABELS), size=2000)]
    candidates = draw.integers(len(LABELS), size=(2000, 10))
    start = time.process_time()
    texts(queries, candidates)
    assert time.process_time() - start < 6  # a loop over pairs would take far longer


def test_merge_by_brute_force() -> None:
    draw = np.random.default_rng(0)
    found = [np.array([draw.permutation(6)[:3] for _ in range(50)]) for _ in range(2)]
    found[1][:10, 2] = -1
    merged = merge_candidates(found)
    for query in range(50):
        expected: list[int] = []
        for label in itertools.chain(*zip(found[0][query], found[1][query], strict=True)):
            if label >= 0 and label not in expected:
                expected.append(int(label))
        assert [n for n in merged[query].tolist() if n >= 0] == expected
        assert (merged[query][len(expected) :] == -1).all()
    np.testing.assert_array_equal(merge_candidates(found, 2), merged[:, :2])
    with pytest.raises(ValueError, match="same queries"):
        merge_candidates([found[0], found[1][1:]])
    with pytest.raises(ValueError, match="k=0"):
        merge_candidates(found, 0)


def test_aligned() -> None:
    got = aligned(np.array([[3, 1, -1]]), np.array([[1, 2]]), np.array([[0.5, 0.4]]))
    np.testing.assert_array_equal(got, [[np.nan, 0.5, np.nan]])


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.299,00 €", 1299), ("$1,299.50", 1299.5), ("12,5", 12.5), ("1 299", 1299), ("0.125", 0.125),
     ("1.299", 1299), ("5", 5), ("5 or 6", None), ("free", None), ("0", None), ("", None)],
)  # fmt: skip
def test_prices(text: str, number: float | None) -> None:
    assert _number(text) == number if number is not None else np.isnan(_number(text))


def test_own_columns() -> None:
    candidates = np.array([[0, 1], [1, -1]])
    made = own_columns(
        {"price": ["10", "20"], "brand": ["Nova ", ""], "shop": ["a", "b"]},
        {"price": ["20", "20"], "brand": ["nova", "luma"]},
        candidates,
    )
    assert set(made) == {"price_ratio", "brand_equal"}
    np.testing.assert_allclose(made["price_ratio"], [[np.log(2), np.log(2)], [0, np.nan]])
    np.testing.assert_array_equal(made["brand_equal"], [[1, 0], [np.nan, np.nan]])
    with pytest.raises(ValueError, match="column 'price'"):
        own_columns({"price": ["1"]}, {"price": ["1", "2"]}, candidates)


def test_codes_decide_first() -> None:
    found = exact_matches(
        {
            "gtin": ["4006381333931", "036000291452", "4006381333932", "", "", "4006381333931"],
            "mpn": ["", "", "AB-12 3", "ab123", "0000", "ab123"],
        },
        {
            "gtin": ["04006381333931", "0036000291452", ""],
            "mpn": ["", "AB123", "0000"],
        },
    )
    # A wrong check digit is no code; 0000 stands for none; the GTIN comes before the part number.
    assert found.tolist() == [0, 1, 1, 1, -1, 0]
    twice = exact_matches({"mpn": ["ab12"]}, {"mpn": ["ab12", "AB-12"]})
    assert twice.tolist() == [-1]  # of two labels: decides nothing
    against = exact_matches(
        {"gtin": ["4006381333931"], "mpn": ["ab12"]}, {"gtin": ["036000291452"], "mpn": ["ab12"]}
    )
    assert against.tolist() == [-1]  # its own GTIN says that it is another product
    candidates, probabilities = exact_first(
        np.array([[5, 2], [5, 2]]), np.array([[0.9, 0.2], [0.9, 0.2]]), np.array([2, -1])
    )
    assert candidates.tolist() == [[2, 5, -1], [-1, 5, 2]]
    assert probabilities.tolist() == [[1.0, 0.9, 0.0], [0.0, 0.9, 0.2]]


def test_bad_texts() -> None:
    with pytest.raises(ValueError, match="labels: found none"):
        TextFeatures([])
    with pytest.raises(ValueError, match="numbers from 0 to 1"):
        TextFeatures.learned(["a", "b"], ["c"], np.array([2]))
    texts = TextFeatures(["alpha", "beta"])
    with pytest.raises(ValueError, match=r"candidates: found shape \(2, 1\), expected \(1, m\)"):
        texts(["alpha"], np.zeros((2, 1), int))
    with pytest.raises(ValueError, match="found label 2, expected at most 1"):
        texts(["alpha"], np.array([[2]]))
    with pytest.raises(ValueError, match="score: found shape"):
        texts(["alpha"], np.array([[1]]), {"score": np.zeros((2, 2))})
