"""Time travel, verification and copies over real logs and processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relive.client import Client, health
from relive.consumers import MemoryStore, replay, state_at
from relive.core.experience import Experience
from relive.core.settings import Settings
from relive.log import EventLog, NewRecord, log_now, open_log
from relive.log.copy import copy_log
from relive.log.memory import MemoryLog
from relive.producers import Composer, Publisher
from relive.producers.compose import keyed_record

if TYPE_CHECKING:
    from relive.testing.broker import Broker

COPY_PROCESS = Path(__file__).parent / "processes" / "copy_process.py"
PATIENCE_S = 60.0
COMPOSER = Composer("test")


def filled(partitions: int, count: int = 300) -> MemoryLog:
    """Experiences, outcomes, removals and garbage, and room for half of the experiences."""
    log = MemoryLog(partitions)
    log.append(COMPOSER.settings_records(Settings(capacity=count // 2), partitions, "test"))
    for n in range(count):
        name = f"x{n}"
        event = COMPOSER.experience(Experience(id=name, visual=[1.0, float(n)], total_reward=n))
        log.append([keyed_record(event, partitions)])
        if n % 3 == 0:
            log.append(
                [keyed_record(COMPOSER.outcome(f"r{n}", name, success=n % 2 == 0), partitions)]
            )
        if n % 7 == 0:
            log.append([keyed_record(COMPOSER.retired(name, "test"), partitions)])
        if n % 50 == 0:
            log.append([NewRecord(n % partitions, b"key", b"garbage %d" % n)])
    return log


def digest(log: EventLog) -> str:
    materializer = replay(log_now(log), MemoryStore())
    try:
        return materializer.digest()
    finally:
        materializer.close()


def digest_of(url: str) -> str:
    log = open_log(url)
    try:
        return digest(log)
    finally:
        log.close()


@pytest.fixture
def topic_url(kafka_broker: Broker, make_kafka_topic: Callable[..., str]) -> Callable[..., str]:
    """URLs of fresh topics."""
    return lambda partitions: f"kafka://{kafka_broker.bootstrap}/{make_kafka_topic(partitions)}"


@pytest.mark.broker
def test_a_log_that_moves_between_all_backends_keeps_its_state(
    tmp_path: Path, topic_url: Callable[[int], str], run_relive: Callable[..., Any]
) -> None:
    source = filled(1)
    first, topic, last = f"file:{tmp_path / 'first'}", topic_url(1), f"file:{tmp_path / 'last'}"
    embedded = open_log(first, create=True)
    copy_log(log_now(source), embedded)
    embedded.close()
    for start, end in ((first, topic), (topic, last)):
        done = run_relive("log", "copy", start, end, "--json")
        assert done.code == 0, done
        assert done.json["digest"] == digest(source)
    assert digest_of(last) == digest(source)


@pytest.mark.broker
def test_a_copy_of_several_partitions_makes_a_topic_with_as_many(
    kafka_broker: Broker, topic_url: Callable[[int], str], run_relive: Callable[..., Any]
) -> None:
    source, between = filled(3), topic_url(3)
    log = open_log(between)
    copy_log(log_now(source), log)
    log.close()
    made = f"kafka://{kafka_broker.bootstrap}/relive-test-{uuid.uuid4().hex[:12]}"
    try:
        done = run_relive("log", "copy", between, made, "--json")
        assert done.code == 0, done
        assert (done.json["partitions"], done.json["digest"]) == (3, digest(source))
        info = run_relive("log", "info", made, "--json").json
        assert len(info["partitions"]) == 3
    finally:
        delete_topic(made)
    wrong = run_relive("log", "copy", between, topic_url(2), "--json")
    assert (wrong.code, wrong.json["error"]["field"]) == (2, "partitions")


def delete_topic(url: str) -> None:
    from confluent_kafka.admin import AdminClient

    bootstrap, _, topic = url.removeprefix("kafka://").partition("/")
    admin = AdminClient({"bootstrap.servers": bootstrap, "log_level": 0})
    (deleted,) = admin.delete_topics([topic]).values()
    deleted.result(PATIENCE_S)


@pytest.mark.parametrize("backend", ["file", pytest.param("kafka", marks=pytest.mark.broker)])
def test_a_copy_killed_half_way_is_completed_by_the_next(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    run_relive: Callable[..., Any],
    backend: str,
) -> None:
    source_url, target_url = f"file:{tmp_path / 'source'}", f"file:{tmp_path / 'target'}"
    if backend == "kafka":
        target_url = request.getfixturevalue("topic_url")(1)
    source = open_log(source_url, create=True)
    copy_log(log_now(filled(1)), source)
    total, expected = source.bounds(0).end, digest(source)
    source.close()
    found = 0
    for _ in range(2):
        killed = subprocess.run(
            [sys.executable, str(COPY_PROCESS), source_url, target_url, "3"],
            timeout=PATIENCE_S,
            check=False,
        )
        assert killed.returncode == -signal.SIGKILL
        target = open_log(target_url)
        there = target.bounds(0).end
        target.close()
        assert found < there < total
        found = there
    done = run_relive("log", "copy", source_url, target_url, "--json")
    assert done.code == 0, done
    assert (done.json["found"], done.json["appended"]) == (found, total - found)
    assert done.json["digest"] == expected == digest_of(target_url)


@pytest.mark.broker
def test_the_past_of_a_topic_is_the_fold_of_its_beginning(
    topic_url: Callable[[int], str], run_relive: Callable[..., Any]
) -> None:
    source, url = filled(2, 60), topic_url(2)
    log = open_log(url)
    copy_log(log_now(source), log)
    ends = {p: log.bounds(p).end for p in (0, 1)}
    for share in (0, 1, 2, 3, 4):
        moment = {p: end * share // 4 for p, end in ends.items()}
        then = state_at(log, moment)
        expected = state_at(source, moment)
        assert then.positions() == moment
        assert then.digest() == expected.digest()
        then.close()
    log.close()
    vector = f"0:{ends[0] // 2},1:{ends[1] // 4}"
    replayed = run_relive("replay", "--log", url, "--to", vector, "--json").json
    assert replayed["positions"] == {"0": ends[0] // 2, "1": ends[1] // 4}
    stats = run_relive("stats", url, "--at", vector, "--json").json
    assert stats["digest"] == replayed["digest"]
    late = run_relive("replay", "--log", url, "--to", f"0:0,1:{ends[1] + 1}", "--json")
    assert late.json["error"]["class"] == "LogGap"
    assert f"readable are 0 to {ends[1]}" in late.json["error"]["message"]
    assert run_relive("replay", "--log", url, "--to", "5", "--json").code == 2


@pytest.mark.broker
def test_marks_of_foreign_transactions_keep_neither_replay_nor_copy_waiting(
    kafka_broker: Broker, kafka_topic: str, tmp_path: Path, run_relive: Callable[..., Any]
) -> None:
    """They take positions that hold no record, here the last one of the topic, too."""
    from confluent_kafka import Producer

    records = log_records(filled(1, 20))
    producer = Producer(
        {
            "bootstrap.servers": kafka_broker.bootstrap,
            "transactional.id": uuid.uuid4().hex,
            "log_level": 0,
        }
    )
    producer.init_transactions(PATIENCE_S)
    for start in range(0, len(records), 10):
        producer.begin_transaction()
        for record in records[start : start + 10]:
            producer.produce(kafka_topic, record.value, record.key, partition=0)
        producer.commit_transaction(PATIENCE_S)
    url = f"kafka://{kafka_broker.bootstrap}/{kafka_topic}"
    log = open_log(url)
    end = log.bounds(0).end
    assert end > len(records)
    for position in range(end + 1):
        then = state_at(log, position)
        assert then.positions()[0] <= position
        then.close()
    log.close()
    expected = digest(filled_with(records))
    done = run_relive("log", "copy", url, f"file:{tmp_path / 'copy'}", "--json")
    assert done.code == 0, done
    assert (done.json["appended"], done.json["digest"]) == (len(records), expected)
    assert run_relive("replay", "--log", url, "--json").json["digest"] == expected


def log_records(log: EventLog) -> list[NewRecord]:
    return [NewRecord(r.partition, r.key, r.value) for r in log.read({0: 0})]


def filled_with(records: list[NewRecord]) -> MemoryLog:
    log = MemoryLog()
    log.append(records)
    return log


@pytest.mark.parametrize("backend", ["file", pytest.param("kafka", marks=pytest.mark.broker)])
def test_a_service_is_verified_against_its_log(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    run_relive: Callable[..., Any],
    start_relive: Callable[..., subprocess.Popen[str]],
    backend: str,
) -> None:
    url = f"file:{tmp_path / 'log'}"
    if backend == "kafka":
        url = request.getfixturevalue("make_kafka_log")("--partitions", 2, "--visual-dim", 2)
    else:
        run_relive("log", "create", url)
    with Publisher(url) as publisher:
        for n in range(20):
            publisher.publish(Experience(id=f"x{n}", visual=[1.0, float(n)]))
    path = tmp_path / "index"
    service = start_relive(
        "serve", "--log", url, "--path", path, "--listen", "127.0.0.1:0", "--json"
    )
    assert service.stdout is not None
    address = json.loads(service.stdout.readline())["listening"]
    wait_until_serving(address)
    done = run_relive("verify", address, "--log", url, "--json")
    assert done.code == 0, done
    assert done.json["equal"] is True
    with Client(address) as client:
        assert done.json["kept"] == client.stats().digest
    if backend == "file":  # another log's digest is another one
        other = f"file:{tmp_path / 'other'}"
        open_log(other, create=True).close()
        with Publisher(other) as publisher:
            for n in range(21):
                publisher.publish(Experience(id=f"y{n}", visual=[1.0, float(n)]))
        assert run_relive("verify", address, "--log", other, "--json").code == 1
    service.send_signal(signal.SIGTERM)
    assert service.wait(PATIENCE_S) == 0
    kept = run_relive("verify", path, "--log", url, "--json")
    assert kept.code == 0, kept
    assert len(kept.json["partitions"]) == (2 if backend == "kafka" else 1)


def wait_until_serving(address: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while health(address, 1.0) != "SERVING":
        assert time.monotonic() < deadline, "the service does not come up"
        time.sleep(0.02)


@pytest.fixture(params=["file", pytest.param("kafka", marks=pytest.mark.broker)])
def published(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, Publisher]]:
    """The URL of an empty log, and a publisher to it."""
    if request.param == "kafka":
        url = request.getfixturevalue("topic_url")(1)
    else:
        url = f"file:{tmp_path / 'log'}"
        open_log(url, create=True).close()
    with Publisher(url) as publisher:
        yield url, publisher


def test_tail_follows_until_it_is_interrupted(
    published: tuple[str, Publisher], start_relive: Callable[..., subprocess.Popen[str]]
) -> None:
    """Ctrl-C once met it within a wait for records, and ended it with a traceback instead."""
    url, publisher = published
    publisher.publish(Experience(id="before", visual=[1.0])).result(PATIENCE_S)
    tail = start_relive("tail", url, "--follow", "--json")
    assert tail.stdout is not None
    assert json.loads(tail.stdout.readline())["experience_id"] == "before"
    for name in ("first", "second"):
        publisher.publish(Experience(id=name, visual=[1.0])).result(PATIENCE_S)
        assert json.loads(tail.stdout.readline())["experience_id"] == name
    tail.send_signal(signal.SIGINT)
    assert tail.wait(PATIENCE_S) == 130
