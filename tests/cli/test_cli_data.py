"""``alc data convert`` and ``alc data inspect`` as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alc_kernels.cli import main
from alc_kernels.trainer.data import load_dataset

LAYOUTS = Path(__file__).parents[1] / "xmc" / "fixtures" / "layouts"


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    code = main([str(word) for word in words])
    out, err = capsys.readouterr()
    return code, out, err


def convert(
    capsys: pytest.CaptureFixture[str], source: Path, output: Path, *words: object
) -> tuple[int, str, str]:
    return run(capsys, "data", "convert", source, "--output", output, *words)


@pytest.mark.parametrize("layout", ["json", "raw", "lines"])
def test_convert_inspect_and_train(
    layout: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, tmp_run = tmp_path / "data", tmp_path / "run"
    code, out, err = convert(
        capsys, LAYOUTS / layout, data, "--validation-share", "0.3", "--propensity", "wikipedia"
    )
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith(f"Layout: {layout} (")
    assert lines[1].endswith(
        "3 pairs, 1 of them right as well (still right in train, no longer right in validation)"
    )
    assert lines[2].endswith("1 of them right as well (no longer right in test)")
    assert lines[-1] == f"Written: {data}"
    assert load_dataset(data).propensity == (0.5, 0.4)

    code, out, _ = run(capsys, "data", "inspect", data)
    assert code == 0
    assert "6 labels, 0 of them held out" in out and "with a = 0.5 and b = 0.4" in out
    assert "labels.txt: 1 text that an earlier line has as well (line 5 as 2)" in out
    assert all(len(line) <= 120 for line in out.splitlines())
    code, out, _ = run(capsys, "data", "inspect", data, "--json")
    found = json.loads(out)
    assert found["name"] == layout and found["filters"]["test"]["pairs"] == 3

    words = ["train", "--data", data, "--output", tmp_run, "--epochs", 1, "--batch-size", 8]
    code, _, err = run(
        capsys, *words, "--backend", "torch", "--device", "cpu", "--ngram-buckets", 512
    )
    assert code == 0, err


def test_pairs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "offers.csv"
    path.write_text("title,product\n" + "".join(f"t {i},p {i % 9}\n" for i in range(90)))
    code, out, err = convert(
        capsys, path, tmp_path / "data", "--query-column", "title", "--label-column", "product",
        "--hold-out-share", 0.3, "--keep-unmatched", "--propensity", "0.4,2", "--name", "mine",
    )  # fmt: skip
    assert (code, err) == (0, "")
    assert out.splitlines()[0] == "Layout: pairs (title, product of offers.csv)"
    data = load_dataset(tmp_path / "data")
    assert data.name == "mine" and data.propensity == (0.4, 2.0) and data.held_out.any()
    assert sum(len(split) for split in data.splits.values()) == 90


def test_what_else_is_there_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "source"
    for layout in ("raw", "json"):
        shutil.copytree(LAYOUTS / layout, source, dirs_exist_ok=True)
    (source / "filter_labels_text.txt").write_text("")
    code, out, _ = convert(capsys, source, tmp_path / "data", "--validation-share", 0.3)
    assert code == 0
    assert out.splitlines()[1:3] == [
        "  also complete: raw (--layout chooses)",
        "  not read: filter_labels_text.txt",
    ]


def test_mistakes_are_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    raw, data = LAYOUTS / "raw", tmp_path / "data"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    for words, message in (
        ((tmp_path / "gone", "--output", data), "gone: no such file or folder"),
        ((raw,), "the following arguments are required: --output"),
        ((raw, "--output", raw, "--overwrite"), "is SOURCE itself, expected another folder"),
        ((raw, "--output", tmp_path / "full"), "is not empty; choose another --output"),
        ((raw, "--output", data, "--layout", "jsn"), "'jsn' is none of auto, json"),
        ((raw, "--output", data, "--layout", "json"), "no known layout; json lacks trn.json"),
        ((raw, "--output", data, "--layout", "pairs"), "is a folder, expected a table of pairs"),
        ((raw / "trn.raw.txt", "--output", data, "--layout", "raw"), "is a file, expected a fol"),
        ((raw / "trn.raw.txt", "--output", data), "expected 'query' (--query-column names it)"),
        ((raw, "--output", data, "--validation-share", 0), "expected a validation share above 0"),
        ((raw, "--output", data, "--hold-out-share", 1), "'1' is not a number from 0 to 0.9"),
        ((raw, "--output", data, "--propensity", "amazn"), "'amazn' is none of amazon, wikipedia"),
        ((raw, "--output", data, "--propensity", "1,x"), "'1,x': 'x' is not a number"),
        ((raw, "--output", data, "--propensity", "1,0"), "'1,0': expected B above 0"),
        ((raw, "--output", data, "--delimiter", "tab"), "is no table that --delimiter applies to"),
        ((raw, "--output", data, "--no-header"), "is no table that --no-header applies to"),
        (
            (raw / "trn.raw.txt", "--output", data, "--text", "title+content"),
            "is a table, --text is of the layouts",
        ),
        ((raw, "--output", data, "--encoding", "utf-9"), "'utf-9' is no text encoding"),
        ((raw, "--output", data, "--replace-blank", " "), "expected a text that is not blank"),
        (
            (raw, "--output", data, "--validation-share", 0.0002),
            "falls to it at --validation-share 0.0002; give another share",
        ),
    ):
        code, _, err = run(capsys, "data", "convert", *words)
        assert code == 2 and message in err and err.count("\n") == 1, (words, err)
    code, _, err = run(capsys, "data", "inspect", tmp_path / "full")
    assert code == 2 and "dataset.json: no such file" in err


def tables(folder: Path) -> None:
    """Offers, a catalogue with semicolons, and matches."""
    products = [f"P{i};Product {i}" for i in range(60)]
    offers = [f"O{i},offer {i} of {i % 40},P{i % 40},s{i % 2}" for i in range(600)]
    (folder / "catalogue.csv").write_text("\n".join(["id;name", *products]) + "\n")
    (folder / "offers.csv").write_text("\n".join(["offer,title,id,shop", *offers]) + "\n")
    matches = [f"O{i}\tP{i % 40}" for i in range(600)]
    (folder / "matches.tsv").write_text("\n".join(["a\tb", *matches]) + "\n")


def test_tables_beside_a_catalogue(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables(tmp_path)
    offers, catalogue = tmp_path / "offers.csv", tmp_path / "catalogue.csv"
    names = ("--query-column", "TITLE", "--label-column", 2, "--catalogue", catalogue)
    keep = ("--query-id-column", "offer", "--keep-columns", "shop, title")
    code, out, err = convert(capsys, offers, tmp_path / "a", *names, "--id-column", "id", *keep)
    assert (code, err) == (0, ""), err
    assert out.startswith("Layout: offers and catalogue (title, id, offer, shop of offers.csv, cat")
    assert "  split by products, since products have several queries (--split-by label, " in out
    assert "catalogue.csv: labels that no query names: 20 of 60" in out
    data = load_dataset(tmp_path / "a")
    assert data.num_labels == 60 and data.test.columns is not None and data.test.ids is not None
    number = int(data.test.ids[0].removeprefix("O"))
    assert data.test.columns[0] == {"shop": f"s{number % 2}", "title": data.test.queries[0]}
    matches = ("--id-column", "offer", "--catalogue-id-column", "id")
    matches += ("--matches", tmp_path / "matches.tsv", "--split-by", "query")
    code, out, err = convert(capsys, offers, tmp_path / "b", *names, *matches)
    assert (code, err) == (0, ""), err
    assert out.startswith("Layout: queries, catalogue and matches (title, offer of offers.csv, ca")
    assert "  split by queries (--split-by label, " in out
    other = load_dataset(tmp_path / "b")
    assert sum(part.relation.nnz for part in other.splits.values()) == 600


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--matches", "m.csv"), "--matches needs --catalogue"),
        (("--id-column", "id"), "--id-column needs --catalogue"),
        (("--catalogue", "catalogue.csv"), "--catalogue needs --id-column"),
        (("--catalogue", "catalogue.csv", "--id-column", "id", "--label-id-column", "id"),
         "--label-id-column is of pairs; --catalogue-id-column names a catalogue's"),
        (("--catalogue", "catalogue.csv", "--id-column", "id", "--matches", "matches.tsv",
          "--match-columns", "a"), "--match-columns: found 1 names, expected QUERY,PRODUCT"),
        (("--catalogue", "catalogue.csv", "--id-column", "id", "--match-columns", "a,b"),
         "--match-columns needs --matches"),
        (("--keep-columns", "a,,b"), "expected names of columns, commas between"),
        (("--catalogue", "gone.csv", "--id-column", "id", "--query-column", "title"),
         "gone.csv: no such file"),
    ],
)  # fmt: skip
def test_options_of_tables_that_do_not_go_together(
    words: tuple[str, ...], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables(tmp_path)
    words = tuple(str(tmp_path / w) if w.endswith((".csv", ".tsv")) else w for w in words)
    code, _, err = convert(capsys, tmp_path / "offers.csv", tmp_path / "out", *words)
    assert code == 2 and message in err and err.count("\n") == 1
    code, _, err = convert(capsys, LAYOUTS / "raw", tmp_path / "out", "--split-by", "label")
    assert code == 2 and "raw: is no table that --split-by applies to" in err


@pytest.mark.parametrize(
    ("source", "words", "message"),
    [
        ("raw", ("--test-share", "0.2"), "is no table that --test-share applies to"),
        ("raw", ("--query-column", "a"), "is no table that --query-column applies to"),
        ("raw", ("--no-quoting",), "is no table that --no-quoting applies to"),
        ("raw", ("--text", "title+content"), "is of the layout raw: --text has no effect"),
        ("raw", ("--keep-unmatched",), "without --hold-out-share: --keep-unmatched has no effect"),
        ("offers.csv", ("--keep-unmatched",), "--keep-unmatched has no effect"),
        ("split.csv", ("--test-share", "0.2"), "has test queries of its own: --test-share has no"),
        ("split.csv", ("--validation-share", "0.2"), "of its own: --validation-share has no"),
    ],
)  # fmt: skip
def test_options_without_effect_are_refused(
    source: str,
    words: tuple[str, ...],
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    rows = "".join(f"q{i},l{i % 9}\n" for i in range(99))
    (tmp_path / "offers.csv").write_text(f"query,label\n{rows}")
    rows = "".join(f"q{i},l{i % 9},{('train', 'validation', 'test')[i % 3]}\n" for i in range(99))
    (tmp_path / "split.csv").write_text(f"query,label,split\n{rows}")
    path = LAYOUTS / "raw" if source == "raw" else tmp_path / source
    code, _, err = convert(capsys, path, tmp_path / "out", *words)
    assert code == 2 and message in err and err.count("\n") == 1, err
    assert not (tmp_path / "out").exists()


def test_split_columns_and_own_inputs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A split beside a column that says it, a column that is not there, inputs in the output."""
    names = ("train", "validation", "test")
    rows = [f"q{i},l{i % 30},{names[i % 3]},s{i % 40}" for i in range(300)]
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("\n".join(["query,label,split,shop", *rows]) + "\n")
    for words, message in (
        (("--split-by", "shop"), "column 'split' says what train, validation and test are, exp"),
        (("--split-column", "part"), "expected 'part' (--split-column names it)"),
    ):
        code, _, err = convert(capsys, pairs, tmp_path / "out", *words)
        assert code == 2 and message in err and err.count("\n") == 1
    words = ("--split-column", "none", "--split-by", "shop", "--test-share", 0.5)
    code, _, err = convert(capsys, pairs, tmp_path / "out", *words, "--validation-share", 0.2)
    assert (code, err) == (0, "")
    assert "values of 'shop'" in load_dataset(tmp_path / "out").protocol
    code, _, err = convert(capsys, pairs, tmp_path, "--overwrite")
    assert code == 2 and "pairs.csv: is in the folder of --output" in err and pairs.exists()
