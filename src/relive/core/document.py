"""Nested documents (trajectory, final answer, metadata) as JSON text, without losing a type."""

from __future__ import annotations

import math
from typing import TypeAlias

import orjson

from relive.errors import InvalidExperience

Document: TypeAlias = "bool | int | float | str | list[Document] | dict[str, Document] | None"

# Deep enough for any real trajectory, far below what Python's own recursion allows.
MAX_DEPTH = 64

# What readers of JSON in any language can be expected to keep exact.
LEAST_INT = -(2**63)
GREATEST_INT = 2**64 - 1

_SIMPLE = frozenset({str, int, bool, type(None)})


def to_json(field: str, value: object) -> str:
    """The document as JSON text that reads back equal, types included.

    Raises:
        InvalidExperience: for what JSON would change or cannot hold: tuples, keys that are not
            strings, numpy scalars, non-finite numbers, lone surrogates, deep nesting.
    """
    try:
        if _keeps_types(value, 0):
            return orjson.dumps(value).decode("utf-8")
    except TypeError:  # what orjson refuses by itself
        pass
    _check(field, value, 0)  # names what is wrong
    return orjson.dumps(value).decode("utf-8")


def check_json(field: str, text: str, kind: type) -> None:
    """Refuse JSON text that `to_json` would not have written.

    Raises:
        InvalidExperience: not JSON, not of the kind, or something `to_json` refuses.
    """
    try:
        value = orjson.loads(text)
    except ValueError as error:
        raise InvalidExperience(field, text, "must be JSON") from error
    if not isinstance(value, kind):
        raise InvalidExperience(field, text, f"must be a JSON {kind.__name__}")
    # All else that `to_json` refuses is not JSON to orjson, or can't come of it.
    if len(text) > MAX_DEPTH and text.count("[") + text.count("{") > MAX_DEPTH:
        _check(field, value, 0)


def from_json(text: str) -> Document:
    """The document in JSON text written by `to_json`."""
    value: Document = orjson.loads(text)
    return value


def _keeps_types(value: object, depth: int) -> bool:
    """Whether orjson changes nothing of what it takes: for that no type but the plain ones may be
    in it, and no number that is not finite.
    """
    kind = type(value)
    if kind is dict:
        items = value.values()  # type: ignore[attr-defined]
    elif kind is list:
        items = value
    else:
        return kind in _SIMPLE or (kind is float and math.isfinite(value))  # type: ignore[arg-type]
    if depth >= MAX_DEPTH:
        return False
    # No call for what most items are: it would take twice as long.
    for item in items:
        kind = type(item)
        if kind in _SIMPLE or (kind is float and math.isfinite(item)):
            continue
        if not _keeps_types(item, depth + 1):
            return False
    return True


def _check(field: str, value: object, depth: int) -> None:
    kind = type(value)
    if kind is str:
        check_unicode(field, value)  # type: ignore[arg-type]
    elif kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]
            raise InvalidExperience(field, value, "numbers must be finite")
    elif kind is bool or value is None:
        pass
    elif kind is int:
        if not LEAST_INT <= value <= GREATEST_INT:  # type: ignore[operator]
            raise InvalidExperience(field, "an integer", "must fit 64 bits; use text")
    elif depth >= MAX_DEPTH:
        raise InvalidExperience(field, value, f"nested deeper than {MAX_DEPTH} levels")
    elif kind is list:
        for item in value:  # type: ignore[attr-defined]
            _check(field, item, depth + 1)
    elif kind is dict:
        for key, item in value.items():  # type: ignore[attr-defined]
            if type(key) is not str:
                raise InvalidExperience(field, key, "keys of nested maps must be strings")
            check_unicode(field, key)
            _check(field, item, depth + 1)
    else:
        raise InvalidExperience(
            field,
            value,
            f"{kind.__name__} does not survive being stored; use None, bool, int, float, str, "
            "list or dict (numpy values: .item() or .tolist(), tuples: list)",
        )


def check_unicode(field: str, text: str) -> None:
    """Refuse text that UTF-8 cannot hold.

    Raises:
        InvalidExperience: for a lone surrogate.
    """
    if text.isascii():
        return
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidExperience(field, text, "text must be valid unicode") from error
