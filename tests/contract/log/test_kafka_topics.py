"""Which topics `KafkaLog` makes, takes and refuses, and what others may have written to them."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import pytest

from relive.errors import InvalidConfig, LogMissing, LogReplaced
from relive.log import MAX_RECORD_BYTES, NewRecord, open_log
from relive.log.kafka import KafkaLog
from relive.log.kafka_options import kafka_options

if TYPE_CHECKING:
    from confluent_kafka import Producer
    from confluent_kafka.admin import AdminClient
    from tests.contract.log.conftest import InThread

    from relive.testing.broker import Broker

    MakeTopic = Callable[..., str]

pytestmark = pytest.mark.broker

PATIENCE_S = 30.0


@pytest.fixture
def admin(kafka_broker: Broker) -> AdminClient:
    from confluent_kafka.admin import AdminClient

    return AdminClient({"bootstrap.servers": kafka_broker.bootstrap, "log_level": 0})


@pytest.fixture
def new_name(kafka_broker: Broker, admin: AdminClient) -> Iterator[str]:
    """The name of a topic that doesn't exist; deleted afterwards if it does by then."""
    kafka_broker.ensure_running()
    name = f"relive-test-{uuid.uuid4().hex[:12]}"
    yield name
    if name in admin.list_topics(timeout=PATIENCE_S).topics:
        admin.delete_topics([name])[name].result(PATIENCE_S)


@pytest.fixture
def open_topic(kafka_broker: Broker) -> Iterator[Callable[..., KafkaLog]]:
    opened: list[KafkaLog] = []

    def open_topic(topic: str, **options: object) -> KafkaLog:
        log = KafkaLog(kafka_broker.bootstrap, topic, **options)  # type: ignore[arg-type]
        opened.append(log)
        return log

    yield open_topic
    for log in opened:
        log.close()


OpenTopic = Callable[..., KafkaLog]


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("retention.ms", "604800000"),
        ("retention.bytes", "1000000000"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000000"),
    ],
)
def test_a_topic_that_would_lose_events_is_refused(
    make_kafka_topic: MakeTopic, open_topic: OpenTopic, setting: str, value: str
) -> None:
    topic = make_kafka_topic(settings={setting: value})
    for create in (False, True):
        with pytest.raises(InvalidConfig) as refused:
            open_topic(topic, create=create)
        assert refused.value.field == setting
        assert refused.value.value == repr(value)
        assert f"--topic {topic} --add-config {setting}=" in str(refused.value)


def test_a_topic_that_is_made_keeps_everything(
    new_name: str, open_topic: OpenTopic, admin: AdminClient
) -> None:
    from confluent_kafka.admin import ConfigResource, ResourceType  # type: ignore[attr-defined]

    log = open_topic(new_name, create=True, partitions=3)
    assert log.partitions == 3
    (described,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, new_name)]).values()
    settings = {name: entry.value for name, entry in described.result(PATIENCE_S).items()}
    assert settings["cleanup.policy"] == "delete"
    assert settings["retention.ms"] == settings["retention.bytes"] == "-1"
    assert settings["message.timestamp.type"] == "LogAppendTime"
    assert settings["unclean.leader.election.enable"] == "false"
    assert settings["min.insync.replicas"] == "1"
    assert int(settings["max.message.bytes"]) > MAX_RECORD_BYTES
    assert open_topic(new_name).partitions == 3


def test_handles_that_make_the_same_topic_at_once_share_it(
    new_name: str, open_topic: OpenTopic, in_thread: type[InThread[KafkaLog]]
) -> None:
    calls = [in_thread(lambda: open_topic(new_name, create=True, partitions=2)) for _ in range(4)]
    assert len({call.result().identity() for call in calls}) == 1


def test_the_number_of_partitions_is_fixed(
    make_kafka_topic: MakeTopic, open_topic: OpenTopic
) -> None:
    topic = make_kafka_topic(partitions=2)
    with pytest.raises(InvalidConfig, match="has 2") as refused:
        open_topic(topic, create=True, partitions=3)
    assert refused.value.field == "partitions"
    assert open_topic(topic, create=True, partitions=2).partitions == 2
    assert open_topic(topic).partitions == 2


