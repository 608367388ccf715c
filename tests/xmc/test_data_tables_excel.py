"""Spreadsheets: what the program shows is what is read."""

from __future__ import annotations

import zipfile
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from alc_kernels.trainer.data.tables import TableOptions, is_table, open_table
from alc_kernels.trainer.data.tables.number_format import show_date, show_number
from alc_kernels.trainer.errors import DataError

openpyxl = pytest.importorskip("openpyxl")


def save(path: Path, rows: list[list[Any]], **sheets: list[list[Any]]) -> Path:
    """A workbook; a cell that is a pair has a value and its format."""
    book = openpyxl.Workbook()
    book.active.title = "Products"
    for title, lines in {"Products": rows, **sheets}.items():
        sheet = book.active if title == "Products" else book.create_sheet(title)
        for number, line in enumerate(lines, 1):
            for column, value in enumerate(line, 1):
                cell = sheet.cell(number, column)
                if isinstance(value, tuple):
                    cell.value, cell.number_format = value
                else:
                    cell.value = value
    book.save(path)
    return path


# Value, format, and what a spreadsheet shows in a wide column, without marks between thousands.
NUMBERS = [
    (123, "General", "123"),
    (123, "00000", "00123"),
    (1234567, "00000", "1234567"),
    (12345678901234, "General", "12345678901234"),
    (4006381333931.0, "0", "4006381333931"),
    (4006381333931, "0000000000000", "4006381333931"),
    (0.1 + 0.2, "General", "0.3"),
    (0.00001, "General", "0.00001"),
    (1e-15, "General", "0.000000000000001"),
    (1.005, "0.00", "1.01"),
    (2.5, "0", "3"),
    (1.5, "0.00", "1.50"),
    (1.5, "0.##", "1.5"),
    (2, "0.0#", "2.0"),
    (1234.5, "#,##0.00", "1234.50"),
    (1234567, "#,##0", "1234567"),
    (12, "#,##0;[Red]-#,##0", "12"),
    (0.125, "0%", "13%"),
    (0.125, "0.0%", "12.5%"),
    (-5, "0", "-5"),
    (-5, "0;(0)", "(5)"),
    (0, "0;-0;none", "none"),
    (0, '0;-0;"-"', "-"),
    (42, '"SKU-"0000', "SKU-0042"),
    (42, "\\A000", "A042"),
    (19.9, '#,##0.00\\ "€"', "19.90 €"),
    (19.9, "[$€-407] #,##0.00", "€ 19.90"),
    (7, "0_)", "7"),
    (5, "[Red]0", "5"),
    (491701234567, "000-000-000000", "491-701-234567"),
    (123456789, "000\\-00\\-0000", "123-45-6789"),
    (12, "@", "12"),
    (3000000, "0.0,,", "3.0"),
    (0, "#", ""),
    (0.4, "0", "0"),
    (-0.4, "0", "0"),
]


@pytest.mark.parametrize(("value", "pattern", "shown"), NUMBERS)
def test_numbers_as_shown(value: float, pattern: str, shown: str) -> None:
    assert show_number(value, pattern) == shown


@pytest.mark.parametrize("pattern", ["0.00E+00", "# ?/?", "##0.0E+0"])
def test_formats_that_are_not_understood(pattern: str) -> None:
    assert show_number(12345.5, pattern) is None


DAY = datetime(2024, 3, 5, 9, 7, 8)
DATES = [
    (DAY, "yyyy-mm-dd", "2024-03-05"),
    (DAY, "dd.mm.yyyy", "05.03.2024"),
    (DAY, "d/m/yy", "5/3/24"),
    (DAY, "d mmm yyyy", "5 Mar 2024"),
    (DAY, "dddd, mmmm dd", "Tuesday, March 05"),
    (DAY, "[$-407]dd.mm.yyyy;@", "05.03.2024"),
    (DAY, "yyyy\\-mm\\-dd\\ hh:mm:ss", "2024-03-05 09:07:08"),
    (DAY, "h:mm AM/PM", "9:07 AM"),
    (datetime(2024, 3, 5, 15, 7), "h:mm AM/PM", "3:07 PM"),
    (DAY, "mm:ss", "07:08"),
    (DAY, "mmm-yy", "Mar-24"),
    (DAY, "mm/yyyy", "03/2024"),
    (DAY, 'yyyy"Q"', "2024Q"),
    (time(9, 7), "hh:mm", "09:07"),
    (date(2024, 3, 5), "yyyymmdd", "20240305"),
    (DAY, "mm-dd-yy", None),  # the country's own, whatever the file says
    (timedelta(hours=30), "[h]:mm", None),
    (DAY, "yyyy-mm-dd G", None),
]


@pytest.mark.parametrize(("value", "pattern", "shown"), DATES)
def test_dates_as_shown(value: Any, pattern: str, shown: str | None) -> None:
    assert show_date(value, pattern) == shown


def test_a_sheet_as_people_have_it(tmp_path: Path) -> None:
    rows: list[list[Any]] = [
        [None, None],
        ["Title", " SKU ", "Listed", "ok", None],
        ["Fridge\n60", (123, "00000"), (datetime(2024, 3, 5), "dd.mm.yyyy"), True],
        [],
        ["  kühl ", (4006381333931.0, "General"), (datetime(2024, 3, 5), "mm-dd-yy"), False],
        [12345678901234, "00042", None, None],
        [None, "", None],
        [None],
    ]
    path = save(tmp_path / "t.xlsx", rows)
    assert is_table(path)
    table = open_table(path)
    assert table.columns == ("Title", "SKU", "Listed", "ok") and table.unit == "row"
    assert list(table.rows(range(4))) == [
        (3, ["Fridge 60", "00123", "05.03.2024", "TRUE"]),
        (5, ["kühl", "4006381333931", "2024-03-05", "FALSE"]),
        (6, ["12345678901234", "00042", "", ""]),
    ]
    assert [note.partition(": ")[2].partition(" or date")[0] for note in table.notes][-2:] == [
        "1 row without any text, left out",
        "1 number",
    ]
    assert list(table.rows([1])) == [(3, ["00123"]), (5, ["4006381333931"]), (6, ["00042"])]
    assert not any("dates" in note for note in table.notes)  # the column was not asked for


