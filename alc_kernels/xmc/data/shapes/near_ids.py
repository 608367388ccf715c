"""Ids that are not found, and would be if it were not for what spreadsheets do to them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence


def _zeros(name: str) -> str:
    return name.lstrip("0") or "0"


def _blanks(name: str) -> str:
    return "".join(name.split())


def _decimal(name: str) -> str:
    return name.removesuffix(".0")


def _all(name: str) -> str:
    return _zeros(_decimal(_blanks(name.casefold())))


# What tells two ids apart -> a form of both without it.
WAYS: dict[str, Callable[[str], str]] = {
    "leading zeros": _zeros,
    "upper and lower case": str.casefold,
    "white space": _blanks,
    "a .0 at the end": _decimal,
    "several of zeros, case, white space and .0": _all,
}


def near_ids(missing: Sequence[str], here: str, known: Iterable[str], there: str) -> list[str]:
    """What would be found but for a trifle, a sentence for each kind that starts with the number.

    Args:
        missing: distinct ids of ``here`` that ``there`` does not have.
        here, there: names of the tables.
        known: ids of ``there``.
    """
    known, left, made = list(known), list(missing), []
    for what, form in WAYS.items():
        if not left:
            break
        waiting: dict[str, list[str]] = {}
        for name in left:
            waiting.setdefault(form(name), []).append(name)
        found: list[str] = []
        example = ("", "")
        for name in known:
            hits = waiting.pop(form(name), None)
            if hits:
                example = example if found else (hits[0], name)
                found += hits
        if found:
            word = "id" if len(found) == 1 else "ids"
            made.append(
                f"{len(found):,} {word} of {here} would be found in {there} but for {what} "
                f"({example[0][:40]!r}, {example[1][:40]!r})"
            )
            gone = set(found)
            left = [name for name in left if name not in gone]
    return made
