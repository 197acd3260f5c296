"""What the Tab key completes."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Relive = Callable[..., Any]


@pytest.fixture
def path_with_relive(tmp_path: Path) -> str:
    """A search path whose `relive` is this one."""
    command = tmp_path / "bin" / "relive"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m relive.cli.main "$@"\n')
    command.chmod(0o700)
    return f"{command.parent}:{os.environ['PATH']}"


@pytest.mark.parametrize(("shell", "marker"), [("bash", "complete -o default"),
                                               ("zsh", "compdef _relive_completion relive"),
                                               ("fish", "complete --command relive")])  # fmt: skip
def test_every_shell_gets_a_script_of_its_own(relive: Relive, shell: str, marker: str) -> None:
    done = relive("completion", shell)
    assert done.code == 0
    assert marker in done.out
    assert "_RELIVE_COMPLETE=complete_" + shell in done.out
    said = relive("completion", shell, "--json").json
    assert (said["shell"], said["script"] + "\n") == (shell, done.out)


def test_another_shell_is_refused(relive: Relive) -> None:
    done = relive("completion", "csh", "--json")
    assert (done.code, done.json["error"]["field"]) == (2, "shell")


# What each shell is told to complete, given the script before it. zsh only hands what it was told
# to a function of its own that needs a terminal, so that one stands in for it.
ASKS = {
    "bash": """
        COMP_WORDS=(relive qua); COMP_CWORD=1; _relive_completion relive
        echo "${COMPREPLY[@]}"
        COMP_WORDS=(relive sample ./buffer --min-r); COMP_CWORD=3; _relive_completion relive
        echo "${COMPREPLY[@]}"
    """,
    "zsh": """
        _arguments() { print -r -- "$@" }
        words=(relive sample ./buffer --min-r); CURRENT=4; _relive_completion
    """,
    "fish": """
        complete -C "relive sample ./buffer --min-r"
    """,
}


@pytest.mark.parametrize("shell", ASKS)
def test_a_shell_completes_commands_and_options(
    relive: Relive, path_with_relive: str, tmp_path: Path, shell: str
) -> None:
    found = shutil.which(shell)
    if found is None:
        # The others are installed by .ci/install.
        assert os.environ.get("CI", "").lower() in ("", "0", "false"), f"there is no {shell}"
        pytest.skip(f"there is no {shell}")
    before = "autoload -U compinit; compinit -u -D\n" if shell == "zsh" else ""
    flags = ["-f"] if shell == "zsh" else []  # without what is in the user's own files
    done = subprocess.run(
        [found, *flags, "-c", before + relive("completion", shell).out + ASKS[shell]],
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "PATH": path_with_relive, "HOME": str(tmp_path)},
        check=False,
    )
    *command, option = (line for line in done.stdout.splitlines() if line.strip())
    assert command == (["quarantine"] if shell == "bash" else []), done.stderr
    assert "--min-reward" in option
    assert "--max-reward" not in option


@pytest.mark.parametrize(
    ("instruction", "environment"),
    [
        ("complete_zsh", {"_TYPER_COMPLETE_ARGS": "relive quara"}),
        (
            "complete_fish",
            {"_TYPER_COMPLETE_ARGS": "relive quara", "_TYPER_COMPLETE_FISH_ACTION": "get-args"},
        ),
    ],
)
def test_the_other_shells_are_answered(
    relive: Relive,
    monkeypatch: pytest.MonkeyPatch,
    instruction: str,
    environment: dict[str, str],
) -> None:
    for name, value in {"_RELIVE_COMPLETE": instruction, **environment}.items():
        monkeypatch.setenv(name, value)
    assert "quarantine" in relive().out
