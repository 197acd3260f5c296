"""What `KafkaLog` does while its broker is frozen, gone or back, and when its topic goes away."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import pytest

from relive.errors import LogGap, LogMissing, LogUnavailable
from relive.log import NewRecord, Record
from relive.log.kafka import KafkaLog

if TYPE_CHECKING:
    from tests.contract.log.conftest import InThread

    from relive.testing.broker import Broker

Result = TypeVar("Result")

pytestmark = pytest.mark.broker

# Short, so that the tests are; a restart takes longer on a busy machine, so some take PATIENCE_S.
TIMEOUT_S = 1.0
PATIENCE_S = 40.0

NOT_OURS = "the broker of RELIVE_TEST_KAFKA is not the test's to hurt"


def record(value: bytes) -> NewRecord:
    return NewRecord(0, b"key", value)


@pytest.fixture
def broker(kafka_broker: Broker, kafka_topic: str) -> Iterator[Broker]:
    """A broker that may be hurt; `kafka_topic` brings it back afterwards."""
    if kafka_broker.via == "address":
        pytest.skip(NOT_OURS)
    yield kafka_broker
    kafka_broker.ensure_running()


@pytest.fixture
def open_log(broker: Broker, kafka_topic: str) -> Iterator[Callable[..., KafkaLog]]:
    opened: list[KafkaLog] = []

    def open_log(timeout_s: float = PATIENCE_S) -> KafkaLog:
        opened.append(KafkaLog(broker.bootstrap, kafka_topic, timeout_s=timeout_s))
        return opened[-1]

    yield open_log
    for log in opened:
        log.close()


OpenLog = Callable[..., KafkaLog]


def test_a_frozen_broker_makes_every_call_fail_in_time_and_they_work_when_it_is_back(
    broker: Broker, open_log: OpenLog
) -> None:
    log = open_log(TIMEOUT_S)
    log.append([record(b"before")])
    assert len(log.read({0: 0})) == 1
    broker.pause()
    started = time.monotonic()
    with pytest.raises(LogUnavailable) as failed:
        log.append([record(b"1"), record(b"2")])
    assert failed.value.undelivered == (0, 1)
    for call in (
        lambda: log.read({0: 1}, wait_s=0.5),
        lambda: log.read({0: 0}),
        lambda: log.bounds(0),
        lambda: log.truncate_before(0, 0),
    ):
        with pytest.raises(LogUnavailable, match=broker.bootstrap):
            call()
    # Each within its time limit and some slack for a busy machine.
    assert time.monotonic() - started < 5 * (TIMEOUT_S + 3.0)
    broker.resume()
    (position,) = until_it_works(lambda: log.append([record(b"after")]))
    assert log.read({0: position})[0].value == b"after"


def until_it_works(call: Callable[[], Result]) -> Result:
    """A broker that has just come back may need longer than a short time limit."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            return call()
        except LogUnavailable:
            assert time.monotonic() < deadline


def test_records_in_flight_to_a_broker_that_freezes_are_of_unknown_fate(
    broker: Broker, open_log: OpenLog
) -> None:
    """The identity was verified a moment ago, so that they are really sent."""
    log = open_log(TIMEOUT_S)
    log.append([record(b"before")])
    log.bounds(0)
    broker.pause()
    with pytest.raises(LogUnavailable) as failed:
        log.append([record(b"1")] * 3)
    assert failed.value.undelivered == (0, 1, 2)
    broker.resume()
    (position,) = until_it_works(lambda: log.append([record(b"after")]))
    assert log.read({0: position})[0].value == b"after"


