"""Log URLs: the one place that picks a backend."""

from __future__ import annotations

from pathlib import Path

from relive.errors import InvalidConfig
from relive.log.port import EventLog

_FORMS = "file:DIRECTORY or kafka://HOST:PORT[,HOST:PORT…]/TOPIC"


def open_log(
    url: str, *, create: bool = False, partitions: int = 1, replication: int = 1
) -> EventLog:
    """Open the log that a URL names.

    Args:
        url: `file:DIRECTORY` (the directory of an embedded buffer) or
            `kafka://HOST:PORT[,HOST:PORT…]/TOPIC`.
        create: make it if it does not exist.
        partitions: of a log that is made; an embedded log has one.
        replication: copies of each record, of a Kafka topic that is made.

    Raises:
        InvalidConfig: the URL makes no sense, or a Kafka topic's settings would lose events.
        LogMissing: it does not exist, and create is off.
        LogUnavailable: it cannot be reached.
    """
    scheme, colon, rest = url.partition(":")
    if scheme == "file" and colon and rest:
        from relive.log.sqlite import SqliteLog

        if partitions != 1:
            raise InvalidConfig("partitions", partitions, "an embedded log has one partition")
        return SqliteLog(Path(rest), create=create)
    if scheme == "kafka" and rest.startswith("//"):
        brokers, _, topic = rest[2:].partition("/")
        if brokers and topic and "/" not in topic:
            from relive.log.kafka import KafkaLog

            return KafkaLog(
                brokers, topic, create=create, partitions=partitions, replication=replication
            )
    raise InvalidConfig("log", url, f"a log URL is {_FORMS}")
