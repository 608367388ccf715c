"""The versions that are stated, pinned and run are the same."""

from __future__ import annotations

import re
from pathlib import Path

import alc_kernels

ROOT = Path(__file__).parent.parent
PYPROJECT = (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_the_minimum_run_has_the_lowest_versions_allowed() -> None:
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/minimum.txt").read_text(), re.M))
    for name in ("torch", "numpy", "triton", "scipy"):
        lowest = re.search(rf'"{name}>=([\d.]+)[";]', PYPROJECT)
        assert lowest, name
        # >= 1.26 allows 1.26.0; scipy 1.11.0 was withdrawn.
        assert pins[name].startswith(lowest[1]), f"{name}: {pins[name]}, pyproject {lowest[1]}"
        assert pins[name].count(".") == 2


def test_the_newest_run_is_told_of() -> None:
    pins = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / ".ci/newest.txt").read_text(), re.M))
    table = (ROOT / "docs/versions.md").read_text(encoding="utf-8")
    for name in ("torch", "numpy", "triton"):
        assert re.search(rf"^\| {name} \|.*\| {re.escape(pins[name])} \|$", table, re.M), name


def test_the_version_stands_in_one_place() -> None:
    version = alc_kernels.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+(?:(?:a|b|rc)\d+|\.dev\d+)?", version)
    assert 'version = { attr = "alc_kernels.version.__version__" }' in PYPROJECT
    for path in ("setup.py", "pyproject.toml", "mkdocs.yml"):
        assert f'"{version}"' not in (ROOT / path).read_text(encoding="utf-8"), path


def test_the_changelog_is_in_order() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## (.*)$", text, re.M)
    assert releases[0].startswith(f"[{alc_kernels.__version__}]")
    assert all(
        re.fullmatch(r"\[[\d.]+\] - (unreleased|\d{4}-\d\d-\d\d)", release) for release in releases
    )
    kinds = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security", "Not yet"}
    assert set(re.findall(r"^### (.*)$", text, re.M)) <= kinds
