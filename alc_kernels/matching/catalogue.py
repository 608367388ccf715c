"""The labels that are matched with: texts, ids, product codes, and changes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from alc_kernels.trainer.data.beside import split_ids
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.errors import DataError

SHOWN = 40  # characters of a text or an id in a message


@dataclass(frozen=True)
class Catalogue:
    """C labels.

    Attributes:
        texts: of the labels, normalised.
        ids: (C) of the labels, "" for none, several with a tab between; None where there are none.
        numbers: (C,) int64 by which the model knows them, -1 for labels that training did not
            have.
        codes: kind such as ``"gtin"`` or ``"mpn"`` -> (C) product codes, "" for none.
    """

    texts: Sequence[str]
    ids: Sequence[str] | None
    numbers: np.ndarray
    codes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.texts)

    def id_of(self, label: int) -> str:
        """The ids of a label, "" for none."""
        return self.ids[label] if self.ids is not None and label >= 0 else ""

    def place(self) -> dict[str, int]:
        """Id -> label number; each of several ids of a label names it."""
        found: dict[str, int] = {}
        for number, line in enumerate(self.ids or ()):
            for one in split_ids(line):
                found[one] = number
        return found

    def without(self, ids: Sequence[str]) -> np.ndarray:
        """(C',) numbers of the labels that stay when those named by ``ids`` go.

        A label of several ids goes with its last one only; :meth:`take` then drops its other ids.

        Raises:
            DataError: an id that no label has, or nothing would stay.
        """
        known = self.place()
        gone = set(ids)
        if unknown := next((one for one in ids if one not in known), None):
            raise DataError(f"remove: found the id {unknown[:SHOWN]!r}, which no label has")
        assert self.ids is not None or not gone
        stays = [n for n, line in enumerate(self.ids or ()) if not _all_gone(line, gone)]
        if not stays:
            raise DataError("remove: no label would be left, expected at least one")
        return np.array(stays, np.int64)

    def take(self, rows: np.ndarray, gone: Sequence[str] = ()) -> Catalogue:
        """Some of the labels, without the ids ``gone``."""
        lost = set(gone)
        ids = None
        if self.ids is not None:
            kept = (self.ids[row] for row in rows.tolist())
            ids = ["\t".join(i for i in split_ids(line) if i not in lost) for line in kept]
        return Catalogue(
            [self.texts[row] for row in rows.tolist()],
            ids,
            self.numbers[rows],
            {kind: [codes[row] for row in rows.tolist()] for kind, codes in self.codes.items()},
        )

    def plus(self, other: Catalogue) -> Catalogue:
        """These labels, then others.

        Raises:
            DataError: a text or an id that is here already, or ids on one side only.
        """
        if (self.ids is None) != (other.ids is None):
            which = "has none" if self.ids is None else "has ids"
            raise DataError(f"append: expected ids where the catalogue has them; it {which}")
        texts, known = set(self.texts), self.place()
        for text, line in zip(other.texts, other.ids or [""] * len(other), strict=True):
            if text in texts:
                raise DataError(f"append: found {text[:SHOWN]!r}, which the catalogue has already")
            if again := next((one for one in split_ids(line) if one in known), None):
                raise DataError(
                    f"append: found the id {again[:SHOWN]!r}, which the label "
                    f"{self.texts[known[again]][:SHOWN]!r} has"
                )
        kinds = dict.fromkeys((*self.codes, *other.codes))
        return Catalogue(
            [*self.texts, *other.texts],
            None if self.ids is None else [*self.ids, *(other.ids or ())],
            np.concatenate([self.numbers, other.numbers]),
            {kind: [*_codes(self, kind), *_codes(other, kind)] for kind in kinds},
        )


def checked_labels(
    texts: Sequence[str],
    ids: Sequence[str] | None,
    codes: Mapping[str, Sequence[str]],
    what: str,
) -> Catalogue:
    """A catalogue of labels that the model does not know by number, each text once.

    A text that stands again is one label with all its ids, and the codes of the first.

    Args:
        texts, ids: of the labels; an id may have several with a tab between.
        codes: kind -> codes of the labels.
        what: names the call in messages.

    Raises:
        DataError: none, a blank text, lengths that differ, or an id of two texts.
    """
    if ids is not None and len(ids) != len(texts):
        raise DataError(f"{what}: found {len(texts):,} texts and {len(ids):,} ids")
    for kind, values in codes.items():
        if len(values) != len(texts):
            raise DataError(f"{what}: found {len(texts):,} texts and {len(values):,} {kind!r}")
    first: list[int] = []
    ids_of: dict[str, dict[str, None]] = {}
    owner: dict[str, str] = {}
    for row, raw in enumerate(texts):
        text = normalize_text(raw)
        if not text:
            raise DataError(f"{what}: label {row + 1} is blank, expected a text")
        if text not in ids_of:
            first.append(row)
        mine = ids_of.setdefault(text, {})
        for one in split_ids(str(ids[row])) if ids is not None else ():
            if owner.setdefault(one, text) != text:
                raise DataError(
                    f"{what}: the id {one[:SHOWN]!r} stands at two labels, "
                    f"{owner[one][:SHOWN]!r} and {text[:SHOWN]!r}"
                )
            mine[one] = None
    if not ids_of:
        raise DataError(f"{what}: found no label, expected at least 1")
    return Catalogue(
        list(ids_of),
        None if ids is None else ["\t".join(one) for one in ids_of.values()],
        np.full(len(ids_of), -1, np.int64),
        {kind: [values[row] for row in first] for kind, values in codes.items()},
    )


def _all_gone(line: str, gone: set[str]) -> bool:
    mine = split_ids(line)
    return bool(mine) and all(one in gone for one in mine)


def _codes(one: Catalogue, kind: str) -> Sequence[str]:
    return one.codes.get(kind, [""] * len(one))
