"""The layout of trn_X.txt, tst_X.txt and Y.txt with one text per line, and relations beside."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

from alc_kernels.xmc.data.layouts.files import Files, line_texts
from alc_kernels.xmc.data.source import ReadOptions, Source, TextStream
from alc_kernels.xmc.errors import DataError

LINE_TEXTS = {"train": ("trn_X.txt", "X.trn.txt"), "test": ("tst_X.txt", "X.tst.txt")}
_COUNTS = re.compile(r"\s*[0-9]+\s+[0-9]+\s*")
_FEATURES = re.compile(r"\s*(?:[0-9]+:[-+.0-9eE]+\s*)+")


def lines_source(files: Files, options: ReadOptions) -> Source | None:
    """The source, or None with ``files.lacking``."""
    queries = {
        split: _checked_texts(line_texts(files.find(*names), "query texts", options))
        for split, names in LINE_TEXTS.items()
    }
    labels = _checked_texts(
        line_texts(files.find("Y.txt", "output-items.txt"), "label texts", options)
    )
    return files.source("lines", labels, queries, files.relations())


def _checked_texts(texts: TextStream) -> TextStream:
    """``texts``, refused on reading where the file of that name holds sparse features instead."""

    def read() -> Iterator[tuple[int, str]]:
        head = [line for _, line in islice(texts.read(), 20)]
        rows = [line for line in head[1:] if line.strip()]
        if head and _COUNTS.fullmatch(head[0]) and rows and all(map(_FEATURES.fullmatch, rows)):
            raise DataError(
                f"{texts.path}, line 1: found sparse features ({head[0].strip()!r}, then "
                f"{rows[0][:20].strip()!r}), expected one text per line: an encoder needs the "
                "texts (the repository calls them raw text)"
            )
        yield from texts.read()

    return replace(texts, read=read)
