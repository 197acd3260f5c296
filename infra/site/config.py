"""The settings, from the configuration model and its docstring."""

from __future__ import annotations

import inspect
import re
import types
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr

from relive.config import BufferConfig

_WORDS = {Path: "path", SecretStr: "secret text", str: "text", bool: "true or false"}
_WORDS |= {int: "whole number", float: "number"}


def config_reference() -> str:
    """An item for each setting, in Markdown."""
    lines = []
    said = meanings()
    for name, field in BufferConfig.model_fields.items():
        kind, default = in_words(field.annotation), _shown(field.default)
        lines.append(f"- **`{name}`** ({kind}; {default}): {said[name]}")
    # What the docstring leaves to modules is on a page.
    return re.sub(r"`(relive\.[a-z_.]+)`", r"[\g<0>](rules.md)", "\n".join(lines))


def meanings() -> dict[str, str]:
    """What the docstring's section `Attributes` says of each setting."""
    text = inspect.getdoc(BufferConfig) or ""
    section = text.partition("Attributes:\n")[2].partition("\n\n")[0]
    found: dict[str, str] = {}
    for entry in re.split(r"\n(?=    \w)", section):
        names, _, meaning = entry.partition(":")
        meaning = " ".join(meaning.split())
        found.update(dict.fromkeys((name.strip() for name in names.split(",")), meaning))
    return found


def in_words(annotation: Any) -> str:
    """A type as a user would say it."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return in_words(arguments[0])
    if origin is Literal:
        return " or ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(in_words(each) for each in arguments if each is not type(None))
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return " or ".join(f"`{each.value}`" for each in annotation)
    return _WORDS.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _shown(default: object) -> str:
    if default is None:
        return "unset"
    if isinstance(default, bool):
        return f"default `{str(default).lower()}`"
    return f"default `{default.value if isinstance(default, Enum) else default}`"
