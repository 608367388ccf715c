"""The errors of the trainer: each carries one line that a user can act on.

A command line catches :class:`XMCError`, prints ``str(error)`` and exits with code 2.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class XMCError(Exception):
    """Base of every error below; its text is one line."""


class DataError(XMCError):
    """A data set that cannot be read or written: file, line, what was found, what was expected."""


class ConfigError(XMCError):
    """A setting that is unknown, of the wrong type or out of range."""


class EncoderError(XMCError):
    """An encoder that cannot be built: unknown name, missing package, unreadable weights."""


class CheckpointError(XMCError):
    """A checkpoint that is missing, truncated or foreign; names the file."""


class TrainingDiverged(XMCError):
    """The loss or the weights became non-finite; names the step and the last good checkpoint."""


class Interrupted(XMCError):
    """Training was stopped by the user after a usable checkpoint had been written."""


class ProcessFailed(XMCError):
    """Another process of the run failed or was lost; names its rank.

    Attributes:
        told: the other process has reported it itself.
    """

    def __init__(self, text: str, told: bool = False) -> None:
        super().__init__(text)
        self.told = told


def first_line(error: BaseException) -> str:
    """What another library says, in one line; the error's type where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def describe(error: BaseException) -> str:
    """An error in one line, with its type where it is none of ours."""
    text = " ".join(str(error).split())
    ours = type(error).__module__.startswith("alc_kernels.")
    return text if ours else f"{type(error).__name__}: {text}"


# What a command raises when the user, not the program, has to act.


class BadInput(Exception):
    """Ends the command with its message on one line and exit code 2."""


class Missing(BadInput):
    """An optional package is not installed."""


def missing_text(purpose: str, package: str, extra: str) -> str:
    """Which package ``purpose`` needs, and how to install it."""
    return f"{purpose} needs the package {package}: pip install 'alc-kernels[{extra}]'"


@contextmanager
def needs(
    purpose: str, package: str, extra: str, kind: type[Exception] = Missing
) -> Iterator[None]:
    """Around imports of an optional package: where it is not installed, ``kind`` says so."""
    try:
        yield
    except ImportError:
        raise kind(missing_text(purpose, package, extra)) from None


# Counts in sentences.


def counted(number: int, many: str, one: str = "") -> str:
    """``"2 rows left out"``, ``"1 row left out"``.

    Args:
        number: from 0.
        many: what is counted, a noun in the plural first.
        one: the same of one; else ``many`` with its first word in the singular.
    """
    if number == 1:
        noun, blank, rest = many.partition(" ")
        noun = f"{noun[:-3]}y" if noun.endswith("ies") else noun.removesuffix("s")
        return f"1 {one or noun + blank + rest}"
    return f"{number:,} {many}"


# Suggestions for a word that is not known: only names that a slip of the hand away.


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"``, or nothing when no known word is near (:func:`nearest`)."""
    found = nearest(word, known)
    return f"; did you mean {found}?" if found is not None else ""


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The nearest of the known words, or None.

    Near is a word that begins with the other one, of at least 3 letters, or that differs in few:
    a letter that is missing, added or another, or two that changed places, once in up to 5
    letters, twice in up to 8, else three times. Case, ``-`` and ``_`` do not count.
    """
    plain = _plain(word)
    best, found = (4, 0), None
    for name in known:
        other = _plain(name)
        distance = _distance(plain, other)
        short, long = sorted((plain, other), key=len)
        if len(short) >= 3 and long.startswith(short):
            distance = min(distance, 1)
        allowed = 0 if len(plain) < 3 else min(max(1, len(plain) // 3), 3)
        rank = (distance, abs(len(other) - len(plain)))
        if distance <= allowed and rank < best:
            best, found = rank, name
    return found


def _plain(word: str) -> str:
    return word.casefold().replace("-", "").replace("_", "").replace(" ", "")


def _distance(a: str, b: str) -> int:
    """How many letters to remove, add, replace or swap with their neighbour."""
    before: list[int] = []
    last = list(range(len(b) + 1))
    for i, letter in enumerate(a, 1):
        row = [i]
        for j, other in enumerate(b, 1):
            cost = min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (letter != other))
            if i > 1 and j > 1 and letter == b[j - 2] and a[i - 2] == other:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, last = last, row
    return last[-1]
