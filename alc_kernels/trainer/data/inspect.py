"""What a data set holds and what is odd about it: ``alc data inspect``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any

import numpy as np

from alc_kernels.trainer.data.dataset import Dataset, Split
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.data.text.texts import Digests, TextFile, group, member
from alc_kernels.trainer.errors import counted

# Parts of a data set that are too small for what they are there for.


ENOUGH = 100  # queries; a threshold chosen on fewer says little of the next ones


def small_parts(data: Dataset, shares: dict[str, float] | None = None) -> list[str]:
    """A sentence for each part on which no threshold can be chosen, or judged.

    Args:
        data: any.
        shares: ``"validation"``, ``"test"`` and ``"hold-out"`` as they were asked for; the
            sentence then says which share would do.
    """
    found = {
        "validation": (len(data.validation), "choose a threshold"),
        "test": (len(data.test), "judge a threshold"),
    }
    made = [_too_small(f"{name}: {counted(count, 'queries')}", count, name, purpose, shares)
            for name, (count, purpose) in found.items() if count < ENOUGH]  # fmt: skip
    if data.held_out.any():
        matched = data.validation.relation @ (~data.held_out).astype(np.float32)
        count = int((matched == 0).sum())
        if count < ENOUGH:
            without = counted(count, "queries without a right answer in the open catalogue")
            what = f"validation: {without}"
            made.append(_too_small(what, count, "hold-out", "see what is accepted wrongly", shares))
    return made


def _too_small(
    what: str, count: int, name: str, purpose: str, shares: dict[str, float] | None
) -> str:
    hint = ""
    if shares is not None and name in shares and count:
        needed = shares[name] * ENOUGH / count
        if needed <= 0.5:
            hint = f" (--{name}-share {np.ceil(needed * 100) / 100:.2f} would give about that many)"
    return f"{what}, at least {ENOUGH} are needed to {purpose}{hint}"


QUANTILES = (0, 0.25, 0.5, 0.75, 0.9, 0.99, 1)
HEAD_SHARES = (0.01, 0.1)
TAIL = 5  # training queries of a label in the tail, at most
SHOWN = 5  # places that a problem names
# A replacement character, or UTF-8 that was read as Latin-1 and encoded again.
_GARBLED = re.compile("\ufffd|[\u00c2-\u00c3][\u0080-\u00bf]|\u00e2\u0080")


@dataclass
class Inspection:
    """Numbers as JSON values, and problems as sentences that name file and line.

    Attributes:
        counts: sizes, as in dataset.json.
        pairs_per_query: split -> quantile ("0%" to "100%") and "mean" of labels per query.
        label_frequency: training queries per label: quantiles, "mean", "unseen" (labels without
            one), "tail" (with one to five) and the share of the pairs that the most frequent 1 %
            and 10 % of the labels have.
        characters: "labels" and splits -> quantiles of the texts' lengths.
        duplicates: "labels" and splits -> texts that occurred before; "train and test" and the
            like -> distinct queries in both.
        filters: split -> pairs, queries with any, and the largest number of a query; only
            splits with a filter.
        asked: validation and test -> labels that their queries have, and how many of those have
            training queries.
        small: parts on which no threshold can be chosen or judged.
        remarks: what is in order and worth knowing, sentences like problems.
        problems: what is odd.
    """

    counts: dict[str, int]
    pairs_per_query: dict[str, dict[str, float]] = field(default_factory=dict)
    label_frequency: dict[str, float] = field(default_factory=dict)
    characters: dict[str, dict[str, float]] = field(default_factory=dict)
    duplicates: dict[str, int] = field(default_factory=dict)
    filters: dict[str, dict[str, int]] = field(default_factory=dict)
    asked: dict[str, dict[str, int]] = field(default_factory=dict)
    small: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return dict(vars(self))


def inspect_dataset(data: Dataset) -> Inspection:
    """Look at every text and pair once, a block at a time."""
    made = Inspection(data.counts())
    label_digests = _look_at_texts(made, "labels", data.labels, "labels.txt")
    queries = {}
    for name, split in data.splits.items():
        queries[name] = _look_at_texts(made, name, split.queries, f"{name}.raw.txt")
        made.pairs_per_query[name] = _quantiles(np.diff(split.relation.indptr))
        _look_at_filter(made, name, split)
    _look_at_overlap(made, queries)
    same = member(np.concatenate(list(queries.values())), label_digests)
    made.duplicates["queries that are a label's text"] = int(same.sum())
    _look_at_frequencies(made, data)
    _look_at_products(made, data)
    made.small = small_parts(data)
    return made


def _look_at_texts(made: Inspection, name: str, texts: Sequence[str], file_name: str) -> np.ndarray:
    """Lengths, duplicates and garbled texts; the texts' digests (n, 2)."""
    file = texts.path.name if isinstance(texts, TextFile) else file_name
    digests, garbled, padded = Digests(), [], []
    lengths = np.empty(len(texts), np.int32)
    for row, text in enumerate(texts):
        plain = normalize_text(text)
        digests.add(plain)
        lengths[row] = len(text)
        if _GARBLED.search(text):
            garbled.append(row)
        if text != plain:
            padded.append(row)
    made.characters[name] = _quantiles(lengths)
    found = digests.array()
    groups, firsts = group(found)
    again = np.ones(len(texts), np.bool_)
    again[firsts] = False
    repeats = np.flatnonzero(again)
    made.duplicates[name] = len(repeats)
    if len(repeats):
        places = [f"{row + 1} as {firsts[groups[row]] + 1}" for row in repeats[:SHOWN]]
        _problem(made, file, "texts that an earlier line has as well", len(repeats), places)
    for rows, words in (
        (garbled, "texts with signs of a wrong encoding"),
        (padded, "texts with white space at an end or more than a blank between words"),
    ):
        if rows:
            _problem(made, file, words, len(rows), [str(row + 1) for row in rows[:SHOWN]])
    return found


