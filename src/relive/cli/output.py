"""What commands print: results on stdout, as text or JSON; how they end when something is wrong."""

from __future__ import annotations

import json
import logging
import math
import sys
from typing import Any, NoReturn

from relive.cli.log_format import logs_are_json
from relive.consumers import Materializer
from relive.errors import FieldError, ReliveError


def print_result(as_json: bool, result: Any, text: str) -> None:
    """One result, for a program or for a person."""
    sys.stdout.write((to_json(result) if as_json else text) + "\n")
    sys.stdout.flush()


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


def end_with(error: ReliveError) -> NoReturn:
    """Say what is wrong and exit: 2 for what the user gave, 1 for the rest."""
    code = 2 if isinstance(error, FieldError) else 1
    if logs_are_json():
        logging.getLogger("relive").critical("%s: %s", type(error).__name__, error)
        if "--json" not in sys.argv:
            sys.exit(code)
    if "--json" not in sys.argv:
        sys.stderr.write(f"relive: {type(error).__name__}: {error}\n")
        sys.exit(code)
    problem = {"type": type(error).__name__, "message": str(error)}
    if isinstance(error, FieldError):
        problem |= {"field": error.field, "value": error.value}
    _end_with_json(problem, code)


def end_with_usage(problem: Any) -> NoReturn:
    """The same, of a command line that typer refused, for a program."""
    parameter = getattr(problem, "param", None)
    field = getattr(parameter, "name", None) or getattr(problem, "option_name", None)
    _end_with_json({"type": "UsageError", "message": problem.format_message(), "field": field}, 2)


def _end_with_json(problem: dict[str, Any], code: int) -> NoReturn:
    sys.stdout.write(to_json({"error": problem}) + "\n")
    sys.exit(code)


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value
