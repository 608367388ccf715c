"""The loop: what is asked, what answers say, decisions kept once, promises watched, renewals."""

from __future__ import annotations

import csv
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alc_kernels.cli import main
from alc_kernels.cli.arguments import prepare_run_folder
from alc_kernels.matching import Matcher
from alc_kernels.matching.decisions import Decision, Decisions, DecisionsError, with_decisions
from alc_kernels.matching.renewal import FOLDER, load_renewed, watch
from alc_kernels.matching.review import AT_RANDOM, NEAR, Picker, read_reviewed
from alc_kernels.matching.run import Run
from alc_kernels.metrics import PrecisionMonitor
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.data.tables import open_table
from alc_kernels.trainer.errors import DataError


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def truth(data: Path) -> dict[str, list[str]]:
    dataset = load_dataset(data)
    return {
        text: [dataset.labels[n] for n in split.relation[row].indices]
        for split in dataset.splits.values()
        for row, text in enumerate(split.queries)
    }


def answered(made: Path, rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """A review file as somebody who knows the truth fills it in."""
    right = truth(made / "data")
    for row in rows:
        names = [n for n in "12345" if row[f"candidate_{n}"] in right[row["query"]]]
        row["decision"] = names[0] if names else (right[row["query"]] or ["none"])[0]
    return rows


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "run", tmp_path / "run")
    return tmp_path / "run"


def review(made: Path, run: Path, tmp_path: Path, *words: str) -> list[dict[str, str]]:
    out = tmp_path / "review.csv"
    titles = str(made / "data" / "test.raw.txt")
    given_words = ["predict", str(run), titles, "--output", str(tmp_path / "out.csv")]
    assert main([*given_words, "--review", str(out), *words]) == 0
    return rows_of(out)


def recertify(run: Path, *words: object, code: int = 0) -> None:
    assert main(["recertify", str(run), *map(str, words)]) == code


def test_what_is_asked(matcher: Matcher, titles: list[str]) -> None:
    whole, parts = Picker(matcher, 40), Picker(matcher, 40)
    whole.add(matcher.match(titles, k=5))
    for start in range(0, len(titles), 100):
        parts.add(matcher.match(titles[start : start + 100], k=5))
    asked = whole.chosen()
    assert [one.number for one in asked] == [one.number for one in parts.chosen()]
    assert len(asked) == len({one.title for one in asked}) == 40
    assert sum(one.why == AT_RANDOM for one in asked) == 10
    for start in range(0, 40, 8):  # evenly among the others
        assert sum(one.why == AT_RANDOM for one in asked[start : start + 8]) == 2
    near = [one for one in asked if one.why == NEAR]
    labels = [one.matches[0].label for one in near]
    assert len(set(labels)) == len(labels)  # one of each label before a second
    scores = matcher.scores(matcher.match(titles).best())
    chosen = np.array([one.number for one in near])
    assert np.abs(scores[chosen] - 0.5).mean() < np.abs(scores - 0.5).mean() / 2
    # The random ones do not depend on scores: another threshold, the same ones.
    other = Picker(matcher.accepting(threshold=0.9), 40)
    other.add(matcher.match(titles[::-1], k=5))
    drawn = {one.title for one in asked if one.why == AT_RANDOM}
    assert drawn == {one.title for one in other.chosen() if one.why == AT_RANDOM}
    later = Picker(matcher, 40, decided=[one.title for one in asked])
    later.add(matcher.match(titles, k=5))
    assert not {one.title for one in later.chosen()} & {one.title for one in asked}
    few = Picker(matcher, 40)
    few.add(matcher.match([*titles[:3], "", titles[0]], k=5))
    assert sorted(one.number for one in few.chosen()) == [0, 1, 2]


