"""argparse, made to answer a slip with one line and a suggestion."""

from __future__ import annotations

import argparse
import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import NoReturn

from alc_kernels.cli.errors import BadInput


def suggestion(word: str, known: Iterable[str]) -> str:
    """``"; did you mean X?"``, or nothing when no known word is close."""
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean {close[0]}?" if close else ""


class Parser(argparse.ArgumentParser):
    """An argument parser that raises :class:`BadInput` where argparse prints a page and exits."""

    def __init__(self, *args: object, **kwargs: object) -> None:
        kwargs.setdefault("allow_abbrev", False)
        super().__init__(*args, **kwargs)  # type: ignore[arg-type]

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)

    def check_options(self, argv: Sequence[str]) -> None:
        """Refuse an unknown ``--option`` before argparse complains of what is missing instead."""
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for word in argv:
            name = word.split("=", 1)[0]
            if word == "--":
                return
            if word.startswith("--") and name not in known:
                raise BadInput(f"unknown option {name}{suggestion(name, known)}")


def one_of(options: Sequence[str]) -> Callable[[str], str]:
    """An argument type that admits ``options`` only."""

    def convert(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {', '.join(options)}{suggestion(text, options)}"
            )
        return text

    return convert


def number(kind: type, low: float, high: float) -> Callable[[str], float]:
    """An argument type: a number of ``kind`` (int or float) in [low, high]."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            name = "whole number" if kind is int else "number"
            span = f"from {low:g} to {high:g}" if high != float("inf") else f"of at least {low:g}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name} {span}")
        return value

    return convert
