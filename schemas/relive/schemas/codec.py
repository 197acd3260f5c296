"""Events to bytes and back: Avro single-object encoding, and Confluent framing.

Single-object encoding (Avro 1.11, "Single-object encoding"): `C3 01`, the 8-byte little-endian
CRC-64-AVRO fingerprint of the writer's schema, the Avro body.
Confluent framing: `00`, a 4-byte big-endian schema id, the Avro body; readable where the caller
knows which schema an id stands for.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, cast

from fastavro import schemaless_reader

from relive.errors import UndecodableEvent
from relive.schemas.events import EVENT_TYPES, Event
from relive.schemas.flat_reader import Read, record_reader
from relive.schemas.flat_writer import record_writer
from relive.schemas.released import ReleasedSchema, current_schema, schema_by_fingerprint

SINGLE_OBJECT_MARKER = b"\xc3\x01"
CONFLUENT_MARKER = b"\x00"
HEADER_BYTES = 10
CONFLUENT_HEADER_BYTES = 5

# Far above any record a log accepts; keeps a hostile record from being decoded at all.
MAX_EVENT_BYTES = 8 * 1024 * 1024

_EVENT_TYPE_BY_NAME = {event_type.__name__: event_type for event_type in EVENT_TYPES}
_ARRAYS = {
    "ExperiencesRetrieved": ("experience_ids", "scores", "positions"),
    "PrioritiesUpdated": ("experience_ids", "priorities", "expected_versions"),
}


@cache
def _encoder(name: str) -> Callable[[Event], bytes]:
    schema = current_schema(name)
    assert schema.field_names == _EVENT_TYPE_BY_NAME[name]._fields, name
    header = SINGLE_OBJECT_MARKER + schema.fingerprint
    write = record_writer(schema.parsed)
    return lambda event: write(header, event)


def encode(event: Event) -> bytes:
    """The event in single-object encoding with the current schema."""
    return _encoder(type(event).__name__)(event)


@cache
def _readers() -> dict[bytes, Read[Event]]:
    """By header, what reads events of the current schemas."""
    readers: dict[bytes, Read[Event]] = {}
    for name, event_type in _EVENT_TYPE_BY_NAME.items():
        schema = current_schema(name)
        assert schema.field_names == event_type._fields, name
        readers[SINGLE_OBJECT_MARKER + schema.fingerprint] = record_reader(
            schema.parsed, event_type
        )
    return readers


def decode(raw: bytes, schema_of_id: Mapping[int, ReleasedSchema] | None = None) -> Event:
    """The event in `raw`, whichever released schema wrote it.

    Args:
        raw: one framed record.
        schema_of_id: schemas by registry id, where Confluent framing is to be read.

    Raises:
        UndecodableEvent: unknown framing or schema, a body that does not fit its schema, bytes
            left over, or more than MAX_EVENT_BYTES.
    """
    if len(raw) > MAX_EVENT_BYTES:
        raise UndecodableEvent(raw, f"longer than {MAX_EVENT_BYTES} bytes")
    read = _readers().get(raw[:HEADER_BYTES])
    event = read and read(raw, HEADER_BYTES)
    if event is not None:
        return event
    return _decode_any(raw, schema_of_id or {})


def _decode_any(raw: bytes, schema_of_id: Mapping[int, ReleasedSchema]) -> Event:
    """What fastavro makes of it."""
    schema, start = _framing(raw, schema_of_id)
    body = io.BytesIO(raw)
    body.seek(start)
    current = current_schema(schema.name)
    reader = None if schema is current else current.parsed  # resolving costs 2 µs a record
    try:
        record = cast(dict[str, Any], schemaless_reader(body, schema.parsed, reader))
    except Exception as error:
        problem = f"the body is not a {schema.name}: {error!r}"
        raise UndecodableEvent(raw, problem) from error
    if body.tell() != len(raw):
        raise UndecodableEvent(raw, f"{len(raw) - body.tell()} bytes after the {schema.name}")
    return _event(schema.name, record, in_order=reader is None)


def single_object_schema(raw: bytes) -> bytes | None:
    """The fingerprint of the schema that wrote a record in single-object encoding; else None."""
    return raw[2:HEADER_BYTES] if raw[:2] == SINGLE_OBJECT_MARKER else None


def _framing(raw: bytes, schema_of_id: Mapping[int, ReleasedSchema]) -> tuple[ReleasedSchema, int]:
    if raw[:2] == SINGLE_OBJECT_MARKER and len(raw) >= HEADER_BYTES:
        schema = schema_by_fingerprint().get(raw[2:HEADER_BYTES])
        if schema is None:
            raise UndecodableEvent(raw, f"unknown schema fingerprint {raw[2:10].hex()}")
        return schema, HEADER_BYTES
    if raw[:1] == CONFLUENT_MARKER and len(raw) >= CONFLUENT_HEADER_BYTES:
        schema_id = int.from_bytes(raw[1:CONFLUENT_HEADER_BYTES], "big")
        schema = schema_of_id.get(schema_id)
        if schema is None:
            raise UndecodableEvent(raw, f"unknown registry schema id {schema_id}")
        return schema, CONFLUENT_HEADER_BYTES
    raise UndecodableEvent(raw, "neither single-object encoding nor Confluent framing")


def _event(name: str, record: dict[str, Any], *, in_order: bool) -> Event:
    for field in _ARRAYS.get(name, ()):
        record[field] = tuple(record[field])
    event_type = _EVENT_TYPE_BY_NAME[name]
    return event_type._make(record.values()) if in_order else event_type(**record)
