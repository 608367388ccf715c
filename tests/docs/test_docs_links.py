"""What the pages name exists: links, files, headings, environment variables."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import LANGUAGES, PAGES, ROOT, blocks, languages, marks

FOLDERS = "alc_kernels|benchmarks|tests|csrc|docs|examples|experiments|\\.ci"


def _without_code(page: str) -> str:
    text = (ROOT / page).read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$|`[^`\n]*`", "", text, flags=re.S | re.M)


def _anchors(path: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.M)
    words = [re.sub(r"[^\w\s-]", "", heading).strip().lower() for heading in headings]
    return {re.sub(r"[-\s]+", "-", heading) for heading in words}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]*)(#([^)]+))?\)", _without_code(page))
    for target, _, anchor in links:
        path = (ROOT / page).parent / target if target else ROOT / page
        assert path.exists(), f"{page}: {target}"
        if anchor:
            assert anchor in _anchors(path), f"{page}: {target}#{anchor}"


@pytest.mark.parametrize("page", [page for page in PAGES if page != "CHANGELOG.md"])
def test_named_files_exist(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(rf"`((?:{FOLDERS})/[\w/.\-*]+)`", text):
        if name.startswith(("alc_kernels/_native.", "alc_kernels/_cuda.")):
            continue  # built, not kept
        assert list(ROOT.glob(name.rstrip("/"))), f"{page}: {name}"


@pytest.mark.parametrize("page", PAGES)
def test_blocks_name_their_language(page: str) -> None:
    assert set(languages(page)) <= LANGUAGES, f"{page}: {set(languages(page)) - LANGUAGES}"
    used = [b for word in LANGUAGES for b in blocks(page, word) if b.before or b.run]
    assert len(used) == marks(page), f"{page}: a mark is not followed by its block"
