"""How to read a table, where its reader should not find it out by itself."""

from __future__ import annotations

from dataclasses import dataclass

from alc_kernels.xmc.data.encodings import check_encoding

DELIMITERS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "pipe": "|"}


@dataclass(frozen=True)
class TableOptions:
    """How to read a table.

    Attributes:
        delimiter: one character between the cells of a text table, or its name: comma, semicolon,
            tab, pipe; None finds which of these.
        encoding: of a text table, as Python names it; None finds it.
        quoting: whether ``"`` encloses cells of a text table; False takes it as any other
            character, True trusts it wherever it opens a cell, None does so too but refuses a cell
            that seems to have swallowed rows.
        header: whether the first row has the names of the columns; without, they are 1 to n.
        sheet: name of the sheet of an .xlsx file, in whatever letters; None takes the first.

    Raises:
        ValueError: a delimiter or an encoding that cannot be one.
    """

    delimiter: str | None = None
    encoding: str | None = None
    quoting: bool | None = None
    header: bool = True
    sheet: str | None = None

    def __post_init__(self) -> None:
        if self.delimiter is not None:
            made = DELIMITERS.get(self.delimiter.lower(), self.delimiter)
            if len(made) != 1 or made.isalnum() or made in '"\r\n':
                raise ValueError(
                    f"{self.delimiter!r}: expected one character that is no letter, digit or "
                    "quote, or one of comma, semicolon, tab, pipe"
                )
            object.__setattr__(self, "delimiter", made)
        if self.encoding is not None:
            object.__setattr__(self, "encoding", check_encoding(self.encoding))
