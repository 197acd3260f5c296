"""Opening a Kafka topic as a log: find it or make it, and refuse one that would lose events."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from relive.errors import InvalidConfig, LogMissing, LogUnavailable
from relive.log.kafka_admin import Admin

# What a record of MAX_RECORD_BYTES takes with its framing; Kafka's own default for a topic.
MAX_MESSAGE_BYTES = 1_048_588

UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")

# Setting: what it must be, and what happens to events otherwise.
_REQUIRED: Mapping[str, tuple[str, str]] = {
    "cleanup.policy": ("delete", "compaction removes all but the last event of an experience"),
    "retention.ms": ("-1", "events are deleted when they get older"),
    "retention.bytes": ("-1", "events are deleted when the topic gets larger"),
    "message.timestamp.type": ("LogAppendTime", "a producer's wrong clock would date the log"),
    "unclean.leader.election.enable": ("false", "acknowledged events are lost at an election"),
}


def find_or_create(
    admin: Admin, name: str, *, create: bool, partitions: int, replication: int, deadline: float
) -> TopicDescription:
    """The topic, which exists and keeps what is written to it.

    Raises:
        InvalidConfig, LogMissing, LogUnavailable: as `relive.log.kafka.KafkaLog` says.
    """
    if not _LEGAL_NAME.fullmatch(name):
        raise InvalidConfig("log", name, "a topic's name has letters, digits, '.', '_' and '-'")
    for field, number in (("partitions", partitions), ("replication", replication)):
        if number < 1:
            raise InvalidConfig(field, number, "must be at least 1")
    if describe(admin, name, deadline) is None:
        if not create:
            raise LogMissing(
                f"Kafka at {admin.cluster.brokers} has no topic {name}; "
                "make it with relive log create, or open it with create=True"
            )
        _create(admin, name, partitions, replication, deadline)
    found = _described_with_leaders(admin, name, deadline)
    if create and len(found.partitions) != partitions:
        raise InvalidConfig(
            "partitions",
            partitions,
            f"topic {name} has {len(found.partitions)}, and the number is fixed; give that, or "
            "copy the log to a new topic",
        )
    _check_settings(admin, name, deadline)
    return found


def describe(admin: Admin, name: str, deadline: float) -> TopicDescription | None:
    """What the cluster says about a topic; None if it doesn't know it.

    Raises:
        LogUnavailable, BufferClosed: as for `Admin.ask`.
    """
    names = TopicCollection([name])
    try:
        (found,) = admin.ask(
            lambda client, left: client.describe_topics(names, request_timeout=left),
            deadline,
            UNKNOWN,
        ).values()
    except KafkaException:
        return None
    assert isinstance(found, TopicDescription)
    return found


def cluster_id(admin: Admin, deadline: float) -> str:
    """What tells this cluster from others."""
    (cluster,) = admin.ask(
        lambda client, left: {None: client.describe_cluster(request_timeout=left)}, deadline
    ).values()
    return str(cluster.cluster_id)


def _create(admin: Admin, name: str, partitions: int, replication: int, deadline: float) -> None:
    settings = {setting: wanted for setting, (wanted, _) in _REQUIRED.items()}
    settings["max.message.bytes"] = str(MAX_MESSAGE_BYTES)
    # Acknowledged means: on at least two machines, where there are two.
    settings["min.insync.replicas"] = str(min(2, replication))
    topic = NewTopic(name, partitions, replication, config=settings)
    refusals = {
        KafkaError.INVALID_PARTITIONS: ("partitions", partitions),
        KafkaError.INVALID_REPLICATION_FACTOR: ("replication", replication),
        KafkaError.INVALID_REPLICA_ASSIGNMENT: ("replication", replication),
        KafkaError.INVALID_CONFIG: ("log", name),
        KafkaError.POLICY_VIOLATION: ("log", name),
        KafkaError.TOPIC_EXCEPTION: ("log", name),
    }
    try:
        admin.ask(
            lambda client, left: client.create_topics(
                [topic], request_timeout=left, operation_timeout=left
            ),
            deadline,
            frozenset(refusals) | {KafkaError.TOPIC_ALREADY_EXISTS},
        )
    except KafkaException as exception:
        error: KafkaError = exception.args[0]
        if error.code() == KafkaError.TOPIC_ALREADY_EXISTS:
            return  # another process was faster; what it made is checked like any other
        field, value = refusals[error.code()]
        raise InvalidConfig(field, value, f"Kafka refuses it: {error.str()}") from exception


def _described_with_leaders(admin: Admin, name: str, deadline: float) -> TopicDescription:
    # The controller knows a new topic a moment before all brokers do.
    while True:
        found = describe(admin, name, deadline)
        if found and all(partition.leader is not None for partition in found.partitions):
            return found
        if time.monotonic() >= deadline:
            raise LogUnavailable(f"topic {name} has a partition without a leader")
        admin.pause()


def _check_settings(admin: Admin, name: str, deadline: float) -> None:
    resource = ConfigResource(ResourceType.TOPIC, name)
    (entries,) = admin.ask(
        lambda client, left: client.describe_configs([resource], request_timeout=left), deadline
    ).values()
    for setting, (wanted, why) in _REQUIRED.items():
        if setting in entries and entries[setting].value != wanted:
            raise _refused(admin, name, setting, str(entries[setting].value), wanted, why)
    setting, value = "max.message.bytes", str(entries["max.message.bytes"].value)
    if int(value) < MAX_MESSAGE_BYTES:
        why = "it would refuse the largest events"
        raise _refused(admin, name, setting, value, str(MAX_MESSAGE_BYTES), why)


def _refused(
    admin: Admin, name: str, setting: str, value: str, wanted: str, why: str
) -> InvalidConfig:
    return InvalidConfig(
        setting,
        value,
        f"topic {name} cannot hold a log: {why}. Set it to {wanted}: kafka-configs.sh "
        f"--bootstrap-server {admin.cluster.brokers} --alter --topic {name} "
        f"--add-config {setting}={wanted}",
    )
