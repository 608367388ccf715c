"""Files as other programs write them, read back and compared cell by cell; run by hand.

    python tests/xmc/foreign_files.py

installs the programs into a folder that is removed, lets each write the same 300 products in its
own way, and reads every file without an option, or with the one that the message named. Prints a
line for each and fails if a cell differs. With ``--write FOLDER`` it is the part that runs there.
"""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from importlib.metadata import version
from pathlib import Path
from typing import Any

PACKAGES = ("pandas", "polars", "duckdb", "openpyxl", "xlsxwriter", "csvkit", "fastparquet",
            "sqlite-utils", "datasets", "pyarrow", "zstandard")  # fmt: skip
COLUMNS = ("code", "query", "label", "stock")
HARD = ["kühl, 60; l", 'nova "8"', '"quoted"', "two\nlines", "tab\tbed", "a|b", " ends ", "a  b",
        "élan 55\"", "+1", "007", "1e5", "NULL", "O'Neil", "50 %", "x, \"y\"\nz, w"]  # fmt: skip


def products() -> list[tuple[str, str, str, int]]:
    rows = []
    for i in range(300):
        query = f"{HARD[i % len(HARD)]} {i}" if i % 3 else HARD[i % len(HARD)]
        rows.append((f"{i * 37:07}", query, f"Product {i % 40}, ä", i * 1001))
    return rows


def write(folder: Path) -> None:
    """Every program writes the products into files whose names begin with it."""
    import duckdb
    import pandas
    import polars
    from datasets import Dataset

    data = {name: list(cells) for name, cells in zip(COLUMNS, zip(*products(), strict=True),
                                                     strict=True)}  # fmt: skip
    frame, lazy = pandas.DataFrame(data), polars.DataFrame(data)
    plain = str(folder / "pandas-{}").format
    frame.to_csv(plain("index.csv"))
    frame.to_csv(plain("excel-german.csv"), sep=";", encoding="cp1252", index=False)
    frame.to_csv(plain("unicode-text.txt"), sep="\t", encoding="utf-16", index=False)
    frame.to_csv(plain("bom.csv"), encoding="utf-8-sig", lineterminator="\r\n", index=False)
    for ending in ("gz", "zip", "zst"):
        frame.to_csv(plain(f"packed.csv.{ending}"), index=False)
    frame.to_excel(plain("openpyxl.xlsx"), index=False, engine="openpyxl")
    frame.to_excel(plain("xlsxwriter.xlsx"), index=False, engine="xlsxwriter")
    frame.to_json(plain("lines.jsonl"), orient="records", lines=True)
    frame.to_parquet(plain("pyarrow.parquet"), engine="pyarrow")
    frame.to_parquet(plain("fastparquet.parquet"), engine="fastparquet")
    plain = str(folder / "polars-{}").format
    lazy.write_csv(plain("plain.csv"))
    lazy.write_csv(plain("semicolon.csv"), separator=";", quote_style="always")
    lazy.write_parquet(plain("plain.parquet"))
    lazy.write_ndjson(plain("lines.ndjson"))
    lazy.write_excel(plain("excel.xlsx"))
    lazy.with_columns(polars.col("stock") % 3).write_parquet(
        plain("folder"), partition_by=["stock"]
    )
    plain = str(folder / "duckdb-{}").format
    for name, options in (
        ("plain.csv", "HEADER"), ("pipe.csv", "DELIMITER '|'"), ("tabs.tsv", "DELIMITER '\t'"),
        ("packed.csv.zst", "COMPRESSION zstd"), ("plain.parquet", "FORMAT parquet"),
        ("zstd.parquet", "FORMAT parquet, COMPRESSION zstd"), ("lines.jsonl", "FORMAT json"),
    ):  # fmt: skip
        duckdb.sql(f"COPY (FROM frame) TO '{plain(name)}' ({options})")
    hugging = Dataset.from_dict(data)
    hugging.to_csv(folder / "datasets-plain.csv")
    hugging.to_json(folder / "datasets-lines.jsonl")
    hugging.to_parquet(folder / "datasets-plain.parquet")
    bin_folder, source = Path(sys.executable).parent, folder / "polars-plain.csv"
    base = folder / "products.db"
    commands = {
        "csvkit-tabs.tsv": ["csvformat", "-T", source],
        "csvkit-semicolon.csv": ["csvformat", "-D", ";", "-U", "1", source],
        "sqlite-utils-plain.csv": ["sqlite-utils", "rows", base, "products", "--csv"],
        "sqlite-utils-tabs.tsv": ["sqlite-utils", "rows", base, "products", "--tsv"],
        "sqlite-utils-lines.jsonl": ["sqlite-utils", "rows", base, "products", "--nl"],
    }
    insert = [
        bin_folder / "sqlite-utils",
        "insert",
        base,
        "products",
        source,
        "--csv",
        "--no-detect-types",
    ]
    subprocess.run(insert, check=True, capture_output=True)
    for name, (program, *words) in commands.items():
        with (folder / name).open("wb") as file:
            subprocess.run([bin_folder / program, *words], stdout=file, check=True)
    if found := shutil.which("sqlite3"):
        with (folder / "sqlite3-plain.csv").open("wb") as file:
            subprocess.run([found, "-header", "-csv", base, "SELECT * FROM products"], stdout=file,
                           check=True)  # fmt: skip
    base.unlink()
    for package in PACKAGES:
        print(f"{package}={version(package)}")


def checksum(rows: Iterable[Iterable[str]]) -> str:
    digest = hashlib.sha256()
    for row in sorted("\0".join(row) for row in rows):  # a folder of parts has its own order
        digest.update(row.encode() + b"\n")
    return digest.hexdigest()[:12]


def read(path: Path) -> tuple[list[list[str]], str, list[str]]:
    """The rows, the option that was needed, and the notes."""
    from alc_kernels.trainer.data.tables import TableOptions, open_table
    from alc_kernels.trainer.errors import DataError

    named: dict[str, Callable[[], TableOptions]] = {
        "": TableOptions,
        "--quoting": lambda: TableOptions(quoting=True),
        "--no-quoting": lambda: TableOptions(quoting=False),
    }
    option = ""
    while True:
        try:
            table = open_table(path, named[option]())
            places = [table.find(column, "-") for column in COLUMNS]
            return [row for _, row in table.rows(places)], option, table.notes
        except DataError as error:
            offered = [word for word in re.findall(r"--[a-z-]+", str(error)) if word in named]
            if option or not offered:
                raise
            option = "--quoting" if "--quoting" in offered else offered[0]


def main() -> int:
    from alc_kernels.trainer.data.tables import normalize_text

    wanted = [[normalize_text(str(cell)) for cell in row] for row in products()]
    by_part = [[*row[:3], str(int(row[3]) % 3)] for row in wanted]
    failed = 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "files").mkdir()
        python: Any = folder / "venv" / "bin" / "python"
        subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", *PACKAGES]
        subprocess.run(install, check=True)
        subprocess.run([python, __file__, "--write", folder / "files"], check=True)
        for path in sorted((folder / "files").iterdir()):
            rows, option, notes = read(path)
            expected = checksum(by_part if path.is_dir() else wanted)
            equal = checksum(rows) == expected and len(rows) == len(wanted)
            failed += not equal
            said = "; ".join(note.partition(": ")[2] for note in notes)
            verdict = "equal" if equal else "DIFFERENT"
            print(f"{path.name:28} {len(rows):4} rows  {checksum(rows)} {verdict}", end="  ")
            print(option or "no option", said, sep="  ")
    return int(failed > 0)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--write"]:
        write(Path(sys.argv[2]))
    else:
        raise SystemExit(main())
