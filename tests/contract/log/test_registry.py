"""Topics in Confluent framing, with a schema registry in a process of its own."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from relive.consumers import MemoryStore, replay
from relive.core.experience import Experience
from relive.errors import (
    InvalidConfig,
    LogAccessDenied,
    SchemaRefused,
    SchemaRegistryUnavailable,
)
from relive.log import NewRecord, log_now, open_log
from relive.log.check import check_place
from relive.log.copy import copy_log
from relive.log.findings import loses
from relive.log.kafka import KafkaLog
from relive.log.kafka_options import kafka_options
from relive.log.registry_client import RegistryClient
from relive.log.registry_framing import Framing, subject
from relive.producers import Publisher
from relive.producers.compose import Composer, keyed_record
from relive.schemas.released import current_schema

if TYPE_CHECKING:
    from relive.testing.broker import Broker

SERVER = Path(__file__).parent / "processes" / "schema_registry.py"
USER_INFO = "relive:registry-password"
SCHEMA = current_schema("ExperienceRecorded")


class RegistryProcess:
    """Can be killed, and comes back at the same address with what it knew."""

    def __init__(self, file: Path, *more: str, scheme: str = "http") -> None:
        self._file, self._more, self._scheme = file, more, scheme
        self._port = "0"
        self.start()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self._port}"

    def start(self) -> None:
        command = [sys.executable, str(SERVER), self._port, str(self._file), *self._more]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._port = self._process.stdout.readline().strip()

    def kill(self) -> None:
        with self._process:
            self._process.kill()


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RegistryProcess]:
    started = RegistryProcess(tmp_path / "schemas.json", USER_INFO)
    yield started
    started.kill()


@pytest.fixture
def given(registry: RegistryProcess) -> dict[str, Any]:
    """What finds the registry and gets in."""
    return {"schema.registry.url": registry.url, "schema.registry.user.info": USER_INFO}


@pytest.fixture
def url(kafka_broker: Broker, kafka_topic: str) -> str:
    return f"kafka://{kafka_broker.bootstrap}/{kafka_topic}"


def soon(s: float = 10.0) -> float:
    return time.monotonic() + s


def experience(name: str) -> NewRecord:
    return keyed_record(Composer().experience(Experience(id=name, visual=[1.0, 2.0])), 1)


def raw_values(url: str) -> list[bytes]:
    """What is in the topic, as any consumer gets it."""
    from confluent_kafka import Consumer, TopicPartition

    brokers, _, topic = url.removeprefix("kafka://").partition("/")
    with closing(open_log(url)) as log:
        end = log.bounds(0).end
    consumer = Consumer({"bootstrap.servers": brokers, "group.id": "unused", "log_level": 0})
    with closing(consumer):
        consumer.assign([TopicPartition(topic, 0, 0)])
        return [message.value() or b"" for message in consumer.consume(end, timeout=30)]


@pytest.mark.broker
def test_any_consumer_that_asks_the_registry_can_read_the_topic(
    registry: RegistryProcess, given: dict[str, Any], url: str
) -> None:
    import io
    import json

    from fastavro import parse_schema, schemaless_reader

    with Publisher(url, kafka=given) as publisher:
        publisher.publish(Experience(id="a", visual=[1.0])).result(30)
        publisher.report_outcome(None, "a", success=True).result(30)
    client = RegistryClient([registry.url], USER_INFO, None)
    read = []
    for value in raw_values(url):
        assert value[0] == 0
        text = client.schema(int.from_bytes(value[1:5], "big"), soon())
        assert text is not None
        declared = json.loads(text)
        body = io.BytesIO(value[5:])
        record: Any = schemaless_reader(body, parse_schema(declared), None)
        read.append((f"{declared['namespace']}.{declared['name']}", record["experience_id"]))
        assert body.read() == b""
    assert read == [("relive.ExperienceRecorded", "a"), ("relive.OutcomeReported", "a")]


@pytest.mark.broker
def test_the_state_is_the_same_whatever_the_framing(
    given: dict[str, Any], url: str, tmp_path: Path
) -> None:
    with closing(open_log(f"file:{tmp_path}/log", create=True)) as plain:
        plain.append([experience(name) for name in "abc"])
        plain.append([NewRecord(0, b"", b"not an event")])
        with closing(open_log(url, kafka=given)) as framed:
            assert copy_log(log_now(plain), framed).appended == 4
            assert copy_log(log_now(plain), framed).found == 4
        assert raw_values(url)[0][:1] == b"\0"
        assert raw_values(url)[3] == b"not an event"
        with closing(open_log(url, kafka=given)) as again:
            assert [r.value for r in again.read({0: 0})] == [r.value for r in plain.read({0: 0})]
            digests = {replay(log_now(log), MemoryStore()).digest() for log in (plain, again)}
    assert len(digests) == 1


@pytest.mark.broker
def test_a_registry_that_is_down_loses_nothing_and_ids_that_are_known_go_on_working(
    registry: RegistryProcess, given: dict[str, Any], url: str
) -> None:
    outcome = Composer().outcome(None, "a", success=True, reward=None, revision=None)
    with closing(open_log(url, kafka=given)) as log, Publisher(url, kafka=given) as publisher:
        log.append([experience("a")])
        registry.kill()
        log.append([experience("b")])
        assert len(log.read({0: 0})) == 2
        with pytest.raises(SchemaRegistryUnavailable, match="appended again") as down:
            log.append([keyed_record(outcome, 1)])
        assert down.value.undelivered == (0,)
        waiting = publisher.publish(Experience(id="c", visual=[3.0, 4.0]))
        with closing(open_log(url, kafka=given)) as other:
            with pytest.raises(SchemaRegistryUnavailable, match="nothing is lost"):
                other.read({0: 0})
            assert not waiting.done()
            registry.start()
            assert waiting.result(30).position == 2
            assert [record.position for record in other.read({0: 0})] == [0, 1, 2]
        assert log.append([keyed_record(outcome, 1)]) == [3]


@pytest.mark.broker
def test_a_topic_in_confluent_framing_is_not_read_without_a_registry(
    given: dict[str, Any], url: str, tmp_path: Path
) -> None:
    """Its events would be set aside one by one, as if somebody had written nonsense."""
    foreign = b"\0\0\0\0\x07 what somebody else wrote"
    with closing(open_log(url, kafka=given)) as log:
        log.append([NewRecord(0, b"", foreign), experience("a")])
        assert log.read({0: 0})[0].value == foreign
    with closing(open_log(url)) as without:
        assert [record.value for record in without.read({0: 0})] == [foreign]
        with pytest.raises(InvalidConfig, match="the record at 1") as refused:
            without.read({0: 1})
        assert refused.value.field == "schema.registry.url"
    elsewhere = RegistryProcess(tmp_path / "empty.json")
    try:
        other = {"schema.registry.url": elsewhere.url}
        with (
            closing(open_log(url, kafka=other)) as wrong,
            pytest.raises(SchemaRegistryUnavailable, match="is it the one"),
        ):
            wrong.read({0: 1})
    finally:
        elsewhere.kill()


@pytest.mark.broker
def test_making_a_log_registers_all_schemas_and_check_says_what_is_there(
    registry: RegistryProcess, given: dict[str, Any], kafka_broker: Broker, kafka_topic: str
) -> None:
    url = f"kafka://{kafka_broker.bootstrap}/{kafka_topic}"
    assert "will be registered" in check_place(url, kafka=given)[-1].says
    options = kafka_options(given, {})
    KafkaLog(kafka_broker.bootstrap, kafka_topic, create=True, options=options).close()
    assert check_place(url, kafka=given)[-1].says == "it has every schema"
    registry.kill()
    down = check_place(url, kafka=given)[-1]
    assert (down.about, down.verdict) == ("schema registry", "risk")
    assert "registry-password" not in f"{down}"


def test_a_schema_that_does_not_fit_what_is_there_is_refused_by_name(
    registry: RegistryProcess,
) -> None:
    client = RegistryClient([registry.url], USER_INFO, None)
    fields = '[{"name":"mine","type":"string"}]'
    theirs = f'{{"type":"record","name":"ExperienceRecorded","fields":{fields}}}'
    client.register("relive.ExperienceRecorded", theirs, soon())
    framing = Framing(client)
    with pytest.raises(SchemaRefused, match=r"relive\.ExperienceRecorded") as refused:
        framing.outgoing([experience("a")], soon())
    assert refused.value.subject == "relive.ExperienceRecorded"
    finding = framing.finding(soon())
    assert finding is not None
    assert loses([finding])


@pytest.mark.parametrize("user_info", [None, "relive:wrong"])
def test_who_is_not_let_in_is_told_which_setting_to_look_at(
    registry: RegistryProcess, user_info: str | None
) -> None:
    client = RegistryClient([registry.url], user_info, None)
    with pytest.raises(LogAccessDenied, match=r"schema\.registry\.user\.info") as denied:
        client.register(subject(SCHEMA), SCHEMA.text, soon())
    assert "wrong" not in str(denied.value)
    assert "wrong" not in repr(client)


def test_over_tls_only_a_registry_that_the_ca_signed_is_asked(
    tmp_path: Path, authority: Any, other_authority: Any
) -> None:
    started = RegistryProcess(
        tmp_path / "s.json", "", *map(str, authority.issue("registry")), scheme="https"
    )
    try:
        client = RegistryClient([started.url], None, str(authority.file))
        assert client.register(subject(SCHEMA), SCHEMA.text, soon()) == 1
        with pytest.raises(SchemaRegistryUnavailable, match="certificate verify failed"):
            RegistryClient([started.url], None, str(other_authority.file)).schema(1, soon())
    finally:
        started.kill()
    with pytest.raises(InvalidConfig, match=r"schema\.registry\.ca\.location"):
        RegistryClient(["https://127.0.0.1:1"], None, str(tmp_path / "none.pem"))


def test_the_next_registry_is_asked_where_one_does_not_answer(registry: RegistryProcess) -> None:
    client = RegistryClient([nobody(), registry.url], USER_INFO, None)
    assert client.register(subject(SCHEMA), SCHEMA.text, soon()) == 1
    assert client.registered(subject(SCHEMA), SCHEMA.text, soon()) == 1
    assert client.schema(1, soon()) == SCHEMA.text
    assert client.schema(2, soon()) is None


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"nonsense\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nnot JSON!",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]",
        b'HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{"id":"one"}',
        b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2000000\r\n\r\n" + b" " * 2_000_000,
    ],
)
def test_what_makes_no_sense_is_no_answer(answer: bytes) -> None:
    with Says(lambda connection: connection.sendall(answer)) as address:
        client = RegistryClient([address], None, None)
        with pytest.raises(SchemaRegistryUnavailable):
            client.registered(subject(SCHEMA), SCHEMA.text, soon())


def test_a_registry_that_says_nothing_or_a_byte_at_a_time_costs_its_time_and_no_more() -> None:
    def drip(connection: socket.socket) -> None:
        for _ in range(100):
            connection.sendall(b"H")
            time.sleep(0.1)

    for answer in (lambda connection: time.sleep(10), drip):
        with Says(answer) as address:
            client = RegistryClient([address], None, None)
            started = time.monotonic()
            with pytest.raises(SchemaRegistryUnavailable):
                client.schema(1, soon(0.5))
            assert time.monotonic() - started < 5


def nobody() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"


class Says:
    """A server that takes a connection and does something to it."""

    def __init__(self, answer: Callable[[socket.socket], None]) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))

    def __enter__(self) -> str:
        threading.Thread(target=self._serve, daemon=True).start()
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with suppress(OSError):
            connection, _ = self._listener.accept()
            with connection:
                connection.recv(65_536)
                self._answer(connection)
