"""The commands, as their own help says."""

from __future__ import annotations

import html
import re
from typing import Any

from typer.cli import get_docs_for_click
from typer.core import TyperGroup
from typer.main import get_command

from relive.cli.main import app


def cli_reference() -> str:
    """A section for each command, in Markdown."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    context: Any = command.make_context("relive", [], resilient_parsing=True)
    text = html.unescape(get_docs_for_click(obj=command, ctx=context, name="relive"))
    # Its title is the page's. Examples in docstrings follow each other without an empty line.
    text = text.partition("\n")[2].replace("**Commands**", "Its commands")
    text = text.partition("\n## ")[1] + text.partition("\n## ")[2]
    text = re.sub(r"^Example: (.*)$", r"Example: `\1`", text, flags=re.MULTILINE)
    # Words in angle brackets would be taken for HTML.
    return re.sub(r"(?<!`)<(\w+)>(?!`)", r"\\<\1>", text)
