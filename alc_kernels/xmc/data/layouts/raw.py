"""The layout of {trn,tst,lbl}.raw.txt with {trn,tst}_X_Y.txt."""

from __future__ import annotations

from alc_kernels.xmc.data.layouts.files import Files, line_texts
from alc_kernels.xmc.data.source import ReadOptions, Source

RAW_TEXTS = {
    "train": ("trn.raw.txt", "train.raw.txt"),
    "test": ("tst.raw.txt", "test.raw.txt"),
}


def raw_source(files: Files, options: ReadOptions) -> Source | None:
    """The source, or None with ``files.lacking``. The field's tools write Latin-1 here."""
    queries = {
        split: line_texts(files.find(*names), "query texts", options)
        for split, names in RAW_TEXTS.items()
    }
    labels = line_texts(files.find("lbl.raw.txt", "label.raw.txt"), "label texts", options)
    return files.source("raw", labels, queries, files.relations())
