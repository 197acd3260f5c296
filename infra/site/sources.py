"""What Sphinx reads of a page: with `{reference} NAME` blocks filled in, and links to folders led.

The blocks are filled with Markdown made from the sources of the project. Links to files need
nothing: the site brings those files along. A folder has no page of its own, so that
`[tests/faults](../tests/faults)` becomes a link into the page that lists the tests, and any other
one, as well as a page that is not of the manual, is only named.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from infra.site.config import config_reference
from infra.site.proto import proto_reference
from infra.site.tests import tests_reference
from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LIST = "reference/tests.md"
REFERENCES: dict[str, Callable[[], str]] = {
    "config": config_reference,
    "proto": proto_reference,
    "tests": tests_reference,
}
_BLOCK = re.compile(r"^```\{reference\} (\w+)\n```$", re.MULTILINE)
_LINK = re.compile(r"(?<!!)\[([^]]*)\]\(((?:\.\./)+[^)#\s]*)(?:#[^)\s]*)?\)")


def filled_in(text: str) -> str:
    """The text of a page with its references."""
    return _BLOCK.sub(lambda block: REFERENCES[block[1]](), text)


def lead_into_list(page: Path, text: str) -> str:
    """The text of a page, with its links to folders of tests turned into links to their list."""

    def replaced(link: re.Match[str]) -> str:
        target = (page.parent / link[2]).resolve()
        if target.is_dir() and target.is_relative_to(ROOT / "tests"):
            up = "../" * (len(page.parent.relative_to(ROOT / "docs").parts))
            return f"[{link[1]}]({up}{LIST}#{anchor(str(target.relative_to(ROOT)))})"
        elsewhere = target.suffix == ".md" and not target.is_relative_to(ROOT / "docs")
        return link[1] if target.is_dir() or elsewhere else link[0]

    return _LINK.sub(replaced, text)


def anchor(folder: str) -> str:
    """The anchor of a folder's heading on the page that lists them."""
    return re.sub(r"[^a-z0-9_]+", "", folder.lower())


def _on_source(app: Sphinx, name: str, source: list[str]) -> None:
    page = Path(app.env.doc2path(name))
    source[0] = lead_into_list(page, filled_in(source[0]))


def as_restructured_text(docstring: list[str]) -> list[str]:
    """A module's docstring, which is plain text: what is indented stands as it is."""
    found: list[str] = []
    for before, line in zip(["", *docstring], docstring, strict=False):
        if line.startswith("    ") and not before:
            found += ["::", ""]
        # Bars are those of formulas, not of substitutions.
        found.append(line if line.startswith("    ") else line.replace("|", "\\|"))
    return found


def _on_docstring(
    app: Sphinx, what: str, name: str, thing: object, options: object, lines: list[str]
) -> None:
    if what == "module":
        lines[:] = as_restructured_text(lines)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", _on_source)
    app.connect("autodoc-process-docstring", _on_docstring)
    return {"parallel_read_safe": True}
