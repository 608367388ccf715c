"""Figures against values worked out by hand, their bootstrap, and the comparison of runs."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation_cases import ToyModel, make_dataset, make_scored, with_several_labels

from alc_kernels import metrics
from alc_kernels.metrics import certified_threshold, transferred_coverage
from alc_kernels.trainer.evaluation import (
    BY_KEY,
    Group,
    Predictions,
    RunError,
    best_group,
    decide,
    figures,
    group_runs,
    score_model,
)
from alc_kernels.trainer.evaluation.comparison import differing_settings, group_names
from alc_kernels.trainer.evaluation.judged import (
    Judged,
    curve_band,
    interval,
    label_draws,
    percent,
    replicate,
)


def predictions(scores, correct, *, hits5=None, positives=None, group=None):
    """Predictions with the given top-1 scores and correctness, five labels per query."""
    size = len(scores)
    all_scores = np.tile(np.array(scores, np.float32)[:, None], (1, 5))
    hits = np.zeros((size, 5), bool)
    hits[:, 0] = correct
    if hits5 is not None:
        hits[:, 1:] = np.arange(1, 5) <= np.array(hits5)[:, None]
    return Predictions(
        np.zeros((size, 5), np.int64),
        all_scores,
        hits,
        hits.astype(np.float64),
        np.ones((size, 5)),
        np.ones(size, np.int64) if positives is None else np.array(positives),
        np.arange(size) if group is None else np.array(group),
    )


VALIDATION = predictions([0.9, 0.8, 0.7, 0.6, 0.5], [1, 1, 0, 1, 0])
TEST = predictions(
    [0.95, 0.85, 0.8, 0.75, 0.65, 0.3],
    [1, 1, 0, 1, 0, 0],
    hits5=[1, 0, 0, 0, 2, 0],
    positives=[2, 1, 1, 1, 3, 0],
)


def test_values_by_hand():
    values = Judged(VALIDATION, TEST, (0.9, 0.7)).values()
    assert values["p1"] == pytest.approx(3 / 6)
    assert values["p1_answerable"] == pytest.approx(3 / 5)
    assert values["p5"] == pytest.approx((2 + 1 + 0 + 1 + 2) / 5 / 5)
    # On test two of two are right from .85 on; three of four from .75 on.
    assert values["coverage_90"] == pytest.approx(2 / 6)
    assert values["coverage_70"] == pytest.approx(4 / 6)
    # On validation two of two are right from .8 on; three of four from .6 on.
    assert values["transferred_90_threshold"] == pytest.approx(0.8)
    assert values["transferred_90_coverage"] == pytest.approx(3 / 6)
    assert values["transferred_90_precision"] == pytest.approx(2 / 3)
    assert values["transferred_70_threshold"] == pytest.approx(0.6)
    assert values["transferred_70_coverage"] == pytest.approx(5 / 6)
    assert values["transferred_70_precision"] == pytest.approx(3 / 5)
    assert np.isnan(values["opis"])


def test_a_precision_out_of_reach_accepts_nothing():
    never = predictions([0.9, 0.8], [0, 0])
    values = Judged(never, TEST).values()
    assert values["transferred_90_threshold"] == np.inf
    assert values["transferred_90_coverage"] == 0.0
    assert np.isnan(values["transferred_90_precision"])


def test_certified_figures_by_hand():
    splits = make_scored().predictions["open"]
    validation, test = splits["validation"], splits["test"]
    values = Judged(validation, test).values()
    for precision in (0.9, 0.95):
        found = certified_threshold(
            validation.top_score, validation.correct, precision, groups=validation.group
        )
        accepted = test.top_score >= found.threshold
        name = f"certified_{percent(precision)}"
        assert values[f"{name}_threshold"] == found.threshold
        assert values[f"{name}_validation"] == found.coverage
        assert values[f"{name}_coverage"] == pytest.approx(accepted.mean())
        right = test.correct[accepted].mean() if accepted.any() else np.nan
        assert values[f"{name}_precision"] == pytest.approx(right, nan_ok=True)
    assert values["certified_90_coverage"] > 0
    never = Judged(predictions([0.9, 0.8], [1, 1]), TEST).values()
    assert never["certified_90_threshold"] == np.inf and never["certified_90_coverage"] == 0.0


def test_agrees_with_the_metrics_package():
    run = make_scored()
    splits = run.predictions["open"]
    values = Judged(splits["validation"], splits["test"]).values()
    for precision in (0.9, 0.95):
        expected = transferred_coverage(
            splits["validation"].top_score,
            splits["validation"].correct,
            splits["test"].top_score,
            splits["test"].correct,
            precision,
        )
        name = f"transferred_{percent(precision)}"
        got = [values[f"{name}_{what}"] for what in ("threshold", "coverage", "precision")]
        np.testing.assert_allclose(got, expected)


def test_ranking_measures_agree_with_the_metrics_package():
    """On queries with several labels, filter pairs and queries without an answer."""
    dataset = with_several_labels()
    inverse = metrics.inverse_propensity(dataset.train.relation, 0.6, 2.6)
    found = score_model(ToyModel(), dataset)
    for name, catalogue in dataset.catalogues().items():
        got = Judged(found[name]["validation"], found[name]["test"]).values()
        indices, truth = found[name]["test"].indices, catalogue.relations["test"]
        places = np.searchsorted(catalogue.label_ids, indices)  # in the catalogue's own numbers
        own = inverse[catalogue.label_ids]
        expected = {"p1": metrics.precision_at_k(places, truth, 1, open_set=True)}
        expected["p1_answerable"] = metrics.precision_at_k(places, truth, 1)
        for k in (3, 5):
            expected[f"p{k}"] = metrics.precision_at_k(places, truth, k)
            expected[f"ndcg{k}"] = metrics.ndcg_at_k(places, truth, k)
        for k in (5, 10):
            expected[f"recall{k}"] = metrics.recall_at_k(places, truth, k)
        for k in (1, 3, 5):
            expected[f"psp{k}"] = metrics.psp_at_k(places, truth, k, own)
        for key, value in expected.items():
            assert 0 < value < 1 and got[key] == pytest.approx(value, rel=1e-12), key


def test_every_measure_is_described_and_every_figure_is_a_measure():
    values = Judged(VALIDATION, TEST).values()
    assert set(values) == set(BY_KEY)
    assert all(measure.meaning for measure in BY_KEY.values())


def test_a_run_of_the_closed_catalogue_alone_is_measured_and_chosen():
    dataset = make_dataset(held_out=False)
    good, bad = make_scored("good", 0.4, dataset), make_scored("bad", 1.5, dataset, loss="alc")
    assert list(figures(good.predictions, replicates=5)) == ["closed"]
    groups = group_runs([bad, good], replicates=20)
    made = decide(groups)
    assert made.catalogue == "closed" and made.run is good
    assert set(groups[0].figures()) == {"closed"}
    with pytest.raises(RunError, match="different data"):
        group_runs([good, make_scored("open")])


def test_the_seed_to_ship_is_the_best_on_validation():
    dataset = make_dataset()
    runs = [make_scored(f"s{s}", noise, dataset, seed=s) for s, noise in enumerate((1.2, 0.4, 0.9))]
    group = group_runs(runs, replicates=10)[0]
    assert group.shipped.runs == [runs[1]]
    assert group.shipped.figures()["open"]["p1"].value == pytest.approx(
        runs[1].predictions["open"]["test"].correct.mean()
    )


def test_a_decision_says_what_is_within_noise():
    dataset = make_dataset()
    best = make_scored("best", 0.4, dataset)
    near = make_scored("near", 0.45, dataset, loss="alc")
    far = make_scored("far", 3.0, dataset, loss="tcm")
    made = decide(group_runs([far, best, near], replicates=200))
    assert made.run is best
    assert {rival.group.name: rival.within_noise for rival in made.rivals} == {
        "TCM": False, "ALC": True,
    }  # fmt: skip
    assert [rival.group.name for rival in made.within_noise] == ["ALC"]
    value = made.group.points()["open"]
    assert made.threshold == value["certified_90_threshold"]
    assert made.coverage.value == value["certified_90_coverage"]
    assert made.certified == value["certified_90_validation"]


def test_groups_of_several_methods_are_named_by_method_and_loss():
    configs = [
        {"method": "ngame", "loss": "alc"},
        {"method": "prime", "loss": "alc", "num_negatives": 100},
        {"method": "prime", "loss": "base", "num_negatives": 100},
        {"method": "prime", "loss": "base", "num_negatives": 50},
    ]
    runs = [make_scored(str(place), **config) for place, config in enumerate(configs)]
    assert group_names(runs) == [
        "NGAME ALC",
        "PRIME ALC",
        "PRIME base, num_negatives=100",
        "PRIME base, num_negatives=50",
    ]


def test_what_does_not_change_training_does_not_part_groups():
    runs = [
        make_scored("a", checkpoint_every=0, tensorboard=False, seed=0),
        make_scored("b", checkpoint_every=5, tensorboard=True, seed=1),
    ]
    assert len(group_runs(runs, replicates=5)) == 1


def test_curve_goes_through_what_the_metrics_package_says_and_its_band_holds_it():
    splits = make_scored().predictions["open"]
    test = splits["test"]
    band = curve_band(splits, replicates=200)
    curve = metrics.precision_coverage_curve(test.top_score, test.correct)
    assert band.precision[-1] == pytest.approx(test.correct.mean())
    place = np.searchsorted(band.coverage, 0.5)
    at = np.searchsorted(curve.coverage, band.coverage[place])
    assert band.precision[place] == pytest.approx(curve.precision[at], abs=0.02)
    inside = (band.low <= band.precision) & (band.precision <= band.high)
    assert inside.mean() > 0.95
    # Where every title is accepted the curve is P@1, and so is its interval.
    p1 = interval(replicate(splits, replicates=200)[1]["p1"])
    assert (band.low[-1], band.high[-1]) == pytest.approx(p1)


def test_weights_are_repetitions():
    """Weight 2 is the query given twice, weight 0 the query left out, in both splits."""
    generator = np.random.default_rng(0)
    run = make_scored()
    splits = run.predictions["open"]
    weights = {s: generator.integers(0, 3, size=len(p)) for s, p in splits.items()}
    judged = Judged(splits["validation"], splits["test"])
    weighted = judged.replicates(weights["validation"][None], weights["test"][None])
    repeated = {}
    for split, part in splits.items():
        rows = np.repeat(np.arange(len(part)), weights[split])
        taken = {f.name: getattr(part, f.name)[rows] for f in dataclasses.fields(part)}
        repeated[split] = Predictions(**taken)
    expected = Judged(repeated["validation"], repeated["test"]).values()
    # Neither knows weights: a certificate is of the titles as they are.
    for key in [key for key in expected if key == "opis" or key.startswith("certified_")]:
        del expected[key]
    certified = {key for key in weighted if key.startswith("certified_")}
    assert weighted.keys() - certified == expected.keys()
    for key, value in expected.items():
        assert weighted[key][0] == pytest.approx(value), key


def test_a_draw_without_any_query_of_a_split_is_undefined():
    made = Judged(VALIDATION, TEST).replicates(np.zeros((1, 5)), np.ones((1, 6)))
    assert np.isnan(made["coverage_90"][0])


def test_draws_keep_a_label_together_in_both_splits():
    groups = {"validation": np.array([3, 3, 7, -1, -1]), "test": np.array([7, 3, -1])}
    splits = {name: SimpleNamespace(group=group) for name, group in groups.items()}
    pairs = list(label_draws(splits, replicates=400))
    validation = np.concatenate([v for v, _ in pairs])
    test = np.concatenate([t for _, t in pairs])
    assert validation.shape == (400, 5) and test.shape == (400, 3)
    np.testing.assert_array_equal(validation[:, 0], validation[:, 1])
    np.testing.assert_array_equal(validation[:, 0], test[:, 1])
    np.testing.assert_array_equal(validation[:, 2], test[:, 0])
    assert (validation[:, 3] != validation[:, 4]).any()
    one_of_each = validation[:, [0, 2, 3, 4]].sum(axis=1) + test[:, 2]
    assert (one_of_each == 5).all()
    assert abs(validation.mean() - 1) < 0.1
    again = np.concatenate([v for v, _ in label_draws(splits, replicates=400)])
    np.testing.assert_array_equal(validation, again)


def test_interval_of_a_mean_is_as_wide_as_theory_says():
    generator = np.random.default_rng(3)
    test = predictions(generator.random(2000), generator.random(2000) < 0.5)
    point, drawn = replicate({"validation": VALIDATION, "test": test})
    low, high = interval(drawn["p1"])
    assert low < point["p1"] < high
    assert high - low == pytest.approx(2 * 1.96 * 0.5 / np.sqrt(2000), rel=0.15)


def test_interval_leaves_out_nan_and_keeps_infinity():
    values = np.array([np.nan, 1.0, 2.0, np.inf])
    assert interval(values) == (1.0, np.inf)
    assert all(np.isnan(interval(np.array([np.nan]))))


def test_figures_carry_an_interval():
    run = make_scored()
    for rows in figures(run.predictions, replicates=50).values():
        assert rows["p1"].low < rows["p1"].value < rows["p1"].high
        assert np.isnan(rows["opis"].low)


def test_seeds_are_grouped_and_averaged_and_differences_paired():
    dataset = make_dataset()
    bad = [make_scored(f"b{s}", 1.2 + s / 10, dataset, loss="base", seed=s) for s in (0, 1)]
    good = [make_scored("a0", 0.4, dataset, loss="alc", seed=0)]
    groups = group_runs([bad[0], good[0], bad[1]], replicates=100)
    assert [(g.name, len(g.runs)) for g in groups] == [("base", 2), ("ALC", 1)]
    means = groups[0].figures()["open"]["p1"]
    expected = np.mean([run.predictions["open"]["test"].correct.mean() for run in bad])
    assert means.value == pytest.approx(expected)
    assert groups[0].points()["open"]["p1"] == pytest.approx(expected)
    gain = groups[1].difference(groups[0])["open"]["p1"]
    assert gain.value == pytest.approx(groups[1].points()["open"]["p1"] - expected)
    assert 0 < gain.low < gain.value < gain.high
    # Paired: against itself there is no difference and no doubt.
    same = Group("copy", bad, replicates=100).difference(groups[0])["open"]["coverage_90"]
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_runs_on_different_data_are_refused():
    runs = [make_scored("one"), make_scored("two", dataset=make_dataset(seed=1))]
    with pytest.raises(RunError, match="runs on different data cannot be compared"):
        group_runs(runs)


def test_groups_of_one_loss_are_named_by_what_differs():
    one, two = make_scored(epochs=5, margin=0.3), make_scored(epochs=8, margin=0.3, seed=4)
    assert differing_settings([one.config, two.config]) == {"epochs": [5, 8]}
    assert group_names([one, two]) == ["base, epochs=5", "base, epochs=8"]


def test_the_one_to_ship_is_chosen_on_validation_alone():
    dataset = make_dataset()
    good, bad = make_scored("good", 0.4, dataset), make_scored("bad", 1.5, dataset)
    # Exchange what the two did on test: the choice must not move.
    crossed = []
    for run, other in ((good, bad), (bad, good)):
        parts = {
            c: {
                "validation": run.predictions[c]["validation"],
                "test": other.predictions[c]["test"],
            }
            for c in run.predictions
        }
        crossed.append(dataclasses.replace(run, predictions=parts))
    groups = [Group("bad", [crossed[1]]), Group("good", [crossed[0]])]
    assert best_group(groups).name == "good"
    yardstick = Group("yardstick", [good], reference=True)
    assert best_group([yardstick, groups[0]]) is yardstick  # never a run that a baseline beats
    assert best_group([Group("yardstick", [bad], reference=True), groups[1]]).name == "good"