def test_a_topic_that_is_given_more_partitions_is_another_log(
    make_kafka_topic: MakeTopic, open_topic: OpenTopic, admin: AdminClient
) -> None:
    """Outcomes would go to other partitions than the experiences that they are about."""
    from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

    topic = make_kafka_topic()
    log = open_topic(topic)
    log.append([NewRecord(0, b"", b"")])
    admin.create_partitions([NewPartitions(topic, 2)])[topic].result(PATIENCE_S)
    with pytest.raises(LogReplaced, match="with 2"):
        log.read({0: 1}, wait_s=5.0)


@pytest.mark.parametrize(
    ("option", "value"), [("replication", 5), ("partitions", 0), ("replication", 0)]
)
def test_what_the_cluster_cannot_make_is_refused(
    new_name: str, open_topic: OpenTopic, option: str, value: int
) -> None:
    with pytest.raises(InvalidConfig) as refused:
        open_topic(new_name, create=True, **{option: value})
    assert refused.value.field == option
    with pytest.raises(LogMissing):
        open_topic(new_name)


def test_a_topic_can_be_named_by_a_url(kafka_broker: Broker, new_name: str) -> None:
    url = f"kafka://{kafka_broker.bootstrap}/{new_name}"
    log = open_log(url, create=True, partitions=2)
    assert (log.partitions, log.append([NewRecord(1, b"", b"")])) == (2, [0])
    log.close()


def test_clients_settings_are_passed_on(kafka_topic: str, open_topic: OpenTopic) -> None:
    log = open_topic(
        kafka_topic, options=kafka_options({"client.rack": "a", "compression.type": "lz4"}, {})
    )
    assert log.append([NewRecord(0, b"", b"x" * 10_000)]) == [0]


@pytest.fixture
def produce(kafka_broker: Broker) -> Callable[..., None]:
    """Writes to a topic as somebody else may: in a transaction that is committed or aborted."""

    def produce(log: KafkaLog, topic: str, *values: bytes | None, commit: bool = True) -> None:
        producer = _transactional(kafka_broker.bootstrap)
        for value in values:
            producer.produce(topic, value, partition=0)
        producer.flush(PATIENCE_S)
        end = log.bounds(0).end + len(values) + 1
        if commit:
            producer.commit_transaction(PATIENCE_S)
        else:
            producer.abort_transaction(PATIENCE_S)
        # The broker writes the mark that ends it when it has already said that it did.
        deadline = time.monotonic() + PATIENCE_S
        while log.bounds(0).end < end:
            assert time.monotonic() < deadline
            time.sleep(0.01)

    return produce


def _transactional(bootstrap: str) -> Producer:
    from confluent_kafka import Producer

    settings = {"bootstrap.servers": bootstrap, "transactional.id": uuid.uuid4().hex}
    producer = Producer({**settings, "log_level": 0})
    producer.init_transactions(PATIENCE_S)
    producer.begin_transaction()
    return producer


def test_positions_may_have_gaps_and_reading_goes_over_them(
    kafka_topic: str, open_topic: OpenTopic, produce: Callable[..., None]
) -> None:
    """The mark that ends a transaction takes an offset and is no record."""
    log = open_topic(kafka_topic)
    produce(log, kafka_topic, b"0", b"1")
    (position,) = log.append([NewRecord(0, b"", b"2")])
    assert position == 3
    found = log.read({0: 0}, 2) + log.read({0: 2})
    assert [(record.position, record.value) for record in found] == [
        (0, b"0"),
        (1, b"1"),
        (3, b"2"),
    ]


def test_a_read_before_a_gap_at_the_end_gives_nothing(
    kafka_topic: str, open_topic: OpenTopic, produce: Callable[..., None]
) -> None:
    log = open_topic(kafka_topic)
    produce(log, kafka_topic, b"0")
    assert log.bounds(0).end == 2
    for _ in range(2):
        assert log.read({0: 1}) == []
    (position,) = log.append([NewRecord(0, b"", b"1")])
    assert [record.position for record in log.read({0: 1})] == [position]


def test_what_was_aborted_is_not_read(
    kafka_topic: str, open_topic: OpenTopic, produce: Callable[..., None]
) -> None:
    log = open_topic(kafka_topic)
    produce(log, kafka_topic, b"never", b"was", commit=False)
    log.append([NewRecord(0, b"", b"is")])
    assert [record.value for record in log.read({0: 0})] == [b"is"]


def test_a_record_without_key_or_value_reads_as_empty(
    kafka_topic: str, open_topic: OpenTopic, produce: Callable[..., None]
) -> None:
    log = open_topic(kafka_topic)
    produce(log, kafka_topic, None)
    (record,) = log.read({0: 0})
    assert (record.key, record.value) == (b"", b"")