ACKNOWLEDGED = """
import os, signal, sys
from relive.log.kafka import KafkaLog
from relive.log import NewRecord
log = KafkaLog(sys.argv[1], sys.argv[2])
for n in range(20):
    print(*log.append([NewRecord(0, b"k", b"value %d" % n)]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@dataclass
class Outage:
    """What happened to calls while a broker was killed (-9) and brought back."""

    acknowledged: list[int]  # positions that a process was given before it was killed too
    failed: list[Exception]  # what impatient reads raised meanwhile
    appended: list[int]  # what an append returned that was patient enough
    read: list[Record]  # the same for a read that was already waiting
    found: dict[str, list[Record]]  # what was in the log afterwards, by handle


@pytest.fixture(scope="module")
def outage(kafka_broker: Broker) -> Iterator[Outage]:
    """One for all tests: a restart takes many seconds on a busy machine."""
    from relive.testing.topics import Topics

    if kafka_broker.via == "address":
        pytest.skip(NOT_OURS)
    kafka_broker.ensure_running()
    topics = Topics(kafka_broker.bootstrap)
    yield have_outage(kafka_broker, topics.create())
    kafka_broker.ensure_running()
    topics.delete_all()


def have_outage(broker: Broker, topic: str) -> Outage:
    writer = subprocess.run(
        [sys.executable, "-c", ACKNOWLEDGED, broker.bootstrap, topic],
        stdout=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    acknowledged = [int(line) for line in writer.stdout.split()]
    end = acknowledged[-1] + 1
    patient = KafkaLog(broker.bootstrap, topic, timeout_s=PATIENCE_S)
    impatient = KafkaLog(broker.bootstrap, topic, timeout_s=TIMEOUT_S)
    for log in (patient, impatient):
        log.read({0: 0})
    failed = []
    with ThreadPoolExecutor() as threads:
        read = threads.submit(patient.read, {0: end}, wait_s=PATIENCE_S)
        broker.kill()
        append = threads.submit(patient.append, [record(b"1"), record(b"2")])
        for wait_s in (0.0, 0.5):
            try:
                impatient.read({0: end}, wait_s=wait_s)
            except Exception as error:  # noqa: BLE001 - a test says which it must be
                failed.append(error)
        assert not append.done()
        assert not read.done()
        broker.restart()
        appended, woken = append.result(), read.result()
    reopened = KafkaLog(broker.bootstrap, topic, timeout_s=PATIENCE_S)
    found = {
        "patient": read_all(patient),
        "impatient": until_it_works(partial(read_all, impatient)),
        "reopened": read_all(reopened),
    }
    for log in (patient, impatient, reopened):
        log.close()
    return Outage(acknowledged, failed, appended, woken, found)


def read_all(log: KafkaLog) -> list[Record]:
    position, found = 0, []
    while position < log.bounds(0).end:
        found += log.read({0: position})
        position = found[-1].position + 1
    return found


def test_what_was_acknowledged_survives_the_death_of_writer_and_broker(outage: Outage) -> None:
    found = outage.found["reopened"][:20]
    assert [entry.value for entry in found] == [b"value %d" % n for n in range(20)]
    assert [entry.position for entry in found] == outage.acknowledged


def test_a_patient_append_outlasts_an_outage_and_is_not_doubled(outage: Outage) -> None:
    found = outage.found["reopened"][20:]
    assert [entry.value for entry in found] == [b"1", b"2"]
    assert [entry.position for entry in found] == outage.appended


def test_a_patient_read_outlasts_an_outage(outage: Outage) -> None:
    assert outage.read[0] == outage.found["reopened"][20]


def test_an_impatient_read_fails_during_an_outage(outage: Outage) -> None:
    assert [type(error) for error in outage.failed] == [LogUnavailable, LogUnavailable]


def test_handles_need_not_be_opened_again_after_an_outage(outage: Outage) -> None:
    assert outage.found["patient"] == outage.found["impatient"] == outage.found["reopened"]


def test_opening_fails_in_time_when_the_broker_is_frozen(broker: Broker, kafka_topic: str) -> None:
    broker.pause()
    with pytest.raises(LogUnavailable, match=broker.bootstrap):
        KafkaLog(broker.bootstrap, kafka_topic, timeout_s=1.0)


def test_closing_does_not_wait_for_a_frozen_broker(
    broker: Broker, open_log: OpenLog, in_thread: type[InThread[None]]
) -> None:
    log = open_log()
    log.append([record(b"1")])
    log.read({0: 0})
    broker.pause()
    in_thread(log.close).result()


def test_an_append_to_a_topic_that_goes_away_ends_early(
    broker: Broker, kafka_topic: str, open_log: OpenLog
) -> None:
    """librdkafka would go on trying until its time is over; here that would be forty seconds."""
    from confluent_kafka.admin import AdminClient

    log = open_log()
    log.append([record(b"1")])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    started = time.monotonic()
    admin.delete_topics([kafka_topic])[kafka_topic].result(PATIENCE_S)
    with pytest.raises(LogMissing):
        append_for_ever(log)
    assert time.monotonic() - started < PATIENCE_S / 2


def append_for_ever(log: KafkaLog) -> None:
    while True:
        log.append([record(b"2")])


def test_a_dead_producer_is_replaced(open_log: OpenLog) -> None:
    """An idempotent producer that meets an error it calls fatal refuses everything from then on."""
    from confluent_kafka import KafkaError

    log = open_log()
    log.append([record(b"1")])
    first = log._writer._producing
    assert first is not None
    first.death = KafkaError(KafkaError._FATAL)
    assert log.append([record(b"2")]) == [1]
    assert log._writer._producing is not first


def test_a_client_that_got_no_answer_in_time_is_replaced(broker: Broker, open_log: OpenLog) -> None:
    """Some never find back to a broker that was frozen: seen in one of ten freezes of 2 s."""
    log = open_log(TIMEOUT_S)
    admin = log._topic._admin
    first = admin._client
    log._topic.verify(0.0, time.monotonic() + PATIENCE_S)
    assert admin._client is first
    broker.pause()
    with pytest.raises(LogUnavailable):
        log._topic.verify(0.0, time.monotonic() + TIMEOUT_S)
    broker.resume()
    assert admin._client is not first
    until_it_works(lambda: log.append([record(b"after")]))


def test_readers_go_on_with_the_consumer_that_they_have(open_log: OpenLog) -> None:
    """A new one for each read would cost 20 ms each."""
    log = open_log()
    log.append([record(b"%d" % n) for n in range(50)])
    position = 0
    while position < 50:
        position = log.read({0: position}, 10)[-1].position + 1
        assert [reader.positions for reader in log._readers._idle] == [{0: position}]


def test_a_kept_consumer_whose_position_is_gone_says_so_and_does_not_jump(
    open_log: OpenLog,
) -> None:
    """As after a truncation by another process, before it has fetched what comes next."""
    from relive.log.kafka_reader import _Reader

    log = open_log()
    log.append([record(b"%d" % n) for n in range(5)])
    readers = log._readers
    kept = _Reader(readers._cluster, readers._topic, readers._settings, {0: 99})
    kept.idle_since = time.monotonic()
    readers._idle.append(kept)
    with pytest.raises(LogGap) as gap:
        log.read({0: 99}, wait_s=5.0)
    assert (gap.value.position, gap.value.first, gap.value.end) == (99, 0, 5)


def test_few_consumers_are_kept(open_log: OpenLog) -> None:
    log = open_log()
    log.append([record(b"%d" % n) for n in range(20)])
    for position in range(20):
        assert log.read({0: position}, 1)[0].position == position
        log.read({0: 0}, 1)
    assert len(log._readers._idle) <= 4
