"""Log URLs: the one place that picks a backend."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from relive.errors import InvalidConfig
from relive.log.port import EventLog

if TYPE_CHECKING:
    from relive.log.kafka_options import KafkaOptions

_FORMS = "file:DIRECTORY or kafka://HOST:PORT[,HOST:PORT…]/TOPIC"


def open_log(
    url: str,
    *,
    create: bool = False,
    partitions: int = 1,
    replication: int = 1,
    kafka: Mapping[str, Any] | KafkaOptions | None = None,
) -> EventLog:
    """Open the log that a URL names.

    Args:
        url: `file:DIRECTORY` (the directory of an embedded buffer) or
            `kafka://HOST:PORT[,HOST:PORT…]/TOPIC`.
        create: make it if it does not exist.
        partitions: of a log that is made; an embedded log has one.
        replication: copies of each record, of a Kafka topic that is made.
        kafka: properties of Kafka's clients (how to get in, for instance), and where a schema
            registry is; see `relive.log.kafka_options`. What is not given is taken from variables
            `RELIVE_KAFKA_…`.

    Raises:
        InvalidConfig: the URL makes no sense, a property is refused, or a Kafka topic's settings
            would lose events.
        LogMissing: it does not exist, and create is off.
        LogUnavailable: it cannot be reached; LogAccessDenied: the brokers let nobody in like this.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and colon and rest:
        from relive.log.sqlite import SqliteLog

        if partitions != 1:
            raise InvalidConfig("partitions", partitions, "an embedded log has one partition")
        return SqliteLog(Path(rest), create=create)
    place = kafka_place(url)
    if place is not None:
        from relive.log.kafka import KafkaLog
        from relive.log.kafka_options import kafka_options

        return KafkaLog(
            *place,
            create=create,
            partitions=partitions,
            replication=replication,
            options=kafka_options(kafka),
        )
    raise InvalidConfig("log", url, f"a log URL is {_FORMS}")


def kafka_place(url: str) -> tuple[str, str] | None:
    """The brokers and the topic that a URL names; None where it names another log, or none."""
    if not url.startswith("kafka://"):
        return None
    brokers, _, topic = url.removeprefix("kafka://").partition("/")
    return (brokers, topic) if brokers and topic and "/" not in topic else None
