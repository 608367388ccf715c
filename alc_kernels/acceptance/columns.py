"""The user's own columns as features, and product codes that decide first."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np

from alc_kernels.acceptance.tokens import normalized

NUMERIC = 0.9  # share of a column's values that must be numbers
_DIGITS = re.compile(r"\d[\d.,' \u00a0\u202f]*")
_NO_CODE = re.compile(r"[\W_]+")
GTIN_LENGTHS = (8, 12, 13, 14)
LEAST_PART_NUMBER = 4  # characters


def own_columns(
    queries: Mapping[str, Sequence[str]],
    labels: Mapping[str, Sequence[str]],
    candidates: np.ndarray,
) -> dict[str, np.ndarray]:
    """A feature for each column that both sides have.

    A column of numbers (nine tenths of the values of both sides) becomes ``NAME_ratio``,
    |log(title's / label's)|; any other ``NAME_equal``, 1 or 0. NaN where a side has no value.

    Args:
        queries: column -> n values.
        labels: column -> L values.
        candidates: (n, m) label numbers, -1 for none.

    Returns:
        Name -> (n, m) float64.

    Raises:
        ValueError: a column of another length.
    """
    made = {}
    for name in [name for name in queries if name in labels]:
        left, right = list(queries[name]), list(labels[name])
        if len(left) != len(candidates) or candidates.max(initial=-1) >= len(right):
            raise ValueError(
                f"column {name!r}: found {len(left)} and {len(right)} values, expected "
                f"{len(candidates)} (titles) and one for each label"
            )
        numbers = [np.array([_number(value) for value in side]) for side in (left, right)]
        filled = [np.array([bool(value.strip()) for value in side]) for side in (left, right)]
        numeric = all(
            np.isfinite(values[some]).mean() >= NUMERIC if some.any() else False
            for values, some in zip(numbers, filled, strict=True)
        )
        label = np.maximum(candidates, 0)
        if numeric:
            with np.errstate(invalid="ignore", divide="ignore"):
                ratio = np.abs(np.log(numbers[0][:, None] / numbers[1][label]))
            value = np.where(np.isfinite(ratio), ratio, np.nan)
        else:
            ids: dict[str, int] = {}
            keys = [
                np.array([ids.setdefault(_plain(value), len(ids)) for value in side])
                for side in (left, right)
            ]
            value = (keys[0][:, None] == keys[1][label]).astype(np.float64)
            value[~(filled[0][:, None] & filled[1][label])] = np.nan
        made[f"{name}_{'ratio' if numeric else 'equal'}"] = np.where(candidates < 0, np.nan, value)
    return made


def exact_matches(
    queries: Mapping[str, Sequence[str]], labels: Mapping[str, Sequence[str]]
) -> np.ndarray:
    """The label that has the query's product code, where exactly one has.

    Args:
        queries, labels: kind -> codes of the n queries and L labels, "" for none. ``"gtin"`` (EAN
            and UPC are such: the check digit must fit, leading zeros do not count); any other
            kind, such as ``"mpn"``, is compared without case, spaces and punctuation, and needs
            four characters with a digit among them. Kinds earlier in ``queries`` decide first.

    Returns:
        (n,) int64 label numbers, -1 where no code decides. A label whose code of an earlier kind
        differs from the query's is not taken for a later one.
    """
    kinds = [kind for kind in queries if kind in labels]
    if not kinds:
        return np.full(len(next(iter(queries.values()), ())), -1, np.int64)
    left = {kind: [_code(kind, value) for value in queries[kind]] for kind in kinds}
    right = {kind: [_code(kind, value) for value in labels[kind]] for kind in kinds}
    made = np.full(len(left[kinds[0]]), -1, np.int64)
    for place, kind in enumerate(kinds):
        owners: dict[str, int] = {}
        for number, code in enumerate(right[kind]):
            if code:
                owners[code] = (
                    -1 if code in owners else number
                )  # of several labels: decides nothing
        for row, code in enumerate(left[kind]):
            found = owners.get(code, -1) if code else -1
            if made[row] < 0 <= found and not any(
                left[k][row] and right[k][found] and left[k][row] != right[k][found]
                for k in kinds[:place]
            ):
                made[row] = found
    return made


def exact_first(
    candidates: np.ndarray, probabilities: np.ndarray, exact: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put labels found by their code before all others, with probability 1.

    Args:
        candidates, probabilities: (n, m).
        exact: (n,) as from :func:`exact_matches`.

    Returns:
        Both (n, m + 1); the label's other place, where it has one, is -1.
    """
    has = exact >= 0
    again = (candidates == exact[:, None]) & has[:, None]
    front = np.where(has, 1.0, 0.0)
    return (
        np.concatenate([exact[:, None], np.where(again, -1, candidates)], axis=1),
        np.concatenate([front[:, None], np.where(again, 0.0, probabilities)], axis=1),
    )


def _plain(value: str) -> str:
    return " ".join(normalized(value).split())


def _number(value: str) -> float:
    """The number in "1.299,00 €" or "$5"; NaN for none, for several, and for none above 0."""
    found = _DIGITS.findall(value)
    if len(found) != 1:
        return math.nan
    digits = found[0].rstrip(".,' \u00a0\u202f")
    mark = max(digits.rfind("."), digits.rfind(","))
    # One mark with three digits behind it, or one that stands twice, groups thousands.
    decimals = len(digits) - mark - 1
    if mark >= 0 and ((decimals == 3 and digits[:mark] != "0") or digits.count(digits[mark]) > 1):
        mark = -1
    whole = digits if mark < 0 else digits[:mark]
    text = re.sub(r"\D", "", whole) + ("" if mark < 0 else "." + digits[mark + 1 :])
    number = float(text)
    return number if number > 0 else math.nan


def _code(kind: str, value: str) -> str:
    plain = _NO_CODE.sub("", normalized(value))
    if kind == "gtin":
        if len(plain) not in GTIN_LENGTHS or not (plain.isascii() and plain.isdigit()):
            return ""
        padded = plain.zfill(14)
        total = sum(int(d) * (3 if place % 2 == 0 else 1) for place, d in enumerate(padded))
        return padded if total % 10 == 0 and total else ""
    if len(plain) < LEAST_PART_NUMBER or not any(map(str.isdigit, plain)):
        return ""
    return "" if len(set(plain)) == 1 else plain  # 0000 stands for "none"
