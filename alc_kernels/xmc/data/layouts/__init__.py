"""The three layouts in use for extreme classification with label texts, and which one it is.

    json    {trn,tst,lbl}.json[.gz]: a JSON object per line with uid, title, content, target_ind,
            target_rel (the extreme classification repository; NGAME, DEXA, PRIME)
    raw     {trn,tst,lbl}.raw.txt + {trn,tst}_X_Y.txt (what their tools make of it; OAK's
            raw_data/{train,test,label}.raw.txt)
    lines   trn_X.txt, tst_X.txt, Y.txt with one text per line + {trn,tst}_X_Y.txt (Renee, LEVER)
            or Y.{trn,tst}.npz (DEXML, PECOS), texts perhaps in raw/

Each with filter files, filter_labels_{train,test}.txt or {trn,tst}_filter_labels.txt, that may
be empty or missing. Any text file may be compressed (.gz).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from alc_kernels.xmc.data.layouts.files import Files
from alc_kernels.xmc.data.layouts.json_lines import json_source
from alc_kernels.xmc.data.layouts.lines import lines_source
from alc_kernels.xmc.data.layouts.raw import raw_source
from alc_kernels.xmc.data.source import ReadOptions, Source
from alc_kernels.xmc.data.tables import is_table
from alc_kernels.xmc.errors import DataError

# name -> its reader: a source, or None after it has noted in ``files.lacking`` what it misses
READERS: dict[str, Callable[[Files, ReadOptions], Source | None]] = {
    "json": json_source,
    "raw": raw_source,
    "lines": lines_source,
}
LAYOUTS = tuple(READERS)


def find_source(
    folder: Path, layout: str = "auto", options: ReadOptions | None = None
) -> tuple[Source, list[str]]:
    """Recognise the layout of a folder.

    Args:
        folder: as downloaded and unpacked.
        layout: one of ``LAYOUTS``, or ``"auto"`` for the first of them that is complete.
        options: how to read it.

    Returns:
        The source, and the names of other layouts that the folder holds as well.

    Raises:
        DataError: no layout is complete; says what each one lacks and what was found.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: not a folder, expected one with the files of a data set")
    lacking, found = [], []
    for name in LAYOUTS if layout == "auto" else (layout,):
        files = Files(folder)
        source = READERS[name](files, options or ReadOptions())
        if source is not None:
            found.append(source)
        else:
            lacking.append(f"{name} lacks {', '.join(files.lacking)}")
    if not found:
        names = sorted(path.name for path in folder.iterdir())
        shown = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
        tables = [n for n in names if not n.lower().endswith(".txt") and is_table(folder / n)]
        hint = f"; or name a table, e.g. {tables[0]}" if tables else ""
        raise DataError(
            f"{folder}: no known layout; {'; '.join(lacking)}; found {shown or 'nothing'}{hint}"
        )
    return found[0], [source.layout for source in found[1:]]
