"""The site is built strictly, needs nothing from elsewhere, and shows what the pages hold."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

import pytest
import yaml

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


def test_search_works_from_files(site: Path) -> None:
    """Browsers read no JSON and start no worker from files: a script and a frame stand in."""
    index = (site / "search" / "search_index.js").read_text(encoding="utf-8")
    assert index.startswith("var __index = ") and "hardest negative" in index
    for page in ("index.html", "api/loss.html"):
        text = (site / page).read_text(encoding="utf-8")
        assert re.search(r'<script src="[./]*assets/iframe-worker\.js"', text), page


def test_every_setting_of_the_trainer_is_there(site: Path) -> None:
    from alc_kernels.trainer.config import TrainConfig

    text = (site / "api" / "trainer.html").read_text(encoding="utf-8")
    for field in dataclasses.fields(TrainConfig):
        assert f"<td><code>{field.name}</code></td>\n<td><code>{field.default}</code>" in text


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("missing.md", "A page that no menu names."),
        ("index.md", "[a page](nowhere.md)"),
        ("index.md", "[a heading](other.md#nowhere)"),
        ("index.md", "[a folder](other/)"),
    ],
)
def test_what_is_broken_stops_the_build(name: str, text: str, tmp_path: Path) -> None:
    from mkdocs.commands.build import build
    from mkdocs.config import load_config
    from mkdocs.exceptions import Abort

    ours = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    small = {key: ours[key] for key in ("strict", "validation", "use_directory_urls")}
    small |= {"site_name": "small", "plugins": [], "nav": ["index.md", "other.md"]}
    (tmp_path / "mkdocs.yml").write_text(yaml.safe_dump(small), encoding="utf-8")
    pages = tmp_path / "docs"
    pages.mkdir()
    (pages / "index.md").write_text("[right](other.md#there)", encoding="utf-8")
    (pages / "other.md").write_text("# There", encoding="utf-8")
    build(load_config(str(tmp_path / "mkdocs.yml")))

    (pages / name).write_text(text, encoding="utf-8")
    with pytest.raises(Abort):
        build(load_config(str(tmp_path / "mkdocs.yml")))


def test_equations_are_mathml(site: Path) -> None:
    text = (site / "losses.html").read_text(encoding="utf-8")
    assert text.count("<math") > 25 and text.count('display="block"') >= 7
    for page in site.rglob("*.html"):
        assert "arithmatex" not in page.read_text(encoding="utf-8"), page.name


def test_lists_are_lists(site: Path) -> None:
    """A list without a blank line before it, or indented by less than four, becomes text."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        for paragraph in re.findall(r"<p>(.*?)</p>", text, re.S):
            assert not re.search(r"^ *([-*]|\d+\.) ", paragraph, re.M), f"{page.name}: {paragraph}"


def test_docstrings_are_there(site: Path) -> None:
    pages = {page.name: page.read_text(encoding="utf-8") for page in (site / "api").iterdir()}
    assert 'id="alc_kernels.ALCLoss.terms"' in pages["loss.html"]
    for name in ("functional.softmax_loss", "functional.hardest_negatives"):
        assert f'id="alc_kernels.{name}"' in pages["functional.html"]
    assert 'id="alc_kernels.metrics.coverage_at_precision"' in pages["metrics.html"]
    for name in ("metrics.html", "reference.html", "selfsupervised.html"):
        assert "__all__" not in pages[name]
    for name, text in pages.items():
        assert ":class:" not in text and ":func:" not in text, name
