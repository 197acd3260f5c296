"""The manual as a site: built without a warning, whole, and in need of nobody else's server."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest
from infra.site.config import config_reference, in_words, meanings
from infra.site.proto import proto_reference
from infra.site.sources import as_restructured_text, lead_into_list
from pydantic import BaseModel

from relive.config import BufferConfig
from relive.schemas import index_pb2

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its folder, made as `make docs` does: a link that leads nowhere is a warning and fails."""
    folder = tmp_path_factory.mktemp("site")
    options = ["--builder", "html", "--fail-on-warning", "--keep-going", "--quiet"]
    places = ["--doctree-dir", str(folder / "doctrees"), str(ROOT / "docs"), str(folder / "html")]
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, *places],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder / "html"


def pages(site: Path) -> list[Path]:
    return sorted(site.rglob("*.html"))


def test_every_page_of_the_manual_is_in_the_navigation(site: Path) -> None:
    index = (site / "index.html").read_text()
    sources = [page.relative_to(ROOT / "docs") for page in (ROOT / "docs").rglob("*.md")]
    there = [source.with_suffix(".html") for source in sources if str(source) != "index.md"]
    assert len(there) > 25
    assert [page for page in there if f'href="{page}"' not in index] == []


def test_nothing_comes_from_other_hosts(site: Path) -> None:
    for page in pages(site):
        text = page.read_text()
        loaded = re.findall(r"<(?!a\b)[a-z]+\b[^>]*\b(?:src|href|poster)=\"([^\"]*)\"", text)
        assert loaded
        assert [each for each in loaded if re.match(r"(?:[a-z]+:)?//", each)] == [], page
    for style in site.rglob("*.css"):
        assert re.findall(r"(?:url\(|@import)\s*[\"']?(?:[a-z]+:)?//", style.read_text()) == []


def test_no_anchor_is_missing(site: Path) -> None:
    ids = {page: set(re.findall(r'\bid="([^"]+)"', page.read_text())) for page in pages(site)}
    checked = 0
    for page in pages(site):
        for link in map(unescape, re.findall(r'<a [^>]*href="([^"]+)"', page.read_text())):
            place, hash_, anchor = link.partition("#")
            if re.match(r"[a-z]+:", link) or not hash_ or not anchor:
                continue
            target = (page.parent / place).resolve() if place else page
            if target.suffix == ".html":
                assert anchor in ids[target], (page, link)
                checked += 1
    assert checked > 100


def test_a_promise_links_to_its_test(site: Path) -> None:
    """And the test is brought along, or listed."""
    table = (site / "guides" / "promises.html").read_text().partition("<table")[2]
    rows = table.partition("</table>")[0].split("<tr")[2:]
    assert len(rows) > 20
    for row in rows:
        found = re.findall(r'href="([^"#]*)', row)
        assert found, row
        for link in found:
            assert (site / "guides" / link).exists()


def test_every_setting_is_explained() -> None:
    said = meanings()
    assert {name for name in BufferConfig.model_fields if not said.get(name)} == set()
    assert set(said) == set(BufferConfig.model_fields)
    assert "- **`visual_dim`** (whole number; unset): fixed by the first" in config_reference()


class Kinds(BaseModel):
    either: int | None = None


def test_types_of_settings_are_said_in_words() -> None:
    assert in_words(Kinds.model_fields["either"].annotation) == "whole number"
    assert in_words(BufferConfig.model_fields["faiss_backend"].annotation) == "`gpu` or `cpu`"
    assert in_words(BufferConfig.model_fields["token"].annotation) == "secret text"


def test_every_method_and_field_of_the_rpc_interface_is_described() -> None:
    text = proto_reference()
    assert text.startswith("The index service:")
    described = index_pb2.DESCRIPTOR
    for service in described.services_by_name.values():
        for method in service.methods:
            assert re.search(rf"\*\*`{method.name}`\*\*: .*\. \S", text), method.name
    for name, message in described.message_types_by_name.items():
        section = text.partition(f"\n## {name}\n")[2].partition("\n## ")[0]
        assert [
            field.name for field in message.fields if f"| `{field.name}` |" not in section
        ] == []


def test_links_to_folders_of_tests_lead_into_their_list() -> None:
    page = ROOT / "docs" / "guides" / "promises.md"
    text = "[a](../../tests/faults), [b](../../tests/conftest.py), [c](concepts.md)"
    assert lead_into_list(page, text) == (
        "[a](../reference/tests.md#testsfaults), [b](../../tests/conftest.py), [c](concepts.md)"
    )
    text = (
        "[`infra`](../../infra), [the README](../../README.md#more), [running](../running.md#disk)"
    )
    assert lead_into_list(page, text) == "`infra`, the README, [running](../running.md#disk)"


def test_formulas_in_the_docstrings_of_modules_stay_as_they_are() -> None:
    assert as_restructured_text(["How much:", "", "    a = |b|", "    c", "", "and |d|."]) == [
        "How much:", "", "::", "", "    a = |b|", "    c", "", r"and \|d\|.",
    ]  # fmt: skip
