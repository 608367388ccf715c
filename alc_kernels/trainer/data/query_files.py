"""The files of a split that have a line per query, written together."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix

from alc_kernels.trainer.data.beside import Record, column_line, split_ids
from alc_kernels.trainer.data.source import Source
from alc_kernels.trainer.data.text.lines import LineWriter
from alc_kernels.trainer.data.text.sparse import first_labels
from alc_kernels.trainer.data.text.texts import TextFile


class QueryFiles:
    """SPLIT.raw.txt, and SPLIT.ids.txt and SPLIT.columns.jsonl where the source has such.

    A context manager.

    Args:
        folder: of the data set.
        name: of the split.
        source: says what there is beside the texts.
    """

    def __init__(self, folder: Path, name: str, source: Source) -> None:
        self.folder, self.name, self.source = folder, name, source
        self.count = 0
        self._stack = ExitStack()

    def __enter__(self) -> QueryFiles:
        self._texts = self._open("raw.txt", True)
        self._ids = self._open("ids.txt", self.source.has_query_ids)
        self._columns = self._open("columns.jsonl", bool(self.source.column_names))
        return self

    def _open(self, ending: str, wanted: bool) -> LineWriter | None:
        path = self.folder / f"{self.name}.{ending}"
        if not wanted:
            return None
        return self._stack.enter_context(LineWriter(path, allow_blank=ending == "ids.txt"))

    def write(self, text: str, own_id: str, record: Record) -> None:
        """Append a query."""
        self.count += 1
        for file, line in ((self._texts, text), (self._ids, own_id)):
            if file is not None:
                file.write(line)
        if self._columns is not None:
            self._columns.write(column_line(record))

    def __exit__(self, *exception: object) -> None:
        self._stack.__exit__(*exception)  # type: ignore[arg-type]


def write_groups(
    folder: Path, name: str, source: Source, relation: csr_matrix, absent: np.ndarray | None
) -> None:
    """Write SPLIT.groups.txt: the id, else the text, of the first product of each query.

    Args:
        folder: of the data set, whose labels are written.
        name: of the split.
        source: names the products that are no labels.
        relation: (n, L) of its queries, labels that are held out included.
        absent: (n,) as in :class:`Part`; None where the source knows no products beside labels.
    """
    if absent is None:
        return
    texts = TextFile(folder / "labels.txt", what="label texts")
    with LineWriter(folder / f"{name}.groups.txt", allow_blank=True) as file:
        for label, lost in zip(first_labels(relation).tolist(), absent.tolist(), strict=True):
            if label >= 0:
                ids = split_ids(source.id_lines[label]) if source.id_lines is not None else ()
                file.write(ids[0] if ids else texts[label])
            else:
                file.write(source.absent[lost] if lost >= 0 else "")
