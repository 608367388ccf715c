#!/usr/bin/env bash
# A product list in .csv.zst that was cut in a download reads as a shorter list, without an error.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q --disable-pip-version-check zstandard==0.25.0 pandas==3.0.0
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import gzip, io, sys
import pandas, zstandard

print("python", sys.version.split()[0], "zstandard", zstandard.__version__, "pandas", pandas.__version__)
rows = 100_000
raw = b"title,product\n" + b"".join(b"offer %d,product %d\n" % (i, i % 999) for i in range(rows))

cut = gzip.compress(raw)
with open("cut.csv.gz", "wb") as file:
    file.write(cut[: len(cut) // 2])
try:
    pandas.read_csv("cut.csv.gz")
    raise SystemExit("changed: the cut .gz file was read")
except EOFError as error:
    print("half of a .gz file, as one expects:", error)

cut = zstandard.ZstdCompressor().compress(raw)
with open("cut.csv.zst", "wb") as file:
    file.write(cut[: len(cut) // 2])
print("expected of half of a .zst file: an error as well")
found = len(pandas.read_csv("cut.csv.zst"))
print(f"found: {found} of {rows} rows, no error, no warning")
with open("cut.csv.zst", "rb") as file:
    size = len(zstandard.ZstdDecompressor().stream_reader(file).read())
print(f"zstandard's stream_reader alone: {size} of {len(raw)} bytes, no error")
if not 0 < found < rows or not 0 < size < len(raw):
    raise SystemExit("changed")
frame = zstandard.ZstdDecompressor().decompressobj()
frame.decompress(cut[: len(cut) // 2])
print("what tells: decompressobj().eof is", frame.eof)
if frame.eof:
    raise SystemExit("changed")
PYTHON
