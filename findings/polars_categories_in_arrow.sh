#!/usr/bin/env bash
# A Categorical column of polars, as Arrow, can be neither decoded nor written to Parquet by pyarrow.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check polars==2.1.0 pyarrow==26.0.1
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import polars, pyarrow
from pyarrow import parquet

print("polars", polars.__version__, "pyarrow", pyarrow.__version__)
frame = polars.DataFrame({"brand": ["acme", "nova", "acme"]}).cast(polars.Categorical)
print("expected: the column goes through the C stream and is a usual dictionary of texts")
table = pyarrow.table(frame)  # by __arrow_c_stream__
print("its type:", table.schema.field("brand").type)
steps = {
    "dictionary_decode": lambda: table["brand"].chunk(0).dictionary_decode(),
    "cast to string": lambda: table["brand"].cast(pyarrow.string()),
    "write to Parquet": lambda: parquet.write_table(table, "t.parquet"),
}
worked = []
for name, step in steps.items():
    try:
        step()
        worked.append(name)
        print(f"{name}: works")
    except pyarrow.ArrowException as error:
        print(f"{name}: {type(error).__name__}: {error}")
texts = table["brand"].to_pylist()
print("what works: to_pylist() or the dictionary's entries by their indices:", texts)
if worked == list(steps) or texts != ["acme", "nova", "acme"]:
    raise SystemExit("changed")
PYTHON
