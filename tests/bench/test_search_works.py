"""Mining and search in the tables: labels are judged, screening is counted and changes nothing."""

from __future__ import annotations

import math

import pytest
import torch

from alc_kernels.backends.native import library, screening
from alc_kernels.bench import measure, run, search
from alc_kernels.bench.run import Case, measure_case
from alc_kernels.bench.screening import Without, counted
from alc_kernels.bench.works import works

CASE = Case(rows=200, columns=2600, width=32, dtype=torch.float32, backend="native")


def needs_screening() -> None:
    if library.load() is not None or library.simd()[1] == "baseline":
        pytest.skip("no native extension, or no instructions that screen")


def test_a_wrong_or_a_doubled_label_is_an_error() -> None:
    pair = measure.inputs(30, 60, 16, torch.float32, "cpu", seed=1)
    truth = measure.exactly(search.search("torch"), pair, backward=False)
    right = measure.run(search.eager_search, pair, backward=False)
    assert search.judge(right, truth, pair).worst < 1e-6
    wrong = right.clone()
    wrong[1, 3, 9] = float(next(n for n in range(60) if n not in right[1, 3].tolist()))
    assert search.judge(wrong, truth, pair).worst == math.inf
    wrong = right.clone()
    wrong[:, 3, 9] = wrong[:, 3, 8]
    assert search.judge(wrong, truth, pair).worst == math.inf


def test_equal_labels_may_come_in_any_order() -> None:
    pair = search.HARD["equal"](measure.inputs(30, 60, 16, torch.float32, "cpu", seed=1))
    truth = measure.exactly(search.search("torch"), pair, backward=False)
    found = truth.value.clone()
    found[1] = 59 - found[1]
    assert search.judge(found, truth, pair).worst < 1e-6


@pytest.mark.parametrize("name", ["hardest10", "topk10"])
def test_all_providers_agree(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    needs_screening()
    monkeypatch.setenv(screening.SWITCH, "on")
    only = [
        "alc_kernels",
        "eager",
        *(peer.name for peer in works(32, "cpu", 0.5, 0.01)[name].peers),
    ]
    rows = measure_case(CASE, [name], only, device="cpu", repeats=1, sets=1)
    found = {row["provider"]: row for row in rows}
    absent = {n for n, row in found.items() if "not installed" in row.get("missing", "")}
    assert absent <= {"usearch exact, f32"}
    assert all("median_ms" in row for n, row in found.items() if n not in absent)
    ours = found["alc_kernels"]
    assert ours["screened_rows"] == 200 and ours["fallback_rows"] == 0
    assert ours["scored_pairs"] < 200 * 200
    assert "8-bit: 0 rows fell back" in run.line(ours)
    assert "screened_rows" not in found["screening off (native)"]


def test_the_hard_inputs_are_hard(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_screening()
    monkeypatch.setenv(screening.SWITCH, "on")
    only = ["alc_kernels"]
    names = [f"topk10-{kind}" for kind in search.HARD]
    rows = measure_case(CASE, names, only, device="cpu", repeats=1, sets=1)
    for row in rows:
        if row["provider"] == "alc_kernels":
            assert row["fallback_rows"] == 200, row["work"]


def test_a_wrong_bound_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_screening()
    monkeypatch.setenv(screening.SWITCH, "on")
    # A bound of less than nothing: labels that belong to the answer are ruled out.
    monkeypatch.setattr(screening, "BOUND_SCALE", -4.0)
    rows = measure_case(CASE, ["topk10"], ["alc_kernels"], device="cpu", repeats=1, sets=1)
    (ours,) = (row for row in rows if row["provider"] == "alc_kernels")
    assert ours["missing"].startswith("wrong:")


def test_off_is_off_on_the_way_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    needs_screening()
    monkeypatch.setenv(screening.SWITCH, "on")
    pair = measure.inputs(300, 300, 32, torch.float32, "cpu", seed=0)
    step = works(32, "cpu", 0.3, 0.01)["triplet10+tcm"].ours("native")
    assert counted(step, pair)[0].screened == 300
    screening.take_counts()
    measure.run(Without(step), pair)
    assert screening.take_counts().screened == 0


def test_what_does_not_fit_into_memory_is_not_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "free_memory", lambda: 10_000)
    rows = measure_case(CASE, ["topk10"], ["alc_kernels"], device="cpu", repeats=1, sets=1)
    found = {row["provider"]: row for row in rows}
    assert found["eager"]["missing"] == "needs about 0.0 GiB, 0.0 GiB are free"
    assert "median_ms" in found["alc_kernels"]
