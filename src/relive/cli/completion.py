"""What a shell needs to complete commands and options with the Tab key."""

from __future__ import annotations

import os
from enum import StrEnum
from typing import Annotated

import typer
from typer.completion import (  # type: ignore[attr-defined]
    completion_init,
    get_completion_script,
)

from relive.cli.options import AsJson
from relive.cli.output import print_result

PROGRAM, _VARIABLE = "relive", "_RELIVE_COMPLETE"


class Shell(StrEnum):
    """A shell that can be told."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion(
    shell: Annotated[Shell, typer.Argument(metavar="SHELL", help="bash, zsh or fish")],
    as_json: AsJson = False,
) -> None:
    """Print a script that lets the Tab key complete commands and options.

    bash: eval "$(relive completion bash)" in ~/.bashrc

    zsh: eval "$(relive completion zsh)" in ~/.zshrc, after compinit

    fish: relive completion fish > ~/.config/fish/completions/relive.fish

    Example: relive completion bash
    """
    script = get_completion_script(prog_name=PROGRAM, complete_var=_VARIABLE, shell=shell.value)
    print_result(as_json, {"shell": shell.value, "script": script}, script)


def answer_completion() -> None:
    """Make the application answer the shell, where it is the shell that asks."""
    if _VARIABLE in os.environ:
        completion_init()
