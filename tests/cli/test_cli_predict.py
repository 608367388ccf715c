"""alc predict: labels, scores and decisions of new titles, from the command line."""

import csv
import gzip
import io
import json
import shutil
import subprocess
import sys
from dataclasses import fields

import numpy as np
from cli_cases import TINY

from alc_kernels.cli import main
from alc_kernels.metrics import certified_threshold
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.evaluation import load_scored
from alc_kernels.trainer.evaluation.predictions import load_predictions, save_predictions


def predict(*words, code=0):
    assert main(["predict", *map(str, words)]) == code


def read(path):
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def refused(capsys, made, *words, run="run"):
    """The one line of a refusal."""
    capsys.readouterr()
    predict(made / run, *words, code=2)
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.count("\n") == 1
    return captured.err


def test_matches_are_those_of_the_evaluation(made, tmp_path, capsys):
    """All test titles against all labels: the closed catalogue, at the open one's threshold."""
    out = tmp_path / "out.csv"
    predict(made / "run", made / "data" / "test.raw.txt", "--precision", 0.3, "--output", out)
    rows = read(out)
    dataset, predictions = load_dataset(made / "data"), load_scored(made / "run").predictions
    test, validation = predictions["closed"]["test"], predictions["open"]["validation"]
    assert [row["query"] for row in rows] == list(dataset.test.queries)
    assert [row["label"] for row in rows] == [dataset.labels[i] for i in test.indices[:, 0]]
    np.testing.assert_allclose([float(row["score"]) for row in rows], test.top_score, atol=2e-6)
    certified = certified_threshold(
        validation.top_score, validation.correct, 0.3, groups=validation.group
    )
    threshold = certified.threshold
    clear = np.abs(test.top_score - threshold) > 1e-5
    accepted = np.array([row["decision"] == "accept" for row in rows])
    np.testing.assert_array_equal(accepted[clear], (test.top_score >= threshold)[clear])
    assert {row["decision"] for row in rows} == {"accept", "review"}
    summary = capsys.readouterr().out
    assert f"{accepted.sum():,} accepted" in summary and f"{len(rows)} titles" in summary
    told = f"Threshold: at 30 %: accept from {threshold:.3f}, {100 * certified.coverage:.0f} % of"
    assert told in summary and "it holds" not in summary
    # On which catalogue it was chosen, and what it gives against all labels.
    counts = dataset.counts()
    left = counts["labels"] - counts["held_out"]
    missing = (~validation.answerable).sum()
    assert f"against the open catalogue of {left} labels" in summary
    few = "" if len(validation) >= 100 else " (that is few: 100 are wanted to choose a threshold)"
    assert f"by {len(validation)} validation titles{few} against the open catalogue" in summary
    assert f"which has no right one for {missing} of them" in summary
    against_all = predictions["closed"]["validation"]
    taken = against_all.top_score >= threshold
    assert f"{counts['labels']} labels, all of the run's data; {counts['held_out']} of" in summary
    assert f"accepts {100 * taken.mean():.1f} % of the validation titles, " in summary
    assert f"{100 * against_all.correct[taken].mean():.1f} % of those rightly" in summary


def test_several_labels_and_threshold_as_lines_of_json(made, tmp_path, capsys):
    titles = tmp_path / "titles.txt"
    titles.write_text("\ufeffacme kettle ½ litre\r\n\nzzz")  # mark, CRLF, blank, no end
    capsys.readouterr()
    predict(made / "run", titles, "--k", 3, "--threshold", -1, "--format", "jsonl")
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert [(r["query"], r["rank"]) for r in rows] == [
        ("acme kettle ½ litre", 1), ("acme kettle ½ litre", 2), ("acme kettle ½ litre", 3),
        ("", 1), ("zzz", 1), ("zzz", 2), ("zzz", 3),
    ]  # fmt: skip
    decisions = ["accept", "", "", "review", "accept", "", ""]
    assert [r["decision"] for r in rows] == decisions
    assert rows[3]["score"] is None and rows[3]["label"] == ""
    assert rows[0]["score"] >= rows[1]["score"] >= rows[2]["score"]
    assert "3 titles" in shown.err and "1 of them blank" in shown.err
    predict(made / "run", titles, "--threshold", 2)
    told = capsys.readouterr().err
    assert "0 accepted (0.0 %), 3 for review" in told
    assert "2, as given, above every score (they are cosines, at most 1): nothing is" in told
    predict(made / "run", titles, "--threshold", -2)
    assert "-2, as given, below every score" in capsys.readouterr().err


