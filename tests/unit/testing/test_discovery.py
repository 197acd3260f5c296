from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Producer

from relive.testing.broker import KAFKA_VERSION, BrokerFailed, BrokerNotOurs, BrokerUnavailable
from relive.testing.discovery import WAYS, start_broker
from relive.testing.jvm_broker import find_jars, find_java
from relive.testing.ports import free_ports

ROOT = Path(__file__).parents[3]


@pytest.fixture
def bare_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """An environment without a broker, an engine, a Java or any jars."""
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/no-engine.sock")
    return {"PATH": str(tmp_path), "RELIVE_KAFKA_HOME": str(tmp_path / "no-jars")}


@pytest.fixture
def address() -> Iterator[str]:
    """Something that speaks Kafka: the mock cluster inside librdkafka."""
    mock = Producer({"bootstrap.servers": "unused", "test.mock.num.brokers": 1, "log_level": 0})
    (broker,) = mock.list_topics(timeout=10).brokers.values()
    yield f"{broker.host}:{broker.port}"
    mock.flush(1)


def install_java(folder: Path, version: str) -> Path:
    java = folder / "java"
    java.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\" 2026-01-01' >&2\n")
    java.chmod(0o755)
    return java


def test_an_address_comes_before_a_docker_engine_and_that_before_a_jvm() -> None:
    assert list(WAYS) == ["address", "docker", "jvm"]


def test_a_bare_machine_is_told_what_each_way_lacks(
    bare_machine: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(BrokerUnavailable) as told:
        start_broker(bare_machine, tmp_path)
    reasons = str(told.value)
    assert "address: RELIVE_TEST_KAFKA is not set" in reasons
    assert "docker: no Docker engine answers" in reasons
    assert "jvm: no java in PATH" in reasons


@pytest.mark.parametrize("via", ["address", "docker", "jvm"])
def test_a_forced_way_forbids_the_others(
    via: str, bare_machine: dict[str, str], tmp_path: Path
) -> None:
    with pytest.raises(BrokerUnavailable) as told:
        start_broker(bare_machine | {"RELIVE_TEST_KAFKA_VIA": via}, tmp_path)
    assert [way for way in WAYS if f"{way}: " in str(told.value)] == [via]


def test_an_unknown_way_is_refused_by_name(bare_machine: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="RELIVE_TEST_KAFKA_VIA is 'podman'"):
        start_broker(bare_machine | {"RELIVE_TEST_KAFKA_VIA": "podman"}, tmp_path)


def test_a_broker_given_by_its_address_is_used_and_left_alone(
    address: str, bare_machine: dict[str, str], tmp_path: Path
) -> None:
    broker = start_broker(bare_machine | {"RELIVE_TEST_KAFKA": address}, tmp_path)
    assert (broker.via, broker.bootstrap) == ("address", address)
    for hurt in (broker.kill, broker.restart, broker.pause, broker.resume):
        with pytest.raises(BrokerNotOurs, match=address):
            hurt()
    broker.stop()
    broker.ensure_running()


def test_an_address_that_does_not_answer_is_an_error_and_not_a_reason_to_look_elsewhere(
    bare_machine: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("relive.testing.discovery.ANSWER_TIMEOUT_S", 0.5)
    (port,) = free_ports(1)
    with pytest.raises(BrokerFailed, match=rf"127\.0\.0\.1:{port} did not answer within 0\.5 s"):
        start_broker(bare_machine | {"RELIVE_TEST_KAFKA": f"127.0.0.1:{port}"}, tmp_path)


def test_the_java_of_java_home_comes_before_that_of_the_path(tmp_path: Path) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    (home / "bin").mkdir(parents=True)
    elsewhere.mkdir()
    java = install_java(home / "bin", "21.0.1")
    install_java(elsewhere, "17.0.1")
    assert find_java({"JAVA_HOME": str(home), "PATH": str(elsewhere)}) == java


@pytest.mark.parametrize("version", ["1.8.0_392", "11.0.2"])
def test_a_java_that_is_too_old_counts_as_none(version: str, tmp_path: Path) -> None:
    install_java(tmp_path, version)
    with pytest.raises(BrokerUnavailable, match="is not Java 17 or newer"):
        find_java({"PATH": str(tmp_path)})


@pytest.mark.parametrize("layout", ["", "libs"])
def test_the_jars_may_be_copies_or_an_unpacked_kafka(layout: str, tmp_path: Path) -> None:
    (tmp_path / layout).mkdir(exist_ok=True)
    (tmp_path / layout / "kafka_2.13-4.3.1.jar").touch()
    assert find_jars({"RELIVE_KAFKA_HOME": str(tmp_path)}) == tmp_path / layout


def test_missing_jars_name_the_command_that_gets_them(tmp_path: Path) -> None:
    with pytest.raises(BrokerUnavailable, match="run infra/kafka/fetch-jars"):
        find_jars({"RELIVE_KAFKA_HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("file", "pin"),
    [
        ("infra/kafka/pom.xml", f"<kafka.version>{KAFKA_VERSION}</kafka.version>"),
        ("docker-compose.yml", f"apache/kafka:{KAFKA_VERSION}"),
    ],
)
def test_one_version_of_kafka_is_pinned_everywhere(file: str, pin: str) -> None:
    assert pin in (ROOT / file).read_text()
