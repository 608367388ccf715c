"""``alc data convert`` and ``alc data inspect`` as a user types them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from alc_kernels.cli import main
from alc_kernels.xmc.data import load_dataset

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
    assert "labels.txt: 1 texts that an earlier line has as well (line 5 as 2)" in out
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
        ((raw, "--output", data, "--encoding", "utf-9"), "'utf-9' is no text encoding"),
        ((raw, "--output", data, "--replace-blank", " "), "expected a text that is not blank"),
        (
            (raw, "--output", data, "--validation-share", 0.0002),
            "leave none for validation at a val",
        ),
    ):
        code, _, err = run(capsys, "data", "convert", *words)
        assert code == 2 and message in err and err.count("\n") == 1, (words, err)
    code, _, err = run(capsys, "data", "inspect", tmp_path / "full")
    assert code == 2 and "dataset.json: no such file" in err