def test_a_round_from_titles_to_a_renewed_run(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = review(made, run, tmp_path, "--precision", "0.5", "--review-size", "80")
    assert len(rows) == 80 and {row["promise"] for row in rows} == {"0.5"}
    assert sum(row["asked"] == "random" for row in rows) == 20
    assert all(row["because"].startswith("for: ") for row in rows)
    filled = write(tmp_path / "reviewed.csv", answered(made, rows))
    before = Matcher.load(run)
    capsys.readouterr()
    recertify(run, filled, "--precision", "0.5")
    told = capsys.readouterr().out
    assert "80 new, 0 known already, 0 changed, 0 without a decision" in told
    assert "Promise of 50 %: VALID" in told and "drawn at random" in told
    assert "224 validation titles and 20 reviewed titles drawn at random" in told
    after = Matcher.load(run)
    assert after.evidence.renewed and len(after.evidence.scores) == 224 + 20
    assert after.acceptance is not None and before.acceptance is not None
    assert after.acceptance[0].answered > before.acceptance[0].answered
    # Sent again, it changes nothing.
    kept = {path.name: path.read_bytes() for path in (run / FOLDER).iterdir()}
    recertify(run, filled, "--precision", "0.5")
    assert "0 new, 80 known already" in capsys.readouterr().out
    assert kept == {path.name: path.read_bytes() for path in (run / FOLDER).iterdir()}
    # What was decided is not asked about again, and predict says what it rests on.
    again = review(made, run, tmp_path, "--precision", "0.5", "--review-size", "80")
    assert not {row["query"] for row in again} & {row["query"] for row in rows}
    assert "model is fitted on 224 validation titles and 80 decisions" in capsys.readouterr().err
    # As any table, with another decision: the later one counts.
    pandas = pytest.importorskip("pandas")
    rows[0]["decision"] = "none"
    pandas.DataFrame(rows[:3]).to_excel(tmp_path / "more.xlsx", index=False)
    recertify(run, tmp_path / "more.xlsx", "--precision", "0.5")
    shown = capsys.readouterr()
    assert "0 new, 2 known already, 1 changed" in shown.out
    assert f"more.xlsx: {rows[0]['query'][:40]!r} is decided as none of the catalogue" in shown.err
    assert main(["predict", str(run), str(made / "data" / "test.raw.txt"), "--output",
                 str(run / "decisions.sqlite")]) == 2  # fmt: skip
    assert "is a file of the run" in capsys.readouterr().err
    # Another state of the run: the renewal is of the former one.
    found = Run(run)
    assert found.renewed is not None
    shutil.copy(run / "tfidf.npz", run / "predictions.npz")
    assert load_renewed(found) is None


def test_a_broken_promise_is_void_and_only_random_titles_certify(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = review(made, run, tmp_path, "--precision", "0.5", "--review-size", "160")
    for row in rows:
        row["decision"] = "wrong"
    recertify(run, write(tmp_path / "wrong.csv", rows), "--precision", "0.5")
    told = capsys.readouterr().out
    assert "Promise of 50 %: VOID" in told and "certified on no validation titles and 40" in told
    assert "Now:    at 50 %: not certifiable" in told
    assert set(Matcher.load(run).accepting(0.5).match(["kettle"]).decision) == {"review"}


def test_what_answers_say(matcher: Matcher, tmp_path: Path) -> None:
    text = str(matcher.catalogue.texts[9])
    path = tmp_path / "r.csv"
    head = "query,decision,candidate_1,candidate_2,asked,accepted,promise\n"
    lines = [
        "a,1,A,B,random,yes,0.9", "b,2,A,B,near the threshold,no,0.9", "c,none,A,B,random,no,",
        "d,wrong,A,B,,,", "e,,A,B,random,yes,0.9", f"f,{text},A,,,,", "g,Yes,A,,,yes,\"0,9\"",
    ]  # fmt: skip
    path.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    found = read_reviewed(open_table(path), matcher.label_text)
    assert found.blank == 1 and found.notes == []
    made = {one.title: (one.verdict, one.label) for one in found.decisions}
    assert made == {
        "a": ("label", "A"), "b": ("label", "B"), "c": ("none", ""), "d": ("wrong", ""),
        "f": ("label", text), "g": ("label", "A"),
    }  # fmt: skip
    by = {one.title: one for one in found.decisions}
    assert by["a"].audit and by["a"].accepted and by["a"].correct and by["g"].promise == 0.9
    assert not by["b"].audit and not by["b"].correct and not by["d"].correct
    assert (by["a"].product, by["d"].product) == ("= A", "? A")
    for line, message in (
        ("h,3,A,B,,,", "line 2: found the decision '3', expected the number of a candidate"),
        ("h,2,A,,,,", "line 2: found the decision '2', but there is no such candidate"),
        ("h,nothing like it,A,,,,", "none, wrong, or a label of the catalogue by text or id"),
        (",1,A,,,,", "line 2: found a decision about a blank title"),
        ("h,1,A,,,,7", "line 2: found the promise '7', expected a precision below 1"),
    ):
        path.write_text(f"{head}{line}\n", encoding="utf-8")
        with pytest.raises(DataError, match=message):
            read_reviewed(open_table(path), matcher.label_text)
    path.write_text("query,answer\na,1\n", encoding="utf-8")
    with pytest.raises(DataError, match="expected 'decision'"):
        read_reviewed(open_table(path), matcher.label_text)


def test_random_titles_left_out_on_the_way(matcher: Matcher, tmp_path: Path) -> None:
    path = tmp_path / "r.csv"

    def audits(answers: str) -> tuple[int, list[str]]:
        lines = [f"t{n},{'1' if one == 'x' else ''},A,random" for n, one in enumerate(answers)]
        path.write_text("query,decision,candidate_1,asked\n" + "\n".join(lines) + "\n")
        found = read_reviewed(open_table(path), matcher.label_text)
        return sum(one.audit for one in found.decisions), found.notes

    assert audits("xxxxxxxxxx..........") == (10, [])  # stopped half way
    kept, notes = audits("xxxxx.xxxxx.........")
    assert kept == 10 and "1 of 11 titles drawn at random have no decision" in notes[0]
    kept, notes = audits("x.x.xxx")
    assert kept == 0 and "do not enter the certificate" in notes[0]
    assert audits("....") == (0, [])


def test_decisions_are_kept_once(tmp_path: Path) -> None:
    kept = Decisions(tmp_path / "d.sqlite")
    assert kept.all() == [] and not kept.path.exists()
    first = [Decision("a", "A", "label", "A", True, True, 0.9), Decision("b", "B", "wrong")]
    assert kept.add(first, "one.csv").new == 2
    again = kept.add([*first, Decision("c", "C", "none")], "two.csv")
    assert (again.new, again.again, again.changed) == (1, 2, [])
    changed = kept.add([Decision("b", "B", "label", "X")], "three.csv")
    assert changed.changed == [
        "three.csv: 'b' is decided as 'X', before it was not the suggested label; the later "
        "decision counts"
    ]
    found = Decisions(kept.path).all()
    assert [(one.title, one.verdict, one.round) for one in found] == [
        ("a", "label", 1), ("b", "label", 1), ("c", "none", 2),
    ]  # fmt: skip
    assert found[0] == first[0]._replace(round=1)
    for content in (b"", b"not a database at all, but text", kept.path.read_bytes()[:1500]):
        (tmp_path / "bad.sqlite").write_bytes(content)
        with pytest.raises(DecisionsError, match=r"bad\.sqlite"):
            Decisions(tmp_path / "bad.sqlite").all()


TITLE = st.sampled_from("abcdef")
VERDICT = st.sampled_from(["label", "none", "wrong"])
DECISION = st.builds(
    lambda title, verdict, label: Decision(title, "A", verdict, label * (verdict == "label")),
    TITLE, VERDICT, st.sampled_from("AB"),
)  # fmt: skip


@settings(max_examples=25, deadline=None)
@given(files=st.lists(st.lists(DECISION, max_size=5), max_size=5))
def test_the_last_word_counts_however_it_is_sent(
    tmp_path_factory: pytest.TempPathFactory, files: list[list[Decision]]
) -> None:
    kept = Decisions(tmp_path_factory.mktemp("d") / "d.sqlite")
    last: dict[str, tuple[str, str]] = {}
    order: list[str] = []
    for file in files:
        added = kept.add(file, "f")
        assert added.new + added.again + len(added.changed) == len(file)
        for one in file:
            if one.title not in last:
                order.append(one.title)
            last[one.title] = (one.verdict, one.label)
    found = kept.all()
    assert [one.title for one in found] == order
    assert {one.title: (one.verdict, one.label) for one in found} == last


def test_the_watch_is_the_monitor_file_by_file() -> None:
    draw = np.random.default_rng(1)
    decisions, monitor = [], PrecisionMonitor(0.9, largest_group=3)
    for number in range(1, 5):
        right = draw.random(30) < 0.9
        labels = [f"L{draw.integers(20)} of {number}" for _ in right]
        decisions += [
            Decision(f"{number} {n}", label, "label", label if ok else "X " + label, True, True,
                     0.9, number)
            for n, (ok, label) in enumerate(zip(right, labels, strict=True))
        ]  # fmt: skip
        part = decisions[-30:]
        monitor.update([one.correct for one in part], [one.product for one in part])
    others = [
        Decision("not random", "A", "wrong", "", False, True, 0.9, 1),
        Decision("not accepted", "A", "wrong", "", True, False, 0.9, 1),
        Decision("another promise", "A", "wrong", "", True, True, 0.5, 1),
    ]
    found = watch([*others, *decisions], 0.9, 3)
    assert found.state == monitor.state and f"{monitor.evidence:.2f}" in found.told
    assert f"{monitor.wrong} of 120 accepted titles" in found.told
    assert watch(others, 0.9).state == "unwatched"
    bad = [Decision(f"t{n}", f"A{n}", "wrong", "", True, True, 0.9, 1) for n in range(30)]
    assert watch(bad, 0.9) == watch(bad, 0.9) and watch(bad, 0.9).state == "void"
    # After a void promise the next file begins anew, and it is remembered.
    good = [Decision(f"g{n}", f"B{n}", "label", f"B{n}", True, True, 0.9, 2) for n in range(30)]
    later = watch([*bad, *good], 0.9)
    assert later.state == "valid" and later.void_before


@pytest.mark.slow  # four starts of the command
def test_killed_it_leaves_the_old_or_the_new(made: Path, run: Path, tmp_path: Path) -> None:
    rows = answered(made, review(made, run, tmp_path, "--precision", "0.5"))
    first, second = (
        write(tmp_path / name, part) for name, part in (("a.csv", rows[:40]), ("b.csv", rows[40:]))
    )
    recertify(run, first, "--precision", "0.5")
    words = [sys.executable, "-m", "alc_kernels", "recertify", str(run), str(second)]
    counts = set()
    for wait in (2.5, 4.5):
        process = subprocess.Popen([*words, "--precision", "0.5"], stdout=subprocess.DEVNULL)
        time.sleep(wait)
        process.kill()
        process.wait()
        counts.add(len(Decisions(run / "decisions.sqlite").all()))
        found = Matcher.load(run)
        assert found.evidence.renewed and len(found.match(["kettle"])) == 1
    assert counts <= {40, len(rows)}
    recertify(run, second, "--precision", "0.5")
    kept = {path.name: path.read_bytes() for path in (run / FOLDER).iterdir()}
    recertify(run, "--precision", "0.5")
    assert kept == {path.name: path.read_bytes() for path in (run / FOLDER).iterdir()}


def test_a_renewal_that_was_changed_is_refused(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = answered(made, review(made, run, tmp_path, "--review-size", "20"))
    recertify(run, write(tmp_path / "r.csv", rows))
    for name in ("evidence.npz", "acceptance.json", "renewed.json"):
        path = run / FOLDER / name
        content = path.read_bytes()
        path.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
        capsys.readouterr()
        assert main(["predict", str(run), str(made / "data" / "test.raw.txt")]) == 2
        line = capsys.readouterr().err
        assert line.count("\n") == 1 and name in line
        path.write_bytes(content)


def test_words_that_make_no_sense(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    recertify(run, code=2)
    assert "there are no decisions yet; alc predict" in capsys.readouterr().err
    recertify(run, tmp_path / "none.csv", code=2)
    assert "none.csv: no such file" in capsys.readouterr().err
    bad = tmp_path / "bad.csv"
    bad.write_text("query,decision\na,no such label\n")
    recertify(run, bad, code=2)
    line = capsys.readouterr().err
    assert "bad.csv, line 2: found the decision 'no such label'" in line
    assert not (run / "decisions.sqlite").exists()
    titles = str(made / "data" / "test.raw.txt")
    for words, message in (
        (["--cost-wrong", "3"], "--cost-wrong and --cost-review: expected both"),
        (["--cost-wrong", "3", "--cost-review", "1", "--precision", ".9"], "leave --precision"),
        (["--review-size", "9"], "--review-size needs --review FILE"),
        (["--one-to-one", "--review", "r.csv"], "exclude each other"),
        (["--output", "same.csv", "--review", "same.csv"], "is the file of --output"),
        (["--code-columns", "ean"], "--code-columns needs --catalogue FILE"),
    ):
        assert main(["predict", str(run), titles, *words]) == 2
        assert message in capsys.readouterr().err


def test_decisions_become_training_pairs(made: Path, run: Path, tmp_path: Path) -> None:
    dataset = load_dataset(made / "data")
    open_label = int(np.flatnonzero(~dataset.held_out)[0])
    held_out = int(np.flatnonzero(dataset.held_out)[0])
    name = dataset.labels[open_label]
    decisions = [
        Decision("a quite new title", "", "label", name),
        Decision(dataset.train.queries[0], "", "label", name),
        Decision(dataset.test.queries[0], "", "label", name),
        Decision("x", "", "label", dataset.labels[held_out]),
        Decision("y", "", "label", "unheard of"),
        Decision("z", "", "none"),
    ]
    more, notes = with_decisions(dataset, decisions)
    assert len(more.train) == len(dataset.train) + 1
    assert more.train.queries[-1] == "a quite new title"
    assert more.train.relation[len(dataset.train)].indices.tolist() == [open_label]
    assert open_label in more.train.relation[0].indices
    assert notes[0] == "2 decisions became training pairs, 1 of new titles"
    assert len(notes) == 4
    # From the command line, out of both kinds of files.
    pairs = tmp_path / "pairs.csv"
    text = "".join(f"title {n} of {n % 30},product {n % 30}\n" for n in range(300))
    pairs.write_text("query,label\n" + text)
    Decisions(run / "decisions.sqlite").add(
        [Decision(f"fresh {n}", "", "label", f"product {n}") for n in range(30)], "r.csv"
    )
    reviewed = tmp_path / "reviewed.csv"
    reviewed.write_text("query,decision\n" + "".join(f"fresh {n},product {n}\n" for n in range(30)))
    made_of = []
    for number, source in enumerate((run / "decisions.sqlite", reviewed)):
        out = tmp_path / f"data{number}"
        words = ["data", "convert", str(pairs), "--output", str(out), "--split-by", "query"]
        assert main([*words, "--decisions", str(source)]) == 0
        made_of.append(list(load_dataset(out).train.queries))
    assert made_of[0] == made_of[1]
    assert sum(title.startswith("fresh") for title in made_of[0]) == 30
    assert not list(tmp_path.glob(".data*"))
    assert main([*words[:4], str(tmp_path / "none"), "--decisions", str(tmp_path / "no")]) == 2


def test_a_new_run_leaves_the_decisions(run: Path) -> None:
    Decisions(run / "decisions.sqlite").add([Decision("a", "A", "none")], "r.csv")
    (run / FOLDER).mkdir()
    prepare_run_folder(run, overwrite=True)
    assert [path.name for path in run.iterdir()] == ["decisions.sqlite"]


def test_decisions_bring_a_model_where_the_cosine_decided(
    made: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for end in ("json", "npz"):
        (run / f"acceptance.{end}").unlink()
    before = Matcher.load(run)
    assert before.acceptance is None and not before.evidence.probabilities
    rows = review(made, run, tmp_path, "--precision", "0.5", "--review-size", "40")
    assert all(row["because"].startswith("cosine ") for row in rows)
    recertify(run, write(tmp_path / "r.csv", answered(made, rows)), "--precision", "0.5")
    assert "the acceptance model is fitted on" in capsys.readouterr().out
    after = Matcher.load(run)
    assert after.acceptance is not None and after.evidence.probabilities
    found = after.match([rows[0]["query"]])
    assert 0 <= found.probability[0] <= 1
