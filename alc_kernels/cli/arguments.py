"""argparse, made to answer a slip with one line and a suggestion."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from math import inf
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from alc_kernels.trainer.errors import BadInput, suggestion

T = TypeVar("T")


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


def options_of(kind: type[T], arguments: argparse.Namespace, **more: Any) -> T:
    """A dataclass of options, each field from the argument of its name unless ``more`` has it."""
    names = [one.name for one in fields(kind) if one.name not in more]  # type: ignore[arg-type]
    return kind(**{name: getattr(arguments, name) for name in names}, **more)


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


# Where a command writes: in which format, and never over what it reads.


# Where commands write, and what they must not write over.


def run_contents() -> tuple[str, ...]:
    """The names of all that a run leaves behind; people's decisions about titles are not of it."""
    from alc_kernels.matching import renewal
    from alc_kernels.trainer.evaluation.results import (
        ACCEPTANCE,
        BASELINE,
        BASELINE_ACCEPTANCE,
        CONFIG,
        METRICS,
        PREDICTIONS,
        REPORT,
    )
    from alc_kernels.trainer.training.callbacks import FOLDER
    from alc_kernels.trainer.training.checkpoint import CURRENT, PREVIOUS

    models = [
        f"{name}.{end}" for name in (ACCEPTANCE, BASELINE_ACCEPTANCE) for end in ("json", "npz")
    ]
    folders = (CURRENT, PREVIOUS, FOLDER, renewal.FOLDER, renewal.PREVIOUS)
    return (CONFIG, METRICS, PREDICTIONS, *models, BASELINE, REPORT, *folders)


def holds_run(folder: Path) -> bool:
    """Whether ``folder`` holds anything that a run leaves behind."""
    return any((folder / name).exists() for name in run_contents())


def prepare_run_folder(folder: Path, overwrite: bool) -> None:
    """Make ``folder`` ready for a new run; with ``overwrite`` an old run in it is removed.

    Raises:
        BadInput: ``folder`` is a file, or holds a run and ``overwrite`` is not given.
    """
    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the run")
    if holds_run(folder):
        if not overwrite:
            raise BadInput(
                f"{folder}: already holds a run; choose another --output or give --overwrite"
            )
        for name in run_contents():
            if (folder / name).is_dir():
                shutil.rmtree(folder / name)
            else:
                (folder / name).unlink(missing_ok=True)
    folder.mkdir(parents=True, exist_ok=True)


def refuse_data_folder(folder: Path, overwrite: bool) -> None:
    """Refuse to write a data set into a folder that holds something, unless told to."""
    from alc_kernels.trainer.data.folder import in_use

    if folder.exists() and not folder.is_dir():
        raise BadInput(f"{folder}: is a file, expected a folder for the data")
    if in_use(folder) and not overwrite:
        raise BadInput(f"{folder}: is not empty; choose another --output or give --overwrite")


TEXT_FORMATS = ("csv", "tsv", "jsonl")
FORMATS = (*TEXT_FORMATS, "parquet", "xlsx")
PACKINGS = ("gz", "zst")
PAGES = (".html", ".htm")


@dataclass(frozen=True)
class Target:
    """Where a table goes.

    Attributes:
        path: the file; None for standard output.
        format: one of :data:`FORMATS`.
        packing: ``"gz"``, ``"zst"`` or ``""``.
    """

    path: Path | None
    format: str
    packing: str = ""

    @property
    def name(self) -> str:
        """What messages call it."""
        return "standard output" if self.path is None else str(self.path)


def table_target(
    path: Path | None, wanted: str | None = None, inputs: Iterable[Path] = ()
) -> Target:
    """The target of a table, by the ending of its name.

    Args:
        path: of ``--output``; None for standard output, which takes text only (csv).
        wanted: of ``--format``, if it was given.
        inputs: see :func:`check_place`.

    Raises:
        BadInput: an ending that says no format or another than ``wanted``; a place that cannot be
            written to, or that is read.
    """
    if path is None:
        if wanted is not None and wanted not in TEXT_FORMATS:
            raise BadInput(f"--format {wanted} needs --output FILE.{wanted}: it is no text")
        return Target(None, wanted or TEXT_FORMATS[0])
    check_place(path, inputs)
    if path.exists() and not path.is_file():  # a pipe or a device: no name to go by
        return Target(path, wanted or TEXT_FORMATS[0])
    endings = [ending.lower() for ending in path.name.split(".")[1:]]
    packing = endings.pop() if endings and endings[-1] in PACKINGS else ""
    format = endings[-1] if endings else ""
    if format not in FORMATS or (packing and format not in TEXT_FORMATS):
        raise BadInput(f"{path}: can be written as {writable()}, by the ending of the name")
    if wanted not in (None, format):
        raise BadInput(f"{path}: ends in .{format}, but --format says {wanted}; leave one of them")
    return Target(path, format, packing)


def writable() -> str:
    """The endings of tables that can be written, for messages."""
    packed = " or ".join(f".{packing}" for packing in PACKINGS)
    plain = ", ".join(f".{format}" for format in TEXT_FORMATS)
    others = ", ".join(f".{format}" for format in FORMATS if format not in TEXT_FORMATS)
    return f"{plain} (each also with {packed}), {others}"


def check_ending(path: Path, endings: Sequence[str]) -> None:
    """Refuse a file whose name does not say what is written into it."""
    if not path.name.lower().endswith(tuple(endings)) and not _is_special(path):
        raise BadInput(f"{path}: expected a name that ends in {' or '.join(endings)}")


def check_place(path: Path, inputs: Iterable[Path] = ()) -> None:
    """Refuse a file that cannot be written or that is read, before the work is done.

    Args:
        path: the file to write.
        inputs: files and folders that the command reads. Of a run folder the run's own files are
            guarded, of every other one all that is inside; what does not exist is passed over.

    Raises:
        BadInput: ``path`` is a folder, is below a file, or is an input.
    """
    if path.is_dir():
        raise BadInput(f"{path}: is a folder, expected the name of a file")
    check_parents(path)
    resolved = path.resolve()
    for source in inputs:
        if not source.exists() or _is_special(source):
            continue
        if source.is_dir():
            if resolved.is_relative_to(source.resolve()):
                _check_in_folder(path, resolved.relative_to(source.resolve()), source)
        elif path.exists() and path.samefile(source):
            raise BadInput(f"{path}: is read by this command, expected another file to write")


def check_parents(path: Path) -> None:
    """Refuse a place below a file; folders that are missing are made when it is written."""
    for parent in path.absolute().parents:
        if parent.is_dir():
            return
        if parent.exists():
            raise BadInput(f"{parent}: is a file, expected a folder to write {path.name} into")


def _check_in_folder(path: Path, inside: Path, folder: Path) -> None:
    from alc_kernels.matching import decisions

    if not holds_run(folder):
        raise BadInput(f"{path}: is inside of {folder}, which this command reads; expected another")
    if inside.parts[0] in (*run_contents(), decisions.FILE):
        raise BadInput(f"{path}: is a file of the run {folder}, expected another name")


def _is_special(path: Path) -> bool:
    """Whether ``path`` is a pipe or a device."""
    return path.exists() and not path.is_file() and not path.is_dir()
