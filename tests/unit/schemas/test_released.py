import copy
import io
import json
from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import pytest
from fastavro import schemaless_reader, schemaless_writer
from fastavro.schema import fingerprint

from relive.schemas import decode, encode
from relive.schemas.codec import CONFLUENT_MARKER, SINGLE_OBJECT_MARKER
from relive.schemas.events import EVENT_TYPES, Event
from relive.schemas.released import (
    ReleasedSchema,
    current_schema,
    lock_entries,
    locked_entries,
    released_schema,
    released_schemas,
)

AVRO_FILES = sorted(
    (f for f in (files("relive.schemas") / "avro").iterdir() if f.name.endswith(".avsc")),
    key=lambda f: f.name,
)


def name_of(schema: ReleasedSchema) -> str:
    return f"{schema.name}.v{schema.version}"


def nodes(schema: Any) -> Iterator[Any]:
    yield schema
    for child in schema.values() if isinstance(schema, dict) else schema:
        if isinstance(child, dict | list):
            yield from nodes(child)


def test_the_lock_file_says_the_fingerprint_of_every_schema_and_nothing_else() -> None:
    assert locked_entries() == lock_entries()


def test_the_fingerprints_of_version_1_never_change() -> None:
    # The lock file could be written anew together with a changed schema; this list is not.
    assert {
        "BufferCleared.v1.avsc": "60267e4fb8634fd0",
        "ExperienceRecorded.v1.avsc": "f3af6a43d4d703a4",
        "ExperienceRetired.v1.avsc": "95b987ff20b351b9",
        "ExperiencesRetrieved.v1.avsc": "132955da7a3175a8",
        "OutcomeReported.v1.avsc": "fd474be1aa153a58",
        "PrioritiesUpdated.v1.avsc": "ac5da5e202c82f1e",
        "PriorityUpdated.v1.avsc": "b3d9b1d0203b5681",
        "SettingsChanged.v1.avsc": "8cb46a897497e9b0",
    }.items() <= locked_entries().items()


@pytest.mark.parametrize(
    ("schema", "crc"),
    # The values of Avro's own test suite, share/test/data/schema-tests.txt.
    [('"null"', 7195948357588979594), ('"int"', 8247732601305521295)],
)
def test_the_fingerprint_is_crc_64_avro_in_little_endian(schema: str, crc: int) -> None:
    assert fingerprint(schema, "CRC-64-AVRO") == crc.to_bytes(8, "little").hex()


def test_a_changed_schema_has_another_fingerprint() -> None:
    for file in AVRO_FILES:
        declared = json.loads(file.read_text())
        before = released_schema(file.name, json.dumps(declared)).fingerprint
        declared["fields"][-1]["name"] += "_"
        assert released_schema(file.name, json.dumps(declared)).fingerprint != before


def test_every_event_type_has_a_schema_with_its_fields_in_order() -> None:
    assert {schema.name for schema in released_schemas()} == {t.__name__ for t in EVENT_TYPES}
    for event_type in EVENT_TYPES:
        assert current_schema(event_type.__name__).field_names == event_type._fields


def test_the_current_schema_is_the_newest_and_versions_have_no_gaps() -> None:
    for event_type in EVENT_TYPES:
        versions = [s.version for s in released_schemas() if s.name == event_type.__name__]
        assert versions == list(range(1, len(versions) + 1))
        assert current_schema(event_type.__name__).version == versions[-1]


@pytest.mark.parametrize("file", AVRO_FILES, ids=lambda f: f.name)
def test_no_schema_uses_what_the_fingerprint_or_a_safe_decoder_does_not_cover(file: Any) -> None:
    declared = json.loads(file.read_text())
    kinds = set()
    for node in nodes(declared):
        if isinstance(node, dict):
            # The canonical form drops it, so two schemas that differ in it would share a name.
            assert "logicalType" not in node
            kinds.add(node.get("type") if isinstance(node.get("type"), str) else None)
    records = [n for n in nodes(declared) if isinstance(n, dict) and n.get("type") == "record"]
    assert records == [declared], "nested records may recurse"
    assert "map" not in kinds
    for node in nodes(declared):
        if isinstance(node, dict) and node.get("type") == "array":
            # Items of no bytes would let a few bytes stand for billions of them.
            assert node["items"] in ("string", "double", "long")


@pytest.mark.parametrize("schema", released_schemas(), ids=name_of)
def test_the_bytes_of_a_released_schema_are_read_as_they_were_meant(
    schema: ReleasedSchema, golden_bytes: dict[str, bytes], golden_events: dict[str, Event]
) -> None:
    raw = golden_bytes[name_of(schema)]
    assert raw[:10] == SINGLE_OBJECT_MARKER + schema.fingerprint
    assert decode(raw) == golden_events[name_of(schema)]


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.__name__)
def test_the_current_schema_writes_the_golden_bytes(
    event_type: type[Event], golden_bytes: dict[str, bytes], golden_events: dict[str, Event]
) -> None:
    current = name_of(current_schema(event_type.__name__))
    assert encode(golden_events[current]).hex() == golden_bytes[current].hex()


def test_there_are_no_golden_bytes_without_a_released_schema(
    golden_bytes: dict[str, bytes],
) -> None:
    assert set(golden_bytes) == {name_of(schema) for schema in released_schemas()}


@pytest.mark.parametrize("schema", released_schemas(), ids=name_of)
def test_the_current_events_can_be_read_with_every_released_schema(
    schema: ReleasedSchema, golden_events: dict[str, Event]
) -> None:
    current = current_schema(schema.name)
    event = golden_events[name_of(current)]
    body = io.BytesIO(encode(event)[10:])
    old: Any = schemaless_reader(body, current.parsed, schema.parsed)
    assert tuple(old) == schema.field_names
    for field in set(schema.field_names) & set(current.field_names):
        written = getattr(event, field)
        assert old[field] == (list(written) if isinstance(written, tuple) else written)


@pytest.mark.parametrize("event_type", EVENT_TYPES, ids=lambda t: t.__name__)
def test_a_record_of_another_version_is_resolved_to_the_current_event(
    event_type: type[Event], golden_events: dict[str, Event]
) -> None:
    # Given a schema that a newer program might write: one more field, two fields swapped.
    current = current_schema(event_type.__name__)
    file = files("relive.schemas") / "avro" / f"{name_of(current)}.avsc"
    declared = json.loads(file.read_text())
    fields = copy.deepcopy(declared["fields"])
    fields[1], fields[2] = fields[2], fields[1]
    declared["fields"] = [*fields, {"name": "added", "type": "long", "default": 0}]
    newer = released_schema(f"{event_type.__name__}.v99.avsc", json.dumps(declared))
    event = golden_events[name_of(current)]
    out = io.BytesIO()
    schemaless_writer(out, newer.parsed, {**event._asdict(), "added": 5})

    framed = CONFLUENT_MARKER + (9).to_bytes(4, "big") + out.getvalue()

    assert decode(framed, {9: newer}) == event
