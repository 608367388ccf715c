#!/usr/bin/env bash
# Product titles that begin with "=" do not come back from an .xlsx file that pandas wrote.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check \
    pandas==3.0.0 openpyxl==3.1.5 xlsxwriter==3.2.9
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
from importlib.metadata import version

import pandas

print({name: version(name) for name in ("pandas", "openpyxl", "xlsxwriter")})
titles = ["=1+1 adapter set", "plain kettle"]
frame = pandas.DataFrame({"title": titles})
print("expected, a column of texts reads back as written:", titles)
for engine in ("openpyxl", "xlsxwriter"):
    frame.to_excel("t.xlsx", index=False, engine=engine)
    back = pandas.read_excel("t.xlsx")["title"].tolist()
    print(f"found, written by {engine}:", back)
    if back[1] != titles[1] or not (back[0] != back[0] or back[0] == 0):
        raise SystemExit("changed")
print("the title became a formula: without a value (openpyxl), or with the value 0 (xlsxwriter)")
PYTHON
