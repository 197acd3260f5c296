"""Directives that write reference pages from the sources: `{reference} cli`, `proto`, `config`, …"""

from __future__ import annotations

from collections.abc import Callable

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from infra.site.cli import cli_reference
from infra.site.config import config_reference
from infra.site.proto import proto_reference
from infra.site.tests import tests_reference

REFERENCES: dict[str, Callable[[], str]] = {
    "cli": cli_reference,
    "config": config_reference,
    "proto": proto_reference,
    "tests": tests_reference,
}


class Reference(SphinxDirective):
    """Markdown made from the sources, in the place of the directive."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """What Sphinx calls."""
        text = REFERENCES[self.arguments[0]]()
        return self.parse_text_to_nodes(text, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("reference", Reference)
    return {"parallel_read_safe": True}