def test_sheets_by_name(tmp_path: Path) -> None:
    path = save(tmp_path / "t.xlsx", [["a"], ["1"]], Other=[["b"], ["2"]], Empty=[])
    table = open_table(path)
    assert table.columns == ("a",) and "read its first sheet, 'Products'" in table.notes[0]
    other = open_table(path, TableOptions(sheet="Other"))
    assert other.columns == ("b",) and list(other.rows([0])) == [(2, ["2"])] and not other.notes
    bare = open_table(path, TableOptions(sheet="Other", header=False))
    assert list(bare.rows([0])) == [(1, ["b"]), (2, ["2"])]
    with pytest.raises(DataError, match=r"expected 'Othr' .*did you mean Other"):
        open_table(path, TableOptions(sheet="Othr"))
    with pytest.raises(DataError, match="sheet 'Empty': the sheet is empty, expected a header"):
        open_table(path, TableOptions(sheet="Empty"))
    with pytest.raises(DataError, match="is no table that --delimiter applies to"):
        open_table(path, TableOptions(delimiter=";"))


def test_what_a_sheet_must_not_hold(tmp_path: Path) -> None:
    path = save(tmp_path / "t.xlsx", [["a", "b"], ["x", "=A2&1"], ["y", "#N/A"]])
    table = open_table(path)
    assert [row for _, row in table.rows([0])] == [["x"], ["y"]]
    with pytest.raises(DataError, match=r"t\.xlsx, row 2, column 2: found a formula without its"):
        list(table.rows([1]))
    path = save(tmp_path / "e.xlsx", [["a"], ["#N/A"]])
    with pytest.raises(DataError, match=r"row 2, column 1: found the error #N/A, expected text"):
        list(open_table(path).rows([0]))
    path = save(tmp_path / "w.xlsx", [["a"], ["x", "y"]])
    with pytest.raises(DataError, match=r"row 2: found a cell in column 2, expected 1 column"):
        list(open_table(path).rows([0]))
    whole = path.read_bytes()
    for content in (whole[: len(whole) // 2], b"something", b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"w\.xlsx: not a sound \.xlsx file") as raised:
            list(open_table(path).rows([0]))
        assert "\n" not in str(raised.value)
    path.write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(99))
    with pytest.raises(DataError, match=r"w\.xlsx: is protected by a password, or an old \.xls"):
        open_table(path)


def test_the_value_that_a_formula_had(tmp_path: Path) -> None:
    """As a spreadsheet program saves it: the formula and its last value."""
    path = save(tmp_path / "t.xlsx", [["a", "b"], ["x", "=A2&1"], ["y", None]])
    changed = tmp_path / "v.xlsx"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(changed, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith("sheet1.xml"):
                assert b"<f>A2&amp;1</f><v" in content
                content = content.replace(b'<c r="B2">', b'<c r="B2" t="str">')
                content = content.replace(b"<f>A2&amp;1</f><v />", b"<f>A2&amp;1</f><v>x1</v>")
                content = content.replace(b"<f>A2&amp;1</f><v></v>", b"<f>A2&amp;1</f><v>x1</v>")
            new.writestr(name, content)
    assert [row for _, row in open_table(changed).rows([0, 1])] == [["x", "x1"], ["y", ""]]
    table = open_table(changed)
    assert not table.notes and list(table.rows([0, 1]))
    assert any("1 cell holds formulas, read by the values" in note for note in table.notes)


def test_what_helps_where_the_columns_are_others(tmp_path: Path) -> None:
    rows = [["query", "label"], ["a", "b"]]
    path = save(tmp_path / "t.xlsx", [["see", "next"]], Offers=rows, More=[["x"]])
    others = r"other sheets are 'Offers', 'More' \(--sheet names one\)"
    with pytest.raises(DataError, match=f"--no-header if the first row .*{others}"):
        open_table(path).find("query", "--query-column")
    for name in ("offers", " OFFERS "):
        table = open_table(path, TableOptions(sheet=name))
        assert table.name.endswith("sheet 'Offers'") and list(table.rows([0])) == [(2, ["a"])]
    twice = save(tmp_path / "n.xlsx", [["x"]], **{"Offers": rows, " offers": [["y"]]})
    assert open_table(twice, TableOptions(sheet="Offers")).columns == ("query", "label")
    with pytest.raises(DataError, match=r"found sheets Products, .*expected 'OFFERS'"):
        open_table(twice, TableOptions(sheet="OFFERS"))
    path = save(tmp_path / "e.xlsx", [], Offers=rows)
    with pytest.raises(DataError, match=r"the sheet is empty, .* other sheets are 'Offers'"):
        open_table(path)
    above = "the header must be the first row: remove the rows above the header"
    table = open_table(save(tmp_path / "a.xlsx", [["Offers 2024"], [], *rows]))
    with pytest.raises(DataError, match=above):
        table.find("query", "--query-column")
    with pytest.raises(DataError, match=f"row 3: found a cell in column 2, .*{above}"):
        list(table.rows([0]))
