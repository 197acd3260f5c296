"""The promises of `relive.testing.broker.Broker`, kept by each way of starting one."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType  # type: ignore[attr-defined]

from relive.testing.broker import Broker, BrokerFailed, wait_until_answers
from relive.testing.topics import TOPIC_SETTINGS, Topics

pytestmark = pytest.mark.broker

TIMEOUT_S = 30.0


@pytest.fixture
def topics(broker: Broker) -> Iterator[Topics]:
    broker.ensure_running()
    topics = Topics(broker.bootstrap)
    yield topics
    broker.ensure_running()
    topics.delete_all()


def produce(bootstrap: str, topic: str, values: list[bytes]) -> None:
    """Return when all are acknowledged."""
    failures: list[object] = []

    def note_failure(error: object, _: object) -> None:
        if error:
            failures.append(error)

    producer = Producer(
        {
            "bootstrap.servers": bootstrap,
            "enable.idempotence": True,
            "allow.auto.create.topics": False,
            "message.timeout.ms": int(TIMEOUT_S * 1000),
            "log_level": 0,
        }
    )
    for value in values:
        producer.produce(topic, value, partition=0, on_delivery=note_failure)
    assert producer.flush(TIMEOUT_S) == 0
    assert failures == []


def consume(bootstrap: str, topic: str, count: int) -> list[bytes | None]:
    consumer = Consumer(
        {"bootstrap.servers": bootstrap, "group.id": "unused", "log_level": 0},
    )
    try:
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() for message in consumer.consume(count, timeout=TIMEOUT_S)]
    finally:
        consumer.close()


def test_what_was_acknowledged_survives_a_kill_and_a_restart(
    broker: Broker, topics: Topics
) -> None:
    topic = topics.create()
    before, after = [b"%d" % n for n in range(100)], [b"%d" % n for n in range(100, 120)]
    produce(broker.bootstrap, topic, before)
    broker.kill()
    broker.restart()
    produce(broker.bootstrap, topic, after)
    assert consume(broker.bootstrap, topic, 120) == before + after


def test_a_killed_broker_does_not_answer_until_it_is_brought_back(broker: Broker) -> None:
    broker.ensure_running()
    broker.kill()
    with pytest.raises(BrokerFailed):
        wait_until_answers(broker.bootstrap, 0.5)
    broker.ensure_running()
    wait_until_answers(broker.bootstrap, TIMEOUT_S)


def test_a_paused_broker_answers_only_when_it_is_resumed(broker: Broker) -> None:
    broker.ensure_running()
    broker.pause()
    with pytest.raises(BrokerFailed):
        wait_until_answers(broker.bootstrap, 0.5)
    broker.resume()
    wait_until_answers(broker.bootstrap, TIMEOUT_S)


@pytest.mark.parametrize("undo", ["ensure_running", "restart", "kill"])
def test_a_paused_broker_can_be_brought_back_or_killed(broker: Broker, undo: str) -> None:
    broker.ensure_running()
    broker.pause()
    getattr(broker, undo)()
    broker.ensure_running()
    wait_until_answers(broker.bootstrap, TIMEOUT_S)


def test_a_broker_that_a_thread_restarted_outlives_the_thread(broker: Broker) -> None:
    """The kernel's signal at a parent's death is sent at the death of the parent's thread."""
    thread = threading.Thread(target=broker.restart)
    thread.start()
    thread.join(TIMEOUT_S)
    time.sleep(0.5)
    wait_until_answers(broker.bootstrap, 5.0)


def test_topics_have_the_settings_that_the_log_needs(broker: Broker, topics: Topics) -> None:
    resource = ConfigResource(ResourceType.TOPIC, topics.create(partitions=3))
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    (described,) = admin.describe_configs([resource]).values()
    settings = described.result(TIMEOUT_S)
    assert {key: settings[key].value for key in TOPIC_SETTINGS} == TOPIC_SETTINGS
    assert (
        len(admin.list_topics(resource.name, timeout=TIMEOUT_S).topics[resource.name].partitions)
        == 3
    )


def test_topics_are_gone_once_deleted(broker: Broker) -> None:
    broker.ensure_running()
    topics = Topics(broker.bootstrap)
    names = {topics.create(), topics.create(partitions=2)}
    topics.delete_all()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap})
    deadline = time.monotonic() + TIMEOUT_S
    while names & admin.list_topics(timeout=TIMEOUT_S).topics.keys():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_topic_is_not_made_by_writing_to_it(broker: Broker) -> None:
    broker.ensure_running()
    producer = Producer(
        {"bootstrap.servers": broker.bootstrap, "topic.metadata.propagation.max.ms": 500}
    )
    errors: list[object] = []
    producer.produce("a-typing-error", b"", on_delivery=lambda error, _: errors.append(error))
    producer.flush(TIMEOUT_S)
    assert len(errors) == 1
    assert "UNKNOWN_TOPIC" in repr(errors[0])


def test_no_broker_outlives_a_test_run_that_is_killed(
    broker: Broker, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """kill -9 leaves pytest no time to clean up, and a forgotten broker holds memory and ports."""
    script = (
        "import os, pathlib, sys, time\n"
        "from relive.testing.discovery import start_broker\n"
        "print(start_broker(os.environ, pathlib.Path(sys.argv[1])).bootstrap, flush=True)\n"
        "time.sleep(600)\n"
    )
    run = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path_factory.mktemp("killed"))],
        env={**os.environ, "RELIVE_TEST_KAFKA_VIA": broker.via},
        stdout=subprocess.PIPE,
        text=True,
    )
    with run:
        assert run.stdout is not None
        bootstrap = run.stdout.readline().strip()
        wait_until_answers(bootstrap, 5.0)
        run.send_signal(signal.SIGKILL)
    deadline = time.monotonic() + TIMEOUT_S
    while answers(bootstrap):
        assert time.monotonic() < deadline
    # It is gone for good, not between two starts.
    time.sleep(1.0)
    assert not answers(bootstrap)


def answers(bootstrap: str) -> bool:
    try:
        return bool(
            AdminClient({"bootstrap.servers": bootstrap, "log_level": 0}).list_topics(timeout=1.0)
        )
    except KafkaException:
        return False
