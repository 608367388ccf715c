"""What a reader of someone else's layout hands over: streams of texts, and relations."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.beside import Record
from alc_kernels.trainer.data.tables.table import normalize_text
from alc_kernels.trainer.errors import DataError, first_line

TEXTS = ("title", "title+content")


@dataclass(frozen=True)
class ReadOptions:
    """How to read a layout.

    Attributes:
        text: ``"title"`` or ``"title+content"``, for layouts that tell them apart.
        encoding: of text files; None finds it, and takes JSON as UTF-8.
        replace_blank: takes the place of texts that are blank; None refuses them.
    """

    text: str = "title"
    encoding: str | None = None
    replace_blank: str | None = None


@dataclass
class TextStream:
    """A stream of texts that can be read more than once.

    Attributes:
        path: the file.
        read: a fresh iterator over (line number, text) of every text.
        what: what the texts are, for messages.
        unit: what the numbers count, ``"line"`` or ``"row"``.
        replaced: blank texts that the last pass replaced.
        notes: what was assumed, and how many texts the last pass normalised.
    """

    path: Path
    read: Callable[[], Iterator[tuple[int, str]]]
    what: str
    options: ReadOptions
    unit: str = "line"
    assumed: Callable[[], list[str]] = list
    replaced: int = field(default=0, init=False)
    normalised: int = field(default=0, init=False)

    @property
    def notes(self) -> list[str]:
        made = self.assumed()
        if self.normalised:
            made.append(
                f"{self.path.name}: {self.normalised} texts have line breaks or white space that "
                "is more than a blank between words, read as a blank or left out"
            )
        if self.replaced:
            made.append(f"{self.path.name}: {self.replaced} blank texts replaced")
        return made

    def __iter__(self) -> Iterator[str]:
        """The texts, normalised (:func:`normalize_text`).

        Raises:
            DataError: a blank text without a replacement, by file and line.
        """
        self.replaced = self.normalised = 0
        for number, raw in self.read():
            text = normalize_text(raw)
            self.normalised += text != raw
            if not text:
                if self.options.replace_blank is None:
                    raise DataError(
                        f"{self.path}, {self.unit} {number}: found a blank text, expected "
                        f"{self.what} (--replace-blank TEXT puts TEXT in such places)"
                    )
                self.replaced += 1
                text = self.options.replace_blank
            try:
                text.encode()
            except UnicodeEncodeError:
                raise DataError(
                    f"{self.path}, {self.unit} {number}: found a lone surrogate, expected valid "
                    "Unicode"
                ) from None
            yield text


@dataclass(frozen=True)
class Relation:
    """A relation as read.

    Attributes:
        matrix: (rows, labels) CSR of float32 ones.
        path: where it comes from.
        repeated: labels named again in their row.
    """

    matrix: csr_matrix
    path: Path
    repeated: int = 0


# From the number of labels, and where it comes from, to the relation.
RelationReader = Callable[[int, str], Relation]


@dataclass(frozen=True)
class Part:
    """Queries of one split.

    Attributes:
        texts: the queries.
        relation: reads their relation.
        filter: its filter file, or None.
        steps: (n,) int64 where in the shares each query is, in [0, SHARE_STEPS); None goes by the
            hash of its text.
        beside: a fresh iterator over the queries' ids and further columns, or None.
        absent: (n,) int64 the product of each query that is no label, a place in the source's
            ``absent``, -1 for none; None where that is not known.
    """

    texts: TextStream
    relation: RelationReader
    filter: Path | None = None
    steps: np.ndarray | None = None
    beside: Callable[[], Iterator[tuple[str, Record]]] | None = None
    absent: np.ndarray | None = None


@dataclass(frozen=True)
class Source:
    """Data in a layout that was recognised.

    Attributes:
        layout: its name.
        name: a name for the data set.
        labels: the label texts.
        parts: ``"train"`` and ``"test"``, and ``"validation"`` where the source has one.
        files: what is read.
        unused: files that look like parts of it and are not read.
        columns: of a table, which are read.
        split_rule: how train and test were told apart, where the source does not say so.
        test_share: share that was asked to become test, where the source does not say what does.
        split_what: what stays together, in words.
        id_lines: the ids of each label, a tab between several; None where it has no ids.
        absent: names of products that are no labels.
        has_query_ids: whether the parts have ids beside their texts.
        column_names: further columns beside them.
        notes: what was assumed or normalised so far, one sentence each.
    """

    layout: str
    name: str
    labels: TextStream
    parts: Mapping[str, Part]
    files: tuple[Path, ...]
    unused: tuple[Path, ...] = ()
    columns: tuple[str, ...] = ()
    split_rule: str = ""
    test_share: float | None = None
    split_what: str = "queries"
    id_lines: Sequence[str] | None = None
    absent: tuple[str, ...] = ()
    has_query_ids: bool = False
    column_names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def read_npz(path: Path, num_labels: int, origin: str) -> Relation:
    """A relation that scipy saved (``save_npz``); every stored value must be positive."""
    from scipy.sparse import load_npz

    try:
        matrix = csr_matrix(load_npz(path))
    except FileNotFoundError:
        raise DataError(f"{path}: no such file, expected it in the data set") from None
    except Exception as error:  # zip, header, pickle and shape faults, each of its own class
        reason = first_line(error)
        raise DataError(f"{path}: not a sparse matrix that scipy saved ({reason})") from None
    if matrix.shape[1] != num_labels:
        raise DataError(
            f"{path}: found {matrix.shape[1]} columns, expected {num_labels} ({origin})"
        )
    if not (matrix.data > 0).all():
        row = int(np.searchsorted(matrix.indptr, np.flatnonzero(~(matrix.data > 0))[0], "right"))
        raise DataError(f"{path}, row {row}: found a value that is not positive, expected above 0")
    stored = int(matrix.nnz)
    matrix = matrix.astype(np.float32)
    matrix.sum_duplicates()
    matrix.data[:] = 1
    return Relation(matrix, path, stored - int(matrix.nnz))
