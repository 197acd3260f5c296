"""The whole parser: every command can be found out about, and used by a program."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command

from relive.cli.app import app

ROOT: Any = get_command(app)


def commands(group: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[Any]:
    """Every command, with the words that name it."""
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            yield pytest.param((*words, name), command, id="-".join((*words, name)))


def examples(command: Any) -> list[list[str]]:
    """The words of each example, from `relive` on."""
    lines = [line.strip() for line in (command.help or "").splitlines()]
    found = [line.removeprefix("Example: ") for line in lines if line.startswith("Example: ")]
    return [shlex.split(line[line.index("relive ") :]) for line in found]


def parsed(words: list[str]) -> Any:
    """The context of a command line; nothing is run."""
    group, context = ROOT, ROOT.make_context("relive", words[1:])
    while hasattr(group, "commands"):
        arguments = [*context._protected_args, *context.args]
        name, group, rest = group.resolve_command(context, arguments)
        context = group.make_context(name, rest, parent=context)
    return context


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_every_command_says_what_it_does_with_an_example_that_is_one(
    words: tuple[str, ...], command: Any
) -> None:
    assert examples(command), "has no example"
    for example in examples(command):
        assert tuple(example[1 : 1 + len(words)]) == words
        assert parsed(example).command.name == words[-1]


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_every_command_takes_json(words: tuple[str, ...], command: Any) -> None:
    assert ["--json"] in [parameter.opts for parameter in command.params]


@pytest.mark.parametrize(("words", "command"), list(commands()))
def test_everything_it_takes_says_what_it_is_for(words: tuple[str, ...], command: Any) -> None:
    silent = [parameter.name for parameter in command.params if not parameter.help]
    assert silent == []


def test_an_example_that_makes_no_sense_would_be_noticed() -> None:
    with pytest.raises(typer.BadParameter.__mro__[2]):
        parsed(["relive", "stats", "./buffer", "--nope"])
