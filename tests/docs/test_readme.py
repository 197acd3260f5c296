"""What the documentation says is so."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from relive.cli.reference import every_command

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]

MARKED_TO_RUN = re.findall(r"<!-- run -->\n```python\n(.*?)```", README, re.DOTALL)
# A command is `relive WORD`, or `relive log WORD`, at the start of a line or of a code span.
COMMANDS = sorted(
    set(
        re.findall(
            r"(?:^|`|\$ )relive ((?:(?:log|snapshot|index|quarantine) )?[a-z]+)",
            README,
            re.MULTILINE,
        )
    )
)
LINKS = [
    (page, link)
    for page in PAGES
    for link in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text())
    if not link.startswith(("http://", "https://", "mailto:"))
]


def test_the_readme_has_code_to_run_commands_and_links() -> None:
    assert MARKED_TO_RUN
    assert {"serve", "log create", "replay"} <= set(COMMANDS)
    assert LINKS


@pytest.mark.parametrize("code", MARKED_TO_RUN)
def test_the_code_of_the_readme_runs(code: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first = done.stdout.splitlines()[0]
    if "update_priorities" in code:
        assert first == "16 0 0"
    else:
        assert first.startswith("x1 ")
        assert first.endswith(" a cat")
        assert (tmp_path / "buffer").is_dir()


def test_the_commands_of_the_readme_exist() -> None:
    known = {words for words, _ in every_command()}
    assert [command for command in COMMANDS if command not in known] == []


@pytest.mark.parametrize(
    ("page", "link"), LINKS, ids=[f"{page.name}-{link}" for page, link in LINKS]
)
def test_a_link_leads_to_a_file(page: Path, link: str) -> None:
    assert (page.parent / link).exists()
