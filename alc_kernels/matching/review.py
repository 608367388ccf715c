"""The review file: which titles a person is asked about, and what the answers say.

A quarter of them is an audit: drawn at random among all titles, by a hash, so that neither scores
nor order have a say. Only these may enter a certificate. The others are those next to the
threshold, where a decision teaches most, and one of each best label before a second. The two are
mixed, so that also somebody who stops half way has answered a part of both.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from alc_kernels.matching.decisions import LABEL, NONE, WRONG, Decision
from alc_kernels.matching.rule import PRECISION
from alc_kernels.matching.table import ACCEPT, Match
from alc_kernels.metrics import threshold_at_precision
from alc_kernels.trainer.data.tables import normalize_text
from alc_kernels.trainer.errors import DataError

if TYPE_CHECKING:
    from alc_kernels.matching.matcher import Matcher
    from alc_kernels.matching.table import Matches
    from alc_kernels.trainer.data.tables import Table

CANDIDATES = 5
AUDIT = 4  # one in so many titles is drawn at random
SIZE = 200
LEFT_OUT = 0.1  # share of the titles drawn at random that may stay unanswered
SPARE = 4  # titles per one asked about that are kept, so that labels can differ
AT_RANDOM, NEAR = "random", "near the threshold"
_NONE = ("none", "new", "0")
_WRONG = ("wrong", "no", "n")
_FIRST = ("yes", "y", "right", "ok")


class Asked(NamedTuple):
    """A title to ask about.

    Attributes:
        number: of the title among all.
        title: as it was given.
        matches: its candidates, best first.
        accepted: whether it is accepted now.
        why: :data:`AT_RANDOM` or :data:`NEAR`.
        beside: what was given with it.
    """

    number: int
    title: str
    matches: list[Match]
    accepted: bool
    why: str
    beside: Any = None


class Picker:
    """Chooses titles while they pass by; what it holds does not grow with their number.

    Args:
        matcher: what matches them.
        size: titles to ask about.
        decided: normalised titles that need not be asked about again.
    """

    def __init__(self, matcher: Matcher, size: int = SIZE, decided: Iterable[str] = ()) -> None:
        self.matcher, self.size = matcher, size
        self.audits = max(1, size // AUDIT)
        self._centre = _centre(matcher)
        self._seen: set[str] = set(decided)
        self._audit: list[tuple[float, int, Asked]] = []  # heaps, the worst first
        self._near: list[tuple[float, int, Asked]] = []
        self._count = 0

    def add(self, table: Matches, beside: Sequence[Any] | None = None) -> None:
        """Titles that follow those of earlier calls, with what stands beside each."""
        best = table.best()
        distance = np.abs(_unbounded(self.matcher.scores(best), self.matcher) - self._centre)
        for place, (title, rows) in enumerate(table):
            number = self._count + place
            text = normalize_text(title)
            if rows[0].label < 0 or text in self._seen:
                continue
            self._seen.add(text)
            accepted = rows[0].decision == ACCEPT
            own = None if beside is None else beside[place]
            asked = Asked(number, title, rows[:CANDIDATES], accepted, AT_RANDOM, own)
            digest = hashlib.sha256(f"audit {text}".encode("utf-8", "surrogatepass")).digest()
            _push(self._audit, int.from_bytes(digest[:8], "big"), asked, self.audits)
            near = asked._replace(why=NEAR)
            _push(self._near, float(distance[place]), near, SPARE * self.size + self.audits)
        self._count += len(table)

    def chosen(self) -> list[Asked]:
        """The titles to ask about, most telling first, the audit's evenly among them."""
        audit = [asked for *_, asked in sorted(self._audit, key=lambda one: one[:2])[::-1]]
        taken = {asked.number for asked in audit}
        near = [asked for *_, asked in sorted(self._near, key=lambda one: one[:2])[::-1]]
        turns: dict[int, int] = {}
        ordered = []
        for place, asked in enumerate(one for one in near if one.number not in taken):
            label = asked.matches[0].label
            turns[label] = turns.get(label, -1) + 1
            ordered.append((turns[label], place, asked))
        rest = [asked for *_, asked in sorted(ordered, key=lambda one: one[:2])]
        rest = rest[: max(0, self.size - len(audit))]
        step = max(1, round((len(audit) + len(rest)) / max(1, len(audit))))
        made: list[Asked] = []
        for asked in audit:
            made.append(asked)
            made += rest[: step - 1]
            rest = rest[step - 1 :]
        return made + rest


def columns(has_ids: bool, matcher: Matcher) -> dict[str, type]:
    """The columns of a review file, in order."""
    made: dict[str, type] = {"query_id": str} if has_ids else {}
    made |= {"query": str, "decision": str}
    for rank in range(1, CANDIDATES + 1):
        made[f"candidate_{rank}"] = str
        if matcher.catalogue.ids is not None:
            made[f"id_{rank}"] = str
    return made | {"score": float, "asked": str, "accepted": str, "promise": str, "because": str}


def rows(chosen: Sequence[Asked], matcher: Matcher) -> list[list[str | float]]:
    """The cells of each title, those of ``query_id`` and ``query`` left out."""
    because = matcher.explain_all([asked.title for asked in chosen])
    return [_row(asked, matcher, line) for asked, line in zip(chosen, because, strict=True)]


def _row(asked: Asked, matcher: Matcher, because: str) -> list[str | float]:
    made: list[str | float] = [""]
    for rank in range(CANDIDATES):
        found = asked.matches[rank] if rank < len(asked.matches) else None
        made.append("" if found is None else found.text)
        if matcher.catalogue.ids is not None:
            made.append("" if found is None else found.label_id)
    first = asked.matches[0]
    score = first.probability if matcher.evidence.probabilities else first.cosine
    return [
        *made, score, asked.why, "yes" if asked.accepted else "no", _promise(matcher),
        because,
    ]  # fmt: skip