def test_tables_compressed_files_and_a_pipe_say_the_same(made, tmp_path, capsys):
    titles = ['tab\tand "quotes", comma', "two\nlines", "plain"]
    table = io.StringIO()
    csv.writer(table).writerows([["id", "title"], *enumerate(titles)])
    (tmp_path / "t.csv").write_text(table.getvalue(), encoding="utf-8")
    with gzip.open(tmp_path / "t.csv.gz", "wt", encoding="utf-8") as file:
        file.write(table.getvalue())
    outputs = []
    for number, name in enumerate(("t.csv", "t.csv.gz")):
        out = tmp_path / f"out{number}.csv"
        predict(made / "run", tmp_path / name, "--column", "title", "--output", out)
        assert [row["query"] for row in read(out)] == titles
        outputs.append(out.read_bytes())
    assert outputs[0] == outputs[1]
    words = [sys.executable, "-m", "alc_kernels", "predict", str(made / "run"), "-"]
    done = subprocess.run(
        [*words, "--column", "title"], input=table.getvalue().encode(), capture_output=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == outputs[0]


def test_a_title_does_not_depend_on_how_many_there_are(made, tmp_path, monkeypatch):
    from alc_kernels.matching import matcher as matching

    titles, outputs = made / "data" / "test.raw.txt", []
    for size in (matching.TITLES_PER_PASS, 7):
        monkeypatch.setattr(matching, "TITLES_PER_PASS", size)
        out = tmp_path / f"{size}.csv"
        predict(made / "run", titles, "--output", out)
        outputs.append([(row["query"], row["label"]) for row in read(out)])
    assert outputs[0] == outputs[1]


def test_another_catalogue(made, tmp_path, capsys):
    names = (made / "data" / "labels.txt").read_text(encoding="utf-8").splitlines()
    catalogue = tmp_path / "catalogue.txt"
    catalogue.write_text("\n".join([*names[:5], "Brand new kettle 1.7L", names[0]]))
    titles = tmp_path / "titles.txt"
    titles.write_text("brand new kettle 1.7l\n")
    out = tmp_path / "out.jsonl"
    predict(made / "run", titles, "--catalogue", catalogue, "--k", 50, "--output", out)
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]
    assert rows[0]["label"] == "Brand new kettle 1.7L"
    assert sorted(row["label"] for row in rows) == sorted([*names[:5], "Brand new kettle 1.7L"])
    assert "1 label stands there more than once" in capsys.readouterr().err


def test_labels_with_vectors_of_their_own_keep_them_in_another_catalogue(made, tmp_path, capsys):
    words = ["train", "--data", str(made / "data"), "--output", str(tmp_path / "run"), *TINY]
    assert main([*words, "--method", "dexa"]) == 0
    data, titles = made / "data", made / "data" / "test.raw.txt"
    predict(tmp_path / "run", titles, "--output", tmp_path / "own.csv")
    catalogue = tmp_path / "catalogue.txt"
    names = (data / "labels.txt").read_text(encoding="utf-8").splitlines()
    catalogue.write_text("\n".join(reversed(names)) + "\nQqq\n")  # in another order, and a new one
    capsys.readouterr()
    predict(tmp_path / "run", titles, "--catalogue", catalogue, "--output", tmp_path / "given.csv")
    assert "60 of them in the run's data and 1 new" in capsys.readouterr().out
    pairs = list(zip(read(tmp_path / "own.csv"), read(tmp_path / "given.csv"), strict=True))
    pairs = [(own, given) for own, given in pairs if given["label"] != "Qqq"]
    assert len(pairs) > 100 and all(own["label"] == given["label"] for own, given in pairs)
    scores = np.array([(float(own["score"]), float(given["score"])) for own, given in pairs])
    np.testing.assert_allclose(scores[:, 0], scores[:, 1], atol=2e-6)
    # The run knows itself which vector is whose: the data may be gone.
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    results["data"]["folder"] = str(tmp_path / "gone")
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(results))
    for more in ((), ("--data", data)):
        predict(tmp_path / "run", titles, "--catalogue", catalogue, *more,
                "--output", tmp_path / "again.csv")  # fmt: skip
        assert (tmp_path / "again.csv").read_bytes() == (tmp_path / "given.csv").read_bytes()
        (tmp_path / "again.csv").unlink()


