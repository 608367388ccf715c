"""Matcher: tables of labels and decisions, changed catalogues, saved and tampered with."""

from __future__ import annotations

import json
import math
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest

from alc_kernels.acceptance import TextFeatures, load_acceptance
from alc_kernels.matching import Matcher, MatcherError, Matches
from alc_kernels.matching.evidence import Evidence, ks_distance
from alc_kernels.matching.table import COLUMNS
from alc_kernels.metrics import certified_threshold
from alc_kernels.trainer.data import load_dataset
from alc_kernels.trainer.data.text.texts import Digests
from alc_kernels.trainer.errors import BadInput, DataError, XMCError
from alc_kernels.trainer.evaluation import load_scored
from alc_kernels.trainer.evaluation.candidates import CandidateSearch
from alc_kernels.trainer.training.checkpoint import checkpoint_folder, load_checkpoint


def same(first: Matches, second: Matches) -> None:
    for name in COLUMNS:
        np.testing.assert_array_equal(first[name], second[name])


def test_labels_and_probabilities_are_those_of_the_parts(
    made: Path, matcher: Matcher, titles: list[str]
) -> None:
    model, state = load_acceptance(made / "run" / "acceptance.json")
    checkpoint = load_checkpoint(checkpoint_folder(made / "run"))
    labels = list(load_dataset(made / "data").labels)
    search = CandidateSearch(
        TextFeatures(labels, state),
        checkpoint.model.encode_queries,
        checkpoint.model.encode_labels(labels),
    )
    found = search(titles)
    best, sure = model.rank(found.features)
    table = matcher.match(titles, k=3)
    np.testing.assert_array_equal(table.label.reshape(-1, 3), best[:, :3])
    np.testing.assert_array_equal(table.probability.reshape(-1, 3), sure[:, :3])
    assert table["text"].tolist() == [labels[n] for n in table.label]
    first = table.best()
    accept = sure[:, 0] >= 0.5
    assert first.decision.tolist() == ["accept" if yes else "review" for yes in accept]
    assert set(table.decision[(table.rank > 1) & accept[table.query]]) == {""}
    assert set(table.decision[(table.rank > 1) & ~accept[table.query]]) == {"review"}


def test_the_table_by_column_row_title_and_frame(matcher: Matcher) -> None:
    asked = ["pump 2 l", "  ", "kettle"]
    table = matcher.match(asked, k=2)
    assert len(table) == 3 and table.query.tolist() == [0, 0, 1, 2, 2]
    assert table.rank.tolist() == [1, 2, 1, 1, 2]
    assert list(table.columns()) == list(COLUMNS)
    by_title = list(table)
    assert [title for title, _ in by_title] == asked
    (blank,) = by_title[1][1]
    assert (blank.label, blank.text, blank.decision) == (-1, "", "review")
    assert math.isnan(blank.cosine) and math.isnan(blank.probability)
    assert by_title[2][1] == list(table.rows())[3:]
    with pytest.raises(KeyError, match="expected one of query, rank, label"):
        table["lable"]
    none = matcher.match([])
    assert len(none) == 0 and list(none) == []
    pandas = pytest.importorskip("pandas")
    frame = table.to_pandas()
    assert isinstance(frame, pandas.DataFrame) and list(frame.columns) == ["title", *COLUMNS]
    assert frame["title"].tolist() == [asked[number] for number in table.query]


