"""The plugin's fixtures, as a user's test takes them."""

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient

from relive.testing.broker import Broker, wait_until_answers

pytestmark = pytest.mark.broker


def partitions(broker: Broker, topic: str) -> int:
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    return len(admin.list_topics(topic, timeout=10).topics[topic].partitions)


def test_a_test_gets_a_fresh_topic_of_one_partition(kafka_broker: Broker, kafka_topic: str) -> None:
    assert partitions(kafka_broker, kafka_topic) == 1


def test_a_test_gets_as_many_topics_and_partitions_as_it_asks_for(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str]
) -> None:
    one, three = make_kafka_topic(), make_kafka_topic(partitions=3)
    assert (partitions(kafka_broker, one), partitions(kafka_broker, three)) == (1, 3)


def test_a_test_may_leave_the_broker_dead(kafka_broker: Broker, kafka_topic: str) -> None:
    if kafka_broker.via != "address":
        kafka_broker.kill()


def test_the_next_test_finds_it_running(kafka_broker: Broker, kafka_topic: str) -> None:
    wait_until_answers(kafka_broker.bootstrap, 5.0)