def _promise(matcher: Matcher) -> str:
    """The precision that is promised of what is accepted; "" where none is."""
    promise = matcher.wish.promise
    return "" if promise is None or not math.isfinite(matcher.rule.accept) else f"{promise:g}"


def _centre(matcher: Matcher) -> float:
    """Where a decision teaches most: the threshold; without one, where validation has the goal."""
    evidence, threshold = matcher.evidence, matcher.rule.accept
    if not math.isfinite(threshold):
        wanted = matcher.wish.promise or PRECISION
        threshold = float(threshold_at_precision(evidence.scores, evidence.correct, wanted))
    if not math.isfinite(threshold):
        threshold = float(np.max(evidence.scores))
    return float(_unbounded(np.array([threshold]), matcher)[0])


def _unbounded(scores: np.ndarray, matcher: Matcher) -> np.ndarray:
    """Logits of probabilities; cosines as they are."""
    if not matcher.evidence.probabilities:
        return scores
    inside = np.clip(scores.astype(np.float64), 1e-6, 1 - 1e-6)
    return np.asarray(np.log(inside / (1 - inside)))


def _push(heap: list[tuple[float, int, Asked]], value: float, asked: Asked, size: int) -> None:
    """Keep the ``size`` smallest values, of equal ones the earlier title."""
    entry = (-value, -asked.number, asked)
    if len(heap) < size:
        heapq.heappush(heap, entry)
    elif entry[:2] > heap[0][:2]:
        heapq.heapreplace(heap, entry)


# What comes back.


@dataclass
class Reviewed:
    """A reviewed file.

    Attributes:
        decisions: of its rows, in order.
        blank: rows without a decision.
        notes: what was found, a sentence each.
    """

    decisions: list[Decision] = field(default_factory=list)
    blank: int = 0
    notes: list[str] = field(default_factory=list)


def read_reviewed(table: Table, find: Callable[[str], str | None]) -> Reviewed:
    """The decisions of a reviewed file; rows without one are passed over.

    Of the titles drawn at random those behind the last answered one have not been looked at yet.
    Where more than a tenth of those before it were left blank, the answered ones are no random
    part any more: they teach the model, but do not enter the certificate.

    Args:
        table: has the columns ``query`` and ``decision``, and those of a review file where it is
            one. A decision is the number of a candidate, ``none`` (the catalogue has no right
            label), ``wrong`` (the first candidate is not right), or a label by text or id.
        find: from a text or an id to the text of the label, None where there is none.

    Raises:
        DataError: a column is missing, or a decision is none of these; names the row.
    """
    names = ["query", "decision"]
    shown = [f"candidate_{n}" for n in range(1, CANDIDATES + 1)]
    beside = [*shown, "asked", "accepted", "promise"]
    wanted = names + [name for name in beside if table.has(name)]
    places = [table.find(name, "the header of a review file") for name in wanted]
    made = Reviewed()
    drawn: list[bool] = []  # of the titles drawn at random, whether each is answered
    for number, cells in table.rows(places):
        found = dict(zip(wanted, cells, strict=True))
        audit = found.get("asked") == AT_RANDOM
        if audit:
            drawn.append(bool(found["decision"]))
        if not found["decision"]:
            made.blank += 1
            continue
        where = f"{table.name}, {table.unit} {number}"
        if not found["query"]:
            raise DataError(f"{where}: found a decision about a blank title")
        verdict, label = _verdict(found, find, where)
        promise = _number(found.get("promise", ""), where)
        accepted = found.get("accepted") == "yes"
        first = found.get("candidate_1", "")
        made.decisions.append(
            Decision(found["query"], first, verdict, label, audit, accepted, promise)
        )
    looked_at = len(drawn) - drawn[::-1].index(True) if any(drawn) else 0
    skipped = looked_at - sum(drawn)
    if skipped:
        told = f"{table.name}: {skipped} of {looked_at} titles drawn at random have no decision"
        if skipped > LEFT_OUT * looked_at:
            made.decisions = [one._replace(audit=False) for one in made.decisions]
            told += (
                "; those that have one are no random part any more and do not enter the "
                "certificate (answer them; wrong says that the first candidate is not right)"
            )
        made.notes.append(told)
    return made


def _verdict(
    cells: Mapping[str, str], find: Callable[[str], str | None], where: str
) -> tuple[str, str]:
    said = cells["decision"]
    plain = said.casefold()
    if plain in _NONE:
        return NONE, ""
    if plain in _WRONG:
        return WRONG, ""
    place = "1" if plain in _FIRST else plain
    if place.isdecimal() and 1 <= int(place) <= CANDIDATES and f"candidate_{int(place)}" in cells:
        text = cells[f"candidate_{int(place)}"]
        if not text:
            raise DataError(f"{where}: found the decision {said!r}, but there is no such candidate")
        return LABEL, text
    label = find(said)
    if label is None:
        raise DataError(
            f"{where}: found the decision {said[:40]!r}, expected the number of a candidate, none, "
            "wrong, or a label of the catalogue by text or id"
        )
    return LABEL, label


def _number(text: str, where: str) -> float | None:
    if not text:
        return None
    try:
        value = float(text.replace(",", "."))
    except ValueError:
        value = math.nan
    if not 0 < value < 1:
        raise DataError(f"{where}: found the promise {text[:40]!r}, expected a precision below 1")
    return value
