"""docs/cli.md says what the commands say of themselves."""

from __future__ import annotations

from pathlib import Path

from relive.cli.reference import every_command, page

PAGE = Path(__file__).parents[2] / "docs" / "cli.md"


def test_the_page_is_what_the_commands_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run make cli-page"


def test_every_command_has_a_section() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for words, _ in every_command():
        assert f"\n### relive {words}\n" in text
