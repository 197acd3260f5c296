"""Every Avro schema ever released, by name, version and fingerprint.

The files `avro/NAME.vN.avsc` are never changed once released; `avro/released.json` locks their
fingerprints. A changed event gets a new file with the next number, and old records stay readable.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any, cast

from fastavro.schema import fingerprint, parse_schema, to_parsing_canonical_form

LOCK_FILE = "released.json"


@dataclass(frozen=True, slots=True)
class ReleasedSchema:
    """One released schema.

    Attributes:
        name: the event's name, without namespace.
        version: 1 for the first release.
        fingerprint: CRC-64-AVRO of the canonical form, 8 bytes little-endian, as framing wants it.
        parsed: the schema in the form fastavro reads and writes with.
        field_names: the record's fields in order.
        text: the schema as JSON without spaces, as registries are given it.
    """

    name: str
    version: int
    fingerprint: bytes
    parsed: dict[str, Any]
    field_names: tuple[str, ...]
    text: str


def released_schema(file_name: str, text: str) -> ReleasedSchema:
    """The schema in `text`, as released under a file name like `OutcomeReported.v1.avsc`."""
    name, version, _ = file_name.split(".")
    declared = json.loads(text)
    canonical = to_parsing_canonical_form(declared)
    return ReleasedSchema(
        name=name,
        version=int(version.removeprefix("v")),
        fingerprint=bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO")),
        parsed=cast(dict[str, Any], parse_schema(declared, named_schemas={})),
        field_names=tuple(field["name"] for field in declared["fields"]),
        text=json.dumps(declared, separators=(",", ":")),
    )


@cache
def released_schemas() -> tuple[ReleasedSchema, ...]:
    """All released schemas, by name and version."""
    found = [
        released_schema(entry.name, entry.read_text(encoding="utf-8"))
        for entry in (files(__package__) / "avro").iterdir()
        if entry.name.endswith(".avsc")
    ]
    return tuple(sorted(found, key=lambda schema: (schema.name, schema.version)))


@cache
def current_schema(name: str) -> ReleasedSchema:
    """The newest released schema of an event."""
    return max(
        (schema for schema in released_schemas() if schema.name == name),
        key=lambda schema: schema.version,
    )


@cache
def schema_by_fingerprint() -> dict[bytes, ReleasedSchema]:
    """Released schemas by the fingerprint that frames their records."""
    return {schema.fingerprint: schema for schema in released_schemas()}


def lock_entries() -> dict[str, str]:
    """What the lock file must say: file name to fingerprint in hexadecimal."""
    return {f"{s.name}.v{s.version}.avsc": s.fingerprint.hex() for s in released_schemas()}


def locked_entries() -> dict[str, str]:
    """What the lock file says."""
    text = (files(__package__) / "avro" / LOCK_FILE).read_text(encoding="utf-8")
    entries: dict[str, str] = json.loads(text)
    return entries
