"""The page docs/cli.md, made from the commands themselves: `python -m relive.cli.reference`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from typer.main import get_command

from relive.cli.app import app
from relive.cli.exit_codes import ExitCode

_HEAD = """\
# The command line

<!-- Made by `make cli-page`; a test compares it with the commands. -->

Results go to stdout; progress, warnings and problems to stderr. `relive COMMAND --help` says what
is below. Progress bars, which show after a second, and colours are for terminals only; `NO_COLOR`
switches colours off.

**TARGET** is what a command looks at: `HOST:PORT` of an index service (several with commas
between), the directory of a buffer, or a log URL (`file:DIRECTORY`, `kafka://HOST:PORT/TOPIC`).

**--json** prints one object on one line, errors included:
`{"error": {"class": …, "field": …, "value": …, "message": …}}`, where field and value are null for
errors that are not about one. Keys are only ever added. `tail --json` prints an object for each
event, `materialize --json` one when it has caught up and one when it has stopped.

**Ctrl-C** ends any command cleanly; what was reported as done is done. Once more ends it at once.

**Tab completion**: `eval "$(relive completion bash)"` in `~/.bashrc`; `relive completion --help`
has zsh and fish.

**Environment**: `RELIVE_…` variables are settings (see the README). `serve` and `materialize`
refuse a variable that is nearly one, and warn of others that name none; `relive doctor` shows both.

## Exit codes

| code | what it says |
|---|---|
"""


def page() -> str:
    """All of docs/cli.md."""
    codes = "".join(f"| {code.value} | {code.says} |\n" for code in ExitCode)
    commands = "".join(_section(words, command) for words, command in every_command())
    return f"{_HEAD}{codes}\n## Commands\n{commands}"


def every_command(group: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    """Every command with the words that name it, in the order of the alphabet."""
    known: Any = get_command(app) if group is None else group
    for name, command in sorted(known.commands.items()):
        if hasattr(command, "commands"):
            yield from every_command(command, (*words, name))
        else:
            yield " ".join((*words, name)), command


def _section(words: str, command: Any) -> str:
    arguments = [p for p in command.params if not _is_option(p)]
    usage = " ".join(["relive", words, *(_argument(p) for p in arguments), "[OPTIONS]"])
    text, examples = [], []
    for line in (command.help or "").splitlines():
        stripped = line.strip()
        if stripped.startswith("Example: "):
            examples.append(stripped.removeprefix("Example: "))
        else:
            text.append(stripped)
    lines = [f"\n### relive {words}\n", "\n".join(text).strip(), f"\n    {usage}\n"]
    rows = [*(_row(_name(p), p) for p in arguments), *_options(command)]
    lines += ["| | |", "|---|---|", *rows]
    lines += ["\nFor example:\n", *(f"    {example}" for example in examples)]
    return "\n".join(lines) + "\n"


def _options(command: Any) -> Iterator[str]:
    for parameter in command.params:
        if _is_option(parameter) and "--help" not in parameter.opts:
            names = ", ".join(f"`{name}`" for name in parameter.opts)
            metavar = "" if parameter.is_flag else f" {_name(parameter)}"
            yield _row(f"{names}{metavar}", parameter)


def _row(name: str, parameter: Any) -> str:
    said = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    if parameter.required and _is_option(parameter):
        said += "; required"
    elif default is not None and default is not False and not callable(default):
        said += f"; default: {getattr(default, 'value', default)}"
    escaped = name.replace("|", "\\|")
    return f"| {escaped} | {said.removeprefix('; ')} |"


def _is_option(parameter: Any) -> bool:
    return str(parameter.opts[0]).startswith("-")


def _name(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name.upper())


def _argument(parameter: Any) -> str:
    name = _name(parameter)
    return name if parameter.required else f"[{name}]"


if __name__ == "__main__":
    sys.stdout.write(page())
