"""Confluent framing in the topic, single-object encoding everywhere else.

    00    | schema id, 4 bytes, big-endian          | Avro body   in the topic
    C3 01 | fingerprint, 8 bytes, little-endian     | Avro body   above the log

The two differ in what comes before the body, so that they are exchanged here, at the log's edge:
state, digests and stores are the same whatever a topic's framing is, and a log may be copied from
one to the other.

Subjects are the records' names (`relive.ExperienceRecorded`: RecordNameStrategy), since a topic has
records of several types. Ids are asked for once; those that are known go on working when the
registry does not.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from fastavro.schema import fingerprint, to_parsing_canonical_form

from relive.errors import (
    InvalidConfig,
    LogUnavailable,
    SchemaRegistryUnavailable,
    UndecodableEvent,
)
from relive.log.findings import Finding, Verdict
from relive.log.kafka_options import REGISTRY_URL
from relive.log.port import NewRecord, Record
from relive.log.registry_client import RegistryClient
from relive.schemas.codec import (
    CONFLUENT_HEADER_BYTES,
    CONFLUENT_MARKER,
    HEADER_BYTES,
    SINGLE_OBJECT_MARKER,
    decode,
)
from relive.schemas.events import EVENT_TYPES
from relive.schemas.released import (
    ReleasedSchema,
    current_schema,
    released_schemas,
    schema_by_fingerprint,
)


class Framing:
    """Exchanges the framing of records. May be used from any thread.

    Args:
        registry: to ask for ids; without one, records stay as they are.
    """

    def __init__(self, registry: RegistryClient | None) -> None:
        self._registry = registry
        # What comes before the body, for what comes before it on the other side. Threads may ask
        # for the same at the same time; they get the same answer.
        self._outgoing: dict[bytes, bytes] = {}
        self._incoming: dict[bytes, bytes] = {}

    def register_all(self, deadline: float) -> None:
        """Have every current schema registered, so that nobody else needs the right to do it.

        Raises:
            as `outgoing`.
        """
        if self._registry is not None:
            for schema in _current_schemas():
                self._outgoing_header(schema, self._registry, deadline)

    def outgoing(self, records: Sequence[NewRecord], deadline: float) -> Sequence[NewRecord]:
        """Records as they go into the topic.

        Raises:
            SchemaRegistryUnavailable, LogAccessDenied: an id is not known, and nobody tells it.
            SchemaRefused: the registry does not want the schema.
        """
        if self._registry is None:
            return records
        framed = []
        for record in records:
            header = record.value[:HEADER_BYTES]
            known = self._outgoing.get(header)
            if known is None:
                schema = _released(header)
                if schema is None:  # not an event of ours: that is for the fold to say
                    framed.append(record)
                    continue
                known = self._outgoing_header(schema, self._registry, deadline)
            framed.append(record._replace(value=known + record.value[HEADER_BYTES:]))
        return framed

    def incoming(self, records: list[Record], deadline: float) -> list[Record]:
        """Records as they go to the reader: those before the first whose schema cannot be had.

        Raises:
            InvalidConfig: that is the first of them, and there is no registry to ask.
            SchemaRegistryUnavailable, LogAccessDenied: or it does not tell.
        """
        framed: list[Record] = []
        for record in records:
            if record.value[:1] != CONFLUENT_MARKER or len(record.value) < CONFLUENT_HEADER_BYTES:
                framed.append(record)
                continue
            try:
                header = self._incoming_header(record, deadline)
            except (InvalidConfig, LogUnavailable):
                if framed:
                    break  # the next read begins with it
                raise
            if header is not None:
                body = record.value[CONFLUENT_HEADER_BYTES:]
                record = record._replace(value=header + body)
            framed.append(record)
        return framed

    def finding(self, deadline: float) -> Finding | None:
        """Whether the registry takes our schemas; None where there is none."""
        if self._registry is None:
            return None
        about, value = "schema registry", ",".join(self._registry.urls)
        missing = []
        try:
            for schema in _current_schemas():
                given = subject(schema), schema.text, deadline
                if self._registry.registered(*given) is None:
                    missing.append(schema.name)
                    if not self._registry.is_compatible(*given):
                        return Finding(
                            about,
                            value,
                            Verdict.LOSES,
                            f"{subject(schema)} there is not compatible with Relive's schema, so "
                            "that such events are refused",
                            "give Relive a registry, or a context of it, of its own",
                        )
        except SchemaRegistryUnavailable as problem:
            do = f"bring it back, or set {REGISTRY_URL} to where it is"
            return Finding(about, value, Verdict.RISK, str(problem), do)
        if missing:
            says = f"{', '.join(missing)} will be registered with the first event of each"
            return Finding(about, value, Verdict.OK, says)
        return Finding(about, value, Verdict.OK, "it has every schema")

    def _outgoing_header(
        self, schema: ReleasedSchema, registry: RegistryClient, deadline: float
    ) -> bytes:
        mine = SINGLE_OBJECT_MARKER + schema.fingerprint
        if mine not in self._outgoing:
            given = subject(schema), schema.text, deadline
            # Registering what is there needs the right to register; asking for it does not.
            schema_id = registry.registered(*given)
            if schema_id is None:
                schema_id = registry.register(*given)
            theirs = CONFLUENT_MARKER + schema_id.to_bytes(4, "big")
            self._outgoing[mine], self._incoming[theirs] = theirs, mine
        return self._outgoing[mine]

    def _incoming_header(self, record: Record, deadline: float) -> bytes | None:
        """What our framing of a record begins with; None if it is no event of ours at all."""
        theirs = record.value[:CONFLUENT_HEADER_BYTES]
        if theirs in self._incoming:
            return self._incoming[theirs]
        schema_id = int.from_bytes(theirs[1:], "big")
        text = None if self._registry is None else self._registry.schema(schema_id, deadline)
        if text is not None:
            found = _fingerprint(text)
            if found is not None:
                self._incoming[theirs] = SINGLE_OBJECT_MARKER + found
                return self._incoming[theirs]
        if not _is_ours(record.value, schema_id):
            return None
        where = f"the record at {record.position} of partition {record.partition}"
        if self._registry is None:
            problem = f"{where} is framed for a schema registry; say where it is"
            raise InvalidConfig(REGISTRY_URL, None, problem)
        raise SchemaRegistryUnavailable(
            f"the schema registry at {','.join(self._registry.urls)} does not know the id "
            f"{schema_id} of {where}; is it the one that the topic was written with?"
        )


def subject(schema: ReleasedSchema) -> str:
    """Under which a schema is registered."""
    return str(schema.parsed["name"])


def _current_schemas() -> list[ReleasedSchema]:
    return [current_schema(event_type.__name__) for event_type in EVENT_TYPES]


def _released(header: bytes) -> ReleasedSchema | None:
    if header[:2] != SINGLE_OBJECT_MARKER or len(header) < HEADER_BYTES:
        return None
    return schema_by_fingerprint().get(header[2:])


def _fingerprint(text: str) -> bytes | None:
    """What frames records of a schema of somebody's; None if it makes no sense."""
    try:
        canonical = to_parsing_canonical_form(json.loads(text))
        return bytes.fromhex(fingerprint(canonical, "CRC-64-AVRO"))
    except Exception:  # noqa: BLE001 - whatever fastavro makes of what a registry says
        return None


def _is_ours(value: bytes, schema_id: int) -> bool:
    """Whether a record's body is, to the last byte, that of a released schema."""
    for schema in released_schemas():
        try:
            decode(value, {schema_id: schema})
        except UndecodableEvent:
            continue
        return True
    return False
