"""A directive that writes reference pages from the sources: `{reference} cli`, and so on."""

from __future__ import annotations

from collections.abc import Callable

from docutils import nodes
from infra.site.cli import cli_reference
from infra.site.config import config_reference
from infra.site.proto import proto_reference
from infra.site.tests import tests_reference
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

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
        before, heading, sections = REFERENCES[self.arguments[0]]().partition("\n## ")
        # Parsed as one, what stands before the first heading would be lost.
        found = self.parse_text_to_nodes(before)
        return found + self.parse_text_to_nodes(heading + sections, allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """What Sphinx calls."""
    app.add_directive("reference", Reference)
    return {"parallel_read_safe": True}
