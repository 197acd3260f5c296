"""What commands print: results on stdout, as text or JSON; how they end when something is wrong."""

from __future__ import annotations

import json
import logging
import math
import os
import sys
import traceback
from typing import Any, NoReturn

from relive.cli.exit_codes import ExitCode, code_of
from relive.cli.log_format import logs_are_json
from relive.consumers import Materializer
from relive.errors import FieldError


def print_result(as_json: bool, result: Any, text: str) -> None:
    """One result, for a program or for a person."""
    write_out((to_json(result) if as_json else text) + "\n")


def write_out(text: str) -> None:
    """Write to stdout, at once; where nobody reads it any more, end without a word."""
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        # Leaving the interpreter flushes once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(ExitCode.NO_READER)


def to_json(result: Any) -> str:
    """One line of JSON. Numbers that JSON doesn't have become text."""
    try:
        return json.dumps(result, default=str, allow_nan=False)
    except ValueError:
        return json.dumps(_without_nan(result), default=str, allow_nan=False)


def print_state(materializer: Materializer, what: str, as_json: bool) -> None:
    """Where a fold is, and the digest of its state."""
    with materializer.locked() as states:
        result = {
            "event": what,
            "positions": materializer.positions(),
            "size": sum(state.counters.size for state in states),
            "additions": sum(state.counters.additions for state in states),
            "quarantined": sum(state.counters.quarantined for state in states),
            "digest": materializer.digest(),
        }
    print_result(
        as_json,
        result,
        f"{what}: {result['size']} experiences, digest {result['digest']}, "
        f"positions {result['positions']}",
    )


def end_with(error: BaseException) -> NoReturn:
    """Say what is wrong, and exit with the code that fits."""
    code = code_of(error)
    name = type(error).__name__
    if logs_are_json():
        logging.getLogger("relive").critical("%s: %s", name, error)
    elif "--json" not in sys.argv:
        sys.stderr.write(f"relive: {name}: {error}\n")
    if "--json" not in sys.argv:
        sys.exit(code)
    field, value = (error.field, error.value) if isinstance(error, FieldError) else (None, None)
    _end_with_json(name, field, value, str(error), code)


def end_with_bug(bug: Exception) -> NoReturn:
    """The same, of what was not foreseen: with its traceback."""
    if logs_are_json():
        logging.getLogger("relive").critical("the program failed", exc_info=bug)
    else:
        traceback.print_exception(bug)
    if "--json" not in sys.argv:
        sys.exit(ExitCode.FAILED)
    _end_with_json(type(bug).__name__, None, None, str(bug), ExitCode.FAILED)


def end_with_usage(problem: Any) -> NoReturn:
    """The same, of a command line that typer refused, for a program."""
    parameter = getattr(problem, "param", None)
    field = getattr(parameter, "name", None) or getattr(problem, "option_name", None)
    _end_with_json("UsageError", field, None, problem.format_message(), ExitCode.REFUSED)


def _end_with_json(
    name: str, field: str | None, value: str | None, message: str, code: ExitCode
) -> NoReturn:
    problem = {"class": name, "field": field, "value": value, "message": message}
    write_out(to_json({"error": problem}) + "\n")
    sys.exit(code)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
