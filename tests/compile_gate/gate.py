"""Runs the workers and holds what they report against the recorded budgets.

Record budgets after a change that was meant to alter them (and look at the difference):

    python -m tests.compile_gate.gate [--target sm_90]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
BUDGETS = HERE / "budgets.json"
TARGETS = ("sm_80", "sm_90", "sm_100", "gfx942")
PROCESSES = 2
# Versions of the assembler differ by a little; what is beyond that is a change of the kernel.
SLACK = {"registers": 8, "stack": 64, "shared": 1024}
# Bytes of shared memory that a program can have at all.
SHARED_LIMITS = {"sm_80": 166_912, "sm_90": 232_448, "sm_100": 232_448, "gfx942": 65_536}


def run_workers(target: str, *, fast: bool) -> list[dict[str, Any]]:
    """Compile for one target in ``PROCESSES`` processes; one report per variant."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.compile_gate.worker", "--target", target]
    if fast:
        command.append("--fast")
    workers = [
        subprocess.Popen(
            [*command, "--share", f"{share}/{PROCESSES}"],
            cwd=HERE.parents[1],
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for share in range(PROCESSES)
    ]
    reports = []
    for worker in workers:
        output, errors = worker.communicate()
        if worker.returncode != 0:
            raise RuntimeError(f"a compile worker failed ({worker.returncode}):\n{errors[-4000:]}")
        reports += [json.loads(line) for line in output.splitlines()]
    return reports


def load_budgets() -> dict[str, dict[str, dict[str, int]]]:
    """Variant name -> target -> registers, stack, shared."""
    return json.loads(BUDGETS.read_text()) if BUDGETS.exists() else {}


def problems(
    report: dict[str, Any], target: str, budgets: dict[str, dict[str, dict[str, int]]]
) -> list[str]:
    """What is wrong with one compiled variant."""
    if "error" in report:
        return [f"does not compile: {report['error']}"]
    found = []
    if report["products"] and not report["matrix_units"]:
        found.append("multiplies without the matrix units")
    if report["shared"] > SHARED_LIMITS[target]:
        found.append(f"shared memory {report['shared']} exceeds {SHARED_LIMITS[target]} bytes")
    budget = budgets.get(report["name"], {}).get(target)
    if budget is None:
        found.append("has no recorded budget")
        return found
    for what, slack in SLACK.items():
        if report[what] > budget[what] + slack:
            found.append(f"{what}: {report[what]}, budget {budget[what]}")
    return found


def record(targets: list[str]) -> None:
    """Write what the variants need now as their budgets."""
    budgets = load_budgets()
    known: set[str] = set()
    errors = []
    for target in targets:
        for report in run_workers(target, fast=False):
            known.add(report["name"])
            if "error" in report:
                errors.append(f"{report['name']} on {target}: {report['error']}")
                continue
            needs = {what: report[what] for what in SLACK}
            budgets.setdefault(report["name"], {})[target] = needs
    lines = [
        f"  {json.dumps(name)}: {json.dumps(dict(sorted(budgets[name].items())))}"
        for name in sorted(known & set(budgets))
    ]
    BUDGETS.write_text("{\n" + ",\n".join(lines) + "\n}\n")
    if errors:
        raise SystemExit("these do not compile and have no budget:\n" + "\n".join(errors))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", choices=TARGETS, action="append")
    record(parser.parse_args().target or list(TARGETS))
