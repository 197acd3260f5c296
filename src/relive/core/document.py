"""Nested documents (trajectory, final answer, metadata) as JSON text, without losing a type."""

from __future__ import annotations

import json
import math
from typing import TypeAlias

from relive.errors import InvalidExperience

Document: TypeAlias = "bool | int | float | str | list[Document] | dict[str, Document] | None"

# Deep enough for any real trajectory, far below what Python's own recursion allows.
MAX_DEPTH = 64

# Python refuses to read integers of more than 4,300 digits back from text.
MAX_INT_BITS = 14_000

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def to_json(field: str, value: object) -> str:
    """The document as JSON text that reads back equal, types included.

    Raises:
        InvalidExperience: for what JSON would change or cannot hold: tuples, keys that are not
            strings, numpy scalars, non-finite numbers, lone surrogates, deep nesting.
    """
    _check(field, value, 0)
    return _encoder.encode(value)


def from_json(text: str) -> Document:
    """The document in JSON text written by `to_json`."""
    value: Document = json.loads(text)
    return value


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
        if value.bit_length() > MAX_INT_BITS:  # type: ignore[attr-defined]
            raise InvalidExperience(field, "an integer", f"must fit {MAX_INT_BITS} bits")
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
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidExperience(field, text, "text must be valid unicode") from error
