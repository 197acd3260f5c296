"""Opening a Kafka topic as a log: find it or make it, and refuse one that would lose events."""

from __future__ import annotations

import re
import time

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (  # type: ignore[attr-defined]
    ConfigResource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from relive.errors import InvalidConfig, LogMissing, LogUnavailable
from relive.log.findings import Finding, Verdict
from relive.log.kafka_admin import Admin
from relive.log.kafka_settings import settings_found, wanted_settings

UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})

_LEGAL_NAME = re.compile(r"[a-zA-Z0-9._-]{1,249}")


def find_or_create(
    admin: Admin,
    name: str,
    *,
    create: bool,
    partitions: int,
    replication: int,
    checked: bool,
    deadline: float,
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
    if checked:
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
    topic = NewTopic(name, partitions, replication, config=wanted_settings(replication))
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


def topic_settings(admin: Admin, name: str, deadline: float) -> dict[str, str]:
    """The settings that are in force for a topic.

    Raises:
        LogUnavailable, LogAccessDenied, BufferClosed: as for `Admin.ask`.
    """
    resource = ConfigResource(ResourceType.TOPIC, name)
    (entries,) = admin.ask(
        lambda client, left: client.describe_configs([resource], request_timeout=left), deadline
    ).values()
    return {setting: str(entry.value) for setting, entry in entries.items()}


def change_command(admin: Admin, name: str) -> str:
    """What to type to change a topic's setting, up to NAME=VALUE."""
    return (
        f"kafka-configs.sh --bootstrap-server {admin.cluster.brokers} --alter --topic {name} "
        "--add-config "
    )


def losing_settings(admin: Admin, name: str, deadline: float) -> list[Finding]:
    """The settings with which a topic would lose events.

    Raises:
        as `topic_settings`.
    """
    found = settings_found(topic_settings(admin, name, deadline), change_command(admin, name))
    return [finding for finding in found if finding.verdict is Verdict.LOSES]


def _check_settings(admin: Admin, name: str, deadline: float) -> None:
    for each in losing_settings(admin, name, deadline):
        problem = f"topic {name} cannot hold a log: {each.says}. {each.do.capitalize()}"
        raise InvalidConfig(each.about, each.value, problem)