def test_any_division_into_batches_and_threads_gives_the_same(
    matcher: Matcher, titles: list[str]
) -> None:
    whole = matcher.match(titles, k=2)
    parts = list(matcher.batches(iter(titles), k=2, size=97))
    assert len(parts) == -(-len(titles) // 97)
    joined = Matches.joined(parts)
    np.testing.assert_array_equal(whole.label, joined.label)
    np.testing.assert_allclose(whole.probability, joined.probability, rtol=1e-5)
    found: dict[int, Matches] = {}

    def work(number: int) -> None:
        for _ in range(3):
            found[number] = matcher.match(titles[number * 50 : number * 50 + 100], k=2)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, table in found.items():
        same(table, matcher.match(titles[number * 50 : number * 50 + 100], k=2))
    assert len(found) == 6


def test_labels_beyond_the_candidates_follow_by_cosine(matcher: Matcher, titles: list[str]) -> None:
    few, many = matcher.match(titles[:20], k=3), matcher.match(titles[:20], k=40)
    assert np.bincount(many.query).tolist() == [40] * 20
    np.testing.assert_array_equal(many.label[many.rank <= 3], few.label)
    for _, rows in many:
        assert len({row.label for row in rows}) == 40
        beyond = [row for row in rows if math.isnan(row.probability)]
        assert len(beyond) >= 30 and beyond == rows[-len(beyond) :]
        cosines = [row.cosine for row in beyond]
        assert cosines == sorted(cosines, reverse=True)
    everything = matcher.match(titles[:1], k=10_000)
    assert sorted(everything.label) == list(range(150))
    with pytest.raises(ValueError, match="k=0"):
        matcher.match(titles[:1], k=0)


def test_certificates_are_those_of_validation(made: Path, matcher: Matcher) -> None:
    scored = load_scored(made / "run")
    assert scored.accepted is not None
    own = scored.accepted["open"]["validation"]
    for precision in (0.3, 0.5):
        expected = certified_threshold(own.top_score, own.correct, precision, groups=own.group)
        certificate = matcher.certificate(precision)
        assert certificate.threshold == expected.threshold and bool(certificate)
        assert f"at {100 * precision:g} %: accept from {expected.threshold:.3f}" in str(certificate)
        assert matcher.accepting(precision).rule.accept == expected.threshold
    beyond = matcher.accepting(0.99)
    assert beyond.rule.accept == math.inf and "not certifiable" in beyond.rule.told
    assert set(beyond.match(["a", "b"]).decision) == {"review"}
    with pytest.raises(ValueError, match="exclude each other"):
        matcher.accepting(0.9, threshold=0.5)
    with pytest.raises(ValueError, match="precision"):
        matcher.accepting(1.5)


def test_least_cost_and_the_band_of_new(matcher: Matcher) -> None:
    cheap, dear = (matcher.accepting(cost=(wrong, 1.0)).rule for wrong in (1.1, 50.0))
    assert cheap.accept < dear.accept and "No precision is promised" in dear.told
    made = matcher.accepting(threshold=0.5, new=0.5)
    assert "called new" in made.rule.told_new
    evidence = made.evidence
    clear = Evidence(  # half of the titles have no label here, and score low
        np.linspace(0, 1, 400, dtype=np.float32), np.arange(400) >= 200, np.arange(400),
        np.arange(400) >= 200, True, evidence.usual, evidence.known,
    )  # fmt: skip
    other = Matcher(matcher.checkpoint, matcher.catalogue, clear, matcher.acceptance,
                    matcher.vectors).accepting(0.9, new=0.1)  # fmt: skip
    assert 0.4 < other.rule.new < 0.6
    decided = other.rule(np.array([0.0, other.rule.new, other.rule.new + 1e-3, 1.0]))
    assert decided.tolist()[:2] == ["new", "new"] and decided.tolist()[3] == "accept"


def test_one_to_one(matcher: Matcher, titles: list[str]) -> None:
    table = matcher.match(titles[:120], k=5)
    assert len(set(table.best().label)) < 120
    apart = matcher.one_to_one(table)
    assert sorted(zip(apart.query, apart.label, strict=True)) == sorted(
        zip(table.query, table.label, strict=True)
    )
    best = apart.best()
    accepted = best.label[best.decision == "accept"]
    assert len(accepted) and len(set(accepted)) == len(accepted)
    assert apart.rank.tolist() == [rank for _ in range(120) for rank in range(1, 6)]
    kept = [r.label for _, rows in apart for r in rows[:1] if r.decision == "accept"]
    assert set(kept) <= set(table.label)


def test_another_catalogue_more_labels_and_fewer(matcher: Matcher, titles: list[str]) -> None:
    own = [str(text) for text in matcher.catalogue.texts]
    ids = [f"p{n}" for n in range(len(own))]
    named = matcher.with_catalogue(own, ids)
    np.testing.assert_array_equal(
        named.match(titles[:50], k=3).label, matcher.match(titles[:50], k=3).label
    )
    assert named.rule == matcher.rule  # it decides as before
    grown = matcher.with_catalogue(own[:140], ids[:140]).append(own[140:], ids[140:])
    same(grown.match(titles[:50], k=3), named.match(titles[:50], k=3))
    shrunk = named.remove(ids[:10])
    same(
        shrunk.match(titles[:50], k=3),
        matcher.with_catalogue(own[10:], ids[10:]).match(titles[:50], k=3),
    )
    assert len(named.catalogue) == 150  # the former is what it was
    for call, message in (
        (lambda: named.append([own[3]], ["new"]), "which the catalogue has already"),
        (lambda: named.append(["unheard of"], ["p3"]), "found the id 'p3', which the label"),
        (lambda: named.append(["unheard of"]), "expected ids where the catalogue has them"),
        (lambda: named.append(["a", " "], ["x", "y"]), "append: label 2 is blank"),
        (lambda: named.append(["a"], ["x", "y"]), "found 1 texts and 2 ids"),
        (lambda: named.remove(["p3", "nothing"]), "found the id 'nothing', which no label has"),
        (lambda: named.remove(ids), "no label would be left"),
        (lambda: matcher.with_catalogue([]), "found no label"),
        (lambda: matcher.with_catalogue(["a", "b"], ["x", "x"]), "the id 'x' stands at two"),
    ):
        with pytest.raises(DataError, match=message):
            call()


def test_a_label_with_several_ids_goes_with_the_last(matcher: Matcher) -> None:
    shop = matcher.with_catalogue(["Pump 2L", "Kettle", "Pump  2L"], ["a", "b", "c"])
    assert shop.catalogue.ids == ["a\tc", "b"] and len(shop.catalogue) == 2
    assert shop.remove(["a"]).catalogue.ids == ["c", "b"]
    assert shop.remove(["a", "c"]).catalogue.ids == ["b"]
    assert shop.label_number("c") == 0 and shop.label_number(" kettle ") is None
    assert shop.label_number("Kettle") == shop.label_number("b") == 1


def test_an_equal_code_decides_first(made: Path, matcher: Matcher, titles: list[str]) -> None:
    own = [str(text) for text in matcher.catalogue.texts]
    codes = {"gtin": [""] * len(own), "mpn": [""] * len(own)}
    codes["gtin"][7], codes["mpn"][8] = "4006381333931", "XK-21/b"
    shop = matcher.with_catalogue(own, codes=codes)
    asked = {"gtin": ["04006381333931", "", ""], "mpn": ["", "xk 21 b", ""]}
    table = shop.match([titles[0], "  x ", titles[1]], k=3, codes=asked)
    best = table.best()
    plain = shop.match([titles[1]], k=3)
    assert best.label.tolist()[:2] == [7, 8]
    assert best.probability.tolist()[:2] == [1, 1]
    assert best.decision.tolist()[:2] == ["accept", "accept"]
    np.testing.assert_array_equal(table.label[table.query == 2], plain.label)
    beyond = shop.accepting(0.99)  # nothing certified: nothing accepted
    assert set(beyond.match([titles[0]], codes={"gtin": asked["gtin"][:1]}).decision) == {"review"}
    with pytest.raises(ValueError, match="codes 'mpn': found 2, expected 1"):
        shop.match([titles[0]], codes={"mpn": ["a", "b"]})
    # Cosines alone, likewise.
    cosine = Matcher(shop.checkpoint, shop.catalogue, cosines(shop), None, shop.vectors)
    found = cosine.accepting(threshold=0.9).match([titles[0]], codes={"gtin": ["4006381333931"]})
    assert (found.label[0], found.decision[0]) == (7, "accept")
    refused = cosine.accepting(0.9999).match([titles[0]], codes={"gtin": ["4006381333931"]})
    assert (refused.label[0], refused.decision[0]) == (7, "review")


def cosines(matcher: Matcher) -> Evidence:
    own = matcher.evidence
    return Evidence(own.scores, own.correct, own.groups, own.answerable, False, {}, own.known)


def test_a_run_without_an_acceptance_model_matches_by_cosine(
    matcher: Matcher, titles: list[str]
) -> None:
    plain = Matcher(matcher.checkpoint, matcher.catalogue, cosines(matcher), None, matcher.vectors)
    plain = plain.accepting(threshold=0.6)
    table = plain.match(titles[:40], k=4)
    scores = matcher.checkpoint.model.encode_queries(titles[:40]) @ matcher.vectors.T
    best = scores.numpy().argmax(axis=1)
    np.testing.assert_array_equal(table.best().label, best)
    assert np.isnan(table.probability).all()
    accepted = table.best().decision == "accept"
    np.testing.assert_array_equal(accepted, table.best().cosine >= np.float32(0.6))
    assert plain.explain(titles[0]).startswith("cosine ")


def test_a_match_is_explained(matcher: Matcher, titles: list[str]) -> None:
    best = matcher.match(titles[:1]).best()
    line = matcher.explain(titles[0])
    assert line.startswith("for: ") and "\n" not in line
    assert line == matcher.explain(titles[0], int(best.label[0]))
    assert line == matcher.explain(f" {titles[0]} ", str(best.text[0]))
    worst = matcher.match(titles[:1], k=150).label[-1]
    assert "against: " in matcher.explain(titles[0], int(worst))
    for label in (150, -1, "no such label"):
        with pytest.raises(DataError, match="expected a number, an id or a text"):
            matcher.explain(titles[0], label)


def test_a_catalogue_of_another_kind_is_warned_of_and_refused(matcher: Matcher) -> None:
    own = [str(text) for text in matcher.catalogue.texts]
    assert matcher.kind == ([], "") and matcher.match(["x"]).warnings == ()
    some = matcher.with_catalogue([*own, *(f"other thing {n}" for n in range(20))])
    (warning,) = some.certificate(0.5).warnings
    assert "11.8 % of its labels are not in the run's data" in warning
    assert some.certificate(0.5) and warning in some.match(["x"]).warnings
    many = matcher.with_catalogue([f"other thing {n}" for n in range(40)]).accepting(0.5)
    certificate = many.certificate(0.5)
    assert not certificate and certificate.threshold == math.inf
    assert "100.0 % of its labels are not in the run's data" in certificate.refused
    assert "above 50 % no threshold is certified" in str(certificate)
    assert set(many.match(["other thing 3"]).decision) == {"review"}
    gone = matcher.with_catalogue(own[:30]).certificate(0.5)
    assert "of the validation titles' products are not in it" in gone.refused


def test_titles_of_another_kind_are_warned_of(matcher: Matcher, titles: list[str]) -> None:
    assert matcher.match(titles).warnings == ()
    odd = [f"{n} something quite other" for n in range(200)]
    warnings = matcher.match(odd).warnings
    assert any("the score is at most" in text for text in warnings)
    assert all("Kolmogorov-Smirnov distance" in text for text in warnings)
    assert matcher.match(odd[:40]).warnings == ()  # too few to say


def test_the_distance_is_scipys_and_chance_is_not_warned_of() -> None:
    from scipy.stats import ks_2samp

    draw = np.random.default_rng(0)
    for _ in range(20):
        first, second = draw.normal(size=70).round(1), draw.normal(0.3, size=90).round(1)
        expected = ks_2samp(first, second)
        distance, place = ks_distance(first, second)
        assert distance == pytest.approx(expected.statistic)
        assert place == pytest.approx(expected.statistic_location)
    usual = {"score": draw.random(300)}
    empty = np.zeros(0)
    evidence = Evidence(empty, empty > 0, empty.astype(int), empty > 0, True, usual)
    assert not any(evidence.unusual({"score": draw.random(60)}) for _ in range(200))
    assert evidence.unusual({"score": draw.random(300) ** 2})


def test_saved_and_read_back(matcher: Matcher, titles: list[str], tmp_path: Path) -> None:
    own = [str(text) for text in matcher.catalogue.texts]
    shop = matcher.with_catalogue(
        own, [f"p{n}" for n in range(150)], {"mpn": ["Q1 x2"] + [""] * 149}
    )
    shop.save(tmp_path / "saved")
    again = Matcher.load(tmp_path / "saved")
    same(again.match(titles[:60], k=3), shop.match(titles[:60], k=3))
    assert again.rule == shop.rule and again.catalogue.codes == shop.catalogue.codes
    assert again.certificate(0.6).threshold == shop.certificate(0.6).threshold
    same(again.append(["New thing"], ["n"]).match(["new thing"]),
         shop.append(["New thing"], ["n"]).match(["new thing"]))  # fmt: skip
    again.remove(["p0"]).save(tmp_path / "saved")  # in its place
    assert len(Matcher.load(tmp_path / "saved").catalogue) == 149
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").touch()
    with pytest.raises(BadInput, match="holds something else"):
        shop.save(tmp_path / "other")
    with pytest.raises(BadInput, match="needs no data folder"):
        Matcher.load(tmp_path / "saved", data="data")


def test_what_was_changed_is_refused_in_a_line(
    made: Path, matcher: Matcher, tmp_path: Path
) -> None:
    matcher.save(tmp_path / "saved")
    names = sorted(p.relative_to(tmp_path / "saved") for p in (tmp_path / "saved").rglob("*.*"))
    assert {"matcher.json", "labels.jsonl", "evidence.npz", "acceptance.json"} <= set(
        map(str, names)
    )
    for name in names:
        for harm in ("changed", "cut", "gone"):
            folder = tmp_path / "harmed"
            shutil.copytree(tmp_path / "saved", folder)
            path = folder / name
            content = path.read_bytes()
            if harm == "gone":
                path.unlink()
            else:
                middle = len(content) // 2
                rest = bytes([content[middle] ^ 1]) + content[middle + 1 :]
                path.write_bytes(content[:middle] + (rest if harm == "changed" else b""))
            with pytest.raises((MatcherError, XMCError, BadInput)) as caught:
                Matcher.load(folder)
            line = str(caught.value)
            assert "\n" not in line and str(folder) in line, (name, harm)
            shutil.rmtree(folder)
    copy = tmp_path / "copy"
    shutil.copytree(made / "run", copy)
    (copy / "acceptance.json").write_text("{}")
    with pytest.raises(XMCError, match="acceptance"):
        Matcher.load(copy)


def test_a_run_that_is_not_ready_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(XMCError, match="no such run folder"):
        Matcher.load(tmp_path / "nothing")
    copy = tmp_path / "run"
    shutil.copytree(made / "run", copy)
    results = json.loads((copy / "metrics.json").read_text())
    results["data"]["folder"] = str(tmp_path / "gone")
    (copy / "metrics.json").write_text(json.dumps(results))
    with pytest.raises(BadInput, match="gone"):
        Matcher.load(copy)
    assert len(Matcher.load(copy, data=made / "data").catalogue) == 150
    known = Matcher.load(copy, data=made / "data").evidence.known
    np.testing.assert_array_equal(known, Digests(load_dataset(made / "data").labels).array())
