"""Looking at a topic, and being told when it has come to lose events."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from relive.core.settings import Settings
from relive.errors import LogMissing
from relive.log import NewRecord, kafka_topic, open_log
from relive.log.check import check_place
from relive.log.findings import Verdict, loses
from relive.producers.compose import Composer

if TYPE_CHECKING:
    from relive.testing.broker import Broker

pytestmark = pytest.mark.broker


def alter(broker: Broker, topic: str, setting: str, value: str) -> None:
    from confluent_kafka.admin import (  # type: ignore[attr-defined]
        AdminClient,
        AlterConfigOpType,
        ConfigEntry,
        ConfigResource,
        ResourceType,
    )

    entry = ConfigEntry(setting, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    (altered,) = admin.incremental_alter_configs([resource]).values()
    altered.result(30)


def test_a_topic_that_cannot_be_opened_can_be_looked_at(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str]
) -> None:
    topic = make_kafka_topic(partitions=2, settings={"retention.ms": "1000"})
    findings = check_place(f"kafka://{kafka_broker.bootstrap}/{topic}")
    assert loses(findings)
    (bad,) = [each for each in findings if each.verdict is Verdict.LOSES]
    assert (bad.about, bad.value) == ("retention.ms", "1000")
    assert f"--bootstrap-server {kafka_broker.bootstrap} --alter --topic {topic}" in bad.do
    assert {"replication", "min.insync.replicas", "partitions"} < {f.about for f in findings}


def test_the_capacity_is_the_log_s_own_unless_another_one_is_given(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str]
) -> None:
    url = f"kafka://{kafka_broker.bootstrap}/{make_kafka_topic(partitions=3)}"
    with closing(open_log(url)) as log:
        log.append([NewRecord(0, b"", b"not an event")])
        log.append(Composer().settings_records(Settings(capacity=30), 3, "test"))
    assert check_place(url)[-1].says == "10 experiences in each"
    assert loses(check_place(url, capacity=2))


def test_there_is_nothing_to_look_at_where_there_is_no_topic(
    kafka_broker: Broker, make_kafka_topic: Callable[..., str]
) -> None:
    with pytest.raises(LogMissing):
        check_place(f"kafka://{kafka_broker.bootstrap}/{make_kafka_topic()}-not")


def test_retention_that_is_turned_on_while_the_log_is_open_is_told_of(
    kafka_broker: Broker,
    make_kafka_topic: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(kafka_topic, "_WATCH_SETTINGS_S", 0.0)
    topic = make_kafka_topic()
    with closing(open_log(f"kafka://{kafka_broker.bootstrap}/{topic}")) as log:
        log.append([NewRecord(0, b"", b"1")])
        assert caplog.records == []
        alter(kafka_broker, topic, "retention.ms", "86400000")
        deadline = time.monotonic() + 20
        while not caplog.records and time.monotonic() < deadline:
            log.append([NewRecord(0, b"", b"2")])
            time.sleep(0.1)
    assert caplog.records[0].levelno == logging.ERROR
    said = caplog.records[0].getMessage()
    assert "retention.ms is 86400000" in said
    assert "--add-config retention.ms=-1" in said
