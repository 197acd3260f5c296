"""The links of the documentation lead somewhere, also where it is read in the repository."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = [
    *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def links(page: Path) -> list[str]:
    prose = re.sub(r"^ *```.*?^ *```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    found = _LINK.findall(prose)
    return [link for link in found if not link.startswith(("https://", "http://", "mailto:"))]


def test_the_pages_have_links() -> None:
    assert sum(len(links(page)) for page in PAGES) > 100


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_the_links_of_a_page_lead_to_files(page: Path) -> None:
    targets = [link.partition("#")[0] for link in links(page)]
    assert [each for each in targets if not (page.parent / each).exists()] == []


def test_the_readme_links_to_every_guide() -> None:
    linked = {(ROOT / link.partition("#")[0]).resolve() for link in links(ROOT / "README.md")}
    assert set((ROOT / "docs" / "guides").glob("*.md")) - linked == set()