def _problem(made: Inspection, file: str, what: str, count: int, places: list[str]) -> None:
    made.problems.append(_sentence(file, what, count, places))


def _sentence(file: str, what: str, count: int, places: list[str]) -> str:
    more = ", ..." if count > len(places) else ""
    word = "line" if count == 1 else "lines"
    return f"{file}: {counted(count, what)} ({word} {', '.join(places)}{more})"


def _look_at_filter(made: Inspection, name: str, split: Split) -> None:
    if split.excluded is None:
        return
    sizes = np.diff(split.excluded.indptr)
    made.filters[name] = {
        "pairs": int(split.excluded.nnz),
        "queries": int((sizes > 0).sum()),
        "largest": int(sizes.max(initial=0)),
    }


def _look_at_overlap(made: Inspection, queries: dict[str, np.ndarray]) -> None:
    """Queries that two splits share: what is measured was then trained on."""
    for (first, second), (count, sentence) in overlaps(queries).items():
        made.duplicates[f"{first} and {second}"] = count
        if count:
            made.problems.append(sentence)


def overlaps(queries: dict[str, np.ndarray]) -> dict[tuple[str, str], tuple[int, str]]:
    """How many queries of the second split the first has too, and a sentence on them.

    Args:
        queries: split -> digests of its texts (n, 2).
    """
    made = {}
    for first, second in combinations(queries, 2):
        shared = np.flatnonzero(member(queries[second], queries[first]))
        places = [str(row + 1) for row in shared[:SHOWN]]
        what = f"queries that {first} has too"
        sentence = _sentence(f"{second}.raw.txt", what, len(shared), places)
        made[first, second] = len(shared), sentence
    return made


def _look_at_products(made: Inspection, data: Dataset) -> None:
    """Whether the products that are asked for were trained on: the question that a split puts."""
    trained = np.unique(data.train.relation.indices)
    for name in ("validation", "test"):
        asked = np.unique(data.splits[name].relation.indices)
        known = int(np.isin(asked, trained).sum())
        made.asked[name] = {"labels": len(asked), "trained": known}


def _look_at_frequencies(made: Inspection, data: Dataset) -> None:
    frequency = np.bincount(data.train.relation.indices, minlength=data.num_labels)
    total, descending = max(int(frequency.sum()), 1), np.sort(frequency)[::-1]
    made.label_frequency = _quantiles(frequency)
    made.label_frequency["unseen"] = int((frequency == 0).sum())
    made.label_frequency["tail"] = int(((frequency > 0) & (frequency <= TAIL)).sum())
    for share in HEAD_SHARES:
        head = descending[: max(round(share * len(descending)), 1)]
        made.label_frequency[f"pairs of the top {share:.0%}"] = float(head.sum()) / total
    for name, split in data.splits.items():
        if unmatched := np.flatnonzero(split.unmatched)[:SHOWN].tolist():
            places = [str(row + 2) for row in unmatched]
            count = int(split.unmatched.sum())
            what = "queries without a label: to be rejected, no match is right for them"
            if name == "train":
                what = "queries without a label, trained on with --keep-unmatched only"
            made.remarks.append(_sentence(f"{name}_X_Y.txt", what, count, places))
    asked = np.zeros(data.num_labels, np.bool_)
    for split in data.splits.values():
        asked[split.relation.indices] = True
    if lonely := np.flatnonzero(~asked)[:SHOWN].tolist():
        places = [str(label + 1) for label in lonely]
        count = int((~asked).sum())
        what = "labels that no query has: they may be found all the same"
        made.remarks.append(_sentence("labels.txt", what, count, places))


def _quantiles(values: np.ndarray) -> dict[str, float]:
    found = {f"{q:.0%}": float(np.quantile(values, q, method="inverted_cdf")) for q in QUANTILES}
    return {**found, "mean": float(values.mean())}
