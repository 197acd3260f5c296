"""Events as JSON objects: embeddings as arrays, ids of bytes as hexadecimal digits.

    {"type": "ExperienceRecorded", "experience_id": "x1", "visual": [0.5, …], …}

Documents (trajectory, final answer, metadata) are part of the object. What an event of a bad
producer holds that has no such form is shown as it is: bytes that are no embedding as
`{"hex": …}`, a document that is no JSON as text.
"""

from __future__ import annotations

from typing import Any

import orjson

from relive.core.document import to_json as document_to_json
from relive.core.experience import embedding_bytes, vector_from
from relive.errors import InvalidExperience
from relive.schemas import Event, decode, encode
from relive.schemas.events import EVENT_ID_BYTES, EVENT_TYPES

_TYPES = {event_type.__name__: event_type for event_type in EVENT_TYPES}
_HEX = ("event_id", "input_sha256")
_EMBEDDINGS = ("visual", "text")
_DOCUMENTS = ("trajectory", "final_answer", "metadata")


def event_to_json(event: Event) -> dict[str, Any]:
    """The event as an object with a `type` and its fields."""
    shown: dict[str, Any] = {"type": type(event).__name__}
    for name, value in event._asdict().items():
        if value is None:
            shown[name] = None
        elif name in _HEX:
            shown[name] = value.hex()
        elif name in _EMBEDDINGS:
            shown[name] = _embedding(value)
        elif name in _DOCUMENTS:
            shown[name] = _document(value)
        else:
            shown[name] = value
    return shown


def event_from_json(text: str | bytes) -> Event:
    """The event in an object that `event_to_json` made, or somebody repaired.

    Its event id may be left out, and is not meant to be kept.

    Raises:
        InvalidExperience: names the field.
    """
    try:
        given = orjson.loads(text)
    except ValueError as error:
        raise InvalidExperience("event", text, f"must be JSON: {error}") from error
    if not isinstance(given, dict):
        raise InvalidExperience("event", text, "must be a JSON object")
    kind = given.pop("type", None)
    event_type = _TYPES.get(kind) if isinstance(kind, str) else None
    if event_type is None:
        raise InvalidExperience("type", kind, f"one of {', '.join(_TYPES)}")
    given.setdefault("event_id", bytes(EVENT_ID_BYTES).hex())
    for name in given.keys() - set(event_type._fields):
        raise InvalidExperience(name, given[name], f"an {event_type.__name__} has no such field")
    for name in event_type._fields:
        if name not in given:
            raise InvalidExperience(name, None, f"an {event_type.__name__} needs it")
        given[name] = _value(name, given[name])
    event = event_type(**given)
    try:
        if decode(encode(event)) == event:
            return event
        problem = "a field has a value of another type"
    except Exception as error:  # noqa: BLE001 - whatever the codec makes of a wrong type
        problem = str(error)
    raise InvalidExperience("event", text, f"is no {event_type.__name__}: {problem}")


def _embedding(raw: bytes) -> Any:
    vector = vector_from(raw) if raw and len(raw) % 4 == 0 else None
    return {"hex": raw.hex()} if vector is None else vector.tolist()


def _document(text: str) -> Any:
    try:
        return orjson.loads(text)
    except ValueError:
        return text


def _value(name: str, value: Any) -> Any:
    if name in _DOCUMENTS:
        return document_to_json(name, value)
    if value is None:
        return None
    if name in _HEX:
        try:
            return bytes.fromhex(value)
        except (TypeError, ValueError) as error:
            raise InvalidExperience(name, value, "must be hexadecimal digits") from error
    if name in _EMBEDDINGS:
        return embedding_bytes(name, value, InvalidExperience)
    return tuple(value) if isinstance(value, list) else value
