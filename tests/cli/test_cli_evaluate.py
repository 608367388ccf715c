"""Every claim of alc evaluate, and of a page, recomputed from the npz files of the run."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pytest
from evaluation_cases import make_dataset
from test_cli_compare import Tables
from test_cli_errors import fails

from alc_kernels.cli import main
from alc_kernels.metrics import certified_threshold
from alc_kernels.trainer.data import generate_catalogue, load_dataset, save_dataset
from alc_kernels.trainer.data.beside import Columns

SETTINGS = ["--epochs", "2", "--batch-size", "128", "--embedding-dim", "32", "--hidden-dim", "32",
            "--ngram-buckets", "4096", "--evaluate-every", "0"]  # fmt: skip
RULES = {"TF-IDF": "tfidf", "TF-IDF + acceptance": "tfidf-acceptance",
         "run": "predictions", "run + acceptance": "acceptance"}  # fmt: skip
DASH = "\u2013"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with a column, a run on it, and what its training printed."""
    folder = tmp_path_factory.mktemp("evaluate")
    dataset = generate_catalogue(400, 3600)
    splits = {
        name: dataclasses.replace(
            part, columns=Columns.of([{"shop": "AB"[len(q) % 2]} for q in part.queries])
        )
        for name, part in dataset.splits.items()
    }
    save_dataset(dataclasses.replace(dataset, splits=splits), folder / "data")
    words = ["train", "--data", str(folder / "data"), "--output", str(folder / "run"), *SETTINGS]
    assert main(words) == 0
    return folder


def arrays(run, name, catalogue, split):
    """(top scores, right, groups, whether the catalogue has the product), without our readers."""
    with np.load(run / f"{name}.npz", allow_pickle=False) as archive:
        at = f"{catalogue}/{split}"
        return (
            archive[f"{at}/scores"][:, 0].astype(np.float64), archive[f"{at}/hits"][:, 0],
            archive[f"{at}/group"], archive[f"{at}/num_positives"] > 0,
        )  # fmt: skip


def shown(words, capsys):
    capsys.readouterr()
    assert main([str(word) for word in words]) == 0
    return capsys.readouterr().out


def expected_row(run, name, catalogue, precision):
    """The numbers of a row of the table of certificates."""
    scores, right, groups, _ = arrays(run, name, catalogue, "validation")
    found = certified_threshold(scores, right, precision, groups=groups)
    test, test_right, *_ = arrays(run, name, catalogue, "test")
    accept = test >= found.threshold
    if not found.certified:
        return ["none", "0", "0", "0.0", DASH]
    products = len(np.unique(groups[scores >= found.threshold]))
    return [
        f"{found.threshold:.3f}", f"{100 * (scores >= found.threshold).mean():.1f}",
        f"{products:,}", f"{100 * accept.mean():.1f}", f"{100 * test_right[accept].mean():.1f}",
    ]  # fmt: skip


def rows_of(text, names):
    """{(catalogue, name, wanted): numbers} of the table of certificates as text."""
    found, catalogue, name = {}, "", ""
    for line in text.splitlines():
        if line.startswith(("Open catalogue", "Closed catalogue")):
            catalogue = line.split()[0].lower()
        match = re.match(r"  (.*?) +([\d.]+) %((?: +(?:[\d.,]+|none|\u2013)){5})$", line)
        if match and catalogue:
            name = match[1].strip() or name
            found[catalogue, name, match[2]] = match[3].split()
    assert {key[1] for key in found} == set(names)
    return found


def test_every_row_of_evaluate(made, capsys):
    run = made / "run"
    out = shown(["evaluate", run, "--precision", "0.8", "--precision", "0.95"], capsys)
    rows = rows_of(out, RULES)
    assert len(rows) == 2 * 4 * 2
    for (catalogue, name, wanted), numbers in rows.items():
        assert numbers == expected_row(run, RULES[name], catalogue, float(wanted) / 100), name
    certified = [row for row in rows.values() if row[0] != "none"]
    assert len(certified) >= 6  # how many is the training's luck


def best_rule(run):
    """The largest coverage certified at .9 on validation, a run before a baseline."""
    coverage = {}
    for name, file in RULES.items():
        scores, right, groups, _ = arrays(run, file, "open", "validation")
        coverage[name] = certified_threshold(scores, right, 0.9, groups=groups).coverage
    return max(sorted(coverage, key=lambda name: name.startswith("TF")), key=coverage.get)


