"""How far a service is, as Kafka's own tool shows it."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from relive.buffer import BufferConfig, Experience, ExperienceBuffer
from relive.log import log_share, open_log
from relive.producers import Publisher
from relive.testing.broker import Broker, BrokerUnavailable
from relive.testing.jvm_broker import run_tool
from relive.testing.plugin import skip_at_a_desk

pytestmark = pytest.mark.broker

TOOL = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand"


def lags(broker: Broker, group: str, topic: str) -> dict[int, tuple[int, int, int]]:
    """By partition: the group's offset, the log's end, the lag."""
    try:
        arguments = "--bootstrap-server", broker.bootstrap, "--describe", "--group", group
        said = run_tool(os.environ, TOOL, *arguments)
    except BrokerUnavailable as reason:
        skip_at_a_desk(str(reason))
    rows = [line.split() for line in said.splitlines()]
    assert any(row[:1] == ["GROUP"] for row in rows), said
    found = [row for row in rows if row[:2] == [group, topic]]
    return {int(row[2]): (int(row[3]), int(row[4]), int(row[5])) for row in found}


def publish(url: str, count: int) -> None:
    with Publisher(url) as publisher:
        for number in range(count):
            publisher.publish(Experience(id=f"x{number}", visual=[1.0, float(number)]))


def test_the_lag_of_a_materializer_is_what_it_has_not_committed(
    kafka_broker: Broker,
    make_kafka_log: Callable[..., str],
    run_relive: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    url = make_kafka_log("--partitions", 2, "--visual-dim", 2)
    topic = url.rpartition("/")[2]
    group = f"lag-of-{topic}"
    publish(url, 20)
    monkeypatch.setenv("RELIVE_KAFKA_GROUP", group)
    done = run_relive("materialize", "--log", url, "--path", tmp_path, "--once", "--json")
    assert done.code == 0, done
    found = lags(kafka_broker, group, topic)
    assert set(found) == {0, 1}
    assert all(at == end > 1 and lag == 0 for at, end, lag in found.values())
    publish(url, 30)  # 10 of them are new, and the same 20 once more
    # Who puts settings in force folds the log too, and is no reader.
    assert run_relive("log", "create", url, "--partitions", 2, "--visual-dim", 2).code == 0
    behind = lags(kafka_broker, group, topic)
    assert sum(lag for *_, lag in behind.values()) == 30
    assert {p: at for p, (at, *_) in behind.items()} == {p: at for p, (at, *_) in found.items()}
    with ExperienceBuffer.open(tmp_path, BufferConfig(faiss_backend="cpu"), log=url) as buffer:
        assert len(buffer) == 30
    assert not any(lag for *_, lag in lags(kafka_broker, group, topic).values())


def test_a_share_commits_its_own_partitions_only(
    kafka_broker: Broker, make_kafka_log: Callable[..., str]
) -> None:
    url = make_kafka_log("--partitions", 2, "--visual-dim", 2)
    topic = url.rpartition("/")[2]
    with closing(open_log(url, kafka={"group": topic})) as log:
        log_share(log, [1]).note_progress({0: 0, 1: 1})
    found = lags(kafka_broker, topic, topic)
    assert found == {1: (1, 1, 0)}
