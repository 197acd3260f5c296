"""The tests by folder, each with the sentence that its module begins with."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def tests_reference() -> str:
    """A section for each folder of tests, in Markdown; the files are brought along."""
    files = sorted((ROOT / "tests").rglob("test_*.py"), key=lambda file: (file.parent, file))
    folders: dict[Path, list[Path]] = {}
    for file in files:
        for folder in file.parents[: len(file.relative_to(ROOT / "tests").parts)]:
            folders.setdefault(folder, [])
        folders[file.parent].append(file)
    lines: list[str] = []
    for folder in sorted(folders):
        lines += ["", f"## {folder.relative_to(ROOT)}", ""]
        lines += [
            f"- [{file.name}](../../{file.relative_to(ROOT)}): {_first_sentence(file)}"
            for file in folders[folder]
        ]
    return "\n".join(lines)


def _first_sentence(file: Path) -> str:
    text = ast.get_docstring(ast.parse(file.read_text())) or ""
    return " ".join(text.partition("\n\n")[0].split())
