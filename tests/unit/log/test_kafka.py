"""What `KafkaLog` does without a broker."""

from __future__ import annotations

import socket
import subprocess
import sys
import time

import pytest

from relive.errors import InvalidConfig, LogUnavailable
from relive.log.kafka import KafkaLog
from relive.log.kafka_admin import Cluster
from relive.log.kafka_options import DECIDED, kafka_options
from relive.log.kafka_reader import reader_settings
from relive.log.kafka_writer import writer_settings


@pytest.fixture
def nobody() -> str:
    """An address where nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{listener.getsockname()[1]}"


def test_a_broker_that_is_not_there_is_unavailable_in_time(nobody: str) -> None:
    started = time.monotonic()
    with pytest.raises(LogUnavailable, match=nobody):
        KafkaLog(nobody, "topic", timeout_s=0.5)
    assert time.monotonic() - started < 5.0


def test_a_broker_that_takes_connections_and_says_nothing_is_unavailable_in_time() -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        started = time.monotonic()
        with pytest.raises(LogUnavailable):
            KafkaLog(f"127.0.0.1:{listener.getsockname()[1]}", "topic", timeout_s=0.5)
        assert time.monotonic() - started < 5.0


def test_the_client_prints_nothing(nobody: str) -> None:
    """librdkafka writes to the standard error of its own accord unless it is told not to."""
    script = (
        "from relive.errors import LogUnavailable\n"
        "from relive.log.kafka import KafkaLog\n"
        "try: KafkaLog(%r, 'topic', timeout_s=0.5)\n"
        "except LogUnavailable: print('unavailable')\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script % nobody], capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("unavailable\n", "")


def test_without_the_client_the_extra_is_named() -> None:
    script = (
        "import sys\n"
        "sys.modules['confluent_kafka'] = None\n"
        "from relive.errors import InvalidConfig\n"
        "from relive.log import open_log\n"
        "try: open_log('kafka://host:9092/topic')\n"
        "except InvalidConfig as error: print(error.field, error)\n"
    )
    told = subprocess.check_output([sys.executable, "-c", script], text=True, timeout=60)
    assert told.startswith("log ")
    assert "relive[kafka]" in told


@pytest.mark.parametrize("topic", ["", "a b", "a/b", "x" * 250, "ключ", "a\n"])
def test_a_name_that_no_topic_can_have_is_refused(topic: str, nobody: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        KafkaLog(nobody, topic)
    assert refused.value.field == "log"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan"), float("inf")])
def test_a_time_limit_that_is_none_is_refused(timeout_s: float, nobody: str) -> None:
    with pytest.raises(InvalidConfig) as refused:
        KafkaLog(nobody, "topic", timeout_s=timeout_s)
    assert refused.value.field == "timeout_s"


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("no.such.setting", "1"),
        ("compression.type", "none-such"),
        ("ssl.ca.location", "/no/such/file.pem"),
    ],
)
def test_a_property_that_the_client_does_not_know_or_cannot_use_is_refused_by_name(
    setting: str, value: str, nobody: str
) -> None:
    options = kafka_options({setting: value, "security.protocol": "ssl"}, {})
    with pytest.raises(InvalidConfig) as refused:
        KafkaLog(nobody, "topic", timeout_s=0.5, options=options)
    assert refused.value.field == setting


def test_a_secret_that_the_client_refuses_is_not_shown(nobody: str) -> None:
    options = kafka_options({"ssl.key.pem": "MY-PRIVATE-KEY", "security.protocol": "ssl"}, {})
    with pytest.raises(InvalidConfig, match=r"ssl\.key\.pem") as refused:
        KafkaLog(nobody, "topic", timeout_s=0.5, options=options)
    assert "MY-PRIVATE-KEY" not in f"{refused.value} {refused.value.value}"


def test_everything_that_the_log_sets_is_known_to_be_decided(nobody: str) -> None:
    cluster = Cluster(nobody, 1.0, kafka_options({}, {}))
    ours = {*writer_settings(cluster), *reader_settings(cluster)} - {"client.id", "error_cb"}
    assert ours <= DECIDED.keys()


def test_an_unusable_broker_address_is_refused_or_unavailable() -> None:
    with pytest.raises((InvalidConfig, LogUnavailable)):
        KafkaLog("no-such-host.invalid:1", "topic", timeout_s=0.5)
