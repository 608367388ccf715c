"""The site is built strictly, needs nothing from elsewhere, and shows what the pages hold."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config

    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder), strict=True)
    config.plugins.on_startup(command="build", dirty=False)
    build(config)
    return folder


def test_nothing_is_fetched(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 20
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for tag in re.findall(r"<(?:script|link|img|iframe|source)\b[^>]*>", text):
            assert not re.search(r"(?:src|href)=[\"']?(?:https?:)?//", tag), f"{page.name}: {tag}"
    for style in site.rglob("*.css"):
        assert not re.search(r"url\([\"']?(?:https?:)?//", style.read_text(encoding="utf-8"))


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "losses.html").read_text(encoding="utf-8")
    assert text.count("<math") > 25 and text.count('display="block"') >= 7
    for page in site.rglob("*.html"):
        assert "arithmatex" not in page.read_text(encoding="utf-8"), page.name


def test_docstrings_are_there(site: Path) -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (site / "api").iterdir()}
    assert 'id="alc_kernels.ALCLoss.terms"' in pages["loss.html"]
    for name in ("functional.softmax_loss", "functional.hardest_negatives"):
        assert f'id="alc_kernels.{name}"' in pages["functional.html"]
    assert 'id="alc_kernels.metrics.coverage_at_precision"' in pages["metrics.html"]
    for name, text in pages.items():
        assert ":class:" not in text and ":func:" not in text, name
