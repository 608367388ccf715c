"""The script of the largest batch and of repeatability, at a small size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import limits

SMALL = [
    "--rows",
    "96",
    "--width",
    "16",
    "--dtype",
    "float32",
    "--sample",
    "40",
    "--repeat-rows",
    "32",
    "--repeats",
    "3",
]


def test_values_and_bits_are_checked(tmp_path: Path) -> None:
    record = tmp_path / "limits.json"
    assert limits.main([*SMALL, "--output", str(record)]) == 0
    results = json.loads(record.read_text())
    assert [r["loss"] for r in results] == ["triplet10+tcm"] * 2 + ["softmax"] * 2
    assert all(max(r["errors"]) < 1e-4 for r in results if "errors" in r)


def test_other_bits_fail(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    exact = limits._gradients

    def drifting(*arguments: object) -> tuple[torch.Tensor, ...]:
        value, of_queries, of_labels = exact(*arguments)  # type: ignore[arg-type]
        return value + 1e-6 * torch.rand(()), of_queries, of_labels

    monkeypatch.setattr(limits, "_gradients", drifting)
    assert limits.main([*SMALL]) == 1
