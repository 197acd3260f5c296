"""Experiences as JSON objects: embeddings as arrays, checksums as hexadecimal digits."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np
import orjson

from relive.core.experience import Experience
from relive.errors import InvalidExperience

_FIELDS = tuple(field.name for field in fields(Experience))
_VECTORS = ("visual", "text")


def experience_to_json(experience: Experience, *, vectors: bool = True) -> dict[str, Any]:
    """The experience with what has come of it; embeddings only if asked for."""
    found = {name: getattr(experience, name) for name in _FIELDS}
    for name in _VECTORS:
        vector = found.pop(name)
        if vectors:
            found[name] = None if vector is None else np.asarray(vector).tolist()
    sha256 = experience.input_sha256
    found["input_sha256"] = None if sha256 is None else sha256.hex()
    return found


def experience_from_json(line: str | bytes) -> Experience:
    """The experience in a JSON object, as `experience_to_json` writes it; what is left out is as
    for `Experience`. What has come of it is ignored.

    Raises:
        InvalidExperience: not a JSON object, an unknown field, or digits that are no checksum.
    """
    try:
        found = orjson.loads(line)
    except ValueError as error:
        raise InvalidExperience("experience", line, f"must be JSON: {error}") from error
    if not isinstance(found, dict):
        raise InvalidExperience("experience", line, "must be a JSON object")
    for name in found:
        if name not in _FIELDS:
            raise InvalidExperience(
                name, found[name], f"no such field; known: {', '.join(_FIELDS)}"
            )
    sha256 = found.get("input_sha256")
    if sha256 is not None:
        try:
            found["input_sha256"] = bytes.fromhex(sha256)
        except (TypeError, ValueError) as error:
            raise InvalidExperience("input_sha256", sha256, "must be hexadecimal digits") from error
    return Experience(**found)