def test_the_sentences_of_evaluate(made, capsys):
    run = made / "run"
    out = shown(["evaluate", run, "--precision", "0.8", "--precision", "0.9"], capsys)
    best = best_rule(run)
    assert f"Best on validation: {best}" in out
    scores, right, groups, there = arrays(run, RULES[best], "open", "validation")
    promised = 0
    for precision in (0.8, 0.9):
        found = certified_threshold(scores, right, precision, groups=groups)
        products = len(np.unique(groups[scores >= found.threshold]))
        assert (
            f"  at {100 * precision:g} %: accept from {found.threshold:.3f}, "
            f"{100 * found.coverage:.0f} % of titles, certified with 95 % confidence on "
            f"{products:,} products\n"
        ) in out
        new = certified_threshold(-scores, ~there, precision, groups=groups)
        rest = f"{100 - 100 * precision:.10g}"
        if new.certified:
            promised += 1
            assert (
                f"new below {-new.threshold:.3f}, {100 * new.coverage:.0f} % of titles, of which "
                f"at most {rest} % are in the catalogue" in out
            )
        else:
            assert f"has at most {rest} % of products that the catalogue has" in out
    told = json.loads((run / "metrics.json").read_text())["acceptance"]
    assert f"run: {told}" in out and "validation queries with a right candidate" in told


def test_costs(made, capsys):
    run = made / "run"
    out = shown(["evaluate", run, "--cost-wrong", "8", "--cost-review", "2"], capsys)
    costs = []
    part = out.split("Least expected cost")[1]
    for name, low, high, highest, validation, test in re.findall(
        r"\n(.*), a wrong match at 8, a look at 2: accept from ([-\d.]+) \(between ([-\d.]+) and "
        r"([-\d.]+)\).*\n +cost per title: ([\d.]+) on validation .*?, ([\d.]+) on test",
        part,
    ):
        threshold = float(low)
        lowest = np.inf
        scores, right, *_ = arrays(run, RULES[name], "open", "validation")
        for tried in np.unique(scores):
            accept = scores >= tried
            lowest = min(lowest, 8 * (accept & ~right).mean() + 2 * (~accept).mean())
        assert float(validation) == pytest.approx(lowest, abs=5.1e-4)
        scores, right, *_ = arrays(run, RULES[name], "open", "test")
        near = scores[np.abs(scores - threshold) <= 5.1e-4]  # it is told to three digits
        costs_near = [
            8 * ((scores >= at) & ~right).mean() + 2 * (scores < at).mean()
            for at in [threshold, *near, *(near + 1e-9)]
        ]
        assert min(costs_near) - 5.1e-4 <= float(test) <= max(costs_near) + 5.1e-4
        assert float(high) <= threshold <= float(highest)
        costs.append(lowest)
    assert len(costs) == 4 and costs == sorted(costs)
    fails(capsys, ["evaluate", run, "--cost-wrong", "8"], "expected both or neither")


def test_categories(made, capsys):
    run = made / "run"
    out = shown(["evaluate", run, "--precision", "0.8", "--category", "shop"], capsys)
    data, best = load_dataset(made / "data"), best_rule(run)
    scores, right, groups, _ = arrays(run, RULES[best], "open", "validation")
    shops = {
        split: np.array([row["shop"] for row in data.splits[split].columns])
        for split in ("validation", "test")
    }
    found = certified_threshold(scores, right, 0.8, groups=groups, categories=shops["validation"])
    test, test_right, *_ = arrays(run, RULES[best], "open", "test")
    part = out.split(f"shop, at 80 %, {best}")[1]
    for shop in "AB":
        own = found.by_category[shop]
        accept = (shops["test"] == shop) & (test >= own.threshold)
        line = next(line for line in part.splitlines() if line.strip().startswith(f"{shop} "))
        assert line.split()[1:] == [
            f"{(shops['validation'] == shop).sum():,}",
            f"{own.threshold:.3f}" + ("" if own.certified else "*"),
            f"{100 * own.coverage:.1f}",
            f"{100 * accept.sum() / (shops['test'] == shop).sum():.1f}",
            f"{100 * test_right[accept].mean():.1f}",
        ]
    words = ["evaluate", run, "--category", "colour"]
    fails(capsys, words, "the validation titles have no such column; they have shop")


