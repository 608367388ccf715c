#!/usr/bin/env bash
# Texts of product data in .xlsx: openpyxl cuts a cell at 32,767 characters and turns CR into LF
# without a word; XlsxWriter keeps CR as Excel does, and openpyxl (so pandas) reads that as _x000D_.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet "openpyxl==3.1.5" "XlsxWriter==3.3.1"
cat > "$work/show.py" <<'PY'
import sys
import warnings
from importlib.metadata import version

import openpyxl
import xlsxwriter

warnings.simplefilter("error")  # a warning would be a word
for name in ("openpyxl", "XlsxWriter"):
    print(name, version(name))
folder = sys.argv[1]
texts = {"long": "x" * 32_768, "break": "two\rlines"}


def back(path):
    row = next(openpyxl.load_workbook(path).active.iter_rows(values_only=True))
    return dict(zip(texts, row))


book = openpyxl.Workbook()
book.active.append(list(texts.values()))
book.save(f"{folder}/openpyxl.xlsx")
found = back(f"{folder}/openpyxl.xlsx")
print("expected of openpyxl: the texts as they were given, or an error")
print(f"found: {len(found['long']):,} of 32,768 characters, no error; {found['break']!r}")
same = len(found["long"]) == 32_767 and found["break"] == "two\nlines"

book = xlsxwriter.Workbook(f"{folder}/xlsxwriter.xlsx")
sheet = book.add_worksheet()
for at, text in enumerate(texts.values()):
    sheet.write_string(0, at, text)  # returns -2 for the long one: cut, and said
book.close()
found = back(f"{folder}/xlsxwriter.xlsx")
print("expected of what XlsxWriter writes, read by openpyxl: the line break")
print(f"found: {found['break']!r}")
same &= found["break"] == "two_x000D_lines"
sys.exit(0 if same else 1)
PY
"$work/venv/bin/python" "$work/show.py" "$work"
