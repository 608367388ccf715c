"""Every kernel variant compiles for every GPU generation within its recorded budget."""

from __future__ import annotations

import pytest

from tests.compile_gate.gate import TARGETS, load_budgets, problems, run_workers


def _check(target: str, *, fast: bool) -> None:
    reports = run_workers(target, fast=fast)
    assert reports, "no variant was compiled"
    budgets = load_budgets()
    failures = {
        report["name"]: found for report in reports if (found := problems(report, target, budgets))
    }
    lines = [f"{name}: {'; '.join(found)}" for name, found in failures.items()]
    assert not lines, f"{len(lines)} of {len(reports)} variants on {target}:\n" + "\n".join(lines)


@pytest.mark.timeout(900)
def test_the_main_variants_on_hopper():
    _check("sm_90", fast=True)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("target", TARGETS)
def test_every_variant(target):
    _check(target, fast=False)


GOOD = {"name": "a", "products": True, "matrix_units": True, "registers": 128, "stack": 0}
GOOD = {**GOOD, "shared": 1000}
BUDGET = {"a": {"sm_90": {"registers": 128, "stack": 0, "shared": 1000}}}


def test_the_gate_passes_what_is_within_its_budget():
    assert problems(GOOD, "sm_90", BUDGET) == []
    assert problems({**GOOD, "products": False, "matrix_units": False}, "sm_90", BUDGET) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"error": "CompilationError"}, "does not compile"),
        ({"matrix_units": False}, "matrix units"),
        ({"registers": 140}, "registers"),
        ({"stack": 200}, "stack"),
        ({"shared": 5000}, "shared"),
        ({"shared": 300_000}, "exceeds"),
        ({"name": "b"}, "no recorded budget"),
    ],
)
def test_the_gate_stops(change, message):
    assert any(message in problem for problem in problems({**GOOD, **change}, "sm_90", BUDGET))


def test_a_target_without_budget_stops_the_gate():
    assert any("no recorded budget" in problem for problem in problems(GOOD, "sm_80", BUDGET))