def test_the_page_says_the_same(made, capsys):
    run = made / "run"
    for page in (run / "report.html", made / "page.html"):
        if page.name == "page.html":
            shown(["compare", run, "--output", page], capsys)
        text = page.read_text(encoding="utf-8")
        parser = Tables()
        parser.feed(text)
        table = next(t for t in parser.tables if t[0][1:3] == ["wanted", "accept from"])
        names = [name for name in dict.fromkeys(row[0] for row in table[1:]) if name]
        names = [name for name in names if "catalogue" not in name]
        files = dict(zip(names, RULES.values(), strict=True))
        catalogue, name, rows = "", "", 0
        for row in table[1:]:
            if "catalogue" in row[0]:
                catalogue = row[0].split()[0].lower()
                continue
            name, rows = row[0] or name, rows + 1
            precision = float(row[1].split()[0]) / 100
            assert row[2:] == expected_row(run, files[name], catalogue, precision)
        assert rows == 16
        scores, right, groups, _ = arrays(run, RULES[best_rule(run)], "open", "validation")
        found = certified_threshold(scores, right, 0.9, groups=groups)
        assert f"accept from {found.threshold:.3f}, {100 * found.coverage:.0f} % of titles" in text
        # the card: what the threshold accepts of test
        test, *_ = arrays(run, RULES[best_rule(run)], "open", "test")
        share = f"{100 * (test >= found.threshold).mean():.0f} %"
        assert f'<div class="value">{share}</div>' in text


def test_a_run_of_a_version_without_acceptance_models(made, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    for name in ("acceptance", "tfidf-acceptance"):
        for end in ("json", "npz"):
            (run / f"{name}.{end}").unlink()
    results = json.loads((run / "metrics.json").read_text())
    del results["acceptance"]
    (run / "metrics.json").write_text(json.dumps(results))
    out = shown(["evaluate", run], capsys)
    assert "the cosine decides: scored by a version without one" in out
    assert set(rows_of(out, ["TF-IDF", "run"])) and "+ acceptance" not in out
    # and again with the data: both come back, the models bit for bit
    assert rows_of(
        shown(["evaluate", run, "--data", made / "data"], capsys).split("Best on")[1], RULES
    )
    for name in ("acceptance.json", "tfidf-acceptance.json"):
        assert (run / name).read_bytes() == (made / "run" / name).read_bytes()


def test_tampered_files_are_refused_in_one_line(made, tmp_path, capsys):
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    whole = (run / "acceptance.json").read_bytes()
    (run / "acceptance.json").write_bytes(whole.replace(b'"answered"', b'"Answered"', 1))
    fails(capsys, ["evaluate", run], "acceptance.npz", "not made by the acceptance model beside it")
    fails(capsys, ["compare", run], "acceptance.npz")
    (run / "acceptance.json").unlink()
    fails(capsys, ["evaluate", run], "acceptance.json: is missing beside acceptance.npz")
    (run / "acceptance.json").write_bytes(whole)
    damaged = bytearray((run / "acceptance.npz").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (run / "acceptance.npz").write_bytes(bytes(damaged))
    fails(capsys, ["evaluate", run], "acceptance.npz", "damaged")


def test_a_kill_while_results_are_written_leaves_no_half_of_them(
    made, tmp_path, capsys, monkeypatch
):
    run = tmp_path / "run"
    shutil.copytree(made / "run", run)
    before = {path.name: path.read_bytes() for path in run.glob("*acceptance.json")}
    assert before

    def killed(*_, **__):
        raise KeyboardInterrupt

    words = ["evaluate", str(run), "--data", str(made / "data")]
    with monkeypatch.context() as patched:
        patched.setattr("alc_kernels.acceptance.AcceptanceModel.save", killed)
        assert main(words) != 0
    told = capsys.readouterr().err
    assert "the trained model is in" in told and f"alc evaluate {run} --data DIR" in told
    fails(capsys, ["evaluate", run], "has no metrics.json: the run did not finish")
    assert main(words) == 0
    assert {path.name: path.read_bytes() for path in run.glob("*acceptance.json")} == before
    first, second = (
        json.loads((folder / "metrics.json").read_text()) for folder in (run, made / "run")
    )
    assert first["metrics"] == second["metrics"]


def test_too_few_validation_titles_leave_it_to_the_cosine(tmp_path, capsys):
    save_dataset(make_dataset(queries=40), tmp_path / "data")
    words = ["train", "--data", tmp_path / "data", "--output", tmp_path / "run", *SETTINGS]
    out = shown(words, capsys)
    told = "no acceptance model, the score decides: "
    assert told in " ".join(out.split()) and "at least 60 are needed" in out
    assert not list((tmp_path / "run").glob("*acceptance*"))
    assert told in shown(["evaluate", tmp_path / "run"], capsys)
    words = ["evaluate", tmp_path / "run", "--data", tmp_path / "data", "--acceptance", "none"]
    assert "no acceptance model, as asked for" in shown(words, capsys)


def test_options_that_need_the_data(made, capsys):
    words = ["evaluate", made / "run", "--acceptance", "none"]
    fails(capsys, words, "--acceptance has no effect without --data DIR")
    words = ["evaluate", made / "run", "--data", made / "data", "--acceptance", "forest"]
    fails(capsys, words, "'forest' is none of auto, none, logistic, boosting")
