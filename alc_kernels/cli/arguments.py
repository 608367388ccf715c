"""argparse, made to answer a slip with one line and a suggestion."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from math import inf
from typing import Any, NoReturn

from alc_kernels.trainer.errors import BadInput
from alc_kernels.trainer.words import suggestion


def one_line(message: str) -> str:
    """A message with its line breaks taken out."""
    return " ".join(message.split())


class Parser(argparse.ArgumentParser):
    """An argument parser that raises :class:`BadInput` where argparse prints a page and exits."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(allow_abbrev=False, **kwargs)
        self.add_argument("--debug", action="store_true", help="show the traceback of an error")

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        # argparse would first complain of what is missing; a misspelt word explains that better.
        self._check_words(args or [])
        found, rest = super().parse_known_args(args, namespace)
        if rest:
            raise BadInput(f"unexpected {rest[0]!r}")
        return found, rest

    def _check_words(self, words: Sequence[str]) -> None:
        commands = [a for a in self._actions if isinstance(a, argparse._SubParsersAction)]
        known = [name for name in self._option_string_actions if name.startswith("--")]
        for word in words:
            if word == "--":
                return
            name = word.split("=", 1)[0]
            if name.startswith("--") and name not in known:
                raise BadInput(f"unknown option {name}{suggestion(name, known)}")
            if commands and not word.startswith("-"):
                choices = list(commands[0].choices)
                if word not in choices:
                    near = suggestion(word, choices) or f"; the commands are {', '.join(choices)}"
                    raise BadInput(f"unknown command {word!r}{near}")
                return  # the rest is the command's own


def one_of(options: Sequence[str]) -> Callable[[str], str]:
    """An argument type that admits ``options`` only."""

    def convert(text: str) -> str:
        if text not in options:
            raise argparse.ArgumentTypeError(
                f"{text!r} is none of {', '.join(options)}{suggestion(text, options)}"
            )
        return text

    return convert


def number(kind: type, low: float = -inf, high: float = inf) -> Callable[[str], float]:
    """An argument type: a number of ``kind`` (int or float) in [low, high]."""

    def convert(text: str) -> float:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not low <= value <= high:
            name = "whole number" if kind is int else "number"
            span = f" of at least {low:g}" if low > -inf else ""
            if high < inf:
                span = f" from {low:g} to {high:g}"
            if kind is float and high <= 1 and value is not None and low <= value / 100 <= high:
                span += f"; did you mean {value / 100:g}?"
            raise argparse.ArgumentTypeError(f"{text!r} is not a {name}{span}")
        return value

    return convert