def test_data_that_moved_or_changed_are_refused_and_can_be_named(made, tmp_path, capsys):
    titles = tmp_path / "t.txt"
    titles.write_text("kettle\n")
    moved = tmp_path / "moved"
    shutil.copytree(made / "run", moved / "run")
    results = json.loads((moved / "run" / "metrics.json").read_text())
    assert results["data"]["folder"] == str((made / "data").resolve())
    results["data"]["folder"] = str(tmp_path / "gone")
    (moved / "run" / "metrics.json").write_text(json.dumps(results))
    line = refused(capsys, moved, titles)
    assert str(tmp_path / "gone") in line and "--data DIR" in line
    predict(moved / "run", titles, "--data", made / "data")

    words = ["data", "generate", "--labels", "60", "--titles", "600", "--seed", "1"]
    assert main([*words, "--output", str(tmp_path / "other")]) == 0
    line = refused(capsys, made, titles, "--data", tmp_path / "other")
    assert "other: is not the data that run was scored on" in line
    results["data"]["folder"] = str(tmp_path / "other")
    (moved / "run" / "metrics.json").write_text(json.dumps(results))
    assert "has changed since the run" in refused(capsys, moved, titles)


def test_bad_titles_are_named_with_their_line(made, tmp_path, capsys):
    file = tmp_path / "t.csv"
    file.write_text("id,title\n1,a\n2\n")
    assert (
        "t.csv: is a table of several columns, expected --column to name one of id, title"
        in refused(capsys, made, file)
    )
    line = refused(capsys, made, file, "--column", "titel")
    assert "found columns id, title, expected 'titel'" in line and "did you mean title?" in line
    assert "t.csv, line 3: found 1 column, expected 2 (id, title)" in refused(
        capsys, made, file, "--column", "title"
    )
    file.write_text('id,title\n1,"a\n')
    assert "t.csv, line 2" in refused(capsys, made, file, "--column", "title")
    file.write_text("")
    assert "the file is empty" in refused(capsys, made, file, "--column", "title")

    text = tmp_path / "t.txt"
    text.write_bytes(b"fine\ncaf\x81\n")
    line = refused(capsys, made, text, "--output", tmp_path / "out.csv")
    assert "t.txt, line 2: found byte 0x81, which neither UTF-8 nor cp1252" in line
    assert not list(tmp_path.glob("out*"))  # nothing half-written
    text.write_text("")
    assert "holds no title" in refused(capsys, made, text)
    assert "no such file" in refused(capsys, made, tmp_path / "none.txt")
    packed = tmp_path / "t.txt.gz"
    packed.write_bytes(gzip.compress(b"kettle\n" * 99)[:-12])
    assert "not a sound gzip file" in refused(capsys, made, packed)


def test_words_that_make_no_sense(made, tmp_path, capsys):
    titles = tmp_path / "t.txt"
    titles.write_text("kettle\n")
    assert "exclude each other" in refused(
        capsys, made, titles, "--precision", ".9", "--threshold", ".5"
    )
    assert "did you mean jsonl?" in refused(capsys, made, titles, "--format", "json")
    assert "'0' is not a whole number" in refused(capsys, made, titles, "--k", "0")
    line = refused(capsys, made, titles, "--output", titles / "o.csv")
    assert f"{titles}: is a file, expected a folder to write o.csv into" in line
    assert "did you mean 0.95?" in refused(capsys, made, titles, "--precision", 95)
    assert "can be written as .csv" in refused(capsys, made, titles, "--output", tmp_path / "o.txt")
    table = made / "data" / "labels.csv"
    assert "is inside of" in refused(
        capsys, made, titles, "--data", made / "data", "--output", table
    )
    assert "is a file of the run" in refused(
        capsys, made, titles, "--output", made / "run" / "report.html"
    )
    blank = tmp_path / "catalogue.txt"
    blank.write_text("one\n\ntwo\n")
    assert "line 2: found a blank label" in refused(capsys, made, titles, "--catalogue", blank)
    assert "no such run folder" in refused(capsys, made, titles, run="nothing")


def test_a_run_that_trained_on_since_it_was_scored_is_refused(made, tmp_path, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    results = json.loads((tmp_path / "run" / "metrics.json").read_text())
    results["history"] = []
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(results))
    titles = made / "data" / "test.raw.txt"
    assert "has trained on since it was scored" in refused(capsys, tmp_path, titles)


def test_a_precision_out_of_reach_accepts_nothing_and_says_what_is_missing(made, tmp_path, capsys):
    shutil.copytree(made / "run", tmp_path / "run")
    path = tmp_path / "run" / "predictions.npz"
    predictions, fingerprint = load_predictions(path)
    few = np.arange(5)
    for splits in predictions.values():
        own = splits["validation"]
        splits["validation"] = type(own)(*(getattr(own, f.name)[few] for f in fields(own)))
    save_predictions(path, predictions, fingerprint)
    predict(tmp_path / "run", made / "data" / "test.raw.txt")
    shown = capsys.readouterr()
    assert ",accept\n" not in shown.out
    assert "Threshold: at 90 %: not certifiable: " in shown.err
    assert "more reviewed products would be needed for" in shown.err
    assert "nothing is accepted (--review FILE asks for what is missing" in shown.err
