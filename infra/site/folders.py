"""Links from a page to a folder of the repository lead to the list of what is in it.

Links to files need nothing: the site brings those files along. A folder has no page of its own, so
`[tests/faults](../tests/faults)` becomes a link into the page `reference/tests`.
"""

from __future__ import annotations

import re
from pathlib import Path

from sphinx.application import Sphinx

ROOT = Path(__file__).resolve().parents[2]
LIST = "reference/tests.md"
_LINK = re.compile(r"\]\(((?:\.\./)+[^)#\s]*)\)")


def anchor(folder: str) -> str:
    """The anchor of a folder's heading on the page that lists them."""
    return re.sub(r"[^a-z0-9_]+", "", folder.lower())


def lead_into_list(page: Path, text: str) -> str:
    """The text of a page, with its links to folders of tests turned into links to their list."""

    def replaced(link: re.Match[str]) -> str:
        target = (page.parent / link[1]).resolve()
        if not target.is_dir() or not target.is_relative_to(ROOT / "tests"):
            return link[0]
        up = "../" * (len(page.parent.relative_to(ROOT / "docs").parts))
        return f"]({up}{LIST}#{anchor(str(target.relative_to(ROOT)))})"

    return _LINK.sub(replaced, text)


def _on_source(app: Sphinx, name: str, source: list[str]) -> None:
    source[0] = lead_into_list(Path(app.env.doc2path(name)), source[0])


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.connect("source-read", _on_source)
    return {"parallel_read_safe": True}
