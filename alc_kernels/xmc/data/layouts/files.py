"""Finding the files of a layout under the names that the field's projects give them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from alc_kernels.xmc.data.source import (
    Part,
    ReadOptions,
    Relation,
    RelationReader,
    Source,
    TextStream,
    read_npz,
)
from alc_kernels.xmc.data.sparse_text import read_sparse_text
from alc_kernels.xmc.data.text_lines import TextInput, iter_lines

SUBFOLDERS = (".", "raw", "raw_data", "raw_text")
FILTERS = {
    "train": ("filter_labels_train.txt", "trn_filter_labels.txt"),
    "test": ("filter_labels_test.txt", "tst_filter_labels.txt"),
}
RELATIONS = {
    "train": ("trn_X_Y.txt", "trn_X_Y.npz", "Y.trn.npz"),
    "test": ("tst_X_Y.txt", "tst_X_Y.npz", "Y.tst.npz"),
}


class Files:
    """The files of a folder by any of their names.

    Attributes:
        folder: the folder; its subfolders raw, raw_data and raw_text are searched as well.
        used: what was found, in order.
        lacking: what was asked for and is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.used: list[Path] = []
        self.lacking: list[str] = []

    def find(self, *names: str, optional: bool = False) -> Path:
        """The first file that has one of ``names``, plain or compressed.

        Where there is none, the first name, which is noted as lacking unless ``optional``.
        """
        for name in names:
            for place in SUBFOLDERS:
                for ending in ("", ".gz"):
                    path = self.folder / place / f"{name}{ending}"
                    if path.is_file():
                        self.used.append(path)
                        return path
        if not optional:
            self.lacking.append(" or ".join(names))
        return self.folder / names[0]

    def source(
        self,
        layout: str,
        labels: TextStream,
        queries: Mapping[str, TextStream],
        relations: Mapping[str, RelationReader],
    ) -> Source | None:
        """A source of these parts, each with its filter file; None where a file is lacking."""
        parts = {}
        for split, texts in queries.items():
            found = self.find(*FILTERS[split], optional=True)
            has_filter = found in self.used
            parts[split] = Part(texts, relations[split], found if has_filter else None)
        if self.lacking:
            return None
        filters = {path for path in self.folder.rglob("*filter*") if path.is_file()}
        unused = tuple(sorted(filters.difference(self.used)))
        name = self.folder.resolve().name
        return Source(layout, name, labels, parts, tuple(self.used), unused)

    def relations(self) -> dict[str, RelationReader]:
        """Readers of the files that hold the relations, of either kind."""
        return {split: _relation_reader(self.find(*names)) for split, names in RELATIONS.items()}


def _relation_reader(path: Path) -> RelationReader:
    def read(num_labels: int, origin: str) -> Relation:
        if path.suffix == ".npz":
            return read_npz(path, num_labels, origin)
        matrix, repeated = read_sparse_text(path, num_rows=None, num_cols=(num_labels, origin))
        return Relation(matrix, path, repeated)

    return read


def line_texts(path: Path, what: str, options: ReadOptions) -> TextStream:
    """Texts that are the lines of a file."""

    opened: list[TextInput] = []  # once, on reading: its encoding may have to be found

    def read() -> Iterator[tuple[int, str]]:
        if not opened:
            opened.append(TextInput(path, options.encoding))
        encoding = opened[0].encoding
        return enumerate(iter_lines(path, what=what, allow_blank=True, encoding=encoding), 1)

    def assumed() -> list[str]:
        return [note for file in opened for note in file.notes]

    return TextStream(path, read, what, options, assumed=assumed)
