"""Whether a log's place keeps what is written to it: what `relive log check` asks."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from typing import TYPE_CHECKING, Any

from relive.errors import SchemaRegistryUnavailable, UndecodableEvent
from relive.log.findings import Finding
from relive.log.port import EventLog
from relive.log.url import kafka_place, open_log
from relive.schemas import SettingsChanged, decode

if TYPE_CHECKING:
    from relive.log.kafka_options import KafkaOptions

# Whoever makes a log puts its settings first.
_FIRST_RECORDS = 100


def check_place(
    url: str,
    *,
    capacity: int | None = None,
    kafka: Mapping[str, Any] | KafkaOptions | None = None,
) -> list[Finding]:
    """What is good and bad about where a log is. Changes nothing.

    A topic is looked at also where its settings keep it from being opened. Of a log in a file there
    is nothing to find: its place is the disk.

    Args:
        url, kafka: see `open_log`.
        capacity: experiences that are to be kept; by default, what the log's first settings say.

    Raises:
        InvalidConfig, LogMissing, LogUnavailable, LogAccessDenied: see `open_log`.
    """
    place = kafka_place(url)
    if place is None:
        open_log(url).close()  # it is there
        return []
    from relive.log.kafka import KafkaLog
    from relive.log.kafka_options import kafka_options

    with closing(KafkaLog(*place, options=kafka_options(kafka), checked=False)) as log:
        return log.findings(first_capacity(log) if capacity is None else capacity)


def first_capacity(log: EventLog) -> int | None:
    """The capacity that the log's first settings say; None where they are not at its beginning."""
    try:
        records = log.read({0: log.bounds(0).first}, _FIRST_RECORDS)
    except SchemaRegistryUnavailable:
        return None  # that is a finding of its own
    for record in records:
        try:
            event = decode(record.value)
        except UndecodableEvent:
            continue
        if isinstance(event, SettingsChanged):
            return event.capacity
    return None
